"""A batch becomes the JSON body of one request, and its size is known before it is made."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.errors import ConfigurationError
from embedbatch.plan.chunker import Chunker
from embedbatch.plan.documents import Source
from embedbatch.values import Batch
from embedbatch.wire.request import FieldNames, Form, RequestTemplate

NOTHING: dict[str, Any] = {"dimensions": None, "user": None, "extra_body": {}}

json_values = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"]))
)


def batch_of(*contents: str | list[int]) -> Batch:
    chunker = Chunker(max_input_tokens=10**6, tokenizer=None, token_arrays=True)
    return chunker.plan([Source(position, position, content) for position, content in enumerate(contents)]).chunks


def body_of(*contents: str | list[int], encoding_format: Any = None, **settings: Any) -> Any:
    template = RequestTemplate("a-model", **NOTHING | settings)
    return json.loads(template.body(batch_of(*contents), template.first_form(encoding_format, token_arrays=True)))


def test_a_body_holds_what_was_asked_for_and_nothing_else() -> None:
    """Model and input are always there; encoding_format, dimensions and user only when given: no nulls on the wire."""
    assert body_of("a") == {"model": "a-model", "input": ["a"]}
    assert body_of("a", encoding_format="base64", dimensions=256, user="me") == {
        "model": "a-model",
        "encoding_format": "base64",
        "dimensions": 256,
        "user": "me",
        "input": ["a"],
    }


def test_a_single_input_is_an_array_of_one() -> None:
    """One text is sent as ["a"], one token array nested as [[1,2]]: a flat array may hold only 2,048 tokens."""
    assert body_of("a")["input"] == ["a"]
    assert body_of([1, 2])["input"] == [[1, 2]]


@given(st.lists(st.text().filter(str.strip), min_size=1, max_size=8))
def test_texts_arrive_as_they_are(texts: list[str]) -> None:
    """Quotes, backslashes, control characters and emoji are read back as they were, in order, from valid UTF-8."""
    assert body_of(*texts)["input"] == texts


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    st.sampled_from(["base64", "float", None]),
    st.none() | st.integers(1, 4096),
    st.none() | st.text(st.characters(exclude_categories=["Cs"])),
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])).filter(lambda name: name != "input"), json_values
    ),
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip), max_size=5),
)
def test_the_size_of_a_body_is_known_before(
    model: str,
    encoding_format: Any,
    dimensions: int | None,
    user: str | None,
    extra_body: dict[str, Any],
    texts: list[str],
) -> None:
    """A body has as many bytes as *overhead*, its inputs, and a comma between every two; fewer if less is asked for."""
    template = RequestTemplate(model, dimensions=dimensions, user=user, extra_body=extra_body)
    batch = batch_of(*texts)

    commas = max(0, len(texts) - 1)
    most = template.overhead + sum(map(len, batch.inputs)) + commas
    assert len(template.body(batch, Form())) == most
    body = template.body(batch, template.first_form(encoding_format, token_arrays=True))
    assert len(body) <= most
    assert json.loads(body).items() >= extra_body.items()


def test_fields_may_have_other_names() -> None:
    """Mistral's output_dimension, Jina's embedding_type and Nomic's texts are what the fields are called there."""
    names = FieldNames(input="texts", encoding_format="embedding_type", dimensions="output_dimension")

    body = body_of("a", encoding_format="base64", dimensions=256, names=names)

    assert body == {"model": "a-model", "embedding_type": "base64", "output_dimension": 256, "texts": ["a"]}


def test_a_size_that_cannot_be_asked_for_is_left_out() -> None:
    """Where there is no field for it, dimensions= is not sent."""
    assert body_of("a", dimensions=256, names=FieldNames(dimensions=None)) == {"model": "a-model", "input": ["a"]}


def test_what_the_caller_writes_himself_is_not_asked_for_otherwise() -> None:
    """An encoding_format or dimensions of extra_body belongs to no form."""
    extra = {"encoding_format": "float", "dimensions": 8}
    form = RequestTemplate("m", 8, None, extra).first_form("base64", token_arrays=False)

    assert form == Form(encoding_format=None, dimensions=False, token_arrays=False)


def test_extra_fields_have_the_last_word() -> None:
    """extra_body adds fields, such as input_type, and replaces what is there: a null in it is sent as null."""
    body = body_of("a", encoding_format="base64", extra_body={"input_type": "query", "encoding_format": None})

    assert body == {"model": "a-model", "encoding_format": None, "input_type": "query", "input": ["a"]}


def test_the_inputs_cannot_be_replaced() -> None:
    """An "input" in extra_body would put vectors beside the wrong texts: it is a ConfigurationError."""
    with pytest.raises(ConfigurationError, match="'input' is what embedbatch fills in"):
        RequestTemplate("a-model", **NOTHING | {"extra_body": {"input": ["x"]}})


def test_more_fields_stand_in_for_those_of_the_same_name() -> None:
    """Each name is in the body once: some servers refuse a field that comes twice."""
    template = RequestTemplate("m", None, None, {"input_type": "passage", "truncate": "NONE"})
    batch, form = Batch([b'"a"'], [0], [0], [0], [1]), Form(None)

    body = template.body(batch, form, b'{"input_type":"query"}')

    assert body.count(b"input_type") == 1
    assert json.loads(body) == {"model": "m", "input_type": "query", "truncate": "NONE", "input": ["a"]}
    assert json.loads(template.body(batch, form))["input_type"] == "passage"
