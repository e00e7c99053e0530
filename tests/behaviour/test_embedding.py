"""Texts in, one float32 vector each, in order."""

from __future__ import annotations

import anyio
import numpy as np
import pytest

from embedbatch import (
    ConfigurationError,
    Document,
    Embedder,
    FailedDocumentsError,
    Limits,
    embed,
)
from embedbatch.testing import Received, ScriptedServer

from .conftest import MakeEmbedder, assert_aligned

pytestmark = pytest.mark.anyio


async def test_every_text_gets_its_own_vector(
    both_backends: object, server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """1,000 texts come back as 1,000 rows of float32, each derived from its own text, on asyncio and trio."""
    texts = [f"text number {n}" for n in range(1_000)]

    async with make_embedder() as embedder:
        embeddings = await embedder.embed(texts)

    assert embeddings.vectors.dtype == np.float32
    assert embeddings.vectors.shape == (1_000, 8)
    assert_aligned(embeddings, texts, server)


async def test_replies_that_overtake_each_other_change_nothing(
    server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """Later requests answer first, items in reverse order: every vector is still at its text."""
    server = ScriptedServer(latency=lambda request: 10.0 / request.number)
    server.edit(lambda request, body: {**body, "data": body["data"][::-1]})
    texts = [f"text {n}" for n in range(500)]

    async with make_embedder(transport=server, limits=Limits(max_batch_inputs=16)) as embedder:
        embeddings = await embedder.embed(texts)

    assert len(server.received) == 32
    assert_aligned(embeddings, texts, server)


async def test_a_single_string_is_one_document(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """A string is not a list of characters: one input, shape (1, 8)."""
    async with make_embedder() as embedder:
        embeddings = await embedder.embed("a single string")

    assert server.received[0].inputs == ["a single string"]
    assert embeddings.vectors.shape == (1, 8)


async def test_token_arrays_are_sent_nested_where_they_are_taken(server: ScriptedServer) -> None:
    """OpenAI takes token arrays; a flat one is sent as an array of one array, because flat ones are capped at 2,048."""
    async with Embedder("text-embedding-3-small", api_key="k", transport=server, dimensions=8) as embedder:
        one = await embedder.embed([1, 2, 3])
        two = await embedder.embed([[1, 2, 3], [4, 5]])

    assert server.received[0].body["input"] == [[1, 2, 3]]
    assert server.received[1].body["input"] == [[1, 2, 3], [4, 5]]
    np.testing.assert_array_equal(one.vectors[0], two.vectors[0])


async def test_token_arrays_are_decoded_where_only_texts_are_taken(
    server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """A server nothing is known of gets "hello world" for the tokens 15339, 1917 of a known tokenizer."""
    async with make_embedder("text-embedding-3-small", dimensions=8) as embedder:
        await embedder.embed([[15339, 1917]])

    assert server.received[0].inputs == ["hello world"]


async def test_token_arrays_without_a_tokenizer_are_refused_with_the_reason(make_embedder: MakeEmbedder) -> None:
    """Neither taken nor decodable: the document fails, and the error says what to pass."""
    async with make_embedder() as embedder:
        with pytest.raises(FailedDocumentsError, match=r"Pass the text, or tokenizer="):
            await embedder.embed([[15339, 1917]])


async def test_texts_and_token_arrays_never_share_a_request(server: ScriptedServer) -> None:
    """Mixed documents make two requests; the rows keep the documents' order."""
    documents = ["a", [1, 2], "b", [3]]

    async with Embedder("text-embedding-3-small", api_key="k", transport=server, dimensions=8) as embedder:
        embeddings = await embedder.embed(documents)

    assert sorted(len(request.inputs) for request in server.received) == [2, 2]
    assert_aligned(embeddings, documents, server)


async def test_documents_keep_their_ids(make_embedder: MakeEmbedder) -> None:
    """An id comes back with its row; without one it is the position."""
    async with make_embedder() as embedder:
        embeddings = await embedder.embed([Document("a", id="first"), "b", Document("c", id=7)])

    assert embeddings.ids == ["first", 1, 7]


async def test_the_result_is_an_array(make_embedder: MakeEmbedder) -> None:
    """np.asarray, len, indexing and iteration see the rows."""
    async with make_embedder() as embedder:
        embeddings = await embedder.embed(["a", "b"])

    assert np.asarray(embeddings) is embeddings.vectors
    assert len(embeddings) == 2
    np.testing.assert_array_equal(embeddings[1], list(embeddings)[1])


async def test_nothing_in_is_nothing_out(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """embed([]) sends nothing and returns shape (0, dimensions), or (0, 0) when they are not known."""
    async with make_embedder() as unknown, make_embedder(dimensions=5) as known:
        assert (await unknown.embed([])).vectors.shape == (0, 0)
        assert (await known.embed([])).vectors.shape == (0, 5)

    assert not server.received


async def test_usage_is_the_sum_of_what_the_server_counted(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """Three requests: their usage is added up."""
    async with make_embedder(limits=Limits(max_batch_inputs=2)) as embedder:
        embeddings = await embedder.embed(["12345678"] * 6)

    assert embeddings.usage.requests == embeddings.usage.replies == 3
    assert embeddings.usage.prompt_tokens == embeddings.usage.total_tokens == 12


async def test_a_server_that_counts_nothing_leaves_usage_unknown(
    server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """Missing usage is None, not 0."""
    server.edit(lambda request, body: {name: value for name, value in body.items() if name != "usage"})

    async with make_embedder() as embedder:
        embeddings = await embedder.embed(["a"])

    assert embeddings.usage.prompt_tokens is None
    assert embeddings.usage.replies_without_usage == 1


async def test_requests_carry_what_the_openai_package_would_send(
    server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """Model, base64, dimensions, user and extra_body are in the body; the key is a bearer token."""
    async with make_embedder(
        "m", api_key="key-1", dimensions=4, user="u", extra_body={"input_type": "query"}, default_headers={"X-A": "b"}
    ) as embedder:
        await embedder.embed(["a"])

    request = server.received[0]
    assert request.url == "http://test/v1/embeddings"
    assert request.body == {
        "model": "m",
        "encoding_format": "base64",
        "dimensions": 4,
        "user": "u",
        "input_type": "query",
        "input": ["a"],
    }
    assert request.headers["authorization"] == "Bearer key-1"
    assert request.headers["x-a"] == "b"
    assert request.headers["content-type"] == "application/json"


@pytest.mark.parametrize("encodes", ["base64", "float"])
async def test_vectors_are_decoded_by_what_they_are(encodes: str, make_embedder: MakeEmbedder) -> None:
    """Floats although base64 was asked for, or the reverse: the same vectors."""
    server = ScriptedServer(encodes=encodes)  # type: ignore[arg-type]

    async with make_embedder(transport=server) as embedder:
        embeddings = await embedder.embed(["a", "b"])

    assert_aligned(embeddings, ["a", "b"], server)


async def test_many_calls_share_one_limit(make_embedder: MakeEmbedder) -> None:
    """Ten embed() calls at once on one embedder never have more than 4 requests in flight together."""
    server = ScriptedServer(latency=1.0)
    texts = [f"text {n}" for n in range(64)]

    async with (
        make_embedder(transport=server, limits=Limits(max_concurrent_requests=4, max_batch_inputs=8)) as embedder,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(10):
            tasks.start_soon(embedder.embed, texts)

    assert server.max_in_flight == 4
    assert len(server.received) == 80


async def test_a_query_goes_ahead_of_bulk_work(make_embedder: MakeEmbedder) -> None:
    """embed_one waits for the request that is in flight, not for the 49 that were queued before it."""
    server = ScriptedServer(latency=1.0)

    async with (
        make_embedder(transport=server, limits=Limits(max_concurrent_requests=1, max_batch_inputs=1)) as embedder,
        anyio.create_task_group() as tasks,
    ):
        for number in range(50):
            tasks.start_soon(embedder.embed, [f"bulk {number}"])
        await anyio.sleep(0.5)
        vector = await embedder.embed_one("query")
        asked = [request.inputs[0] for request in server.received]
        tasks.cancel_scope.cancel()

    np.testing.assert_array_equal(vector, server.vector_of("query"))
    assert asked.index("query") == 1


async def test_an_embedder_stays_in_its_event_loop(server: ScriptedServer) -> None:
    """Used in a second loop it says so, instead of hanging on the first one's connections."""
    embedder = Embedder("m", base_url="http://test/v1", transport=server)
    await embedder.embed(["a"])

    def use_elsewhere() -> None:
        anyio.run(embedder.embed, ["b"])

    with pytest.raises(ConfigurationError, match="another event loop"):
        await anyio.to_thread.run_sync(use_elsewhere)
    await embedder.aclose()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_blocking_door_works_inside_a_running_loop() -> None:
    """As in a notebook: embed() in a coroutine, with the embedded model."""
    embeddings = embed(["in a notebook", "loop"], "local")

    assert embeddings.vectors.shape == (2, 256)


def test_the_blocking_door_works_in_several_threads_at_once() -> None:
    """Eight threads embed at the same time; each gets its own texts' vectors."""
    from concurrent.futures import ThreadPoolExecutor

    texts = [[f"thread {n}", f"again {n}"] for n in range(8)]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda pair: embed(pair, "local").vectors, texts))

    for pair, vectors in zip(texts, together, strict=True):
        np.testing.assert_allclose(vectors, embed(pair, "local").vectors, atol=1e-6)


async def test_no_batch_is_larger_than_the_burst_the_pace_allows(make_embedder: MakeEmbedder) -> None:
    """At 6,000 tokens a minute and 2 s of burst, a request holds at most 200 tokens' worth: 800 bytes at 4 a token."""
    sizes: list[int] = []

    def note(request: Received) -> None:
        sizes.append(sum(len(str(text)) for text in request.inputs))

    server = ScriptedServer()
    server.reply_when(note)
    async with make_embedder(transport=server, limits=Limits(max_tokens_per_minute=6_000)) as embedder:
        await embedder.embed(["x" * 100] * 40)

    assert len(sizes) >= 5
    assert max(sizes) <= 800
