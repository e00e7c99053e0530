"""What is known of models: a table of facts, and how a model is found in it."""

from __future__ import annotations

from typing import Any

import pytest

from embedbatch.endpoints import Endpoint, resolve
from embedbatch.errors import ConfigurationError
from embedbatch.models import MODELS, Model, Role, find_role, known_model
from embedbatch.prices import PRICES


def resolved(model: str, **given: Any) -> Any:
    """The target of *model* at a server of nobody's."""
    options = {"base_url": "http://test/v1", "api_key": None, "endpoint": None, "dimensions": None, "environ": {}}
    return resolve(model, **{**options, **given})


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_a_size_a_limit_and_a_source(name: str) -> None:
    """Facts without a source are rumours. A model that gives other sizes is made to; one that adds tokens has room."""
    model = MODELS[name]

    assert model.dimensions is not None
    assert (model.source or "").startswith("https://")
    assert model.special_tokens < model.max_input_tokens
    assert model.max_dimensions is None or model.max_dimensions > model.dimensions
    assert not (model.takes_dimensions and model.matryoshka is False)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_with_roles_has_both_that_a_search_needs(name: str) -> None:
    """A query and a document; each is said in one way; what stands before a text ends where the text begins."""
    roles = MODELS[name].roles
    if not roles:
        return

    assert {"query", "document"} <= roles.keys()
    assert roles["query"] != roles["document"]
    for role in roles.values():
        assert not (role.prefix and role.fields)
        assert not role.prefix or role.prefix.endswith((" ", ":"))


def test_whatever_has_a_price_is_known() -> None:
    """The two tables are of the same models."""
    assert {model for _, model in PRICES} <= MODELS.keys()


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("BAAI/bge-m3", "BAAI/bge-m3"),
        ("baai/BGE-m3", "BAAI/bge-m3"),
        ("bge-m3:latest", "BAAI/bge-m3"),
        ("openai/text-embedding-3-small", "text-embedding-3-small"),
        ("qwen3-embedding:0.6b", "Qwen/Qwen3-Embedding-0.6B"),
        ("mxbai-embed-large", "mixedbread-ai/mxbai-embed-large-v1"),
    ],
)
def test_a_model_is_found_by_the_names_it_goes_by(name: str, same: str) -> None:
    """Capitals do not matter, nor the tag that Ollama adds; gateways and Ollama have names of their own."""
    assert known_model(name) is MODELS[same]


@pytest.mark.parametrize("name", ["", "my-model", "Local", "local:latest", "bge-m3:567m-fp16", "text-embedding-4"])
def test_what_is_not_in_the_table_is_not_known(name: str) -> None:
    """Nothing is guessed from a part of a name."""
    assert known_model(name) is None


def test_what_is_known_of_a_model_is_part_of_the_target() -> None:
    """Its size, its limit and its roles hold at every server, also under the name of a deployment."""
    target = resolved("intfloat/e5-base-v2")
    deployed = resolved("intfloat/e5-base-v2", endpoint=Endpoint(name="mine", model="prod-7", base_url="http://t/v1"))

    assert (target.dimensions, target.max_input_tokens) == (768, 512)
    assert (deployed.name, deployed.model) == ("prod-7", target.model)


def test_what_the_caller_says_of_a_model_goes_before_the_table() -> None:
    """`model_info` stands for all of it."""
    info = Model(dimensions=384, max_input_tokens=128)

    for name in ("my-model", "intfloat/e5-base-v2"):
        target = resolved(name, model_info=info)
        assert (target.model, target.dimensions, target.max_input_tokens) == (info, 384, 128)


def test_more_dimensions_than_by_default_may_be_asked_for_where_there_are_more() -> None:
    """Voyage's models give 1,024 numbers, or 2,048 if one asks."""
    assert resolved("voyage-4", dimensions=2_048).dimensions == 2_048
    assert resolved("voyage-4").dimensions == 1_024
    with pytest.raises(ConfigurationError, match="gives at most 2,048, got 2,049"):
        resolved("voyage-4", dimensions=2_049)
    with pytest.raises(ConfigurationError, match="always gives 768, got 256"):
        resolved("intfloat/e5-base-v2", dimensions=256)


@pytest.mark.parametrize(
    ("name", "role", "expected"),
    [
        ("intfloat/e5-base-v2", "query", Role(prefix="query: ")),
        ("intfloat/e5-base-v2", "document", Role(prefix="passage: ")),
        ("nomic-ai/nomic-embed-text-v1.5", "clustering", Role(prefix="clustering: ")),
        ("nomic-embed-text-v1.5", "query", Role(fields={"task_type": "search_query"})),
        ("nomic-embed-text:latest", "query", Role(prefix="search_query: ")),
        ("BAAI/bge-base-en-v1.5", "document", Role()),
        ("voyage-4", "query", Role(fields={"input_type": "query"})),
        ("embed-v4.0", "document", Role(fields={"input_type": "search_document"})),
        ("jina-embeddings-v3", "query", Role(fields={"task": "retrieval.query"})),
        ("jina-embeddings-v3", "text-matching", Role(fields={"task": "text-matching"})),
        ("nvidia/nv-embedqa-e5-v5", "document", Role(fields={"input_type": "passage"})),
        ("text-embedding-3-small", "query", Role()),
        ("BAAI/bge-m3", "document", Role()),
        ("voyage-4", None, Role()),
        ("my-model", None, Role()),
    ],
)
def test_a_role_is_said_as_the_model_was_taught(name: str, role: str | None, expected: Role) -> None:
    """By a prefix or by fields; a model that makes no difference takes either role; no role is always possible."""
    model = known_model(name) or Model()

    assert find_role(model, role, called=name) == expected


@pytest.mark.parametrize(
    ("name", "role", "reason"),
    [
        ("my-model", "query", r"the roles of my-model are not known.*model_info=Model\(roles=\{'query': Role"),
        ("intfloat/e5-base-v2", "passage", "has 'query', 'document'; got 'passage'"),
        ("text-embedding-3-small", "clustering", "has 'query', 'document'; got 'clustering'"),
        ("voyage-4", 3, "expected a name, got 3"),
    ],
)
def test_a_role_that_cannot_be_said_is_refused(name: str, role: Any, reason: str) -> None:
    """To send the text as it is would look the same and be worse. The error names the roles there are."""
    with pytest.raises(ConfigurationError, match=reason):
        find_role(known_model(name) or Model(), role, called=name)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Role(prefix=3), "prefix: expected a text"),  # type: ignore[arg-type]
        (lambda: Role(prefix="\ud800: "), "prefix: .* no text that UTF-8 can carry"),
        (lambda: Role(fields="query"), "fields: expected names and values"),  # type: ignore[arg-type]
        (lambda: Role(fields={1: "query"}), "fields: expected names and values"),  # type: ignore[dict-item]
        (lambda: Role(fields={"input": "x"}), "fields: 'input' is what embedbatch fills in"),
        (lambda: Model(dimensions=0), "dimensions: expected an int of at least 1, got 0"),
        (lambda: Model(max_input_tokens=None), "max_input_tokens: expected an int"),  # type: ignore[arg-type]
        (lambda: Model(special_tokens=-1), "special_tokens: expected an int of at least 0"),
        (lambda: Model(roles={"query": "query: "}), "roles: expected names and Roles"),  # type: ignore[dict-item]
    ],
)
def test_what_cannot_be_true_of_a_model_is_refused(make: Any, reason: str) -> None:
    """At once, by name."""
    with pytest.raises(ConfigurationError, match=reason):
        make()
