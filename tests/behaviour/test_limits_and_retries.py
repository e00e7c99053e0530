"""Rate limits, pauses, backoff: what is sent, when, and how often."""

from __future__ import annotations

import itertools

import anyio
import pytest

from embedbatch import (
    AuthenticationError,
    ConfigurationError,
    ConnectionLostError,
    FailedDocumentsError,
    InputTooLongError,
    Limits,
    ModelNotFoundError,
    NotAttemptedError,
    QuotaExhaustedError,
    RateLimitedError,
    RequestRefusedError,
    Retries,
    RunStoppedError,
    ServerError,
    SpendLimitError,
)
from embedbatch.errors import AttemptTimeoutError
from embedbatch.testing import Received, Scripted, ScriptedServer

from .conftest import MakeEmbedder, assert_aligned

pytestmark = pytest.mark.anyio


def most_in_a_window(times: list[float], seconds: float) -> int:
    """The largest number of events in any window of *seconds*."""
    return max(sum(start <= time < start + seconds for time in times) for start in times)


async def test_requests_per_minute_hold_in_every_window(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """At 60 requests a minute and 2 s of burst, no 10 seconds see more than 12, and 50 requests take 48 s."""
    async with make_embedder(limits=Limits(max_requests_per_minute=60, max_batch_inputs=1)) as embedder:
        await embedder.embed([f"text {n}" for n in range(50)])

    times = [request.at for request in server.received]
    assert most_in_a_window(times, 10) <= 12
    assert times[-1] - times[0] == pytest.approx(48, abs=0.1)


async def test_tokens_per_minute_hold_in_every_window(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """At 6,000 tokens a minute, 100 texts of 400 bytes (some 100 tokens each) take about 98 s."""
    async with make_embedder(limits=Limits(max_tokens_per_minute=6_000)) as embedder:
        await embedder.embed(["x" * 400] * 100)

    assert 90 <= server.received[-1].at - server.received[0].at <= 100


async def test_a_429_makes_everyone_wait_the_servers_time(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """After one 429 with Retry-After: 30, no request starts for 30 seconds; then all succeed."""
    server.reply_next(Scripted(status=429, headers={"retry-after": "30"}))
    texts = [f"text {n}" for n in range(200)]

    async with make_embedder(limits=Limits(max_batch_inputs=10, max_concurrent_requests=2)) as embedder:
        embeddings = await embedder.embed(texts)

    times = [request.at for request in server.received]
    assert len(times) == 21
    later = [time for time in times if time > times[0]]
    assert min(later) - times[0] >= 30
    assert_aligned(embeddings, texts, server)


async def test_requests_come_back_from_a_pause_one_by_one(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """After a pause no two of the 20 waiting requests start at the same moment."""
    server.reply_next(Scripted(status=429, headers={"retry-after-ms": "5000"}))

    async with make_embedder(limits=Limits(max_batch_inputs=1, max_concurrent_requests=20)) as embedder:
        await embedder.embed([f"text {n}" for n in range(40)])

    first = server.received[0].at
    after = [request.at for request in server.received if 5 <= request.at - first <= 5.5]
    assert len(after) > 5
    assert len(set(after)) == len(after)


async def test_an_http_date_is_read_against_the_servers_own_clock(
    server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """A date one minute after the reply's own Date is a wait of a minute, whatever our clock says."""
    headers = {"date": "Wed, 21 Oct 2015 07:28:00 GMT", "retry-after": "Wed, 21 Oct 2015 07:29:00 GMT"}
    server.reply_next(Scripted(status=503, headers=headers))

    async with make_embedder() as embedder:
        await embedder.embed(["a"])

    assert 60 <= server.received[1].at - server.received[0].at <= 61


async def test_backoff_grows_and_ends(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """A server that always fails is tried 6 times, with waits below 0.5, 1, 2, 4 and 8 s; then the document fails."""
    server.reply_when(lambda request: Scripted(status=500, body={"error": {"message": "boom"}}))

    async with make_embedder() as embedder:
        embeddings = await embedder.embed(["a"], on_failure="collect")

    times = [request.at for request in server.received]
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(times) == 6
    assert all(wait <= 0.5 * 2**n for n, wait in enumerate(waits))
    failure = embeddings.failures[0]
    assert isinstance(failure.error, ServerError)
    assert failure.error.status == 500
    assert failure.attempts == 6
    assert "boom" in str(failure.error)


@pytest.mark.parametrize(
    "scripted",
    [
        Scripted(breaks="connect"),
        Scripted(breaks="read"),
        Scripted(breaks="body"),
        Scripted(status=502, body=b"<html>Bad Gateway</html>"),
        Scripted(status=429),
        Scripted(status=200, body=b"<html>login</html>"),
        Scripted(status=200, body={"error": {"message": "upstream", "type": "x", "code": None}}),
        Scripted(status=408),
        Scripted(status=529),
    ],
    ids=str,
)
async def test_what_may_pass_is_tried_again(
    scripted: Scripted, server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """Two such replies in a row cost two more requests, and nothing else."""
    server.reply_next(scripted, scripted)

    async with make_embedder() as embedder:
        embeddings = await embedder.embed(["a", "b"])

    assert len(server.received) == 3
    assert_aligned(embeddings, ["a", "b"], server)


async def test_a_refused_batch_fails_with_the_servers_reason(
    server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """A 400 is not tried again; its documents fail with what the server said, the others are embedded."""

    def refuse(request: Received) -> Scripted | None:
        if "bad" not in request.inputs:
            return None
        return Scripted(status=400, body={"error": {"message": "I do not like it", "code": "invalid"}})

    server.reply_when(refuse)
    async with make_embedder(limits=Limits(max_batch_inputs=1)) as embedder:
        with pytest.raises(FailedDocumentsError, match="I do not like it") as caught:
            await embedder.embed(["good", "bad", "fine"])

    embeddings = caught.value.embeddings
    assert embeddings is not None
    assert len(server.received) == 3
    assert [failure.position for failure in embeddings.failures] == [1]
    assert isinstance(embeddings.failures[0].error, RequestRefusedError)
    assert embeddings.failures[0].error.code == "invalid"


@pytest.mark.parametrize(
    ("scripted", "reason"),
    [
        (Scripted(status=401, body={"error": {"message": "Incorrect API key provided"}}), AuthenticationError),
        (Scripted(status=404, body={"error": {"code": "model_not_found", "message": "no"}}), ModelNotFoundError),
        (Scripted(status=429, body={"error": {"code": "insufficient_quota"}}), QuotaExhaustedError),
        (Scripted(status=402), QuotaExhaustedError),
        (Scripted(status=403, body={"error": {"code": "insufficient_user_quota"}}), QuotaExhaustedError),
        (Scripted(status=429, headers={"retry-after": "86400"}), RateLimitedError),
        (Scripted(status=302, headers={"location": "http://elsewhere/"}), RequestRefusedError),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else f"{value.status}",
)
async def test_a_run_stops_where_going_on_cannot_help(
    scripted: Scripted, reason: type, make_embedder: MakeEmbedder
) -> None:
    """After such a reply nothing more is sent: of 100 batches only those already in flight (4) have gone."""
    server = ScriptedServer(latency=1.0)
    server.reply_when(lambda request: scripted)

    async with make_embedder(
        transport=server, limits=Limits(max_batch_inputs=1, max_concurrent_requests=4)
    ) as embedder:
        with pytest.raises(RunStoppedError) as caught:
            await embedder.embed([f"text {n}" for n in range(100)], on_failure="collect")

    assert isinstance(caught.value.__cause__, reason)
    assert len(server.received) == 4
    embeddings = caught.value.embeddings
    assert embeddings is not None
    assert len(embeddings.failures) == 100
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
    assert [failure.position for failure in embeddings.failures] == [4, 5, 6, 7, 8, 9]
    assert (embeddings.vectors[:4] == [server.vector_of(f"text {n}") for n in range(4)]).all()


async def test_a_run_that_stops_does_not_wait_for_its_own_pauses(make_embedder: MakeEmbedder) -> None:
    """One reply pauses everyone for 200 s, the next ends the quota: the run ends at once, not after the pause."""
    server = ScriptedServer(latency=lambda request: float(request.number))
    server.reply_next(
        Scripted(status=429, headers={"retry-after": "200"}),
        Scripted(status=429, body={"error": {"code": "insufficient_quota"}}),
    )

    async with make_embedder(
        transport=server, limits=Limits(max_batch_inputs=1, max_concurrent_requests=2)
    ) as embedder:
        with pytest.raises(RunStoppedError):
            await embedder.embed([f"text {n}" for n in range(10)])

    assert anyio.current_time() - server.received[0].at <= 3
    assert len(server.received) == 2


async def test_a_gateways_401_after_successes_is_tried_again(
    server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """It may be the gateway's own upstream key: one 401 in a run that has had replies does not end it."""
    texts = [f"text {n}" for n in range(5)]
    server.reply_when(lambda request: Scripted(status=401) if request.number == 3 else None)

    async with make_embedder(limits=Limits(max_batch_inputs=1, max_concurrent_requests=1)) as embedder:
        embeddings = await embedder.embed(texts)

    assert_aligned(embeddings, texts, server)


async def test_an_attempt_has_a_deadline(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """A server that says nothing for an hour costs 60 s a try."""
    server.reply_next(Scripted(after=3600))

    async with make_embedder() as embedder:
        embeddings = await embedder.embed(["a"])

    assert 60 <= server.received[1].at - server.received[0].at <= 61
    assert_aligned(embeddings, ["a"], server)


async def test_waiting_for_capacity_is_not_charged_as_a_timeout(make_embedder: MakeEmbedder) -> None:
    """With one place in flight and replies of 50 s, ten requests take 500 s, and none times out after 60."""
    server = ScriptedServer(latency=50.0)

    async with make_embedder(
        transport=server, limits=Limits(max_batch_inputs=1, max_concurrent_requests=1)
    ) as embedder:
        await embedder.embed([f"text {n}" for n in range(10)])

    assert len(server.received) == 10


async def test_attempts_are_capped_for_timeouts_too(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """Two attempts of 5 s each, then the document fails with the timeout."""
    server.reply_when(lambda request: Scripted(after=3600))

    async with make_embedder(timeout=5.0, retries=Retries(max_attempts=2)) as embedder:
        embeddings = await embedder.embed(["a"], on_failure="collect")

    assert isinstance(embeddings.failures[0].error, AttemptTimeoutError)
    assert len(server.received) == 2


async def test_a_lost_connection_is_a_typed_failure(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """A connection that always breaks ends in ConnectionLostError, not in an exception of the HTTP client."""
    server.reply_when(lambda request: Scripted(breaks="read"))

    async with make_embedder() as embedder:
        embeddings = await embedder.embed(["a"], on_failure="collect")

    assert isinstance(embeddings.failures[0].error, ConnectionLostError)


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


async def test_a_query_that_would_have_several_vectors_is_too_long(
    server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """embed_one gives one vector: under long_input="chunks" a text above the limit is refused before it is sent."""
    async with make_embedder(long_input="chunks", max_input_tokens=16) as embedder:
        with pytest.raises(InputTooLongError):
            await embedder.embed_one("x" * 17)
        vector = await embedder.embed_one("x" * 16)

    assert vector.shape == (8,)
    assert len(server.received) == 1


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


async def test_an_endless_reply_does_not_fill_the_memory(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """A good reply has room for 40 bytes a number; what is larger is given up, and asked for again."""
    server.reply_next(Scripted(body=b'{"data": [' + b" " * 1_000_000))

    async with make_embedder(dimensions=8) as embedder:
        embeddings = await embedder.embed(["a"])
        stats = embedder.stats()

    assert_aligned(embeddings, ["a"], server)
    assert stats.faults == {"MalformedReply": 1}
