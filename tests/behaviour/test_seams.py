"""store= and observe=: what they are told, and what they may do."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping

import anyio
import numpy as np
import pytest

from embedbatch import (
    AttemptFailed,
    Batch,
    BatchAnswered,
    Chunks,
    DocumentCut,
    DocumentFailed,
    DocumentRepaired,
    DocumentsEmbedded,
    EndpointPaused,
    Event,
    Limits,
    Retries,
    RunStopped,
    RunStoppedError,
)
from embedbatch.testing import Scripted, ScriptedServer
from embedbatch.values import Vector, Vectors

from .conftest import MakeEmbedder, assert_aligned, warm_up

pytestmark = pytest.mark.anyio


class Memory:
    """A store that remembers every vector by the chunk's bytes."""

    def __init__(self) -> None:
        self.vectors: dict[bytes, Vector] = {}

    async def known(self, chunks: Chunks, /) -> Mapping[int, Vector]:
        return {row: self.vectors[wire] for row, wire in enumerate(chunks.inputs) if wire in self.vectors}

    async def put(self, batch: Batch, vectors: Vectors, /) -> None:
        self.vectors.update(zip(batch.inputs, vectors.copy(), strict=True))


async def test_what_a_store_knows_is_not_sent(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """Embedded twice, the second time with one new text: only that is sent, and all rows are right."""
    texts = [f"text {n}" for n in range(10)]

    async with make_embedder(store=Memory()) as embedder:
        await embedder.embed(texts)
        again = await embedder.embed([*texts, "new"])

    assert [request.inputs for request in server.received] == [texts, ["new"]]
    assert_aligned(again, [*texts, "new"], server)


async def test_a_store_that_knows_everything_needs_no_request(
    server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """The third call ends although no worker was ever started."""
    memory = Memory()
    async with make_embedder(store=memory) as first:
        await first.embed(["a", "b"])
    server.received.clear()

    async with make_embedder(store=memory) as second:
        embeddings = await second.embed(["b", "a"])

    assert not server.received
    assert_aligned(embeddings, ["b", "a"], server)


class BrokenStore(Memory):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    async def put(self, batch: Batch, vectors: Vectors, /) -> None:
        raise self.error


@pytest.mark.parametrize("error", [OSError("no space left on device"), anyio.EndOfStream(), anyio.WouldBlock()])
async def test_a_store_that_fails_ends_the_run(error: Exception, make_embedder: MakeEmbedder) -> None:
    """Its exception, also one of anyio's own, comes out as it is: what is not kept must not count as done."""
    async with make_embedder(store=BrokenStore(error)) as embedder:
        with pytest.raises(type(error)) as raised:
            await embedder.embed(["a"])

    assert raised.value is error


async def test_everything_worth_counting_is_an_event(make_embedder: MakeEmbedder) -> None:
    """A run with a pause, a failed attempt, a cut, a repair and a failure tells of each, once."""
    events: list[Event] = []
    server = ScriptedServer()
    server.reply_next(Scripted(status=429, headers={"retry-after": "3"}))

    async with make_embedder("text-embedding-3-small", dimensions=8, observe=events.append) as embedder:
        await embedder.embed(["a", "", "\ud800", " the" * 9_000], on_failure="collect")
        stats = embedder.stats()

    kinds = Counter(type(event) for event in events)
    assert kinds[DocumentFailed] == kinds[DocumentRepaired] == kinds[DocumentCut] == 1
    assert kinds[BatchAnswered] == 1
    assert sum(event.documents for event in events if isinstance(event, DocumentsEmbedded)) == 4
    assert (stats.documents, stats.vectors, stats.failures, stats.cut) == (4, 3, 1, 1)


async def test_pauses_and_faults_are_counted(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """One 429 with a time and one 500: two failed attempts by kind, one pause of 3 s."""
    events: list[Event] = []
    server.reply_next(Scripted(status=429, headers={"retry-after": "3"}), Scripted(status=500))

    async with make_embedder(observe=events.append) as embedder:
        await embedder.embed(["a"])
        stats = embedder.stats()

    assert stats.faults == {"RateLimited": 1, "Server": 1}
    assert (stats.requests, stats.replies, stats.paused_seconds) == (3, 1, 3.0)
    assert [event.attempt for event in events if isinstance(event, AttemptFailed)] == [1, 2]
    assert [event.seconds for event in events if isinstance(event, EndpointPaused)] == [3.0]


async def test_a_stop_is_an_event(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """Exactly one, with the reason."""
    events: list[Event] = []
    server.reply_when(lambda request: Scripted(status=402))

    async with make_embedder(observe=events.append, limits=Limits(max_batch_inputs=1)) as embedder:
        with pytest.raises(RunStoppedError):
            await embedder.embed(["a", "b", "c"])

    stops = [event for event in events if isinstance(event, RunStopped)]
    assert len(stops) == 1
    assert "402" in str(stops[0].error)


async def test_a_repr_tells_the_state_and_no_secret(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """Model, endpoint and what is in flight; never the key."""
    async with make_embedder(api_key="sk-very-secret") as embedder:
        await embedder.embed(["a"])

    limiter = "<Limiter open, 0 of 4 in flight, 0 waiting>"
    assert repr(embedder) == f"<Embedder 'test-model' at openai-compatible over ScriptedServer, {limiter}>"


async def test_a_key_that_a_server_echoes_does_not_come_out(
    server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """An error message that repeats the key has it replaced."""
    server.reply_next(Scripted(status=401, body={"error": {"message": "bad key sk-very-secret"}}))

    async with make_embedder(api_key="sk-very-secret") as embedder:
        with pytest.raises(RunStoppedError) as caught:
            await embedder.embed(["a"])

    assert "sk-very-secret" not in str(caught.value)
    assert "[key]" in str(caught.value)


async def test_a_row_of_a_stream_does_not_keep_the_whole_reply(make_embedder: MakeEmbedder) -> None:
    """A vector that is kept is its own memory, not a view on the reply's array."""
    async with make_embedder() as embedder, embedder.stream(["a", "b"]) as results:
        vectors = [np.asarray(result.vector).base async for result in results]  # type: ignore[union-attr]

    assert vectors == [None, None]


class SlowStore(Memory):
    """Notes when each vector was kept, after a while."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = 0

    async def put(self, batch: Batch, vectors: Vectors, /) -> None:
        await anyio.sleep(20)
        self.kept += len(batch)


async def test_what_is_not_kept_yet_does_not_come_out(make_embedder: MakeEmbedder) -> None:
    """No result is handed out before the store has kept it."""
    store = SlowStore()

    async with make_embedder(store=store) as embedder, embedder.stream(["a", "b", "c"]) as results:
        kept = [store.kept async for _ in results]

    assert kept == [3, 3, 3]


async def test_a_slow_store_does_not_put_off_a_stop(make_embedder: MakeEmbedder) -> None:
    """The quota ends while the store takes 20 s for the row before: only what is in flight then was sent."""
    server = ScriptedServer(latency=1.0)
    server.reply_when(lambda request: Scripted(status=402) if request.number == 2 else None)

    async with make_embedder(
        transport=server, store=SlowStore(), limits=Limits(max_batch_inputs=1, max_concurrent_requests=2)
    ) as embedder:
        with pytest.raises(RunStoppedError):
            await embedder.embed([f"text {n}" for n in range(20)])

    times = [request.at - server.received[0].at for request in server.received]
    assert times == [0.0, 1.0, 1.0]  # the second and the third together, of which one was refused


async def test_pauses_that_overlap_are_not_counted_twice(make_embedder: MakeEmbedder) -> None:
    """Two requests in flight are both told to wait 10 s, half a second apart: 10.5 s of pause in all."""
    server = ScriptedServer()
    headers = {"retry-after": "10"}

    async with make_embedder(
        transport=server, limits=Limits(max_batch_inputs=1, max_concurrent_requests=2)
    ) as embedder:
        await warm_up(embedder, server, places=2)
        server.reply_next(*(Scripted(status=429, headers=headers, after=after) for after in (1.0, 1.5)))
        await embedder.embed(["a", "b"])
        stats = embedder.stats()

    first, second, *after = (request.at for request in server.received)
    assert first == second
    assert min(after) >= first + 11.5
    assert stats.paused_seconds == pytest.approx(10.5)


async def test_a_429_is_known_before_the_next_request_can_go(make_embedder: MakeEmbedder) -> None:
    """One place in flight and many who wait for it: the next to get it sees the pause."""
    server = ScriptedServer(latency=1.0)
    server.reply_next(Scripted(status=429, headers={"retry-after": "30"}))

    async with (
        make_embedder(transport=server, limits=Limits(max_batch_inputs=1, max_concurrent_requests=1)) as embedder,
        anyio.create_task_group() as tasks,
    ):
        for number in range(5):
            tasks.start_soon(embedder.embed, [f"text {number}"])

    first, second, third = (request.at for request in server.received[:3])
    assert second - first >= 31
    assert third - second == pytest.approx(1)  # the one that goes first is answered first


async def test_429s_in_a_row_without_a_time_pause_everyone_for_longer_and_longer(make_embedder: MakeEmbedder) -> None:
    """One place in flight and many who wait for it: after each such 429 the next waits too, for 0.5, 1 and 2 s."""
    server = ScriptedServer(latency=1.0)
    server.reply_next(*[Scripted(status=429)] * 3)
    events: list[Event] = []

    async with (
        make_embedder(
            transport=server,
            limits=Limits(max_batch_inputs=1, max_concurrent_requests=1),
            retries=Retries(initial_wait=30.0),
            observe=events.append,
        ) as embedder,
        anyio.create_task_group() as tasks,
    ):
        for number in range(5):
            tasks.start_soon(embedder.embed, [f"text {number}"])

    pauses = [event.seconds for event in events if isinstance(event, EndpointPaused)]
    starts = [request.at for request in server.received]
    assert pauses == [0.5, 1.0, 2.0]
    for pause, (before, after) in zip(pauses, itertools.pairwise(starts), strict=False):
        assert before + 1 + pause <= after <= before + 1 + 1.2 * pause
    assert len(starts) == 8
