"""Vectors are written into the result as they come, before their reply is known to be good."""

from __future__ import annotations

import base64
import gc
import weakref
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from random import Random
from typing import Any

import anyio
import httpx
import msgspec
import numpy as np
import pytest

from embedbatch import AttemptFailed, Event, Limits, Retries
from embedbatch.testing import Scripted, ScriptedServer
from embedbatch.testing.server import Body, Received
from embedbatch.values import Batch, Chunks, Vector, Vectors

from .conftest import MakeEmbedder, assert_aligned

pytestmark = pytest.mark.anyio

NAN = base64.b64encode(np.full(8, np.nan, "<f4").tobytes()).decode()


def documents(rng: Random) -> list[str]:
    """Short texts, some that are cut into several chunks, and some that the server never takes."""
    kinds = rng.choices(["short", "long", "poison"], [20, 2, 1], k=150)
    return [f"{kind} {number} " * (30 if kind == "long" else 1) for number, kind in enumerate(kinds)]


class Unreliable(ScriptedServer):
    """Of its replies a third is in another order, has a bad vector or too few, breaks off in the middle, or is late."""

    def __init__(self, rng: Random) -> None:
        super().__init__(latency=lambda request: rng.choice([0.1, 0.1, 0.1, 0.2, 5.0]))
        self._rng = rng
        self.reply_when(self._break)
        self.edit(self._spoil)

    def _break(self, request: Received) -> Scripted | None:
        if any("poison" in str(content) for content in request.inputs):
            return Scripted(status=400, body={"error": {"message": "no"}})
        return self._rng.choices([None, Scripted(breaks="body"), Scripted(status=500)], [16, 1, 1])[0]

    def _spoil(self, request: Received, body: Body) -> Body:
        data = list(body["data"])
        kind = self._rng.choices(["good", "shuffled", "bad vector", "too few"], [14, 2, 1, 1])[0]
        if kind == "shuffled":
            self._rng.shuffle(data)
        elif kind == "bad vector":
            data[self._rng.randrange(len(data))]["embedding"] = NAN
        elif kind == "too few":
            data.pop()
        return {**body, "data": data}


@pytest.mark.parametrize("hedge", [False, True])
@pytest.mark.parametrize("seed", range(10))
async def test_each_row_is_right_or_nan_whatever_the_replies_were(
    seed: int, hedge: bool, make_embedder: MakeEmbedder
) -> None:
    """150 documents, 8 a request, 6 in flight: each row has the bits that a calm server gives, or failed and is NaN."""
    texts = documents(Random(seed))
    options: dict[str, Any] = {"dimensions": 8, "max_input_tokens": 60, "tokenizer": "cl100k_base"}
    async with make_embedder(transport=ScriptedServer(), **options) as calm:
        expected = (await calm.embed(texts)).vectors

    async with make_embedder(
        transport=Unreliable(Random(seed)),
        limits=Limits(max_batch_inputs=8, max_concurrent_requests=6, initial_concurrent_requests=6),
        retries=Retries(hedge=hedge, max_attempts=12, budget=1_000, initial_wait=0.1),
        **options,
    ) as embedder:
        embeddings = await embedder.embed(texts, on_failure="collect")

    failed = [failure.position for failure in embeddings.failures]
    assert {number for number, text in enumerate(texts) if "poison" in text} <= set(failed)
    assert len(failed) < 30  # some had a bad vector each time
    expected[failed] = np.nan
    assert embeddings.vectors.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    "scripted",
    [
        Scripted(breaks="read"),
        Scripted(breaks="body"),
        Scripted(after=100.0),
        Scripted(body=b"no JSON"),
        Scripted(body={"data": []}),
    ],
    ids=["broken", "broken in the middle", "late", "malformed", "too few"],
)
async def test_an_error_that_is_kept_does_not_keep_the_vectors(
    scripted: Scripted, server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """Whoever drops a result and keeps what he was told of a failed attempt has none of the memory of its rows."""
    events: list[Event] = []
    server.reply_next(scripted)

    async with make_embedder(dimensions=8, timeout=10.0, observe=events.append) as embedder:
        embeddings = await embedder.embed(["a", "b"])
    memory = weakref.ref(embeddings.vectors)
    del embeddings
    gc.collect()

    assert [event.attempt for event in events if isinstance(event, AttemptFailed)] == [1]
    assert memory() is None


async def test_a_result_with_a_failure_is_freed_at_once(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """Its memory, which may be most of the machine's, does not wait for the collector of garbage."""
    server.reply_when(lambda request: Scripted(status=400) if "poison" in request.inputs else None)

    async with make_embedder(dimensions=8) as embedder:
        gc.disable()
        try:
            embeddings = await embedder.embed(["a", "b", "poison"], on_failure="collect")
            memory = weakref.ref(embeddings.vectors)
            (failure,) = embeddings.failures
            del embeddings
            assert memory() is None
        finally:
            gc.enable()

    assert failure.id == 2


class Dripping(httpx.AsyncByteStream):
    """A body in *parts*, each so many seconds after the one before."""

    def __init__(self, *parts: tuple[float, bytes]) -> None:
        self._parts = parts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for seconds, part in self._parts:
            await anyio.sleep(seconds)
            yield part


class TwoAtOnce(ScriptedServer):
    """Answers the first request for "late" with other vectors and never to the end, while the second is under way."""

    def __init__(self) -> None:
        super().__init__(latency=lambda request: Random(request.number).uniform(0.2, 0.4))
        self.copies = 0

    async def _reply(self, received: Received, request: httpx.Request, scripted: Scripted | None) -> httpx.Response:
        if "late" not in received.inputs:
            return await super()._reply(received, request, scripted)
        self.copies += 1
        body = msgspec.json.encode(self._embed(received))
        other = msgspec.json.encode(self._embed(replace(received, body={**received.body, "input": ["x", "y"]})))
        middle = body.index(b"}") + 1  # the first vector is there
        first = Dripping((0.75, other[:-20]), (30.0, other[-20:]))
        second = Dripping((0.05, body[:middle]), (1.0, body[middle:]))
        return httpx.Response(200, stream=first if self.copies == 1 else second)


async def test_two_copies_of_a_request_do_not_write_to_one_place(make_embedder: MakeEmbedder) -> None:
    """The loser's vectors come between those of the winner, and were never found to be right: none of them is used."""
    server = TwoAtOnce()

    async with make_embedder(
        transport=server, limits=Limits(max_batch_inputs=2), retries=Retries(hedge=True), dimensions=8
    ) as embedder:
        await embedder.embed([f"text {n}" for n in range(400)])
        embeddings = await embedder.embed(["late", "later"])

    assert server.copies == 2
    assert_aligned(embeddings, ["late", "later"], server)


class Keeping:
    """A store that keeps what it is given, as it is."""

    def __init__(self) -> None:
        self.kept: list[Vectors] = []

    async def known(self, chunks: Chunks) -> Mapping[int, Vector]:
        return {}

    async def put(self, batch: Batch, vectors: Vectors) -> None:
        self.kept.append(vectors)


async def test_what_a_store_was_given_does_not_change_with_the_result(make_embedder: MakeEmbedder) -> None:
    """The caller may do with the result what he likes: it shares no memory with what the store keeps."""
    store = Keeping()
    async with make_embedder(store=store, dimensions=8) as embedder:
        embeddings = await embedder.embed(["a", "b"])

    assert store.kept
    assert not any(np.shares_memory(vectors, embeddings.vectors) for vectors in store.kept)
