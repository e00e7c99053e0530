"""The form of requests: less is asked for step by step, what passes is kept, and nothing is asked for again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.dispatch.forms import Forms
from embedbatch.values import Batch
from embedbatch.wire.refusal import Field, is_about_one_input, read_field
from embedbatch.wire.request import Form

TEXTS = Batch([b'"a"'], [0], [0], [0], [1])
ARRAYS = Batch([b"[1,2]"], [0], [0], [2], [2])

some_forms = st.builds(Form, st.sampled_from(["base64", "float", None]), st.booleans(), st.booleans())
fields: list[Field] = ["encoding_format", "dimensions", "token_arrays"]
ORDER = ("base64", "float", None)


def is_less(form: Form, other: Form) -> bool:
    """True if *form* asks for nothing that *other* does not ask for."""
    encodings = ORDER.index(form.encoding_format) >= ORDER.index(other.encoding_format)
    return encodings and form.dimensions <= other.dimensions and form.token_arrays <= other.token_arrays


@given(some_forms, st.lists(st.tuples(st.sampled_from([*fields, None]), st.booleans(), st.booleans()), max_size=20))
def test_less_and_less_is_asked_for(first: Form, events: list[tuple[Field | None, bool, bool]]) -> None:
    """Whatever is refused and passes, forms only ask for less, and no piece is tried twice in one form."""
    forms = Forms(first)
    for field, is_text, passes in events:
        batch, before, tried = (TEXTS if is_text else ARRAYS), forms.form, ()
        form = before
        while (other := forms.other(form, batch, field, tried)) is not None:
            assert is_less(other, before) and other != before
            assert other not in tried
            tried, form = (*tried, other), other
            if passes:
                forms.passes(other, batch)
                break
        assert len(tried) <= 5
        assert is_less(forms.form, before)


@given(some_forms, some_forms)
def test_what_was_learned_can_be_recalled(first: Form, passed: Form) -> None:
    """What is told as JSON brings another to the same form; what nobody learned is not told."""
    forms = Forms(first)
    forms.passes(passed, ARRAYS)
    again = Forms(first)
    again.recall(json.loads(json.dumps(forms.learned())))

    assert again.form == forms.form
    assert again.learned() == forms.learned()
    assert Forms(first).learned() == {}


def test_a_passed_form_is_proven() -> None:
    """Before a success nothing is sure; after one, refusals without a word have other reasons."""
    forms = Forms(Form(dimensions=False))

    assert forms.is_open(TEXTS) and forms.is_open(ARRAYS)
    assert forms.other(forms.form, TEXTS, None, ()) == Form("float", dimensions=False)
    assert forms.passes(forms.form, TEXTS) == []
    assert not forms.is_open(TEXTS) and forms.is_open(ARRAYS)
    assert forms.other(forms.form, TEXTS, None, ()) is None
    assert forms.other(forms.form, ARRAYS, None, ()) == Form("base64", dimensions=False, token_arrays=False)


def test_a_late_reply_to_an_older_form_raises_nothing() -> None:
    """What was sent in base64 before float was learned may pass: it is no reason to ask for base64 again."""
    forms = Forms(Form())
    assert forms.passes(Form("float"), TEXTS) == [("encoding_format", "float")]
    assert forms.passes(Form("base64"), TEXTS) == []
    assert forms.form == Form("float")
    assert forms.at_most(Form("base64", dimensions=False)) == Form("float", dimensions=False)
    assert forms.at_most(Form(None)) == Form(None)


def test_token_arrays_can_be_given_up_without_trying() -> None:
    """Where no text is known to try instead, they are not sent any more."""
    forms = Forms(Form())

    assert forms.without_token_arrays() == [("token_arrays", "texts")]
    assert forms.without_token_arrays() == []
    assert forms.other(forms.form, ARRAYS, "token_arrays", ()) is None


@pytest.mark.parametrize(
    ("message", "param", "field"),
    [
        ("Invalid value", "encoding_format", "encoding_format"),
        ("Invalid value", "$.encoding_format", "encoding_format"),
        ("Invalid value", "body.dimensions", "dimensions"),
        ("Invalid value", "output_dimension", "dimensions"),
        ("base64 encoding is not currently supported", None, "encoding_format"),  # vLLM, 2024
        ("'encoding_format' must be one of ['float']", None, "encoding_format"),
        ("Unexpected value for embedding_type", None, "encoding_format"),
        ("This model does not support specifying dimensions.", None, "dimensions"),  # OpenAI
        ("Model \"m\" does not support matryoshka representation", None, "dimensions"),  # vLLM
        ("dimensions is not supported by this model", None, "dimensions"),
        ("litellm.UnsupportedParamsError: Setting dimensions is not supported for OpenAI", None, "dimensions"),
        ("Unknown argument: dimensions", None, "dimensions"),
        ("invalid input type", None, "token_arrays"),  # Ollama
        ("Input should be a valid string", "input", "token_arrays"),  # infinity
        ("'input' field must be a string or an array of strings", None, "token_arrays"),  # LM Studio
        ("token arrays are not supported", None, "token_arrays"),
        # nothing of the kind
        ("", None, None),
        ("'$.input' is invalid. Please check the API reference", None, None),
        ("Input cannot be an empty string, and any array must be 2048 dimensions or less", None, None),
        ("This model's maximum context length is 8192 tokens", None, None),
        ("batch size 64 > maximum allowed batch size 32", None, None),
        ("Requested 453357 tokens, max 300000 tokens per request", None, None),
        ("matrix dimensions do not match", None, None),
        ("Invalid value", "input", None),
        ("Invalid value", "model", None),
    ],
)  # fmt: skip
def test_servers_name_the_field_in_many_ways(message: str, param: str | None, field: Any) -> None:
    """By the name of the parameter first, else by known words; what is about something else names none."""
    assert read_field(message, param) == field


def test_an_input_that_is_too_long_is_not_tried_in_other_forms() -> None:
    """Its words are about one input."""
    assert is_about_one_input("This model's maximum context length is 8192 tokens, however you requested 9501")
    assert not is_about_one_input("Bad request")
