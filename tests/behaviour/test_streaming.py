"""stream(): any iterable in, results out in bounded memory, in order or as completed."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import numpy as np
import pytest

from embedbatch import Document, Embedding, Failure, Limits, NotAttemptedError, Results, RunStoppedError
from embedbatch.testing import Received, Scripted, ScriptedServer

from .conftest import MakeEmbedder

pytestmark = pytest.mark.anyio


async def trickle(count: int, seconds: float) -> AsyncIterator[str]:
    """An async source that gives a text every *seconds*."""
    for number in range(count):
        await anyio.sleep(seconds)
        yield f"text {number}"


async def collect(results: Results, seen: list[Embedding | Failure]) -> None:
    """Put the results into *seen*, where they stay when the stream raises."""
    async for result in results:
        seen += [result]


async def test_results_come_in_order(make_embedder: MakeEmbedder) -> None:
    """Although later requests answer first, results come as the documents went in, failures among them."""
    server = ScriptedServer(latency=lambda request: 100.0 / request.number)
    documents = [f"text {n}" if n % 10 else "" for n in range(200)]

    async with (
        make_embedder(transport=server, limits=Limits(max_batch_inputs=7)) as embedder,
        embedder.stream(documents) as results,
    ):
        seen = [result async for result in results]

    assert [result.position for result in seen] == list(range(200))
    for result in seen:
        if result.position % 10:
            assert isinstance(result, Embedding)
            np.testing.assert_array_equal(result.vector, server.vector_of(f"text {result.position}"))
        else:
            assert isinstance(result, Failure)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize(
    "limits", [Limits(), Limits(max_window_rows=90, max_batch_inputs=7), Limits(max_window_bytes=999)]
)
async def test_a_list_gives_what_a_generator_of_it_gives(
    make_embedder: MakeEmbedder, limits: Limits, ordered: bool
) -> None:
    """Texts of a list are taken in many at once; documents with ids and what is none, among them, are what they are."""
    documents = [f"text {n} ä" for n in range(500)] + [
        Document("named", id="a"),
        5,
        "",
        *(f"more {n}" for n in range(300)),
    ]
    seen = []

    for source in (documents, (document for document in documents)):
        async with make_embedder(limits=limits) as embedder, embedder.stream(source, ordered=ordered) as results:
            found = sorted([result async for result in results], key=lambda result: result.position)
        seen.append([(each.id, each.position, getattr(each, "vector", np.empty(0)).tolist()) for each in found])

    assert seen[0] == seen[1]
    assert [position for _, position, _ in seen[0]] == list(range(len(documents)))


async def test_unordered_results_come_as_they_are_done(make_embedder: MakeEmbedder) -> None:
    """With ordered=False the first batch, which takes longest, comes last, and nothing is missing."""
    server = ScriptedServer(latency=lambda request: 50.0 if "text 0" in request.inputs else 1.0)

    async with make_embedder(transport=server, limits=Limits(max_batch_inputs=10)) as embedder:
        await embedder.embed(["warm"])
        async with embedder.stream((f"text {n}" for n in range(100)), ordered=False) as results:
            seen = [result.position async for result in results]

    assert seen[-10:] == list(range(10))
    assert sorted(seen) == list(range(100))


async def test_a_slow_source_does_not_hold_back_what_has_arrived(
    server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """One text a second: each result is there 0.05 s after its text, not when a batch of 256 is full."""
    async with make_embedder() as embedder:
        started_at = anyio.current_time()
        async with embedder.stream(trickle(10, seconds=1.0)) as results:
            delays = [anyio.current_time() - started_at - (result.position + 1) async for result in results]

    assert len(server.received) == 10
    assert max(delays) == pytest.approx(0.05, abs=0.01)


async def test_a_quick_source_fills_its_batches(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """A text every millisecond: 1,000 texts make batches of 256, not of one."""
    async with make_embedder() as embedder, embedder.stream(trickle(1_000, seconds=0.001)) as results:
        assert len([result async for result in results]) == 1_000

    assert [len(request.inputs) for request in server.received] == [256, 256, 256, 232]


async def test_ids_come_back(make_embedder: MakeEmbedder) -> None:
    """Each result carries the id of its document."""
    async with (
        make_embedder() as embedder,
        embedder.stream(Document(f"text {n}", id=f"id-{n}") for n in range(5)) as results,
    ):
        assert [result.id async for result in results] == [f"id-{n}" for n in range(5)]


async def test_a_source_that_fails_gives_what_it_gave_before(make_embedder: MakeEmbedder) -> None:
    """The source's own exception comes after the results of everything before it."""

    def source() -> Iterator[str]:
        yield from ("a", "b", "c")
        raise OSError("the disk is gone")

    seen: list[Embedding | Failure] = []
    async with make_embedder() as embedder:
        with pytest.raises(OSError, match="the disk is gone"):
            async with embedder.stream(source()) as results:
                await collect(results, seen)

    assert [result.position for result in seen] == [0, 1, 2]


async def test_an_exception_in_the_block_comes_out_as_it_is(make_embedder: MakeEmbedder) -> None:
    """Not wrapped into an exception group."""
    async with make_embedder() as embedder:
        with pytest.raises(KeyError, match="mine"):
            async with embedder.stream(["a"]) as results:
                async for _ in results:
                    raise KeyError("mine")


async def test_a_stopped_stream_accounts_for_every_document(make_embedder: MakeEmbedder) -> None:
    """The quota ends in the middle: results, then failures of what had entered, then RunStoppedError."""
    server = ScriptedServer()
    broke = Scripted(status=402)
    server.reply_when(lambda request: broke if request.number > 3 else None)

    seen: list[Embedding | Failure] = []
    async with make_embedder(
        transport=server, limits=Limits(max_batch_inputs=10, max_concurrent_requests=1)
    ) as embedder:
        with pytest.raises(RunStoppedError):
            async with embedder.stream(f"text {n}" for n in range(100)) as results:
                await collect(results, seen)

    assert [result.position for result in seen] == list(range(100))
    assert sum(isinstance(result, Embedding) for result in seen) == 30
    assert all(isinstance(result.error, NotAttemptedError) for result in seen if isinstance(result, Failure))


async def test_usage_can_be_read_while_it_runs(make_embedder: MakeEmbedder) -> None:
    """results.usage grows with the replies."""
    async with (
        make_embedder(limits=Limits(max_batch_inputs=1, max_concurrent_requests=1)) as embedder,
        embedder.stream(["12345678", "12345678"]) as results,
    ):
        async for _ in results:
            pass

    assert results.usage.total_tokens == 4


async def test_a_document_larger_than_the_window_goes_alone(make_embedder: MakeEmbedder) -> None:
    """A window of 1,000 bytes still lets a text of 5,000 bytes through, once it is empty."""
    documents = ["a" * 400, "b" * 5_000, "c" * 400, "d" * 400]

    async with (
        make_embedder(limits=Limits(max_window_bytes=1_000)) as embedder,
        embedder.stream(documents) as results,
    ):
        assert len([result async for result in results]) == 4


async def test_a_full_window_with_unfinished_batches_does_not_deadlock(make_embedder: MakeEmbedder) -> None:
    """A window of 3 rows and batches of 256: what is there is sent, because nothing more can come."""
    async with (
        make_embedder(limits=Limits(max_window_rows=3)) as embedder,
        embedder.stream(f"text {n}" for n in range(20)) as results,
    ):
        started_at = anyio.current_time()
        assert len([result async for result in results]) == 20
        assert anyio.current_time() - started_at < 0.05  # nor does it wait for the packer's patience


class Outstanding:
    """Counts the documents that a source has given and that have not come back."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._given = 0
        self._back = 0
        self.most = 0

    def documents(self) -> Iterator[str]:
        for number in range(self._count):
            self._given += 1
            self.most = max(self.most, self._given - self._back)
            yield f"the text of document number {number}"

    def came_back(self) -> None:
        self._back += 1


def resident_bytes() -> int:
    """Memory of this process that is in use now, but for what nobody has. What tests before have left is fragmented."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4_096


WINDOW = 4_096


@pytest.mark.slow
async def test_300_000_documents_and_a_slow_reader(make_embedder: MakeEmbedder) -> None:
    """
    A reader ten times slower than the sender: order kept, at most the window outstanding, memory flat.

    The server could answer 8,192 documents a second, the reader takes 819. From the first third of the run to
    its end the process grows by less than 16 MB, while the vectors alone would be 77 MB.
    """
    server = ScriptedServer(dimensions=64, latency=1.0)
    outstanding = Outstanding(300_000)
    limits = Limits(max_window_rows=WINDOW)
    grown_from = 0

    async with (
        make_embedder(transport=server, limits=limits) as embedder,
        embedder.stream(outstanding.documents()) as results,
    ):
        expected = 0
        async for result in results:
            assert isinstance(result, Embedding)
            assert result.position == expected
            expected += 1
            outstanding.came_back()
            if expected % 819 == 0:
                await anyio.sleep(1)
                server.received.clear()
            if expected == 100_000:
                grown_from = resident_bytes()
            if expected % 10_000 == 0:
                text = f"the text of document number {result.position}"
                np.testing.assert_array_equal(result.vector, server.vector_of(text))

    assert expected == 300_000
    # Handed-out blocks of up to 1,024 that the reader is working through are out of the window.
    assert outstanding.most <= WINDOW + 1_024 + 1
    assert resident_bytes() - grown_from < 16 * 2**20


@pytest.mark.slow
async def test_300_000_documents_and_one_stuck_batch(make_embedder: MakeEmbedder) -> None:
    """
    One reply takes an hour of virtual time: the rest waits within the window, and all come in order.
    """
    stuck = ScriptedServer(dimensions=64)

    def hold(request: Received) -> Scripted | None:
        return Scripted(after=3_600) if "the text of document number 100000" in request.inputs else None

    stuck.reply_when(hold)
    outstanding = Outstanding(300_000)
    grown_from = 0

    async with (
        make_embedder(transport=stuck, limits=Limits(max_window_rows=WINDOW), timeout=None) as embedder,
        embedder.stream(outstanding.documents()) as results,
    ):
        expected = 0
        async for result in results:
            assert result.position == expected
            expected += 1
            outstanding.came_back()
            if expected % 10_000 == 0:
                stuck.received.clear()
            if expected == 90_000:
                grown_from = resident_bytes()

    assert expected == 300_000
    assert outstanding.most <= WINDOW + 1_024 + 1
    assert resident_bytes() - grown_from < 16 * 2**20


async def test_a_trickle_is_not_kept_waiting_for_a_full_batch(make_embedder: MakeEmbedder) -> None:
    """A text every 40 ms never lets the packer's 50 ms pass: no result comes later than 0.6 s after its text."""
    async with make_embedder() as embedder:
        started_at = anyio.current_time()
        async with embedder.stream(trickle(100, seconds=0.04)) as results:
            late = [anyio.current_time() - started_at - 0.04 * (result.position + 1) async for result in results]

    assert max(late) <= 0.6


async def test_a_document_in_hand_when_the_run_stops_is_accounted_for(make_embedder: MakeEmbedder) -> None:
    """A window of 4 rows holds the source back; all it has given when the quota ends comes out, no more is read."""
    given = 0

    def source() -> Iterator[str]:
        nonlocal given
        for number in range(1_000):
            given += 1
            yield f"text {number}"

    server = ScriptedServer(latency=1.0)
    server.reply_when(lambda request: Scripted(status=402) if request.number > 3 else None)
    seen: list[Embedding | Failure] = []
    async with make_embedder(
        transport=server, limits=Limits(max_batch_inputs=1, max_concurrent_requests=1, max_window_rows=4)
    ) as embedder:
        with pytest.raises(RunStoppedError):
            async with embedder.stream(source()) as results:
                await collect(results, seen)

    assert [result.position for result in seen] == list(range(given))
    assert given < 20


async def test_results_cannot_be_read_after_the_block(make_embedder: MakeEmbedder) -> None:
    """An error instead of waiting for ever."""
    server = ScriptedServer(latency=1.0)

    async with make_embedder(transport=server) as embedder:
        async with embedder.stream(["a", "b"]) as results:
            pass
        with pytest.raises(RuntimeError, match="the block of this stream was left"):
            await anext(results)


async def test_a_users_exception_group_comes_out_whole(make_embedder: MakeEmbedder) -> None:
    """A group raised in the block is the caller's own: it is not taken apart, and keeps its cause."""
    mine = ExceptionGroup("mine", [ValueError("one")])

    async with make_embedder() as embedder:
        with pytest.raises(ExceptionGroup, match="mine") as caught:
            async with embedder.stream(["a"]):
                raise mine from KeyError("why")

    assert caught.value.exceptions == mine.exceptions
    assert isinstance(caught.value.__cause__, KeyError)


async def test_an_async_source_is_closed_when_the_block_is_left(make_embedder: MakeEmbedder) -> None:
    """Its finally block runs before the stream's block is over, although the window held it back."""
    closed = False

    async def source() -> AsyncIterator[str]:
        nonlocal closed
        try:
            for number in range(1_000):
                yield f"text {number}"
        finally:
            closed = True

    async with (
        make_embedder(transport=ScriptedServer(latency=60.0), limits=Limits(max_window_rows=8)) as embedder,
        embedder.stream(source()),
    ):
        await anyio.sleep(1)

    assert closed


async def test_the_window_counts_bytes(make_embedder: MakeEmbedder) -> None:
    """With 10,000 bytes of window and texts of 1,000, no more than 10 are out at once."""
    given = 0
    most = 0

    def source() -> Iterator[str]:
        nonlocal given
        for _ in range(200):
            given += 1
            yield "x" * 1_000

    back = 0
    async with (
        make_embedder(limits=Limits(max_window_bytes=10_000)) as embedder,
        embedder.stream(source()) as results,
    ):
        async for _ in results:
            most = max(most, given - back)
            back += 1

    assert back == 200
    assert most <= 11 + 10  # a block of ten that is being read, and one document in hand
