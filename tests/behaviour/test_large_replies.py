"""Large replies are decoded in a thread: the event loop goes on meanwhile. Threads work, so this is in real time."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator

import anyio
import anyio.lowlevel
import httpx
import numpy as np
import pytest

from embedbatch import BatchAnswered, Embedder, Embedding, Endpoint, Event, Limits, Retries

DIMENSIONS = 1_024
MANY = 150  # vectors of as many numbers: 3 MB as text
TEXTS = [str(number) for number in range(MANY)]

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


@pytest.fixture(autouse=True)
def threads_take_turns_often() -> Iterator[None]:
    """Let threads take turns after 0.1 ms: at the usual 5 ms few would fit into the time that a reply takes."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(0.0001)
    yield
    sys.setswitchinterval(usual)


def vectors_of(texts: list[str]) -> np.ndarray:
    """The right vectors: the numbers of each depend on its text."""
    rows = [np.random.default_rng(int(text)).standard_normal(DIMENSIONS) for text in texts]
    return np.array(rows, np.float32)


class Replying(httpx.AsyncByteStream):
    """A reply in several parts, which tells when the last has been taken."""

    def __init__(self, body: bytes, turns: Turns) -> None:
        self._body = body
        self._turns = turns

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self._body), 100_000):
            await anyio.lowlevel.checkpoint()
            yield self._body[at : at + 100_000]
        self._turns.has_come.set()
        self._turns.counted = 0


class Turns:
    """A server of vectors as lists of numbers; counts the turns of the loop from a reply's end to its vectors."""

    def __init__(self) -> None:
        self.has_come = anyio.Event()
        self.counted = 0
        self.until_answered: list[int] = []

    def transport(self) -> httpx.MockTransport:
        """What answers."""

        async def handle(request: httpx.Request) -> httpx.Response:
            vectors = vectors_of(json.loads(request.content)["input"])
            data = [{"index": at, "embedding": [float(x) for x in row]} for at, row in enumerate(vectors)]
            return httpx.Response(200, stream=Replying(json.dumps({"data": data[::-1]}).encode(), self))

        return httpx.MockTransport(handle)

    def observe(self, event: Event) -> None:
        """Note how often the loop has turned."""
        if isinstance(event, BatchAnswered):
            self.until_answered.append(self.counted)

    async def count(self) -> None:
        """Count turns for ever."""
        while True:
            await anyio.lowlevel.checkpoint()
            self.counted += 1


def connect(turns: Turns) -> Embedder:
    return Embedder("m", base_url="http://test/v1", transport=turns.transport(), observe=turns.observe)


async def test_the_loop_turns_while_a_large_reply_is_decoded() -> None:
    """A small reply takes as many turns as it has steps, a large one many more; the vectors of both are right."""
    turns = Turns()

    async with connect(turns) as embedder, anyio.create_task_group() as tasks:
        tasks.start_soon(turns.count)
        small = await embedder.embed(TEXTS[:1])
        large = await embedder.embed(TEXTS)
        tasks.cancel_scope.cancel()

    np.testing.assert_array_equal(small.vectors, vectors_of(TEXTS[:1]))
    np.testing.assert_array_equal(large.vectors, vectors_of(TEXTS))
    assert turns.until_answered[1] > turns.until_answered[0] + 10


async def test_large_replies_to_several_calls_are_not_mixed_up() -> None:
    """Four large replies at the same time, in four threads: each call has the vectors of its own texts."""
    turns = Turns()
    calls = [[str(1_000 * call + number) for number in range(MANY)] for call in range(4)]
    results: dict[int, np.ndarray] = {}

    async with connect(turns) as embedder, anyio.create_task_group() as tasks:

        async def embed(call: int) -> None:
            results[call] = (await embedder.embed(calls[call])).vectors

        for call in range(4):
            tasks.start_soon(embed, call)

    for call, texts in enumerate(calls):
        np.testing.assert_array_equal(results[call], vectors_of(texts))


async def test_a_run_that_is_cancelled_while_a_reply_is_decoded_leaves_nothing() -> None:
    """Cancelled once the reply has come whole: no task is left, no place is taken, and the next call is right."""
    turns = Turns()

    async with connect(turns) as embedder:
        await embedder.embed(TEXTS[:1])
        before = asyncio.all_tasks()
        turns.has_come = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(embedder.embed, TEXTS)
            await turns.has_come.wait()
            assert len(turns.until_answered) == 1
            tasks.cancel_scope.cancel()
        stats = embedder.stats()
        assert asyncio.all_tasks() == before
        again = await embedder.embed(TEXTS[::-1])

    assert (stats.in_flight, stats.waiting) == (0, 0)
    assert stats.replies == 1
    np.testing.assert_array_equal(again.vectors, vectors_of(TEXTS[::-1]))


@pytest.mark.parametrize("streams", [False, True], ids=["embed", "stream"])
async def test_endpoints_whose_vectors_differ_in_size_never_share_a_result(streams: bool) -> None:
    """Their first replies come together, and are decoded at the same time: the later one is refused."""
    both_have_come = anyio.Event()
    asked: set[str] = set()

    async def handle(request: httpx.Request) -> httpx.Response:
        asked.add(request.url.host)
        if len(asked) == 2:
            both_have_come.set()
        await both_have_come.wait()
        vector = [0.123456789012345] * (DIMENSIONS if request.url.host == "small" else DIMENSIONS + 256)
        count = len(json.loads(request.content)["input"])
        return httpx.Response(200, json={"data": [{"index": at, "embedding": vector} for at in range(count)]})

    endpoints = [Endpoint(name=host, base_url=f"http://{host}/v1") for host in ("small", "large")]
    limits, retries = Limits(max_batch_inputs=MANY), Retries(initial_wait=0.001, max_wait=0.002)
    async with Embedder(
        "test-model", endpoints=endpoints, transport=httpx.MockTransport(handle), limits=limits, retries=retries
    ) as embedder:
        if streams:
            async with embedder.stream(TEXTS * 8) as results:
                sizes = {result.vector.size async for result in results if isinstance(result, Embedding)}
        else:
            embeddings = await embedder.embed(TEXTS * 8, on_failure="collect")
            sizes = {embeddings.vectors.shape[1]}

    assert len(asked) == 2
    assert len(sizes) == 1
