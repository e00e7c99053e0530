"""Token arrays that a server refuses, or drops, are sent as texts where these are known."""

from __future__ import annotations

import pytest

from embedbatch import (
    Endpoint,
    TokenArrayError,
)
from embedbatch.plan.tokens import cl100k_base
from embedbatch.testing import Scripted, ScriptedServer

from .conftest import MakeEmbedder, assert_aligned
from .refusing import UNNAMED, has_arrays, refuses, says

pytestmark = pytest.mark.anyio

TAKES_ARRAYS = Endpoint(name="takes-arrays", base_url="http://test/v1", token_arrays=True)
ARRAYS = [[15339, 1917], [83, 1609, 5963, 374, 2294]]
HALF = [222]  # a byte that no character begins with

NO_ARRAYS = [
    says("invalid input type"),
    says("'input' field must be a string or an array of strings"),
    Scripted(
        status=422,
        body={"detail": [{"loc": ["body", "input", "list[str]", 0], "msg": "Input should be a valid string"}]},
    ),
    UNNAMED,
]


@pytest.mark.parametrize("refusal", NO_ARRAYS)
async def test_refused_token_arrays_are_sent_as_texts(refusal: Scripted, make_embedder: MakeEmbedder) -> None:
    """Where the tokenizer is known: the arrays are decoded, sent as texts, and so are all later ones at once."""
    server = refuses((has_arrays, refusal))

    async with make_embedder(
        "text-embedding-3-small", transport=server, endpoint=TAKES_ARRAYS, dimensions=8
    ) as embedder:
        embeddings = await embedder.embed(ARRAYS)
        before = len(server.received)
        await embedder.embed(ARRAYS)
        stats = embedder.stats()

    texts = [cl100k_base().decode(array) for array in ARRAYS]
    assert_aligned(embeddings, texts, server)
    assert [request.inputs for request in server.received[before:]] == [texts]
    assert stats.forms == {"takes-arrays token_arrays": "texts"}
    assert sum(map(has_arrays, server.received)) <= 2


async def test_token_arrays_that_were_dropped_are_sent_as_texts(make_embedder: MakeEmbedder) -> None:
    """A gateway that drops them without a word answers with no vectors: asked once more, then as texts."""
    server = ScriptedServer()
    server.edit(lambda request, body: {**body, "data": []} if has_arrays(request) else body)

    async with make_embedder(
        "text-embedding-3-small", transport=server, endpoint=TAKES_ARRAYS, dimensions=8
    ) as embedder:
        embeddings = await embedder.embed(ARRAYS)

    assert_aligned(embeddings, [cl100k_base().decode(array) for array in ARRAYS], server)
    assert [has_arrays(request) for request in server.received] == [True, True, False]


async def test_token_arrays_of_an_unknown_vocabulary_fail_with_the_reason(make_embedder: MakeEmbedder) -> None:
    """No tokenizer, no text: one request is refused, and each array is a TokenArrayError with the server's words."""
    server = refuses((has_arrays, says("invalid input type")))

    async with make_embedder(transport=server, endpoint=TAKES_ARRAYS) as embedder:
        embeddings = await embedder.embed([[1, 2], [3]], on_failure="collect")
        later = await embedder.embed([[4]], on_failure="collect")
        mixed = await embedder.embed(["a text"])

    assert [type(failure.error) for failure in (*embeddings.failures, *later.failures)] == [TokenArrayError] * 3
    assert "invalid input type" in str(embeddings.failures[0].error)
    assert len(server.received) == 2
    assert_aligned(mixed, ["a text"], server)


async def test_one_array_that_is_no_text_fails_alone(make_embedder: MakeEmbedder) -> None:
    """Half a character cannot be a text: it fails, the other arrays are sent as texts."""
    server = refuses((has_arrays, says("invalid input type")))

    async with make_embedder(
        "text-embedding-3-small", transport=server, endpoint=TAKES_ARRAYS, dimensions=8
    ) as embedder:
        embeddings = await embedder.embed([ARRAYS[0], HALF, ARRAYS[1]], on_failure="collect")

    assert [(failure.position, type(failure.error)) for failure in embeddings.failures] == [(1, TokenArrayError)]
    assert [request.inputs for request in server.received[1:]] == [[cl100k_base().decode(array) for array in ARRAYS]]


async def test_token_arrays_that_pass_stay(make_embedder: MakeEmbedder) -> None:
    """Where arrays were taken, a bad one among them is a bad document: the others stay arrays."""
    server = refuses((lambda request: [666] in request.inputs, UNNAMED))

    async with make_embedder(
        "text-embedding-3-small", transport=server, endpoint=TAKES_ARRAYS, dimensions=8
    ) as embedder:
        await embedder.embed(ARRAYS)
        embeddings = await embedder.embed([ARRAYS[0], [666], ARRAYS[1]], on_failure="collect")

    assert [failure.position for failure in embeddings.failures] == [1]
    assert all(map(has_arrays, server.received))
