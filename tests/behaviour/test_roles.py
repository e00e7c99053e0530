"""What a text is for is told as the model was taught: by a prefix that every part carries, or a field."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest

from embedbatch import ConfigurationError, Document, Model, Role, jobs
from embedbatch.cache import Cache
from embedbatch.models import MODELS
from embedbatch.testing import ScriptedServer

from ..contract.loopback import serve_in_a_thread
from .commanding import call, write_corpus
from .conftest import MakeEmbedder
from .corpora import corpus, read, sent
from .test_seams import Memory

E5 = "intfloat/e5-base-v2"
PREFIXES = Model(max_input_tokens=100, roles={"query": Role(prefix="Q: "), "document": Role(prefix="D: ")})
FIELDS = Model(
    roles={"query": Role(fields={"input_type": "query"}), "document": Role(fields={"input_type": "passage", "n": [1]})}
)

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore:the tokenizer of this model is not known")]


def told(server: ScriptedServer) -> list[Any]:
    """The fields beyond the contract of each request."""
    known = {"model", "input", "encoding_format"}
    return [{name: value for name, value in request.body.items() if name not in known} for request in server.received]


async def test_a_prefix_goes_before_every_text(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """Documents by `embed()` and `stream()`, a query by `embed_one()`; ids and order are the caller's."""
    async with make_embedder(model_info=PREFIXES, role="document") as embedder:
        embeddings = await embedder.embed([Document("a", id="x"), "b"])
        one = await embedder.embed_one("q")
        async with embedder.stream(["c"]) as results:
            streamed = [result async for result in results]

    assert sent(server) == ["D: a", "D: b", "Q: q", "D: c"]
    assert list(embeddings.ids) == ["x", 1]
    np.testing.assert_array_equal(embeddings.vectors[1], server.vector_of("D: b"))
    np.testing.assert_array_equal(one, server.vector_of("Q: q"))
    np.testing.assert_array_equal(streamed[0].vector, server.vector_of("D: c"))  # type: ignore[union-attr]


async def test_a_field_goes_into_every_request(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """The texts are sent as they are, and the rest of the body stays."""
    async with make_embedder(model_info=FIELDS, role="document", extra_body={"truncate": "NONE"}) as embedder:
        await embedder.embed(["a", "b"])
        await embedder.embed_one("q")

    assert sent(server) == ["a", "b", "q"]
    assert told(server) == [
        {"truncate": "NONE", "input_type": "passage", "n": [1]},
        {"truncate": "NONE", "input_type": "query"},
    ]


async def test_a_role_goes_before_what_an_endpoint_needs(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """NVIDIA's servers need an input_type, so the endpoint has one; a role's stands in for it, and comes once."""
    server.dimensions = 1_024
    async with make_embedder("nvidia/nv-embedqa-e5-v5", endpoint="nim", api_key="k") as embedder:
        await embedder.embed(["a"])
        await embedder.embed(["a"], role="query")

    assert [each["input_type"] for each in told(server)] == ["passage", "query"]


async def test_each_call_may_say_its_own_role(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """It goes before the embedder's, which without one has none; calls of two roles do not share a request."""
    async with make_embedder(model_info=FIELDS) as embedder:
        await embedder.embed(["a"])
        await embedder.embed(["b"], role="query")
        await embedder.embed_one("c")
        await embedder.embed_one("d", role="document")
        async with embedder.stream(["e"], role="query") as results:
            [_ async for _ in results]
    async with make_embedder(model_info=FIELDS, role="query") as embedder:
        await embedder.embed_one("f")

    assert [each.get("input_type") for each in told(server)] == [None, "query", None, "passage", "query", "query"]


async def test_roles_that_are_put_alike_share_requests(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """A model that makes no difference is asked once for queries and documents that come together."""
    async with make_embedder("text-embedding-3-small", dimensions=8) as embedder, anyio.create_task_group() as tasks:
        for role in (None, "query", "document"):
            tasks.start_soon(partial(embedder.embed_one, f"a {role}", role=role))

    assert len(server.received) == 1


async def test_parts_of_a_document_carry_the_prefix(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """Every part; spans are those of the caller's text, and the limit is kept with the prefix."""
    text = "".join(f"sentence number {n}. " for n in range(30))
    async with make_embedder(model_info=PREFIXES, role="document", long_input="chunks") as embedder:
        embeddings = await embedder.embed([text])

    inputs = sent(server)
    spans = [embeddings.spans[row] for row in range(len(embeddings))]
    assert inputs == ["D: " + text[start:end] for start, end in spans]
    assert max(map(len, inputs)) <= 100
    assert [end for _, end in spans[:-1]] == [start for start, _ in spans[1:]]


async def test_a_known_model_is_told_as_it_was_taught(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """E5 by prefixes, NVIDIA's by a field, OpenAI's not at all."""
    for name in (E5, "nvidia/nv-embedqa-e5-v5", "text-embedding-3-small"):
        server.dimensions = MODELS[name].dimensions or 0
        async with make_embedder(name, role="document") as embedder:
            await embedder.embed_one("a", role="document")
            await embedder.embed_one("a")

    assert sent(server) == ["passage: a", "query: a", "a", "a", "a", "a"]
    assert told(server) == [{}, {}, {"input_type": "passage"}, {"input_type": "query"}, {}, {}]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"role": "query"}, "the roles of test-model are not known"),
        ({"role": "passage", "model_info": FIELDS}, "role: test-model has 'query', 'document'; got 'passage'"),
        ({"role": "query", "model_info": FIELDS, "extra_body": {"input_type": "x"}}, "'input_type', which extra_body"),
        ({"role": "x", "model_info": Model(roles={"x": Role(fields={"y": object()})})}, "not what JSON can carry"),
        ({"model_info": "e5"}, "model_info: expected a Model, got 'e5'"),
        ({"model_info": PREFIXES, "role": "query", "max_input_tokens": 3}, "leave no room for a text behind 'Q: '"),
    ],
)
def test_a_role_that_cannot_be_told_is_refused(make_embedder: MakeEmbedder, given: dict[str, Any], reason: str) -> None:
    """When the embedder is made."""
    with pytest.raises(ConfigurationError, match=reason):
        make_embedder(**given)


async def test_a_call_of_a_role_that_is_not_there_sends_nothing(
    server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """By each of the doors; what is no name is none either."""
    async with make_embedder(model_info=FIELDS) as embedder:
        with pytest.raises(ConfigurationError, match="role: expected a name"):
            await embedder.embed_one("a", role=["query"])  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="got 'x'"):
            await embedder.embed(["a"], role="x")
        with pytest.raises(ConfigurationError, match="got 'x'"):
            await embedder.embed_one("a", role="x")
        with pytest.raises(ConfigurationError, match="got 'x'"):
            async with embedder.stream(["a"], role="x"):
                pass

    assert not server.received


@pytest.mark.parametrize("info", [PREFIXES, FIELDS], ids=["prefixes", "fields"])
async def test_a_cache_never_mixes_roles(
    server: ScriptedServer, make_embedder: MakeEmbedder, tmp_path: Path, info: Model
) -> None:
    """The same text in another role is another input: it is sent, whichever embedder and call it comes by."""

    with Cache(tmp_path) as cache:
        for role in ("document", "query", None):
            async with make_embedder(model_info=info, role=role, cache=cache) as embedder:
                for _ in range(2):
                    await embedder.embed(["a"])
    assert len(server.received) == 3

    async with make_embedder(model_info=info, role="document", cache=tmp_path / "other") as embedder:
        await embedder.embed(["b"])
        await embedder.embed(["b"], role="query")
        await embedder.embed_one("b")
        await embedder.embed(["b"])
    rest = server.received[3:]
    assert len({(request.inputs[0], request.body.get("input_type")) for request in rest}) == len(rest) == 2


async def test_a_store_of_ones_own_is_bound_to_one_role(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """A query that is told by a field goes past it: its bytes are those of the document."""
    store = Memory()
    async with make_embedder(model_info=FIELDS, role="document", store=store) as embedder:
        await embedder.embed(["b"])
        await embedder.embed(["b"], role="query")
        await embedder.embed(["b"])

    assert [request.body.get("input_type") for request in server.received] == ["passage", "query"]
    assert len(store.vectors) == 1


def test_a_recipe_tells_of_the_role(make_embedder: MakeEmbedder) -> None:
    """By what is sent for it: a role that changes nothing makes no difference."""
    for info in (PREFIXES, FIELDS):
        recipes = [make_embedder(model_info=info, role=role).recipe for role in (None, "document", "query")]
        assert all(recipe not in recipes[:number] for number, recipe in enumerate(recipes))
    plain = [make_embedder("text-embedding-3-small", role=role).recipe for role in (None, "document")]
    assert plain[0] == plain[1]


@pytest.mark.usefixtures("both_backends")
async def test_a_job_is_bound_to_its_role(server: ScriptedServer, make_embedder: MakeEmbedder, tmp_path: Path) -> None:
    """Gone on with in another role, it would mix vectors; the file says how a query for it is told."""
    source, destination = corpus(tmp_path, ["a", "b"]), tmp_path / "vectors.npy"
    async with make_embedder(model_info=PREFIXES, role="document") as embedder:
        await jobs.run(source, destination, embedder)
    async with make_embedder(model_info=PREFIXES, role="query") as embedder:
        with pytest.raises(ConfigurationError, match="prefix was 'D: ' and is 'Q: '"):
            await jobs.run(source, destination, embedder)

    _, vectors, _ = read(destination)
    np.testing.assert_array_equal(vectors, [server.vector_of("D: a"), server.vector_of("D: b")])
    assert jobs.read_origin(destination).query_prefix == "Q: "


def test_the_command_line_tells_documents_and_queries_apart(server: ScriptedServer, tmp_path: Path) -> None:
    """`run --role document`, cut to 64 numbers; `search` puts the query as one, and cuts its vector too."""
    server.dimensions = 768
    source, target = write_corpus(tmp_path / "c.txt", ["a", "b"]), tmp_path / "v.parquet"
    with serve_in_a_thread(server) as base_url:
        options = ["--model", "nomic-ai/nomic-embed-text-v1.5", "--base-url", base_url, "--truncate-dimensions", "64"]
        done = call("run", source, "-o", target, *options, "--role", "document")
        found = call("search", target, "q")
        refused = call("run", source, "-o", target, *options, "--role", "passage")

    assert (done.exit_code, found.exit_code, refused.exit_code) == (0, 0, 2)
    assert sent(server) == ["search_document: a", "search_document: b", "search_query: q"]
    assert "64 dimensions" in done.stdout
    assert "has 'query', 'document', 'classification', 'clustering'; got 'passage'" in refused.stderr


def test_the_command_line_counts_with_a_tokenizer(tmp_path: Path) -> None:
    """`plan --tokenizer FILE --role document`: exact tokens, with what the server and the role add."""
    from ..unit.tokenizing import raw_tokenizer, write_tokenizer

    source, numbers = write_corpus(tmp_path / "c.txt", ["the quick brown fox", "a dog"]), tmp_path / "plan.json"
    file = write_tokenizer("wordpiece", tmp_path)
    planned = call("plan", source, "--model", E5, "--tokenizer", file, "--role", "document", "--json", numbers)
    missing = call("plan", source, "--model", E5, "--tokenizer", tmp_path / "nowhere.json")

    texts = ["passage: the quick brown fox", "passage: a dog"]
    assert planned.exit_code == 0
    assert json.loads(numbers.read_text())["tokens"] == sum(
        len(raw_tokenizer("wordpiece").encode(t).ids) for t in texts
    )
    assert missing.exit_code == 2
    assert "cannot read" in missing.stderr
