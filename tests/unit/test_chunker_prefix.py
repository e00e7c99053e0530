"""What goes before a text is in every chunk, counts, and is no part of the document."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from embedbatch.errors import (
    ConfigurationError,
    EmptyInputError,
    InputTooLongError,
    InvalidTextError,
    TokenArrayError,
)
from embedbatch.plan.chunker import Chunker

from .chunking import count, encoding, for_every_vocabulary, limits, nasty_texts, plan, sent, the_error, with_text

prefixes = st.sampled_from(["q: ", "query: ", "task: x | query:", "問: ", "\n", "don", "e"])


@for_every_vocabulary
@given(text=nasty_texts.map(with_text), limit=limits, prefix=prefixes)
@example(text="\x840\x84\U00010000 \u2029 ", limit=16, prefix="q: ")  # pieces of a character beside the prefix
def test_every_chunk_carries_the_prefix_and_fits_with_it(name: str, text: str, limit: int, prefix: str) -> None:
    """Each is prefix and part; joined the parts are the text, less blanks; counts are those of what is sent."""
    if count(name, prefix) >= limit:
        return
    planned = plan(text, limit=limit, vocabulary=name, prefix=prefix)
    inputs = sent(planned)
    counts = [count(name, each) for each in inputs]
    parts = [each.removeprefix(prefix) for each in inputs]

    assert all(each.startswith(prefix) for each in inputs)
    spans = planned.cuts[0].spans if planned.cuts else ((0, len(text)),)
    assert parts == [text[start:end] for start, end in spans]
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(tokens <= limit or len(part) == 1 for tokens, part in zip(counts, parts, strict=True))
    if len(parts) > 1:
        assert planned.chunks.bounds == counts


@for_every_vocabulary
@given(text=nasty_texts.map(with_text), limit=limits, prefix=prefixes)
def test_a_text_is_cut_only_if_it_does_not_fit_behind_the_prefix(name: str, text: str, limit: int, prefix: str) -> None:
    """By the count of both together, which can be less than the sum of their counts."""
    if count(name, prefix) >= limit:
        return
    planned = plan(text, limit=limit, vocabulary=name, prefix=prefix, long_input="error")
    tokens = count(name, prefix + text)

    if tokens <= limit:
        assert sent(planned) == [prefix + text]
        assert tokens <= planned.chunks.bounds[0] <= limit
    else:
        error = the_error(planned)
        assert isinstance(error, InputTooLongError)
        assert (error.tokens, error.limit) == (tokens, limit)


def test_exact_counts_are_those_of_what_is_sent() -> None:
    """`count_tokens` counts the prefix too: it is paid for."""
    planned = plan("hello world", limit=100, vocabulary="cl100k_base", prefix="query: ", count_tokens=True)

    assert planned.chunks.tokens == [count("cl100k_base", "query: hello world")]


@pytest.mark.parametrize("text", ["", "  \n"])
def test_a_prefix_makes_no_text_of_a_blank(text: str) -> None:
    """An empty document stays empty."""
    assert isinstance(the_error(plan(text, prefix="query: ")), EmptyInputError)


def test_offsets_of_what_is_broken_are_those_of_the_text() -> None:
    """A lone surrogate is reported where it is in the document."""
    error = the_error(plan("ab\ud800", limit=100, prefix="query: ", surrogates="error"))
    assert isinstance(error, InvalidTextError)
    assert "at character 2," in str(error)

    assert sent(plan("ab\ud800", limit=100, prefix="query: ")) == ["query: ab\ufffd"]


def test_a_token_array_goes_as_text_behind_a_prefix() -> None:
    """Its tokens cannot be sent as they are: the prefix has tokens of its own, which may join with the first."""
    ids = encoding().encode_ordinary("hello world")

    planned = plan(ids, limit=100, vocabulary="cl100k_base", prefix="query: ", token_arrays=True)
    assert sent(planned) == ["query: hello world"]
    error = the_error(plan(ids, limit=100, prefix="query: ", token_arrays=True))
    assert isinstance(error, TokenArrayError)
    assert "is a token array; 'query: ' goes before it, and the model's tokenizer is not known" in str(error)


@pytest.mark.parametrize("vocabulary", ["cl100k_base", "bytes", "wordpiece"])
def test_a_prefix_that_leaves_no_room_is_refused(vocabulary: str) -> None:
    """When the chunker is made: no text could be sent behind it."""
    with pytest.raises(ConfigurationError, match="max_input_tokens: 4 leave no room for a text behind 'a b c d e f '"):
        plan("text", limit=4, vocabulary=vocabulary, prefix="a b c d e f ")


def test_special_tokens_have_room_where_the_tokenizer_is_not_known() -> None:
    """Two that the server adds leave 14 bytes of 16."""
    settings: dict[str, Any] = {"max_input_tokens": 16, "tokenizer": None, "special_tokens": 2}

    assert Chunker(**settings).effort("x" * 14) == 0
    assert Chunker(**settings).effort("x" * 15) == 15
    assert [len(part) for part in sent(plan("x" * 28, special_tokens=2))] == [13, 13, 2]
