"""
The same promises, whoever answers: the scripted server, respx, a socket, the embedded model.

Users test with the scripted server; here it is held to what real HTTP does.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

import httpx
import numpy as np
import numpy.typing as npt
import pytest
import respx

from embedbatch import Embedder, Embeddings, InvalidReplyError, Limits, local
from embedbatch.testing import Received, Scripted, ScriptedServer

from .conftest import URL

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("both_backends")]

Body = dict[str, Any]
Vectors = npt.NDArray[np.float32]

TEXTS = [f"text {n} " + "long " * (n % 23) + "🌊" * (n % 3) for n in range(1_000)]
SOME = TEXTS[:64]


class Script(Protocol):
    """What a side can be told."""

    def reply_next(self, *replies: Scripted) -> None: ...
    def edit(self, edit: Callable[[Received, Body], Body]) -> None: ...


@dataclass
class Side:
    """One that answers: how to reach it, what it has to say, and how to make it say something else."""

    options: dict[str, Any]
    vectors_of: Callable[[list[str]], Vectors]
    script: Script | None = None

    def embedder(self, **options: Any) -> Embedder:
        """An embedder of small batches, with seeded dice."""
        defaults = {"limits": Limits(max_batch_inputs=64), "rng": Random(7)}
        return Embedder(**{**defaults, **self.options, **options})

    def assert_right(self, embeddings: Embeddings, texts: list[str]) -> None:
        """Assert that every row is its own text's vector: bit by bit where vectors do not depend on the batch."""
        expected = self.vectors_of(texts)
        if self.script is None:
            np.testing.assert_allclose(embeddings.vectors, expected, atol=1e-6)
        else:
            np.testing.assert_array_equal(embeddings.vectors, expected)


class ByHand:
    """The contract once more, with the standard library only: a mistake in embedbatch.testing would show."""

    def __init__(self) -> None:
        self._next: deque[Scripted] = deque()
        self._edits: list[Callable[[Received, Body], Body]] = []
        self._count = 0

    def reply_next(self, *replies: Scripted) -> None:
        self._next.extend(replies)

    def edit(self, edit: Callable[[Received, Body], Body]) -> None:
        self._edits.append(edit)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self._next:
            scripted = self._next.popleft()
            return httpx.Response(scripted.status, headers=scripted.headers, json=scripted.body)
        asked = json.loads(request.content)
        packed = [base64.b64encode(self.vector_of(text)).decode() for text in asked["input"]]
        data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(packed)]
        body = {"object": "list", "data": data, "model": asked["model"], "usage": {"prompt_tokens": 9}}
        self._count += 1
        for edit in self._edits:
            body = edit(Received(self._count, 0.0, str(request.url), request.headers, asked, 0), body)
        return httpx.Response(200, json=body)

    @staticmethod
    def vector_of(text: str) -> bytes:
        """Eight little-endian float32 numbers of length 1."""
        numbers = struct.unpack("<8h", hashlib.sha256(text.encode()).digest()[:16])
        length = math.hypot(*numbers)
        return struct.pack("<8f", *(number / length for number in numbers))


@pytest.fixture
def side(request: pytest.FixtureRequest, script: ScriptedServer, router: respx.MockRouter) -> Side:
    """The one that answers."""

    def scripted_vectors(texts: list[str]) -> Vectors:
        return np.stack([script.vector_of(text) for text in texts])

    match request.param:
        case "scripted":
            options = {"model": "m", "base_url": "http://test/v1", "transport": script}
            return Side(options, scripted_vectors, script)
        case "loopback":
            return Side({"model": "m", "base_url": request.getfixturevalue("loopback")}, scripted_vectors, script)
        case "respx":
            by_hand = ByHand()
            router.post(URL).side_effect = by_hand
            transport = httpx.MockTransport(router.async_handler)
            options = {"model": "m", "base_url": "https://api.test/v1", "transport": transport}
            packed = by_hand.vector_of
            return Side(
                options, lambda texts: np.stack([np.frombuffer(packed(text), "<f4") for text in texts]), by_hand
            )
    return Side({"model": "local"}, lambda texts: local.load().embed(texts)[0])


every_side = pytest.mark.parametrize("side", ["scripted", "respx", "loopback", "local"], indirect=True)
every_side_with_a_script = pytest.mark.parametrize("side", ["scripted", "respx", "loopback"], indirect=True)


@every_side
async def test_a_thousand_texts_are_aligned(side: Side) -> None:
    """Sixteen requests at once: every vector is that of its own text."""
    async with side.embedder() as embedder:
        embeddings = await embedder.embed(TEXTS)
        stats = embedder.stats()

    side.assert_right(embeddings, TEXTS)
    assert stats.requests == 16
    assert stats.faults == {}


@every_side
async def test_a_stream_is_aligned_and_in_order(side: Side) -> None:
    """The same texts from an async generator: positions 0, 1, 2, … and the same vectors."""

    async def read() -> AsyncIterator[str]:
        for text in TEXTS:
            yield text

    async with side.embedder() as embedder, embedder.stream(read()) as results:
        gathered = [result async for result in results]

    assert [result.position for result in gathered] == list(range(1_000))
    vectors = np.stack([result.vector for result in gathered])  # type: ignore[union-attr]
    side.assert_right(Embeddings(vectors, range(1_000), [None] * 1_000), TEXTS)


@every_side
async def test_equal_texts_have_equal_vectors(side: Side) -> None:
    """Each of 64 texts twice, far apart, in one call: both rows are the right one."""
    async with side.embedder() as embedder:
        embeddings = await embedder.embed(SOME + SOME)

    side.assert_right(embeddings, SOME + SOME)


@every_side
async def test_an_empty_list_is_an_empty_array(side: Side) -> None:
    """No request, and shape (0, dimensions), or (0, 0) where nobody knows the dimensions."""
    async with side.embedder() as embedder:
        embeddings = await embedder.embed([])
        stats = embedder.stats()

    assert embeddings.vectors.shape == (0, embedder.dimensions or 0)
    assert embeddings.vectors.dtype == np.float32
    assert stats.requests == 0


@every_side
async def test_an_empty_text_is_one_failure(side: Side) -> None:
    """It is not sent; its neighbours have their vectors, its row is NaN."""
    async with side.embedder() as embedder:
        embeddings = await embedder.embed([SOME[0], "", SOME[2]], on_failure="collect")

    assert [failure.position for failure in embeddings.failures] == [1]
    assert np.isnan(embeddings.vectors[1]).all()
    side.assert_right(Embeddings(embeddings.vectors[[0, 2]], (0, 2), (None, None)), [SOME[0], SOME[2]])


@every_side_with_a_script
async def test_shuffled_items_are_put_in_order(side: Side) -> None:
    """Each reply's items come in some order of their own: index decides."""
    rng = Random(7)

    def shuffle(request: Received, body: Body) -> Body:
        rng.shuffle(body["data"])
        return body

    assert side.script is not None
    side.script.edit(shuffle)
    async with side.embedder() as embedder:
        embeddings = await embedder.embed(TEXTS)

    side.assert_right(embeddings, TEXTS)


@every_side_with_a_script
async def test_one_nan_is_one_failure(side: Side) -> None:
    """One of 64 vectors is NaN, whenever it is asked for: that document fails, the other 63 have theirs."""
    not_a_number = base64.b64encode(struct.pack("<8f", *[math.nan] * 8)).decode()

    def spoil(request: Received, body: Body) -> Body:
        for item in body["data"]:
            if request.inputs[item["index"]] == SOME[20]:
                item["embedding"] = not_a_number
        return body

    assert side.script is not None
    side.script.edit(spoil)
    async with side.embedder() as embedder:
        embeddings = await embedder.embed(SOME, on_failure="collect")

    assert [failure.position for failure in embeddings.failures] == [20]
    assert isinstance(embeddings.failures[0].error, InvalidReplyError)
    assert np.isnan(embeddings.vectors[20]).all()
    rest = [row for row in range(64) if row != 20]
    np.testing.assert_array_equal(embeddings.vectors[rest], side.vectors_of([SOME[row] for row in rest]))


@every_side_with_a_script
async def test_a_429_is_waited_out(side: Side) -> None:
    """retry-after-ms: 20 pauses for 20 ms, one more request is sent, and every vector is right."""
    refusal = {"error": {"message": "slow down", "type": "requests", "code": "rate_limit_exceeded"}}
    assert side.script is not None
    side.script.reply_next(Scripted(status=429, headers={"retry-after-ms": "20"}, body=refusal))

    async with side.embedder() as embedder:
        embeddings = await embedder.embed(TEXTS)
        stats = embedder.stats()

    side.assert_right(embeddings, TEXTS)
    assert stats.faults == {"RateLimited": 1}
    assert (stats.requests, stats.paused_seconds) == (17, 0.02)
