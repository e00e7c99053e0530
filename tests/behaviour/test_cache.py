"""What was embedded before is not sent again, by any run with the same model at the same address."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from embedbatch import Batch, Chunks, ConfigurationError, FailedDocumentsError
from embedbatch.cache import Cache
from embedbatch.store_layers import Layered
from embedbatch.testing import Scripted, ScriptedServer
from embedbatch.values import Vector, Vectors

from .caching import batch_of, make, texts
from .conftest import MakeEmbedder, assert_aligned

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("both_backends")]  # in real time: it uses threads


def sent(server: ScriptedServer) -> list[Any]:
    """What the server was sent, in order."""
    return [text for request in server.received for text in request.inputs]


async def run(server: ScriptedServer, directory: Path, some: list[str]) -> Cache:
    """Embed these texts with a cache and an embedder of their own; what the server gets is all that it has got."""
    server.received.clear()
    with Cache(directory) as cache:
        async with make(cache, server) as embedder:
            embeddings = await embedder.embed(some)
    assert_aligned(embeddings, some, server)
    return cache


async def test_a_second_run_sends_nothing(server: ScriptedServer, tmp_path: Path) -> None:
    """600 texts are sent once, by whatever run; the third sends the one that is new. All rows are right to the bit."""
    await run(server, tmp_path, texts(600))
    assert sent(server) == texts(600)

    await run(server, tmp_path, texts(600))
    assert not sent(server)

    cache = await run(server, tmp_path, texts(601))
    assert sent(server) == texts(1, 600)
    assert (cache.stats.hits, cache.stats.misses, cache.stats.kept) == (600, 1, 1)


@pytest.mark.parametrize(
    "change",
    [{"model": "other"}, {"dimensions": 4}, {"base_url": "http://elsewhere/v1"}, {"extra_body": {"kind": "query"}}],
    ids=str,
)
async def test_what_changes_the_vectors_sends_again(
    server: ScriptedServer, tmp_path: Path, change: dict[str, Any]
) -> None:
    """Another model, another size, another server, another request: nothing of the first run is used."""
    with Cache(tmp_path) as cache:
        async with make(cache, server) as embedder:
            await embedder.embed(texts(20))
        server.received.clear()
        async with make(cache, server, **change) as embedder:
            await embedder.embed(texts(20))

    assert sent(server) == texts(20)


@pytest.mark.parametrize(
    "change", [{"long_input": "truncate"}, {"empty": "skip"}, {"count_tokens": True}, {"api_key": "new"}], ids=str
)
async def test_what_does_not_change_the_vectors_sends_nothing(
    server: ScriptedServer, tmp_path: Path, change: dict[str, Any]
) -> None:
    """Other policies for documents, and another key, leave the vectors of chunks as they are."""
    with Cache(tmp_path) as cache:
        async with make(cache, server) as embedder:
            await embedder.embed(texts(20))
        server.received.clear()
        async with make(cache, server, **change) as embedder:
            embeddings = await embedder.embed(texts(20))

    assert not sent(server)
    assert_aligned(embeddings, texts(20), server)


async def test_all_of_a_recipe_has_been_thought_about(server: ScriptedServer, tmp_path: Path) -> None:
    """A name that is new in a recipe counts, and makes all of a cache useless to whoever has another value there."""
    with Cache(tmp_path) as cache:
        recipe = make(cache, server).recipe

    vectors = {"model", "dimensions", "truncate_dimensions", "normalize", "endpoint", "base_url", "extra_body"}
    only_chunks = {"long_input", "max_input_tokens", "tokenizer", "empty", "surrogates", "count_tokens", "prefix"}
    assert recipe.keys() == vectors | only_chunks


@pytest.mark.filterwarnings("ignore:the tokenizer of this model is not known")
async def test_the_parts_of_a_long_document_are_remembered(server: ScriptedServer, tmp_path: Path) -> None:
    """A document of which one part of five has changed: only that is sent."""
    options = {"max_input_tokens": 92, "long_input": "chunks"}
    parts = [f"part {number}. " + "x" * 80 for number in range(5)]
    with Cache(tmp_path) as cache:
        async with make(cache, server, **options) as embedder:
            assert len(await embedder.embed("\n\n".join(parts))) == 5
        server.received.clear()
        parts[2] = "part X. " + "y" * 80
        async with make(cache, server, **options) as embedder:
            assert len(await embedder.embed("\n\n".join(parts))) == 5

    assert [text.strip() for text in sent(server)] == [parts[2]]


async def test_only_what_the_endpoint_gave_is_remembered(server: ScriptedServer, tmp_path: Path) -> None:
    """A document that failed is sent again by the next run, alone."""
    server.reply_when(lambda request: Scripted(status=400) if "bad" in request.inputs else None)
    with Cache(tmp_path) as cache:
        async with make(cache, server) as embedder:
            with pytest.raises(FailedDocumentsError):
                await embedder.embed(["good", "bad", "also good"])
            server.reply_when(lambda request: Scripted())
            server.received.clear()
            embeddings = await embedder.embed(["good", "bad", "also good"])

    assert sent(server) == ["bad"]
    assert_aligned(embeddings, ["good", "bad", "also good"], server)


async def test_single_calls_are_remembered_too(server: ScriptedServer, tmp_path: Path) -> None:
    """A query that comes again the next day is answered without a request."""
    for _ in range(2):
        with Cache(tmp_path) as cache:
            async with make(cache, server) as embedder:
                vector = await embedder.embed_one("a query")
        assert vector.tobytes() == server.vector_of("a query").tobytes()

    assert sent(server) == ["a query"]


async def test_what_was_paid_for_is_kept_when_a_run_is_cancelled(server: ScriptedServer, tmp_path: Path) -> None:
    """The run is cancelled while vectors wait to be put away: they are put away."""
    scope = anyio.CancelScope()
    recipe, chunks = {"model": "m"}, batch_of(["a"])

    async def cancel_first(action: Any, *arguments: Any) -> Any:
        scope.cancel()
        return await anyio.to_thread.run_sync(action, *arguments)

    with Cache(tmp_path, in_thread=cancel_first) as cache, scope:
        await cache.bound_to(recipe).put(chunks, server.vector_of("a")[None])
        await anyio.lowlevel.checkpoint()

    assert scope.cancelled_caught
    with Cache(tmp_path) as cache:
        assert len(await cache.bound_to(recipe).known(chunks)) == 1


class Journal:
    """A store above the cache, as that of a job: it knows nothing, and gets everything."""

    def __init__(self) -> None:
        self.documents: list[int] = []

    async def known(self, chunks: Chunks, /) -> Mapping[int, Vector]:
        return {}

    async def put(self, batch: Batch, vectors: Vectors, /) -> None:
        self.documents += batch.documents


async def test_a_journal_above_the_cache_gets_all_vectors(server: ScriptedServer, tmp_path: Path) -> None:
    """Those that were cached and those that are sent, each once."""
    journal = Journal()
    with Cache(tmp_path) as cache:
        async with make(cache, server) as embedder:
            await embedder.embed(texts(300))
            server.received.clear()
            store = Layered(journal, cache.bound_to(embedder.recipe))
            async with embedder.stream(texts(400), store=store) as results:
                count = len([result async for result in results])

    assert count == 400
    assert sent(server) == texts(100, 300)
    assert sorted(journal.documents) == list(range(400))
    assert cache.stats.kept == 400


async def test_a_damaged_cache_costs_no_more_than_its_vectors(server: ScriptedServer, tmp_path: Path) -> None:
    """An index of garbage: the run warns, sends everything and remembers it."""
    await run(server, tmp_path, texts(50))
    (tmp_path / "v1-000001" / "index.sqlite").write_bytes(b"garbage" * 5_000)

    with pytest.warns(UserWarning, match="is damaged"):
        await run(server, tmp_path, texts(50))
    assert sent(server) == texts(50)

    await run(server, tmp_path, texts(50))
    assert not sent(server)


async def test_calls_for_one_text_are_remembered(server: ScriptedServer, tmp_path: Path) -> None:
    """A query that was embedded before, alone or with others, is not sent; each caller has an array of its own."""
    with Cache(tmp_path) as cache:
        async with make(cache, server) as embedder:
            await embedder.embed(["a", "b"])
            vector = await embedder.embed_one("b")
            await embedder.embed_one("c")
            again = await embedder.embed_one("c")

    assert sent(server) == ["a", "b", "c"]
    assert vector.tobytes() == server.vector_of("b").tobytes()
    assert again.tobytes() == server.vector_of("c").tobytes()


@pytest.mark.parametrize("kind", [str, Path])
async def test_a_cache_may_be_given_by_its_name(
    server: ScriptedServer, make_embedder: MakeEmbedder, tmp_path: Path, kind: type
) -> None:
    """It is opened, and closed with the embedder; one that was handed in stays open."""
    for _ in range(2):
        async with make_embedder(cache=kind(tmp_path)) as embedder:
            await embedder.embed(texts(20))
        with pytest.raises(ConfigurationError, match="closed"):
            await embedder.inside.store.known(batch_of(texts(20)))
    assert sent(server) == texts(20)

    with Cache(tmp_path) as cache:
        async with make_embedder(cache=cache):
            pass
        async with make_embedder(cache=cache) as embedder:
            await embedder.embed(texts(20))
    assert sent(server) == texts(20)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cache": True}, "cache: expected an embedbatch.cache.Cache or a directory, got True"),
        ({"cache": "x", "store": Journal()}, "store, cache: expected one of them, got both"),
    ],
)
async def test_what_is_no_cache_is_refused(make_embedder: MakeEmbedder, options: dict[str, Any], message: str) -> None:
    """A ConfigurationError when the embedder is made."""
    with pytest.raises(ConfigurationError, match=message):
        make_embedder(**options)
