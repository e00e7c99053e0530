"""What is asyncio's own: its tasks, its cancellation, its task groups. pytest-asyncio runs these."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from embedbatch import Embedder, Limits, RunStoppedError
from embedbatch.testing import ScriptedServer

pytestmark = pytest.mark.asyncio


def connect(server: ScriptedServer) -> Embedder:
    """An embedder that has two places in flight, and sends every text alone."""
    limits = Limits(max_batch_inputs=1, max_concurrent_requests=2)
    return Embedder("m", base_url="http://test/v1", transport=server, limits=limits)


async def test_no_task_is_left_after_a_cancelled_call() -> None:
    """Cancelled by wait_for with two requests in flight: the only task is the test's own."""
    before = asyncio.all_tasks()
    server = ScriptedServer(latency=lambda request: 60.0 if request.number > 1 else 0.0)

    async with connect(server) as embedder:
        await embedder.embed(["warm"])
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(embedder.embed([f"text {n}" for n in range(100)]), 0.05)
        stats = embedder.stats()

    assert server.max_in_flight == 2
    assert asyncio.all_tasks() == before
    assert (stats.in_flight, stats.waiting) == (0, 0)


async def test_a_task_that_is_cancelled_ends_as_cancelled() -> None:
    """task.cancel() comes out as CancelledError, not as an error of this package, and other calls go on."""
    server = ScriptedServer(latency=0.02)

    async with connect(server) as embedder:
        doomed = asyncio.create_task(embedder.embed([f"doomed {n}" for n in range(50)]))
        other = asyncio.create_task(embedder.embed(["a", "b"]))
        await asyncio.sleep(0)
        doomed.cancel()
        with pytest.raises(asyncio.CancelledError):
            await doomed
        embeddings = await other

    np.testing.assert_array_equal(embeddings.vectors, [server.vector_of("a"), server.vector_of("b")])


async def test_calls_in_a_task_group_share_the_embedder() -> None:
    """Ten calls at once under asyncio.TaskGroup: every row is its text's, and at most two requests are in flight."""
    server = ScriptedServer(latency=0.001)

    async with connect(server) as embedder, asyncio.TaskGroup() as tasks:
        calls = [tasks.create_task(embedder.embed([f"text {n}", f"again {n}"])) for n in range(10)]

    for number, call in enumerate(calls):
        expected = [server.vector_of(f"text {number}"), server.vector_of(f"again {number}")]
        np.testing.assert_array_equal(call.result().vectors, expected)
    assert server.max_in_flight == 2


async def test_an_embedder_is_entered_and_left_in_different_tasks() -> None:
    """As by fixtures: what single calls share belongs to no task that could have ended since."""
    server = ScriptedServer(latency=0.01)
    embedder = connect(server)
    before = asyncio.all_tasks()

    await asyncio.create_task(embedder.__aenter__())
    first = await asyncio.create_task(embedder.embed_one("a"))
    second = await embedder.embed_one("b")
    await asyncio.create_task(embedder.__aexit__(None, None, None))

    np.testing.assert_array_equal([first, second], [server.vector_of("a"), server.vector_of("b")])
    assert asyncio.all_tasks() == before


async def test_single_calls_that_are_cancelled_leave_no_task() -> None:
    """Cancelled by wait_for, one with a shared request in flight and one whose text waits to go: no task is left."""
    before = asyncio.all_tasks()
    server = ScriptedServer(latency=60.0)

    async with connect(server) as embedder:
        calls = [asyncio.wait_for(embedder.embed_one(f"text {n}"), 0.03) for n in range(10)]
        late = asyncio.create_task(embedder.embed_one("late"))
        results = await asyncio.gather(*calls, return_exceptions=True)
        late.cancel()
        with pytest.raises(asyncio.CancelledError):
            await late
        assert asyncio.all_tasks() == before

    assert {type(result) for result in results} == {TimeoutError}
    assert server.in_flight == 0


async def test_a_call_whose_shared_task_is_cancelled_does_not_hang() -> None:
    """Somebody cancels every task but the caller's, as a loop does that ends: the caller gets an error."""
    mine = asyncio.current_task()

    async def cancel_the_others() -> None:
        await asyncio.sleep(0.01)
        for task in asyncio.all_tasks() - {mine, asyncio.current_task()}:
            task.cancel()

    async with connect(ScriptedServer(latency=60.0)) as embedder:
        helper = asyncio.create_task(cancel_the_others())
        with pytest.raises(RunStoppedError, match="its task was cancelled"):
            await embedder.embed_one("a")
        await helper
