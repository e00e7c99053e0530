"""Cancelled in the middle, a run leaves no task, no place in flight and no connection behind."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import AsyncIterator

import anyio
import anyio.abc
import anyio.lowlevel
import pytest

from embedbatch import Embedder, Limits
from embedbatch.testing import Scripted, ScriptedServer

from .conftest import MakeEmbedder, warm_up

pytestmark = pytest.mark.anyio


async def test_a_cancelled_call_leaves_nothing_in_flight(
    both_backends: object, server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """Cancelled with 4 requests in flight and 20 waiting: all places are free, and the embedder works on."""
    async with make_embedder(limits=Limits(max_batch_inputs=1, max_concurrent_requests=4)) as embedder:
        await warm_up(embedder, server, places=4)
        server.reply_when(lambda request: Scripted(after=60) if request.number <= 4 else None)
        with anyio.move_on_after(0.1):
            await embedder.embed([f"text {n}" for n in range(24)])
        stats = embedder.stats()
        cancelled = len(server.received)
        embeddings = await embedder.embed(["after"])

    assert (stats.in_flight, stats.waiting) == (0, 0)
    assert cancelled == server.max_in_flight == 4
    assert server.in_flight == 0
    assert len(embeddings) == 1


async def test_a_cancelled_first_request_leaves_nothing_in_flight(
    both_backends: object, server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """Cancelled before the endpoint has ever answered, with one request in flight: the next one goes at once."""
    server.reply_next(Scripted(after=60))

    async with make_embedder(limits=Limits(max_batch_inputs=1, max_concurrent_requests=4)) as embedder:
        with anyio.move_on_after(0.1):
            await embedder.embed([f"text {n}" for n in range(24)])
        stats = embedder.stats()
        with anyio.fail_after(10):
            embeddings = await embedder.embed(["after"])

    assert (stats.in_flight, stats.waiting) == (0, 0)
    assert len(server.received) == 2
    assert server.in_flight == 0
    assert len(embeddings) == 1


async def test_a_cancelled_probe_leaves_the_gate_to_the_next(
    server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """The one request that goes after a pause is cancelled: the next call is the probe, and opens the gate again."""
    server.reply_next(Scripted(status=429, headers={"retry-after": "5"}), Scripted(after=50))
    started_at = anyio.current_time()

    async with make_embedder(limits=Limits(max_batch_inputs=1, max_concurrent_requests=4)) as embedder:
        with anyio.move_on_after(20):
            await embedder.embed([f"text {n}" for n in range(24)])
        stats = embedder.stats()
        await embedder.embed(["a", "b", "c"])

    assert (stats.in_flight, stats.waiting) == (0, 0)
    assert len(server.received) == 5
    assert anyio.current_time() - started_at == pytest.approx(20, abs=2)


async def test_leaving_a_stream_early_ends_its_tasks(
    both_backends: object, server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """The source is not read any further, and no request is left."""
    read = 0

    async def endless() -> AsyncIterator[str]:
        nonlocal read
        while True:
            read += 1
            yield f"text {read}"
            await anyio.lowlevel.checkpoint()

    async with make_embedder(limits=Limits(max_window_rows=64, max_batch_inputs=8)) as embedder:
        async with embedder.stream(endless()) as results:
            async for result in results:
                if result.position == 20:
                    break
        read_so_far = read
        await anyio.sleep(0.05)

    assert read == read_so_far
    assert server.in_flight == 0


async def test_cancelling_one_call_does_not_disturb_another(
    server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """Two calls share one place in flight; the first is cancelled, the second gets its vectors."""
    slow = ScriptedServer(latency=1.0)
    lengths = []

    async with make_embedder(transport=slow, limits=Limits(max_batch_inputs=1, max_concurrent_requests=1)) as embedder:

        async def second() -> None:
            lengths.append(len(await embedder.embed(["x", "y", "z"])))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(second)
            with anyio.move_on_after(1.5):
                await embedder.embed(["a", "b", "c", "d", "e"])

    assert lengths == [3]


@pytest.mark.slow
async def test_a_thousand_cancellations_leave_the_limiter_whole(make_embedder: MakeEmbedder) -> None:
    """Cancelled at every moment between 0 and 10 s, 1,000 times: never a place lost, never one too many in flight."""
    server = ScriptedServer(latency=1.0)

    async with make_embedder(
        transport=server,
        limits=Limits(max_batch_inputs=1, max_concurrent_requests=3, max_requests_per_minute=600),
    ) as embedder:
        for moment in range(1_000):
            with anyio.move_on_after(moment / 100):
                await embedder.embed([f"text {n}" for n in range(12)])
            assert (embedder.stats().in_flight, embedder.stats().waiting) == (0, 0)
        embeddings = await embedder.embed(["alive"])

    assert server.max_in_flight == 3
    assert len(embeddings) == 1


REPLY = b'{"data": [{"index": 0, "embedding": [1.0, 2.0]}]}'


async def receive_request(stream: anyio.abc.SocketStream) -> None:
    """Take one request, to the end of its body."""
    received = b""
    while not received.endswith(b"]}"):
        received += await stream.receive()


async def test_cancellation_closes_real_sockets(both_backends: str) -> None:
    """Over TCP: after the cancellation the server sees all its connections closed, and no pool slot is taken."""
    opened = closed = 0
    all_closed = anyio.Event()

    async def serve(stream: anyio.abc.SocketStream) -> None:
        """Answer the very first request, and never again."""
        nonlocal opened, closed
        opened += 1
        async with stream:
            if opened == 1:
                await receive_request(stream)
                await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(REPLY) + REPLY)
            with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                while True:
                    await stream.receive()
        closed += 1
        if closed == 4:
            all_closed.set()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        async with Embedder(
            "m",
            base_url=f"http://127.0.0.1:{port}/v1",
            limits=Limits(max_batch_inputs=1, max_concurrent_requests=4),
        ) as embedder:
            await embedder.embed(["warm"])
            with anyio.move_on_after(0.2):
                await embedder.embed([f"text {n}" for n in range(10)])
            assert embedder.stats().in_flight == 0
            with anyio.fail_after(5):
                await all_closed.wait()
            assert opened == 4
        tasks.cancel_scope.cancel()
    gc.collect()  # a stream that was left open would warn here, and warnings are errors
