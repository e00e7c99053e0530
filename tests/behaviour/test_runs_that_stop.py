"""Runs that stop early: because going on could not help, because enough is spent, because the embedder is closed."""

from __future__ import annotations

import anyio
import numpy as np
import pytest

from embedbatch import (
    AuthenticationError,
    ConfigurationError,
    Limits,
    ModelNotFoundError,
    NotAttemptedError,
    QuotaExhaustedError,
    RateLimitedError,
    RequestRefusedError,
    RunStoppedError,
    SpendLimitError,
)
from embedbatch.testing import Scripted, ScriptedServer

from .conftest import MakeEmbedder, warm_up

pytestmark = pytest.mark.anyio


FINAL = [
    (Scripted(status=429, body={"error": {"code": "insufficient_quota"}}), QuotaExhaustedError),
    (Scripted(status=402), QuotaExhaustedError),
    (Scripted(status=403, body={"error": {"code": "insufficient_user_quota"}}), QuotaExhaustedError),
    (Scripted(status=429, headers={"retry-after": "86400"}), RateLimitedError),
    (Scripted(status=302, headers={"location": "http://elsewhere/"}), RequestRefusedError),
]


def by_status(value: Scripted | type) -> str:
    return value.__name__ if isinstance(value, type) else f"{value.status}"


@pytest.mark.parametrize(
    ("scripted", "reason"),
    [
        *FINAL,
        (Scripted(status=401, body={"error": {"message": "Incorrect API key provided"}}), AuthenticationError),
        (Scripted(status=404, body={"error": {"code": "model_not_found", "message": "no"}}), ModelNotFoundError),
    ],
    ids=by_status,
)
async def test_a_run_stops_where_going_on_cannot_help(
    scripted: Scripted, reason: type, make_embedder: MakeEmbedder
) -> None:
    """After such a first reply nothing more is sent: of 100 batches only one has gone."""
    server = ScriptedServer(latency=1.0)
    server.reply_when(lambda request: scripted)

    async with make_embedder(
        transport=server, limits=Limits(max_batch_inputs=1, max_concurrent_requests=4)
    ) as embedder:
        with pytest.raises(RunStoppedError) as caught:
            await embedder.embed([f"text {n}" for n in range(100)], on_failure="collect")

    assert isinstance(caught.value.__cause__, reason)
    assert len(server.received) == 1
    embeddings = caught.value.embeddings
    assert embeddings is not None
    assert len(embeddings.failures) == 100
    assert all(isinstance(failure.error, NotAttemptedError) for failure in embeddings.failures)


@pytest.mark.parametrize(("scripted", "reason"), FINAL, ids=by_status)
async def test_what_is_in_flight_when_a_run_stops_is_the_last(
    scripted: Scripted, reason: type, make_embedder: MakeEmbedder
) -> None:
    """Such a reply to an embedder that has had good ones: of 100 batches only the 4 in flight have gone."""
    server = ScriptedServer(latency=1.0)

    async with make_embedder(
        transport=server, limits=Limits(max_batch_inputs=1, max_concurrent_requests=4)
    ) as embedder:
        await warm_up(embedder, server, places=4)
        server.reply_next(scripted)
        with pytest.raises(RunStoppedError) as caught:
            await embedder.embed([f"text {n}" for n in range(100)], on_failure="collect")

    assert isinstance(caught.value.__cause__, reason)
    assert len(server.received) == 4
    embeddings = caught.value.embeddings
    assert embeddings is not None
    assert len(embeddings.failures) == 97  # three of the four were answered
    assert all(isinstance(failure.error, NotAttemptedError) for failure in embeddings.failures)


async def test_a_stopped_run_keeps_what_was_done(make_embedder: MakeEmbedder) -> None:
    """The quota ends at the fifth request: four rows are there, and the six others are accounted for."""
    server = ScriptedServer()
    server.reply_when(
        lambda request: (
            Scripted(status=429, body={"error": {"type": "insufficient_quota"}}) if request.number > 4 else None
        )
    )

    async with make_embedder(
        transport=server, limits=Limits(max_batch_inputs=1, max_concurrent_requests=1)
    ) as embedder:
        with pytest.raises(RunStoppedError) as caught:
            await embedder.embed([f"text {n}" for n in range(10)])

    embeddings = caught.value.embeddings
    assert embeddings is not None
    failed = [failure.position for failure in embeddings.failures]
    done = [row for row in range(10) if row not in failed]
    assert len(done) == 4
    assert (embeddings.vectors[done] == [server.vector_of(f"text {n}") for n in done]).all()
    assert np.isnan(embeddings.vectors[failed]).all()


async def test_a_run_that_stops_does_not_wait_for_its_own_pauses(make_embedder: MakeEmbedder) -> None:
    """One reply pauses everyone for 200 s, the next ends the quota: the run ends at once, not after the pause."""
    server = ScriptedServer(latency=lambda request: float(request.number))

    async with make_embedder(
        transport=server, limits=Limits(max_batch_inputs=1, max_concurrent_requests=2)
    ) as embedder:
        await warm_up(embedder, server, places=2)
        server.reply_next(
            Scripted(status=429, headers={"retry-after": "200"}),
            Scripted(status=429, body={"error": {"code": "insufficient_quota"}}),
        )
        with pytest.raises(RunStoppedError) as caught:
            await embedder.embed([f"text {n}" for n in range(10)])

    assert isinstance(caught.value.__cause__, QuotaExhaustedError)
    assert embedder.stats().paused_seconds == 200
    assert anyio.current_time() - server.received[0].at <= 3
    assert len(server.received) == 2


async def test_a_run_never_spends_more_than_it_was_told(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """With 1,000 tokens to spend and texts of 100 bytes, the server counts at most 1,000, and the rest is kept."""
    async with make_embedder(limits=Limits(max_batch_inputs=2)) as embedder:
        with pytest.raises(SpendLimitError, match="max_spend_tokens=1,000") as caught:
            await embedder.embed(["x" * 100] * 200, max_spend_tokens=1_000)

    embeddings = caught.value.embeddings
    assert embeddings is not None
    assert embeddings.usage.total_tokens is not None
    assert 700 <= embeddings.usage.total_tokens <= 1_000
    done = 200 - len(embeddings.failures)
    assert done * 25 == embeddings.usage.total_tokens


async def test_a_run_within_its_spending_limit_is_not_disturbed(make_embedder: MakeEmbedder) -> None:
    """100 texts of 25 tokens each fit 2,600 tokens, although their bytes alone would prove only 10,000."""
    async with make_embedder(limits=Limits(max_batch_inputs=1)) as embedder:
        embeddings = await embedder.embed(["x" * 100] * 100, max_spend_tokens=2_600)

    assert not embeddings.failures


async def test_a_budget_below_a_full_batch_is_used(make_embedder: MakeEmbedder) -> None:
    """1,000 tokens for 256 texts of 13 tokens: a smaller batch goes, and at least 900 tokens are spent."""
    async with make_embedder("text-embedding-3-small", dimensions=8) as embedder:
        with pytest.raises(SpendLimitError) as caught:
            await embedder.embed([" the" * 13] * 256, max_spend_tokens=1_000)

    embeddings = caught.value.embeddings
    assert embeddings is not None
    assert 900 <= (embeddings.usage.total_tokens or 0) <= 1_000


@pytest.mark.parametrize("budget", [0, -5])
async def test_a_budget_of_nothing_is_a_mistake(budget: int, make_embedder: MakeEmbedder) -> None:
    """max_spend_tokens must be above 0."""
    async with make_embedder() as embedder:
        with pytest.raises(ConfigurationError, match="max_spend_tokens: expected more than 0"):
            await embedder.embed(["a"], max_spend_tokens=budget)


async def test_an_embedder_closed_in_the_middle_stops_its_runs(make_embedder: MakeEmbedder) -> None:
    """Closed after two of ten replies: the run ends, what is done is in the error, the rest was not attempted."""
    server = ScriptedServer(latency=1.0)
    embedder = make_embedder(transport=server, limits=Limits(max_batch_inputs=1, max_concurrent_requests=1))

    async with anyio.create_task_group() as tasks:

        async def close() -> None:
            await anyio.sleep(2.5)
            await embedder.aclose()

        tasks.start_soon(close)
        with pytest.raises(RunStoppedError, match="is closed") as caught:
            await embedder.embed([f"text {n}" for n in range(10)])

    embeddings = caught.value.embeddings
    assert embeddings is not None
    assert len(embeddings.failures) == 7  # the third was in flight, and came back
    with pytest.raises(ConfigurationError, match="is closed"):
        await embedder.embed(["a"])
