"""Vectors made shorter, and of length 1, on this side: for servers that ignore `dimensions`, or do not normalise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedbatch import ConfigurationError, DimensionsError, Document, FailedDocumentsError, Model, jobs
from embedbatch.testing import Received, ScriptedServer

from .conftest import MakeEmbedder, assert_aligned
from .corpora import corpus, read

pytestmark = pytest.mark.anyio


def first(vector: np.ndarray, dimensions: int | None = None) -> np.ndarray:
    """The first numbers of *vector*, at length 1, in float64."""
    kept = vector[:dimensions].astype(np.float64)
    return kept / np.linalg.norm(kept)


def scale(server: ScriptedServer, factor: float) -> None:
    """Let *server* send vectors of that length, as llama-cpp-python does."""

    def edit(request: Received, body: dict[str, Any]) -> dict[str, Any]:
        for item, text in zip(body["data"], request.inputs, strict=True):
            item["embedding"] = (factor * server.vector_of(text)).tolist()
        return body

    server.edit(edit)


async def test_the_first_numbers_are_kept_at_length_one(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """By `embed()`, `embed_one()` and `stream()` alike; `dimensions` is not asked for."""
    texts = [f"text {n}" for n in range(300)]
    async with make_embedder(truncate_dimensions=3) as embedder:
        embeddings = await embedder.embed(texts)
        one = await embedder.embed_one("one")
        async with embedder.stream(texts[:5]) as results:
            streamed = [result.vector async for result in results]  # type: ignore[union-attr]
        empty = await embedder.embed([])

    expected = np.stack([first(server.vector_of(text), 3) for text in texts])
    np.testing.assert_allclose(embeddings.vectors, expected, atol=1e-6)
    np.testing.assert_allclose(one, first(server.vector_of("one"), 3), atol=1e-6)
    np.testing.assert_allclose(streamed, expected[:5], atol=1e-6)
    assert (embeddings.vectors.dtype, empty.vectors.shape) == (np.float32, (0, 3))
    assert all("dimensions" not in request.body for request in server.received)


async def test_vectors_of_other_lengths_are_scaled(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """`normalize=True` gives length 1 where a server gives 5.7; without it they are left as they came."""
    scale(server, 5.7)
    texts = ["a", "b", "c"]
    async with make_embedder(normalize=True) as embedder:
        scaled = await embedder.embed(texts)
    async with make_embedder() as embedder:
        left = await embedder.embed(texts)

    expected = np.stack([server.vector_of(text) for text in texts])
    np.testing.assert_allclose(scaled.vectors, expected, atol=1e-6)
    np.testing.assert_allclose(left.vectors, 5.7 * expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore:the tokenizer of this model is not known")
async def test_parts_of_a_document_are_scaled_before_their_mean(
    server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """So that each counts by its tokens alone, and not by the length that the server gave its vector."""
    scale(server, 3.0)
    text = "first part. " * 8 + "second part. " * 3
    async with make_embedder(truncate_dimensions=4, max_input_tokens=96) as embedder:
        embeddings = await embedder.embed([Document(text, id="long")])

    parts = [text[start:end] for start, end in embeddings.cut[0].spans]
    mean = sum(len(part) * first(server.vector_of(part), 4) for part in parts)
    assert len(parts) > 1
    np.testing.assert_allclose(embeddings.vectors[0], mean / np.linalg.norm(mean), atol=1e-6)


async def test_a_vector_without_a_direction_fails_its_document(
    server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """All that is kept of it is zeros: never NaN, never zeros, but a failure of that one; the others are done."""

    def edit(request: Received, body: dict[str, Any]) -> dict[str, Any]:
        for item, text in zip(body["data"], request.inputs, strict=True):
            if text == "bad":
                item["embedding"] = [0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
        return body

    server.edit(edit)
    async with make_embedder(truncate_dimensions=2) as embedder:
        with pytest.raises(FailedDocumentsError) as raised:
            await embedder.embed(["a", "bad", "c"])

    embeddings = raised.value.embeddings
    assert embeddings is not None
    (failure,) = embeddings.failures
    assert failure.id == 1
    assert "nothing but zeros in its first 2 numbers" in str(failure.error)
    np.testing.assert_allclose(embeddings.vectors[2], first(server.vector_of("c"), 2), atol=1e-6)


async def test_a_reply_without_any_vector_is_no_matter_of_size(
    server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """What holds nothing fails its document, also before the size of the vectors is known."""
    server.edit(lambda request, body: {**body, "data": [{"index": 0, "embedding": []}]})
    async with make_embedder(truncate_dimensions=2) as embedder:
        with pytest.raises(FailedDocumentsError, match="an empty vector"):
            await embedder.embed(["a"])


async def test_the_size_that_is_checked_is_the_servers(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """A server that changes the size of its vectors is found out, also where the kept part is as long as ever."""
    async with make_embedder(truncate_dimensions=4) as embedder:
        await embedder.embed(["a"])
        server.dimensions = 16
        with pytest.raises(Exception, match="expected vectors of 8 numbers, got 16") as raised:
            await embedder.embed(["b"])

    assert isinstance(raised.value.__cause__, DimensionsError)


async def test_too_few_numbers_stop_the_run(make_embedder: MakeEmbedder) -> None:
    """The size was not known before: the first reply tells."""
    async with make_embedder(truncate_dimensions=9) as embedder:
        with pytest.raises(Exception, match="expected vectors of at least 9 numbers") as raised:
            await embedder.embed(["a"])

    assert isinstance(raised.value.__cause__, DimensionsError)


@pytest.mark.parametrize(
    ("model", "given", "reason"),
    [
        ("m", {"truncate_dimensions": 0}, "truncate_dimensions: expected an int of at least 1, got 0"),
        ("m", {"truncate_dimensions": True}, "truncate_dimensions: expected an int"),
        ("m", {"truncate_dimensions": 2.0}, "truncate_dimensions: expected an int"),
        ("m", {"normalize": 1}, "normalize: expected True or False, got 1"),
        ("m", {"dimensions": 4, "truncate_dimensions": 5}, "truncate_dimensions: m gives 4, got 5"),
        ("voyage-4", {"truncate_dimensions": 1_025}, "truncate_dimensions: voyage-4 gives 1,024, got 1,025"),
        ("BAAI/bge-m3", {"truncate_dimensions": 256}, "no vectors of their own.*matryoshka=True"),
    ],
)
def test_a_shape_that_cannot_be_had_is_refused(
    make_embedder: MakeEmbedder, model: str, given: dict[str, Any], reason: str
) -> None:
    """Before anything is sent; so is one that would make bad vectors."""
    with pytest.raises(ConfigurationError, match=reason):
        make_embedder(model, **given)


def test_who_knows_a_model_better_may_cut_its_vectors(make_embedder: MakeEmbedder) -> None:
    """By saying so."""
    embedder = make_embedder("BAAI/bge-m3", truncate_dimensions=256, model_info=Model(matryoshka=True))

    assert embedder.dimensions == 256


def test_a_recipe_tells_of_the_shape(make_embedder: MakeEmbedder) -> None:
    """Vectors of another shape do not belong together."""
    recipes = [
        make_embedder(**given).recipe
        for given in (
            {},
            {"truncate_dimensions": 4},
            {"truncate_dimensions": 5},
            {"normalize": True},
            {"truncate_dimensions": 4, "dimensions": 6},
        )
    ]

    assert all(recipe not in recipes[:number] for number, recipe in enumerate(recipes))


async def test_a_cache_keeps_what_is_handed_out(
    server: ScriptedServer, make_embedder: MakeEmbedder, tmp_path: Path
) -> None:
    """It is bound to the shape: whole vectors are not found by who wants short ones, nor the other way round."""
    texts = ["a", "b", "c"]
    for _ in range(2):
        async with make_embedder(truncate_dimensions=3, cache=tmp_path) as embedder:
            short = await embedder.embed(texts)
        async with make_embedder(cache=tmp_path) as embedder:
            whole = await embedder.embed(texts)

    assert len(server.received) == 2
    np.testing.assert_allclose(short.vectors, [first(server.vector_of(text), 3) for text in texts], atol=1e-6)
    assert_aligned(whole, texts, server)


@pytest.mark.usefixtures("both_backends")
async def test_a_job_writes_short_vectors_and_is_bound_to_them(
    server: ScriptedServer, make_embedder: MakeEmbedder, tmp_path: Path
) -> None:
    """The file has the size that was asked for, and so has its origin; another shape is another job."""
    texts = [f"text {n}" for n in range(40)]
    source, destination = corpus(tmp_path, texts), tmp_path / "vectors.npy"
    async with make_embedder(truncate_dimensions=3) as embedder:
        summary = await jobs.run(source, destination, embedder)
    async with make_embedder() as embedder:
        with pytest.raises(ConfigurationError, match="truncate_dimensions was 3 and is None"):
            await jobs.run(source, destination, embedder)

    _, vectors, _ = read(destination)
    origin = jobs.read_origin(destination)
    assert (summary.dimensions, vectors.shape) == (3, (40, 3))
    assert (origin.dimensions, origin.truncate_dimensions, origin.normalize) == (3, 3, True)
    np.testing.assert_allclose(vectors, [first(server.vector_of(text), 3) for text in texts], atol=1e-6)
