"""Rate limits, pauses, backoff: what is sent, when, and how often."""

from __future__ import annotations

import itertools
from collections.abc import Coroutine
from typing import Any

import anyio
import numpy as np
import pytest

from embedbatch import (
    ConnectionLostError,
    Embeddings,
    FailedDocumentsError,
    Failure,
    InputTooLongError,
    Limits,
    RateLimitedError,
    RequestRefusedError,
    Retries,
    RunStoppedError,
    ServerError,
)
from embedbatch.errors import AttemptTimeoutError
from embedbatch.testing import Received, Scripted, ScriptedServer

from .conftest import MakeEmbedder, assert_aligned, warm_up

pytestmark = pytest.mark.anyio


def most_in_a_window(times: list[float], seconds: float) -> int:
    """The largest number of events in any window of *seconds*."""
    return max(sum(start <= time < start + seconds for time in times) for start in times)


async def stopped_by(run: Coroutine[Any, Any, Embeddings]) -> Failure:
    """Assert that *run* stops because of what its first document failed with; return that failure."""
    with pytest.raises(RunStoppedError) as caught:
        await run
    assert caught.value.embeddings is not None
    failure = caught.value.embeddings.failures[0]
    assert caught.value.__cause__ is failure.error
    return failure


async def test_requests_per_minute_hold_in_every_window(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """
    At 60 requests a minute and 2 s of burst no 10 seconds see more than 12: 10 at the start, and 12 after a rest.

    The first goes at once and the 49 others one a second: nothing has been saved up yet. A minute of rest saves two.
    """
    texts = [f"text {n}" for n in range(50)]

    async with make_embedder(limits=Limits(max_requests_per_minute=60, max_batch_inputs=1)) as embedder:
        await embedder.embed(texts)
        times = [request.at for request in server.received]
        await anyio.sleep(60)
        await embedder.embed(texts)
        later = [request.at for request in server.received[50:]]

    assert times[-1] - times[0] == pytest.approx(49, abs=0.1)
    assert most_in_a_window(times, 10) <= 10 + 1  # rounding may let the eleventh go at 9.999 s
    assert later[-1] - later[0] == pytest.approx(48, abs=0.1)
    assert most_in_a_window(times + later, 10) <= 12


async def test_tokens_per_minute_hold_in_every_window(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """At 6,000 tokens a minute, 100 texts of 400 bytes (100 tokens each) take 99 s; none shares its request."""
    async with make_embedder(limits=Limits(max_tokens_per_minute=6_000)) as embedder:
        await embedder.embed(["x" * 400] * 100)

    times = [request.at for request in server.received]
    assert len(times) == 100  # a fifth of a second's worth is 20 tokens
    assert times[-1] - times[0] == pytest.approx(99, abs=0.5)
    assert most_in_a_window(times, 9.9) <= 11  # 200 tokens of burst, and 990


async def test_a_429_makes_everyone_wait_the_servers_time(make_embedder: MakeEmbedder) -> None:
    """After one 429 with Retry-After: 30, one of two in flight, no request starts for 30 s; then all succeed."""
    texts = [f"text {n}" for n in range(200)]
    server = ScriptedServer(latency=lambda request: 0.5 if "text 0" in request.inputs else 1.0)

    async with make_embedder(
        transport=server, limits=Limits(max_batch_inputs=10, max_concurrent_requests=2)
    ) as embedder:
        await warm_up(embedder, server, places=2)
        server.reply_next(Scripted(status=429, headers={"retry-after": "30"}))
        embeddings = await embedder.embed(texts)

    times = [request.at for request in server.received]
    assert len(times) == 21
    assert times[1] == times[0]
    assert times[2] - times[0] >= 30.5
    assert_aligned(embeddings, texts, server)


async def test_requests_come_back_from_a_pause_one_by_one(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """After a pause one goes alone; once it is answered no two of those that come within the next second coincide."""

    def latency(request: Received) -> float:
        return 0.05 if request.inputs == ["text 0"] else 0.1

    server = ScriptedServer(latency=latency)
    limits = Limits(max_batch_inputs=1, max_concurrent_requests=20)

    async with make_embedder(transport=server, limits=limits) as embedder:
        await warm_up(embedder, server, places=20)
        server.reply_next(Scripted(status=429, headers={"retry-after-ms": "5000"}))
        embeddings = await embedder.embed([f"text {n}" for n in range(60)])

    paused_at = server.received[0].at + 0.05
    assert [request.at <= paused_at for request in server.received] == [True] * 20 + [False] * 41
    probe = server.received[20]
    answered_at = probe.at + latency(probe)
    after = [request.at for request in server.received[21:]]
    assert probe.at >= paused_at + 5
    assert min(after) >= answered_at
    re_entry = [at for at in after if at < answered_at + 1]
    assert len(re_entry) > 10
    assert len(set(re_entry)) == len(re_entry)
    assert not embeddings.failures


async def test_an_http_date_is_read_against_the_servers_own_clock(
    server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """A date one minute after the reply's own Date is a wait of a minute, whatever our clock says."""
    headers = {"date": "Wed, 21 Oct 2015 07:28:00 GMT", "retry-after": "Wed, 21 Oct 2015 07:29:00 GMT"}
    server.reply_next(Scripted(status=503, headers=headers))

    async with make_embedder() as embedder:
        await embedder.embed(["a"])

    assert 60 <= server.received[1].at - server.received[0].at <= 61.1


async def test_backoff_grows_and_ends(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """A server that always fails is tried 6 times, with waits below 0.5, 1, 2, 4 and 8 s; then the run stops."""
    server.reply_when(lambda request: Scripted(status=500, body={"error": {"message": "boom"}}))

    async with make_embedder() as embedder:
        failure = await stopped_by(embedder.embed(["a"], on_failure="collect"))

    times = [request.at for request in server.received]
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(times) == 6
    assert all(wait <= 0.5 * 2**n for n, wait in enumerate(waits))
    assert isinstance(failure.error, ServerError)
    assert failure.error.status == 500
    assert failure.attempts == 6
    assert "boom" in str(failure.error)


async def test_a_document_that_always_fails_does_not_stop_the_others(make_embedder: MakeEmbedder) -> None:
    """5 or 6 attempts, by when the others were done; then parts, one attempt each, until the culprit is alone."""
    texts = [f"text {n}" for n in range(64)]
    server = ScriptedServer(latency=1.0)
    server.reply_when(lambda request: Scripted(status=500) if "text 20" in request.inputs else None)

    async with make_embedder(transport=server, limits=Limits(max_batch_inputs=16)) as embedder:
        embeddings = await embedder.embed(texts, on_failure="collect")

    assert [failure.position for failure in embeddings.failures] == [20]
    assert isinstance(embeddings.failures[0].error, ServerError)
    kept = [n for n in range(64) if n != 20]
    np.testing.assert_array_equal(embeddings.vectors[kept], [server.vector_of(texts[n]) for n in kept])
    with_it = [len(request.inputs) for request in server.received if "text 20" in request.inputs]
    assert with_it in ([16] * 5 + [8, 4, 2, 1, 1], [16] * 6 + [8, 4, 2, 1, 1])
    assert embeddings.failures[0].attempts == len(with_it)


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
    """Two attempts of 5 s each, then the document fails with the timeout, and the run stops."""
    server.reply_when(lambda request: Scripted(after=3600))

    async with make_embedder(timeout=5.0, retries=Retries(max_attempts=2)) as embedder:
        failure = await stopped_by(embedder.embed(["a"], on_failure="collect"))

    assert isinstance(failure.error, AttemptTimeoutError)
    assert failure.attempts == len(server.received) == 2


@pytest.mark.parametrize("body", [None, {"error": {"code": "rate_limit_exceeded"}}], ids=["unnamed", "named"])
async def test_a_rate_limit_is_waited_out_for_two_minutes_whatever_the_attempts(
    body: dict[str, Any] | None, server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """A server that says nothing but 429: with two attempts and plenty of budget it is asked for 120 s all the same."""
    server.reply_when(lambda request: Scripted(status=429, body=body))

    async with make_embedder(retries=Retries(max_attempts=2, budget=1_000)) as embedder:
        failure = await stopped_by(embedder.embed(["a"], on_failure="collect"))

    assert isinstance(failure.error, RateLimitedError)
    assert failure.attempts == len(server.received) > 2
    assert 120 <= server.received[-1].at - server.received[0].at <= 150


async def test_a_lost_connection_is_a_typed_failure(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """A connection that always breaks ends in ConnectionLostError, not in an exception of the HTTP client."""
    server.reply_when(lambda request: Scripted(breaks="read"))

    async with make_embedder() as embedder:
        failure = await stopped_by(embedder.embed(["a"], on_failure="collect"))

    assert isinstance(failure.error, ConnectionLostError)
    assert failure.attempts == len(server.received) == 6


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


async def test_an_endless_reply_does_not_fill_the_memory(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """A good reply has room for 40 bytes a number; what is larger is given up, and asked for again."""
    server.reply_next(Scripted(body=b'{"data": [' + b" " * 1_000_000))

    async with make_embedder(dimensions=8) as embedder:
        embeddings = await embedder.embed(["a"])
        stats = embedder.stats()

    assert_aligned(embeddings, ["a"], server)
    assert stats.faults == {"MalformedReply": 1}
