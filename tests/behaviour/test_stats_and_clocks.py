"""What stats() counts, and whether its clocks are honest."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import anyio
import httpx
import pytest

from embedbatch import (
    AttemptTimeoutError,
    BatchAnswered,
    CapLearned,
    EndpointAway,
    EndpointPaused,
    Event,
    Limits,
    RequestHedged,
    Retries,
    RunStoppedError,
    Timing,
)
from embedbatch.testing import Outage, ProviderSimulator, Quota, Received, Scripted, ScriptedServer

from .conftest import MakeEmbedder

pytestmark = pytest.mark.anyio

ONE_EACH = Limits(max_batch_inputs=1)
ONE_AT_A_TIME = Limits(max_batch_inputs=1, max_concurrent_requests=1)


def texts_of(count: int) -> list[str]:
    """So many different texts."""
    return [f"text {n}" for n in range(count)]


class Trickle(httpx.AsyncBaseTransport):
    """Headers after *head* seconds, then the right body in *pieces* parts with a second before each."""

    def __init__(self, *, head: float, pieces: int | None) -> None:
        self.requests = 0
        self.open = 0
        self._head = head
        self._pieces = pieces
        self._server = ScriptedServer()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        right = await self._server.handle_async_request(request)
        body = await right.aread()
        await anyio.sleep(self._head)
        count = self._pieces or len(body)
        size = -(-len(body) // count)
        parts = [body[at : at + size] for at in range(0, len(body), size)]
        return httpx.Response(200, headers={"content-type": "application/json"}, stream=_Parts(self, parts))


class _Parts(httpx.AsyncByteStream):
    def __init__(self, transport: Trickle, parts: list[bytes]) -> None:
        transport.open += 1
        self._transport = transport
        self._left = parts

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        await anyio.sleep(1)
        return self._left.pop(0)

    async def aclose(self) -> None:
        self._transport.open -= 1


# clocks -------------------------------------------------------------------------------------------------------


async def test_headers_and_body_have_clocks_of_their_own(make_embedder: MakeEmbedder) -> None:
    """Headers after 3 s, a body of 5 s: each is told, and an attempt is both."""
    async with make_embedder(transport=Trickle(head=3, pieces=5)) as embedder:
        await embedder.embed(["a"])
        stats = embedder.stats()

    assert stats.headers == Timing(1, 3.0, 3.0)
    assert stats.body == Timing(1, 5.0, 5.0)
    assert stats.attempt == Timing(1, 8.0, 8.0)
    assert stats.queue == Timing(1, 0.0, 0.0)
    assert stats.document == Timing(1, pytest.approx(8.0, abs=0.6), pytest.approx(8.0, abs=0.6))


async def test_waiting_for_a_place_is_queueing_and_nothing_else(make_embedder: MakeEmbedder) -> None:
    """Ten requests of 50 s, one at a time, under a timeout of 60: no fault, attempts of 50 s, a queue of 450."""
    server = ScriptedServer(latency=50.0)

    async with make_embedder(transport=server, limits=ONE_AT_A_TIME) as embedder:
        async with anyio.create_task_group() as tasks:
            for text in texts_of(10):
                tasks.start_soon(embedder.embed, [text])
        stats = embedder.stats()

    assert stats.faults == {}
    assert stats.attempt == Timing(10, 500.0, 50.0)
    assert stats.queue == Timing(10, sum(50.0 * n for n in range(10)), 450.0)
    assert stats.document.longest == pytest.approx(500, abs=0.1)


async def test_waiting_for_the_pace_is_queueing_too(make_embedder: MakeEmbedder) -> None:
    """One request a minute and a timeout of 5 s: three wait two minutes, and none times out."""
    server = ScriptedServer(latency=1.0)
    limits = Limits(max_batch_inputs=1, max_requests_per_minute=1)

    async with make_embedder(transport=server, limits=limits, timeout=5.0) as embedder:
        async with anyio.create_task_group() as tasks:
            for text in texts_of(3):
                tasks.start_soon(embedder.embed, [text])
        stats = embedder.stats()

    assert stats.faults == {}
    assert stats.queue.longest == pytest.approx(120, abs=0.1)
    assert stats.attempt == Timing(3, 3.0, 1.0)


async def test_a_pause_is_queueing_for_those_who_were_not_refused(make_embedder: MakeEmbedder) -> None:
    """Retry-After: 100 under a timeout of 60 s: the next request waits 100 s in the queue, and its attempt is short."""
    server = ScriptedServer(latency=1.0)
    server.reply_next(Scripted(), Scripted(status=429, headers={"retry-after": "100"}))
    events: list[Event] = []

    async with make_embedder(transport=server, limits=ONE_AT_A_TIME, observe=events.append) as embedder:
        await embedder.embed(texts_of(4))
        stats = embedder.stats()

    assert stats.faults == {"RateLimited": 1}
    assert stats.paused_seconds == 100
    assert [event.seconds for event in events if isinstance(event, EndpointPaused)] == [100]
    assert 99 <= stats.queue.longest <= 140
    assert stats.attempt == Timing(4, 4.0, 1.0)


async def test_a_server_that_trickles_cannot_hold_a_place(make_embedder: MakeEmbedder) -> None:
    """A byte a second, hundreds of bytes: after 10 s the attempt is over, its response closed, and the place free."""
    trickle = Trickle(head=0, pieces=None)

    async with make_embedder(transport=trickle, timeout=10.0, retries=Retries(max_attempts=2)) as embedder:
        with pytest.raises(RunStoppedError) as caught:
            await embedder.embed(["a"])
        stats = embedder.stats()

    assert isinstance(caught.value.__cause__, AttemptTimeoutError)
    assert 20 <= anyio.current_time() <= 21
    assert (trickle.requests, trickle.open, stats.in_flight) == (2, 0, 0)
    assert stats.faults == {"AttemptTimeout": 2}


async def test_a_trickle_does_not_keep_others_waiting(make_embedder: MakeEmbedder) -> None:
    """With one place in flight the next call waits no longer than the time of one attempt."""
    server = ScriptedServer(latency=lambda request: 3_600.0 if request.inputs == ["slow"] else 0.1)
    took: list[float] = []

    async with make_embedder(transport=server, limits=ONE_AT_A_TIME, timeout=10.0) as embedder:
        await embedder.embed(["warm"])

        async def query() -> None:
            await anyio.sleep(0.5)
            began = anyio.current_time()
            await embedder.embed_one("quick")
            took.append(anyio.current_time() - began)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(query)
            with anyio.move_on_after(60):
                await embedder.embed(["slow"])

    assert took[0] <= 9.7


async def test_a_documents_clock_is_from_entering_to_being_handed_out(make_embedder: MakeEmbedder) -> None:
    """In order: four documents, one a second, handed out at 1, 2, 3 and 4 s, having all entered at 0."""
    server = ScriptedServer(latency=1.0)

    async with make_embedder(transport=server, limits=ONE_AT_A_TIME) as embedder:
        async with embedder.stream(texts_of(4)) as results:
            async for _ in results:
                pass
        document = embedder.stats().document

    assert document.count == 4
    assert document.seconds == pytest.approx(1 + 2 + 3 + 4, abs=0.2)
    assert document.longest == pytest.approx(4, abs=0.1)
    assert document.mean == document.seconds / 4


# counts -------------------------------------------------------------------------------------------------------


async def test_nothing_is_counted_before_anything_happens(make_embedder: MakeEmbedder) -> None:
    """All zeros, one place, no limits known, nothing away."""
    async with make_embedder() as embedder:
        stats = embedder.stats()

    assert (stats.requests, stats.splits, stats.hedges, stats.outages, stats.caps) == (0, 0, 0, 0, {})
    assert stats.attempt.mean == 0
    (capacity,) = stats.capacity
    assert (capacity.in_flight, capacity.places, capacity.waiting, capacity.away_seconds) == (0, 1, 0, 0)
    assert capacity.requests_per_second == capacity.tokens_per_second == float("inf")


async def test_counts_agree_with_the_server_and_the_events(make_embedder: MakeEmbedder) -> None:
    """Caps, an outage, rate limits: requests, faults, splits, outages and caps are those that happened."""
    provider = ProviderSimulator(
        latency=0.2,
        quota=Quota(requests_per_minute=1_200, window=1.0),
        headers=False,
        max_inputs=7,
        announce_caps=False,
        outages=[Outage(start=10, end=40, kind="503")],
    )
    events: list[Event] = []

    async with make_embedder(transport=provider, observe=events.append) as embedder:
        await embedder.embed(["warm"])
        embeddings = await embedder.embed(texts_of(3_000), on_outage="wait")
        stats = embedder.stats()

    assert not embeddings.failures
    refused = sum(request.status == 400 for request in provider.requests)
    assert stats.requests == len(provider.requests) == stats.replies + sum(stats.faults.values())
    assert stats.splits == stats.faults["RequestRefused"] == refused > 0
    assert stats.outages == sum(isinstance(event, EndpointAway) for event in events) == 1
    assert stats.caps == {event.endpoint + " inputs": 7 for event in events if isinstance(event, CapLearned)}
    assert stats.documents == stats.vectors == stats.document.count == 3_001
    assert stats.attempt.count == stats.replies == sum(isinstance(event, BatchAnswered) for event in events)


async def test_hedges_are_counted(make_embedder: MakeEmbedder) -> None:
    """As many as there were events, and as there were requests beyond the texts."""
    server = ScriptedServer(
        latency=lambda request: 5.0 if request.number % 40 == 0 else 0.2 + 0.01 * (request.number % 9)
    )
    events: list[Event] = []

    async with make_embedder(
        transport=server, limits=ONE_EACH, retries=Retries(hedge=True), observe=events.append
    ) as embedder:
        await embedder.embed(texts_of(600))
        stats = embedder.stats()

    assert stats.hedges == sum(isinstance(event, RequestHedged) for event in events) > 0
    assert len(server.received) == 600 + stats.hedges


async def test_an_outage_is_seen_while_it_lasts(make_embedder: MakeEmbedder) -> None:
    """stats() in the middle of it tells for how long the endpoint has been away, and who waits."""
    provider = ProviderSimulator(latency=0.2, outages=[Outage(start=2, end=100, kind="refused")])
    seen: list[float] = []

    async with make_embedder(transport=provider, limits=ONE_EACH) as embedder:

        async def look() -> None:
            for _ in range(6):
                await anyio.sleep(10)
                seen.append(embedder.stats().capacity[0].away_seconds)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(look)
            await embedder.embed(texts_of(500), on_outage="wait")
        away_after = embedder.stats().capacity[0].away_seconds

    assert all(later - earlier == pytest.approx(10) for earlier, later in itertools.pairwise(seen))
    assert 3 <= seen[0] <= 8
    assert away_after == 0


async def test_learned_rates_are_told(make_embedder: MakeEmbedder) -> None:
    """A quota that only the headers name is in stats().capacity after the first reply."""
    provider = ProviderSimulator(latency=0.1, quota=Quota(requests_per_minute=600, tokens_per_minute=60_000))

    async with make_embedder(transport=provider) as embedder:
        await embedder.embed(["a"])
        (capacity,) = embedder.stats().capacity

    assert capacity.requests_per_second == pytest.approx(10, rel=0.01)
    assert capacity.tokens_per_second == pytest.approx(1_000, rel=0.01)


async def test_clocks_hold_on_every_loop(both_backends: object, make_embedder: MakeEmbedder) -> None:
    """In real time: no attempt is longer than its call, and a document's clock holds its queue and its attempt."""

    def latency(request: Received) -> float:
        return 0.01

    server = ScriptedServer(latency=latency)
    async with make_embedder(transport=server, limits=ONE_EACH) as embedder:
        began = anyio.current_time()
        await embedder.embed(texts_of(100))
        took = anyio.current_time() - began
        stats = embedder.stats()

    assert stats.attempt.count == stats.headers.count == stats.body.count == 100
    assert 0.01 <= stats.attempt.longest <= stats.document.longest <= took
    assert stats.headers.seconds + stats.body.seconds == pytest.approx(stats.attempt.seconds, abs=0.2)
