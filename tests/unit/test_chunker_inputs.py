"""What is short, broken, empty or a token array becomes one chunk, several, or a typed failure."""

from __future__ import annotations

import array
import enum
import itertools
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.errors import (
    EmptyInputError,
    InputError,
    InputTooLongError,
    InvalidInputError,
    InvalidTextError,
    TokenArrayError,
)
from embedbatch.local import load
from embedbatch.plan.chunker import PIECE, Chunker
from embedbatch.plan.documents import Source
from embedbatch.plan.tokens import Offsets

from .chunking import (
    count,
    encoding,
    for_every_vocabulary,
    limits,
    nasty_texts,
    plan,
    sent,
    spans_of,
    the_error,
    with_text,
)

# Short texts


class NeverAsked:
    """A tokenizer that fails when it has to tokenize."""

    name = "never asked"

    def bound(self, nbytes: int, /) -> int:
        return nbytes

    def count(self, text: str, /) -> int:
        raise AssertionError("asked to count")

    def ends(self, text: str, /) -> Offsets:
        raise AssertionError("asked for ends")

    def is_stable_cut(self, text: str, cut: int, /) -> bool:
        raise AssertionError("asked for a cut")

    def decode(self, tokens: Sequence[int], /) -> str:
        raise AssertionError("asked to decode")


@pytest.mark.parametrize(
    "text",
    ["x" * 100, "語" * 33, "\n" * 49 + "a", '"' * 100, "\x00" * 100, "\\" * 100],
    ids=["letters", "CJK", "newlines", "quotes", "NUL", "backslashes"],
)
def test_what_the_bytes_prove_to_fit_is_not_tokenized(text: str) -> None:
    """A text of at most 100 bytes fits 100 tokens without a question, even where its JSON is 600 bytes long."""
    chunker = Chunker(max_input_tokens=100, tokenizer=NeverAsked())
    planned = chunker.plan([Source(0, 0, text)])

    assert sent(planned) == [text]
    assert planned.chunks.tokens == [0]
    assert len(text.encode()) <= planned.chunks.bounds[0] <= 100
    assert chunker.effort(text) == 0 or not text.isascii()


@pytest.mark.parametrize("name", ["cl100k_base", "local"])
@given(text=nasty_texts.map(with_text))
def test_counting_asks_for_every_texts_exact_count(name: str, text: str) -> None:
    """With count_tokens, the count of a text far below the limit is exact, and is its bound."""
    planned = plan(text, limit=100_000, vocabulary=name, count_tokens=True)

    assert planned.chunks.tokens == planned.chunks.bounds == [count(name, text)]


def test_bytes_are_not_counted_as_tokens() -> None:
    """Without a tokenizer count_tokens has nothing to say: the count stays 0, which is unknown."""
    planned = plan("short", "long " * 10, count_tokens=True)

    assert planned.chunks.tokens == [0] * len(planned.chunks)


@pytest.mark.parametrize(
    ("content", "settings", "effort"),
    [
        ("x" * 16, {}, 0),
        ("x" * 17, {}, 17),
        ("x" * 3, {"count_tokens": True}, 3),
        ("語" * 4, {}, 0),
        ("語" * 6, {}, 6),
        ([1] * 10, {}, 40),
        ([1] * 10, {"token_arrays": True}, 0),
        (None, {}, 0),
    ],
)
def test_the_effort_is_what_may_have_to_be_tokenized(content: Any, settings: dict[str, Any], effort: int) -> None:
    """Only texts whose bytes do not prove that they fit, and token arrays that become texts, count as effort."""
    assert Chunker(max_input_tokens=16, tokenizer=NeverAsked(), **settings).effort(content) == effort
    assert Chunker(max_input_tokens=16, tokenizer=None, **settings).effort(content) in (0, effort)


# Texts that are not quite


class Label(enum.StrEnum):
    SHORT = "a label"
    LONG = "a long label, " * 3


class Odd(str):
    """A text whose str() is something else."""

    def __str__(self) -> str:
        return "something else"


@pytest.mark.parametrize("text", [np.str_("a text"), Label.SHORT, Odd("odd"), np.str_("a long text " * 9), Label.LONG])
def test_a_kind_of_str_is_embedded_as_its_text(text: str) -> None:
    """numpy.str_, members of a StrEnum and other subclasses of str go out as the characters they hold."""
    assert "".join(sent(plan(text))) == "".join(text)
    assert "".join(sent(plan(text, vocabulary="cl100k_base"))) == "".join(text)


@given(
    nasty_texts.map(with_text), st.lists(st.tuples(st.integers(0, 99), st.characters(categories=["Cs"])), min_size=1)
)
def test_lone_surrogates_are_replaced_one_for_one(text: str, surrogates: list[tuple[int, str]]) -> None:
    """Each lone surrogate goes out as one U+FFFD, so that offsets stay true; the original is reported."""
    characters = list(text)
    for at, surrogate in surrogates:
        characters.insert(at, surrogate)
    broken = "".join(characters)
    planned = plan(broken, long_input="chunks")

    spans_of("".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in broken), planned)
    assert planned.repaired == [Source(0, "d0", broken)]


@pytest.mark.parametrize("text", ["abc\ud83d", np.str_("abc\udc00\ud800"), "abc\ud83d\ude00"])
def test_lone_surrogates_can_be_refused(text: str) -> None:
    """Under surrogates="error" the document fails, and the error has the place and the remedy."""
    error = the_error(plan(text, surrogates="error"))

    assert isinstance(error, InvalidTextError)
    assert isinstance(error, ValueError)
    assert str(error).startswith("document 'd0' has a lone surrogate at character 3, which UTF-8 cannot carry. ")
    assert 'Pass surrogates="replace"' in str(error)


@pytest.mark.parametrize(("text", "word"), [("", "empty"), (" ", "blank"), ("\r\n\t\x85\u2028\u3000\x1c", "blank")])
@pytest.mark.parametrize("policy", ["error", "skip"])
def test_an_empty_or_blank_text_is_never_sent(text: str, word: str, policy: Any) -> None:
    """ "" and white space become a failure that says which; empty="skip" marks it as asked for."""
    planned = plan(text, empty=policy)

    assert isinstance(the_error(planned), EmptyInputError)
    assert str(planned.failures[0].error) == f"document 'd0' is {word}"
    assert planned.failures[0].skipped == (policy == "skip")


def test_skip_skips_only_what_is_empty() -> None:
    """empty="skip" does not hide a document that is no text."""
    planned = plan(None, "", empty="skip")

    assert [failure.skipped for failure in planned.failures] == [False, True]


# Token arrays


@given(st.integers(1, 300).map(lambda size: list(range(size))), limits)
def test_token_arrays_are_cut_by_number(tokens: list[int], limit: int) -> None:
    """An array of at most the limit goes whole; a longer one in parts below the limit, which joined are the array."""
    planned = plan(tokens, limit=limit, token_arrays=True)
    parts = sent(planned)

    assert list(itertools.chain.from_iterable(parts)) == tokens
    assert planned.chunks.tokens == planned.chunks.bounds == [len(part) for part in parts]
    assert len(parts) == 1 if len(tokens) <= limit else max(map(len, parts)) == limit - 1
    assert [cut.tokens for cut in planned.cuts] == ([len(tokens)] if len(parts) > 1 else [])
    if len(parts) > 1:
        assert [tokens[start:end] for start, end in planned.parts[0].spans] == parts


@pytest.mark.parametrize("limit", [1, 2])
def test_the_smallest_limits_cut_token_arrays_too(limit: int) -> None:
    """With a limit of 1 or 2 an array of 5 tokens becomes 5 arrays of one."""
    assert sent(plan([1, 2, 3, 4, 5], limit=limit, token_arrays=True)) == [[1], [2], [3], [4], [5]]


def test_a_long_token_array_follows_the_policy() -> None:
    """40 tokens and a limit of 16: "truncate" sends 15, "chunks" 15, 15 and 10 with spans, "error" fails with 40."""
    tokens = list(range(40))

    assert sent(plan(tokens, token_arrays=True, long_input="truncate")) == [tokens[:15]]
    chunks = plan(tokens, token_arrays=True, long_input="chunks")
    assert chunks.parts[0] == (((0, 15), (15, 30), (30, 40)), (15, 15, 10))
    short = plan(tokens[:16], token_arrays=True, long_input="chunks")
    assert short.parts[0] == (((0, 16),), (1,))
    error = the_error(plan(tokens, token_arrays=True, long_input="error"))
    assert isinstance(error, InputTooLongError)
    assert (error.document, error.tokens, error.limit, error.counted) == ("d0", 40, 16, True)


@pytest.mark.parametrize(
    "tokens",
    [
        [1, 2, 3],
        (1, 2, 3),
        range(1, 4),
        array.array("I", [1, 2, 3]),
        np.array([1, 2, 3]),
        np.array([1, 2, 3], np.uint8),
        np.array([1, 2, 3], object),
        list(np.array([1, 2, 3])),
    ],
    ids=lambda tokens: type(tokens).__name__,
)
def test_every_kind_of_array_is_sent_as_ints(tokens: Any) -> None:
    """Lists, tuples, ranges, array.array, numpy arrays and lists of numpy ints go out as [1,2,3]."""
    assert plan(tokens, token_arrays=True).chunks.inputs == [b"[1,2,3]"]


@pytest.mark.parametrize("name", ["cl100k_base", "local"])
@given(text=nasty_texts.map(lambda text: text + "."))
def test_an_endpoint_without_token_arrays_gets_their_text(name: str, text: str) -> None:
    """Where only texts are taken, the tokens of a text go out as that text; "▁" is the local model's space."""
    own = load().tokenizer
    tokens = encoding().encode_ordinary(text) if name == "cl100k_base" else next(own.encode([text])).tolist()
    planned = plan(tokens, limit=10**6, vocabulary=name)

    assert sent(planned) == [text if name == "cl100k_base" else own.decode(tokens)]


@pytest.mark.parametrize("tokens", [[100_256], [2**70], [76_460]])
def test_tokens_of_no_text_fail_where_only_texts_are_taken(tokens: list[int]) -> None:
    """An id outside the vocabulary, or half a character, is a TokenArrayError that names the vocabulary."""
    error = the_error(plan(tokens, vocabulary="cl100k_base"))

    assert isinstance(error, TokenArrayError)
    assert "its tokens are not those of a text in cl100k_base" in str(error)


def test_tokens_need_a_vocabulary_where_only_texts_are_taken() -> None:
    """Without a tokenizer a token array cannot become a text: the error says to pass the text, or tokenizer=."""
    error = the_error(plan([1, 2]))

    assert isinstance(error, TokenArrayError)
    assert str(error).endswith("Pass the text, or tokenizer=.")


@pytest.mark.parametrize("tokens", [[], (), np.array([], int)], ids=["list", "tuple", "numpy"])
def test_an_empty_token_array_is_never_sent(tokens: Any) -> None:
    """No tokens are an EmptyInputError."""
    error = the_error(plan(tokens, token_arrays=True))

    assert isinstance(error, EmptyInputError)
    assert str(error) == "document 'd0' is an empty token array"


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (None, "expected a text or an array of token ids, got None"),
        (5, "expected a text or an array of token ids, got int"),
        (b"bytes", "expected a text or an array of token ids, got bytes"),
        (bytearray(b"bytes"), "expected a text or an array of token ids, got bytearray"),
        (memoryview(b"bytes"), "expected a text or an array of token ids, got memoryview"),
        ({"a": 1}, "expected a text or an array of token ids, got dict"),
        ({1, 2}, "expected a text or an array of token ids, got set"),
        (np.array("text"), "expected a text or an array of token ids, got ndarray"),
        (np.array(5), "expected a text or an array of token ids, got ndarray"),
        (np.int64(5), "expected a text or an array of token ids, got int64"),
        ([1, True], "expected a token id, got bool - at [1]"),
        ([1, None], "expected a token id, got None - at [1]"),
        ([1, 2, 3.0], "expected a token id, got float - at [2]"),
        (["a"], "expected a token id, got str - at [0]"),
        ([[1]], "expected a token id, got list - at [0]"),
        ([1, -2], "expected a token id, got -2 - at [1]"),
        (np.array([[1]]), "expected a token id, got list - at [0]"),
        (np.array([1.5]), "expected a token id, got float - at [0]"),
        (np.array([True]), "expected a token id, got bool - at [0]"),
    ],
)
def test_what_is_no_document_fails_alone(content: Any, got: str) -> None:
    """Anything else becomes a failure, a TypeError, that says what came and where; the documents after it go on."""
    planned = plan(content, "fine", token_arrays=True)

    (failure,) = planned.failures
    assert isinstance(failure.error, InvalidInputError)
    assert isinstance(failure.error, TypeError)
    assert str(failure.error) == f"document 'd0': {got}"
    assert sent(planned) == ["fine"]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.binary(max_size=3) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=8,
)


@given(st.lists(anything, max_size=8), st.booleans(), st.sampled_from(["split", "truncate", "chunks", "error"]))
def test_every_document_becomes_chunks_or_a_failure(contents: list[Any], takes_arrays: bool, policy: Any) -> None:
    """Whatever comes in, nothing is raised, and each document has its first chunk or an InputError, never both."""
    planned = plan(*contents, token_arrays=takes_arrays, vocabulary="cl100k_base", long_input=policy)
    chunks = planned.chunks
    begun = [document for document, part in zip(chunks.documents, chunks.parts, strict=True) if part == 0]

    assert sorted(begun + [failure.position for failure in planned.failures]) == list(range(len(contents)))
    assert all(isinstance(failure.error, InputError) for failure in planned.failures)


# Texts longer than a piece


def long_text(rng: random.Random) -> str:
    """2.3 million characters: prose, runs without a space, CJK and white space, in stretches of up to 5,000."""
    kinds = [
        "Plain words, and a sentence. ",
        "x",
        "日本語のテキスト。",
        "👨‍👩‍👧‍👦",
        "\n\n",
        " ",
        "Zahl 2024\r\n",
        "=",
        "<|endoftext|>",
    ]
    stretches = []
    size = 0
    while size < PIECE + 300_000:
        kind = rng.choice(kinds)
        stretches.append(kind * rng.randint(1, 5_000 // len(kind)))
        size += len(stretches[-1])
    return "".join(stretches)


@pytest.mark.slow
@for_every_vocabulary
def test_a_text_longer_than_a_piece_loses_nothing(name: str) -> None:
    """2.3 million characters, tokenized in pieces of 2 million, join without loss; every part fits 8,192 tokens."""
    text = long_text(random.Random(1))
    planned = plan(text, limit=8_192, vocabulary=name)
    parts = sent(planned)
    counts = [count(name, part) for part in parts]

    spans_of(text, planned)
    assert max(counts) <= 8_192
    assert planned.chunks.bounds == counts
    assert planned.cuts[0].tokens is None


@pytest.mark.parametrize("text", ["x" * (PIECE + 1), "語 " * PIECE], ids=["a word", "CJK"])
def test_a_text_longer_than_a_piece_is_refused_by_its_bytes(text: str) -> None:
    """Under "error" only the first piece is tokenized: the count is the bytes', and is not called exact."""
    error = the_error(plan(text, limit=8_192, vocabulary="cl100k_base", long_input="error"))

    assert isinstance(error, InputTooLongError)
    assert (error.tokens, error.counted) == (len(text.encode()), False)
