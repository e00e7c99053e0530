"""A reply is taken only if it is proven to be aligned with its batch; what fails becomes a failure of one document."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pybase64
import pytest

from embedbatch import DimensionsError, Embeddings, InvalidReplyError, RunStoppedError
from embedbatch.testing import Received, Scripted, ScriptedServer

from .conftest import MakeEmbedder, assert_aligned

pytestmark = pytest.mark.anyio

Body = dict[str, Any]
TEXTS = [f"text {n}" for n in range(64)]


def spoil(position: int, **changes: Any) -> Callable[[Received, Body], Body]:
    """An edit that changes one item of every reply."""

    def edit(request: Received, body: Body) -> Body:
        body["data"][position].update(changes)
        return body

    return edit


def poison(text: str, vector: Any) -> Callable[[Received, Body], Body]:
    """An edit that gives *text* the embedding *vector*, in whatever request it comes."""

    def edit(request: Received, body: Body) -> Body:
        for item in body["data"]:
            if request.inputs[item["index"]] == text:
                item["embedding"] = vector
        return body

    return edit


def base64_of(numbers: list[float]) -> str:
    return pybase64.b64encode_as_string(np.array(numbers, "<f4").tobytes())


@pytest.mark.parametrize(
    "edit",
    [
        spoil(3, index=4),
        spoil(3, index=-1),
        spoil(3, index=64),
        spoil(3, index=None),
        lambda request, body: {**body, "data": body["data"][:-1]},
        lambda request, body: {**body, "data": body["data"] + body["data"][:1]},
        lambda request, body: {**body, "data": []},
    ],
    ids=["duplicate index", "negative", "too large", "one missing", "one short", "one over", "empty"],
)
async def test_a_misaligned_reply_is_never_used(
    edit: Callable[[Received, Body], Body], server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """It comes once: the batch is asked for again, and every vector is right. 2 requests."""
    server.edit(lambda request, body: edit(request, body) if request.number == 1 else body)

    async with make_embedder() as embedder:
        embeddings = await embedder.embed(TEXTS)

    assert len(server.received) == 2
    assert_aligned(embeddings, TEXTS, server)


async def test_replies_without_any_index_go_by_position(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """Some servers send no index at all: with an equal count the position decides. 1 request."""

    def without_index(request: Received, body: Body) -> Body:
        return {**body, "data": [{"embedding": item["embedding"]} for item in body["data"]]}

    server.edit(without_index)

    async with make_embedder() as embedder:
        embeddings = await embedder.embed(TEXTS)

    assert len(server.received) == 1
    assert_aligned(embeddings, TEXTS, server)


@pytest.mark.parametrize(
    "vector",
    [
        base64_of([math.nan] * 8),
        base64_of([1.0] * 7 + [math.inf]),
        base64_of([0.0] * 8),
        [None] * 8,
        [0.0] * 8,
        None,
        "",
        "not base64!",
        "AAA=",
    ],
    ids=["NaN", "infinity", "zeros", "nulls", "zero list", "null", "empty", "not base64", "3 bytes"],
)
async def test_one_bad_vector_is_the_failure_of_one_document(
    vector: Any, server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """The other 63 rows are kept from the first reply; the bad one is asked for once more, alone. 2 requests."""
    server.edit(poison("text 20", vector))

    async with make_embedder() as embedder:
        embeddings = await embedder.embed(TEXTS, on_failure="collect")

    assert_only_failures(embeddings, {20}, server)
    assert isinstance(embeddings.failures[0].error, InvalidReplyError)
    assert [len(request.inputs) for request in server.received] == [64, 1]


async def test_a_bad_vector_that_was_an_accident_is_mended(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """NaN in the first reply only: the second one has the vector."""
    spoiled = poison("text 20", [None] * 8)
    server.edit(lambda request, body: spoiled(request, body) if request.number == 1 else body)

    async with make_embedder() as embedder:
        embeddings = await embedder.embed(TEXTS)

    assert_aligned(embeddings, TEXTS, server)


async def test_a_text_that_spoils_every_batch_it_is_in_is_found(
    server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """
    Two texts make the server lose a vector: of 64, exactly those two fail.

    Asked twice whole, then split: at most 2·k·⌈log2 n⌉ + k + 1 = 27 more requests.
    """
    bad = {"text 5", "text 40"}
    server.edit(
        lambda request, body: {**body, "data": body["data"][1:]} if bad & set(map(str, request.inputs)) else body
    )

    async with make_embedder() as embedder:
        embeddings = await embedder.embed(TEXTS, on_failure="collect")

    assert_only_failures(embeddings, {5, 40}, server)
    assert len(server.received) <= 28


@pytest.mark.parametrize("seed", range(20))
async def test_n_bad_inputs_leave_exactly_n_failures(
    seed: int, server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """Any number of bad texts, spoiling rows or whole replies: they fail, all others have their vectors."""
    rng = Random(seed)
    bad = set(rng.sample(range(64), rng.randint(0, 64)))
    drops = rng.random() < 0.5

    def edit(request: Received, body: Body) -> Body:
        for item in list(body["data"]):
            if int(str(request.inputs[item["index"]]).split()[1]) in bad:
                if drops:
                    body["data"].remove(item)
                else:
                    item["embedding"] = base64_of([math.nan] * 8)
        return body

    server.edit(edit)
    async with make_embedder() as embedder:
        embeddings = await embedder.embed(TEXTS, on_failure="collect")

    assert_only_failures(embeddings, bad, server)


async def test_another_vector_size_stops_the_run(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """dimensions=8 and vectors of 16 numbers: asked once more, never split, then the run ends. 2 requests."""
    server.edit(lambda request, body: widen(body))

    async with make_embedder(dimensions=8) as embedder:
        with pytest.raises(RunStoppedError, match="expected vectors of 8 numbers, got 16") as caught:
            await embedder.embed(TEXTS)

    assert isinstance(caught.value.__cause__, DimensionsError)
    assert len(server.received) == 2


async def test_the_first_reply_pins_the_size(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """Where nobody said how large vectors are, the first reply does, for the life of the embedder."""
    server.edit(lambda request, body: widen(body) if request.number > 1 else body)

    async with make_embedder() as embedder:
        await embedder.embed(["first"])
        with pytest.raises(RunStoppedError, match="expected vectors of 8 numbers, got 16"):
            await embedder.embed(["second"])


async def test_vectors_of_mixed_sizes_in_one_reply_stop_the_run(
    server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """One of 64 vectors has 4 numbers instead of 8."""
    server.edit(poison("text 9", base64_of([0.5] * 4)))

    async with make_embedder() as embedder:
        with pytest.raises(RunStoppedError, match="expected vectors of 8 numbers, got 4"):
            await embedder.embed(TEXTS)


async def test_an_error_with_status_200_is_an_error(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """Gateways wrap an exhausted quota into a 200: the run stops as if it were a 429."""
    server.reply_next(
        Scripted(body={"error": {"message": "user quota is not enough", "code": "insufficient_user_quota"}})
    )

    async with make_embedder() as embedder:
        with pytest.raises(RunStoppedError, match="user quota is not enough"):
            await embedder.embed(TEXTS)

    assert len(server.received) == 1


def widen(body: Body) -> Body:
    """Replace every vector by one of 16 numbers."""
    for item in body["data"]:
        item["embedding"] = base64_of([0.25] * 16)
    return body


def assert_only_failures(embeddings: Embeddings, positions: set[int], server: ScriptedServer) -> None:
    """Assert that these rows failed and are NaN, and that all others are right."""
    assert {failure.position for failure in embeddings.failures} == positions
    for position, text in enumerate(TEXTS):
        row = embeddings.vectors[position]
        if position in positions:
            assert np.isnan(row).all()
        else:
            np.testing.assert_array_equal(row, server.vector_of(text))
