"""A second copy of a late request: when it is sent, what it may cost, and what becomes of the loser."""

from __future__ import annotations

from random import Random

import anyio
import httpx
import pytest

from embedbatch import Embedder, Event, Limits, RequestHedged, Retries, SpendLimitError
from embedbatch.testing import Latency, ProviderSimulator, Quota, Received, Scripted, ScriptedServer

from .conftest import MakeEmbedder, assert_aligned

pytestmark = pytest.mark.anyio

HEDGED = Retries(hedge=True)
ONE_EACH = Limits(max_batch_inputs=1)
LATE = 30.0


def texts_of(count: int) -> list[str]:
    """So many different texts."""
    return [f"text {n}" for n in range(count)]


def spread(request: Received) -> float:
    """A latency between 0.2 and 0.4 s."""
    return Random(request.number).uniform(0.2, 0.4)


def late_first_copies() -> tuple[ScriptedServer, list[float]]:
    """A server that answers the first copy of a text with "late" in it after 30 s; and when copies of it came."""
    server = ScriptedServer(latency=spread)
    came: list[float] = []

    def delay(request: Received) -> Scripted | None:
        if not any("late" in str(text) for text in request.inputs):
            return None
        came.append(request.at)
        return Scripted(after=LATE) if len(came) % 2 else None

    server.reply_when(delay)
    return server, came


async def warm_up(embedder: Embedder, count: int = 200) -> None:
    """Let the embedder see how long replies take, and earn some copies."""
    await embedder.embed(texts_of(count))


# when ---------------------------------------------------------------------------------------------------------


async def test_a_late_request_is_sent_again_and_the_first_vectors_are_taken(make_embedder: MakeEmbedder) -> None:
    """After 95 % of the usual time a copy goes; its vectors come within a second, instead of after 30."""
    server, came = late_first_copies()
    events: list[Event] = []

    async with make_embedder(transport=server, limits=ONE_EACH, retries=HEDGED, observe=events.append) as embedder:
        await warm_up(embedder)
        began = anyio.current_time()
        embeddings = await embedder.embed(["late"])
        took = anyio.current_time() - began

    assert_aligned(embeddings, ["late"], server)
    assert took <= 1
    assert len(came) == 2
    assert 0.35 <= came[1] - came[0] <= 0.51  # the 95th percentile of 0.2 to 0.4, or a quarter later
    copies = [event for event in events if isinstance(event, RequestHedged)]
    assert (copies[-1].inputs, copies[-1].won, copies[-1].cancelled) == (1, True, True)


async def test_without_the_setting_nothing_is_sent_twice(make_embedder: MakeEmbedder) -> None:
    """hedge=False, the default: the late request is waited for."""
    server, came = late_first_copies()

    async with make_embedder(transport=server, limits=ONE_EACH) as embedder:
        await warm_up(embedder)
        await embedder.embed(["late"])
        hedges = embedder.stats().hedges

    assert (len(came), hedges) == (1, 0)
    assert len(server.received) == 201


async def test_nothing_is_late_before_it_is_known_what_is_usual(make_embedder: MakeEmbedder) -> None:
    """With fewer than 20 replies nothing is sent twice."""
    server, came = late_first_copies()

    async with make_embedder(transport=server, limits=ONE_EACH, retries=HEDGED) as embedder:
        await warm_up(embedder, 19)
        await embedder.embed(["late"])

    assert len(came) == 1


async def test_nothing_is_sent_twice_during_a_pause(make_embedder: MakeEmbedder) -> None:
    """A 429 with Retry-After: 20 comes while a request is late: not before the pause is over does a copy go."""
    server, _ = late_first_copies()
    pausing = Scripted(status=429, headers={"retry-after": "20"})
    paused_at: list[float] = []

    def pause(request: Received) -> Scripted | None:
        if "pause" not in request.inputs or paused_at:
            return None
        paused_at.append(request.at)
        return pausing

    server.reply_when(pause)
    async with make_embedder(transport=server, limits=ONE_EACH, retries=HEDGED) as embedder:
        await warm_up(embedder)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(embedder.embed, ["late"])
            tasks.start_soon(embedder.embed, ["pause"])

    assert not [request for request in server.received if paused_at[0] + 0.4 < request.at < paused_at[0] + 20]


async def test_nothing_is_sent_twice_while_tokens_are_short(make_embedder: MakeEmbedder) -> None:
    """A run that uses all the tokens there are: the tail of the latency, up to a second, costs no token twice."""
    tail = Latency(median=0.2, sigma=0.1, tail_share=0.05, tail_factor=4.0)
    provider = ProviderSimulator(latency=tail, quota=Quota(tokens_per_minute=60_000, window=5.0), remember=True)
    limits = Limits(max_tokens_per_minute=60_000)

    async with make_embedder(transport=provider, limits=limits, retries=HEDGED) as embedder:
        await embedder.embed([f"{n:0400}" for n in range(600)])
        hedges = embedder.stats().hedges

    assert hedges <= 2  # at the end nothing else wants the tokens
    assert sum(provider.embedded.values()) == 600


@pytest.mark.parametrize("count", [25, 60, 120, 400, 1_500])
async def test_copies_are_at_most_five_percent(count: int, make_embedder: MakeEmbedder) -> None:
    """However long the tail, and however few the requests: at most 5 % of them are sent twice, at every moment."""
    provider = ProviderSimulator(latency=Latency(median=0.2, sigma=0.3, tail_share=0.3, tail_factor=20.0))
    requests, copies = 0, 0

    def check(event: Event) -> None:
        nonlocal copies
        copies += isinstance(event, RequestHedged)
        assert copies <= 0.05 * len(provider.requests)

    async with make_embedder(transport=provider, limits=ONE_EACH, retries=HEDGED, observe=check) as embedder:
        await embedder.embed(texts_of(count))
        requests = len(provider.requests)
        assert embedder.stats().hedges == copies

    assert requests - count <= copies


async def test_a_server_that_is_always_as_quick_gets_no_copies(make_embedder: MakeEmbedder) -> None:
    """Replies of exactly 0.2 s: none is late, and nothing is spent on the moment at which they come."""
    server = ScriptedServer(latency=0.2)

    async with make_embedder(transport=server, limits=ONE_EACH, retries=HEDGED) as embedder:
        embeddings = await embedder.embed(texts_of(600))
        stats = embedder.stats()

    assert len(server.received) == 600 + stats.hedges
    assert stats.hedges <= 30
    assert embeddings.usage.requests == len(server.received)


async def test_replies_that_take_no_time_are_no_trap(make_embedder: MakeEmbedder) -> None:
    """After 30 replies at once a request of 20 s is waited for, without a copy if need be, and without spinning."""
    server = ScriptedServer()

    async with make_embedder(transport=server, limits=ONE_EACH, retries=HEDGED) as embedder:
        for text in texts_of(30):
            await embedder.embed([text])
        server.reply_when(lambda request: Scripted(after=20))
        for text in texts_of(4):
            await embedder.embed([text])

    assert embedder.stats().hedges <= 2


# a place of its own -------------------------------------------------------------------------------------------


async def test_a_copy_takes_nobodys_place(make_embedder: MakeEmbedder) -> None:
    """With one place in flight, taken by the late request, the copy goes all the same."""
    server, came = late_first_copies()
    limits = Limits(max_batch_inputs=1, max_concurrent_requests=1)

    async with make_embedder(transport=server, limits=limits, retries=HEDGED) as embedder:
        await warm_up(embedder)
        began = anyio.current_time()
        await embedder.embed(["late"])
        took = anyio.current_time() - began

    assert server.max_in_flight == 2
    assert took <= 1
    assert len(came) == 2


async def test_the_loser_leaves_nothing_behind(make_embedder: MakeEmbedder) -> None:
    """As soon as one copy has answered, the other is ended: its request at the server, its place, its tokens."""
    server, _ = late_first_copies()

    async with make_embedder(transport=server, limits=ONE_EACH, retries=HEDGED) as embedder:
        await warm_up(embedder)
        await embedder.embed(["late"])
        stats = embedder.stats()
        assert server.in_flight == 0
        await embedder.embed(texts_of(50))

    assert (stats.in_flight, stats.waiting) == (0, 0)


async def test_the_first_copy_may_win(make_embedder: MakeEmbedder) -> None:
    """Where the second is the slower one, the first one's vectors are taken and the second is ended."""
    server = ScriptedServer(latency=spread)
    copies = 0

    def delay(request: Received) -> Scripted | None:
        nonlocal copies
        if "late" not in request.inputs:
            return None
        copies += 1
        return Scripted(after=1.0 if copies == 1 else LATE)

    server.reply_when(delay)
    async with make_embedder(transport=server, limits=ONE_EACH, retries=HEDGED) as embedder:
        await warm_up(embedder)
        began = anyio.current_time()
        embeddings = await embedder.embed(["late"])
        took = anyio.current_time() - began

    assert_aligned(embeddings, ["late"], server)
    assert copies == 2
    assert took <= 1.5
    assert server.in_flight == 0


@pytest.mark.parametrize("fault", [Scripted(status=500), Scripted(breaks="read"), Scripted(body=b"<html>")], ids=str)
async def test_a_copy_that_fails_does_not_end_the_other(fault: Scripted, make_embedder: MakeEmbedder) -> None:
    """The second copy brings a fault at once; the first one's vectors, a second later, are taken."""
    server = ScriptedServer(latency=spread)
    copies = 0

    def answer(request: Received) -> Scripted | None:
        nonlocal copies
        if "late" not in request.inputs:
            return None
        copies += 1
        return Scripted(after=1.0) if copies == 1 else fault

    server.reply_when(answer)
    async with make_embedder(transport=server, limits=ONE_EACH, retries=HEDGED) as embedder:
        await warm_up(embedder)
        embeddings = await embedder.embed(["late"])
        stats = embedder.stats()

    assert_aligned(embeddings, ["late"], server)
    assert copies == 2
    assert sum(stats.faults.values()) == 1


@pytest.mark.parametrize("after", [0.1, 0.38, 0.5, 5.0])
async def test_cancelled_with_a_copy_in_flight_nothing_is_left(after: float, make_embedder: MakeEmbedder) -> None:
    """Before the copy, as it goes, or long after: both requests end, and all places are free."""
    server = ScriptedServer(latency=spread)

    async with make_embedder(transport=server, limits=ONE_EACH, retries=HEDGED) as embedder:
        await warm_up(embedder)
        server.reply_when(lambda request: Scripted(after=100))
        with anyio.move_on_after(after):
            await embedder.embed(texts_of(8))
        stats = embedder.stats()

    assert (stats.in_flight, stats.waiting, server.in_flight) == (0, 0, 0)


async def test_an_observers_error_comes_out_as_it_is(make_embedder: MakeEmbedder) -> None:
    """With hedging on as with hedging off: the observer's own exception, not a group."""
    server = ScriptedServer(latency=spread)
    broken = False

    def observe(event: Event) -> None:
        if broken:
            raise LookupError("mine")

    async with make_embedder(transport=server, limits=ONE_EACH, retries=HEDGED, observe=observe) as embedder:
        await warm_up(embedder)
        broken = True
        with pytest.raises(LookupError, match="mine"):
            await embedder.embed(["a"])


# what it costs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
async def test_copies_are_within_the_spending_limit(seed: int, make_embedder: MakeEmbedder) -> None:
    """With a long tail and 2,000 tokens to spend the server embeds at most 2,000, copies and losers included."""
    worked_on = 0

    def late(request: Received) -> float:
        nonlocal worked_on
        worked_on += sum(max(1, len(text) // 4) for text in request.inputs)
        return Random(f"{seed} {request.number}").choice([0.2, 0.25, 0.3, 5.0])

    server = ScriptedServer(latency=late)
    async with make_embedder(transport=server, limits=ONE_EACH, retries=HEDGED) as embedder:
        await warm_up(embedder)
        worked_on = 0
        with pytest.raises(SpendLimitError):
            await embedder.embed(["x" * 40] * 1_000, max_spend_tokens=2_000)

    assert 1_000 <= worked_on <= 2_000


async def test_a_copy_that_cannot_be_afforded_is_not_sent(make_embedder: MakeEmbedder) -> None:
    """The budget is just enough for the request itself: it is late, and waited for."""
    server, came = late_first_copies()

    async with make_embedder(transport=server, limits=ONE_EACH, retries=HEDGED) as embedder:
        await warm_up(embedder)
        await embedder.embed(["late"], max_spend_tokens=5)

    assert len(came) == 1


# real time ----------------------------------------------------------------------------------------------------


class Counting(httpx.AsyncBaseTransport):
    """Counts the requests that are open, whatever ends them."""

    def __init__(self, server: ScriptedServer) -> None:
        self.open = 0
        self._server = server

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.open += 1
        try:
            return await self._server.handle_async_request(request)
        finally:
            self.open -= 1


async def test_hedging_holds_on_every_loop(both_backends: object) -> None:
    """600 requests, one in 25 a second late: every vector is right, copies are few, and nothing is left open."""

    def late(request: Received) -> float:
        return 1.0 if request.number % 25 == 0 else 0.002 + 0.002 * (request.number % 3)

    server = ScriptedServer(latency=late)
    transport = Counting(server)
    options = {"base_url": "http://test/v1", "transport": transport, "rng": Random(7)}

    async with Embedder("test-model", limits=ONE_EACH, retries=HEDGED, **options) as embedder:  # type: ignore[arg-type]
        embeddings = await embedder.embed(texts_of(600))
        stats = embedder.stats()

    assert_aligned(embeddings, texts_of(600), server)
    assert stats.hedges <= 0.05 * len(server.received)
    assert transport.open == stats.in_flight == 0
