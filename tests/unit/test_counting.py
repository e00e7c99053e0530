"""Counting quickly: the same tokens as tiktoken's, for any text, alone and together."""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import Any

import numpy as np
import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.plan import vocabulary
from embedbatch.plan.chunker import Chunker
from embedbatch.plan.counting import bears_threads, count_all, load
from embedbatch.plan.documents import Source
from embedbatch.plan.splitting import PATTERN
from embedbatch.plan.tokens import LazyTokenizer, QuickTokenizer, TiktokenTokenizer, as_tokenizer, cl100k_base

# White space of every kind, what Python takes for it, what each alternative of the pattern is about, and the tokens
# that keep texts apart, whole and in pieces.
PIECES = [
    *(" ", "  ", "   ", "    ", "\t", "\n", "\r", "\r\n", "\n\n", "\x0b", "\x0c", "\x85", "\xa0", "\u1680", "\u2003"),
    *("\u2028", "\u3000", "\u200b", "\x1c", "\x1f", "\u180e", "\ufeff"),
    *("a", "Zürich", "'s", "'LL", "'ſ", "1", "1234", "½", "٣", "ⅷ", "!", "..", '"', "_", "-", "北京", "é", "e\u0301"),
    *("🙂", "👩\u200d👧", "ǅ", "<", "<|endoftext|>", "<|fim_prefix|>", "<|fim", "_prefix|>", "<|endof", "text|>"),
]
TEXTS = st.one_of(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), st.text(st.characters(codec="utf-8")))


@functools.cache
def ranks() -> dict[bytes, int]:
    """The ranks of the vocabulary."""
    return vocabulary.load_ranks()


def like_cl100k(
    special_tokens: dict[str, int] = vocabulary.SPECIAL_TOKENS,
    name: str = "cl100k_base",
    kind: type[tiktoken.Encoding] = tiktoken.Encoding,
) -> tiktoken.Encoding:
    """The encoding that tiktoken gives out under that name, or one that differs."""
    return kind(name, pat_str=vocabulary.PATTERN, mergeable_ranks=ranks(), special_tokens=special_tokens)


@pytest.fixture(scope="module")
def plain() -> TiktokenTokenizer:
    """tiktoken as it is."""
    return TiktokenTokenizer(like_cl100k(), splits_like_cl100k=True)


@pytest.fixture(scope="module")
def quick() -> QuickTokenizer:
    """The quick one."""
    tokenizer = load(cl100k_base())
    assert isinstance(tokenizer, QuickTokenizer)
    return tokenizer


@given(texts=st.lists(TEXTS, max_size=6))
def test_any_texts_have_the_tokens_that_tiktoken_finds(
    plain: TiktokenTokenizer, quick: QuickTokenizer, texts: list[str]
) -> None:
    """Each by itself has the same tokens, with the same ends; and all of them together have the same counts."""
    for text in texts:
        np.testing.assert_array_equal(quick.ends(text), plain.ends(text))

    assert count_all(quick, texts) == [plain.count(text) for text in texts]


@given(pieces=st.lists(st.sampled_from(PIECES), max_size=60), limit=st.integers(1, 12))
def test_a_text_is_cut_where_tiktoken_would_have_it_cut(
    plain: TiktokenTokenizer, quick: QuickTokenizer, pieces: list[str], limit: int
) -> None:
    """The same chunks with the same tokens, and the same cuts and failures, whatever the limit."""
    source = Source(0, 0, "".join(pieces))
    by_plain, by_quick = (Chunker(max_input_tokens=limit, tokenizer=each).plan([source]) for each in (plain, quick))

    assert (by_quick.chunks, by_quick.parts, by_quick.cuts) == (by_plain.chunks, by_plain.parts, by_plain.cuts)
    assert list(map(repr, by_quick.failures)) == list(map(repr, by_plain.failures))


@pytest.mark.slow
@pytest.mark.parametrize("width", [3, 4, 5])
def test_white_space_of_any_shape_is_split_the_same(
    plain: TiktokenTokenizer, quick: QuickTokenizer, width: int
) -> None:
    """All stretches of so many characters of six kinds, between all kinds of neighbours: exhaustively."""
    kinds = [" ", "\t", "\n", "\r", "\u3000", "a"]
    texts = [""]
    for _ in range(width):
        texts = [text + kind for text in texts for kind in kinds]
    texts = [before + text + after for text in texts for before in ("", "b", "!", "1") for after in ("", "b", "!", "1")]

    counts = count_all(quick, texts)

    assert counts == [plain.count(text) for text in texts]


def test_the_white_space_of_the_pattern_is_that_of_unicode(plain: TiktokenTokenizer, quick: QuickTokenizer) -> None:
    """Each of the characters of the world that is a space or a control, three in a row: split the same."""
    characters = [
        chr(code)
        for code in range(0x110000)
        if unicodedata.category(chr(code)) in ("Zs", "Zl", "Zp", "Cc", "Cf") or chr(code).isspace()
    ]
    texts = [f"a{3 * character}b" for character in characters]

    assert count_all(quick, texts) == [plain.count(text) for text in texts]


def test_the_quick_pattern_is_that_of_the_vocabulary_without_what_looks_ahead() -> None:
    """If the vocabulary's pattern is ever changed, this one has to be."""
    greedy = re.sub(r"([?+*}])\+", r"\1", vocabulary.PATTERN)

    assert greedy.replace(r"|\s+(?!\S)", "") == PATTERN


@pytest.mark.parametrize("end", ["\n", "", "b", "<|endoftext|>"])
@pytest.mark.parametrize("kind", [" ", "\t", "\u3000", " \n", "\n", "a", "<|", "'s"])
def test_a_long_stretch_of_one_thing_takes_no_more_time(
    plain: TiktokenTokenizer, quick: QuickTokenizer, kind: str, end: str
) -> None:
    """100,000 of it: the same tokens, and no quadratic search, which would take minutes."""
    text = f"a{100_000 * kind}{end}"

    assert count_all(quick, [text, "b"]) == [plain.count(text), 1]


def test_counts_are_in_order_over_many_calls(quick: QuickTokenizer) -> None:
    """Two million characters are several calls; a text of none has no tokens."""
    texts = [f"{number} " + "word " * (number % 50) for number in range(15_000)] + ["", "a"]

    counts = count_all(quick, texts)

    assert counts[-2:] == [0, 1]
    assert counts == [quick.count(text) for text in texts]
    assert count_all(quick, []) == []


class Shouting(tiktoken.Encoding):
    """An encoding of a caller's own, with the vocabulary of cl100k_base."""

    def encode_to_numpy(self, text: str, **settings: Any) -> Any:
        """The tokens of something else."""
        return super().encode_to_numpy(text.upper(), **settings)


def test_what_tiktoken_gives_out_as_cl100k_base_is_quickened() -> None:
    """Under the name that it has; it is not loaded a second time before it is needed."""
    given_one = as_tokenizer(like_cl100k(name="mine"))

    assert isinstance(given_one, LazyTokenizer)
    assert isinstance(load(given_one), QuickTokenizer)
    assert given_one.name == load(given_one).name == "mine"
    assert (
        given_one.count("a    b <|endoftext|>")
        == like_cl100k().encode_to_numpy("three    spaces <|endoftext|>", disallowed_special=()).size
    )


def test_another_tokenizer_stays_what_it_is() -> None:
    """With another pattern, other special tokens or a class of its own; the caller's own is asked text by text."""
    encoding = tiktoken.Encoding(
        "own", pat_str=r"\S+|\s+", mergeable_ranks={bytes([n]): n for n in range(256)}, special_tokens={}
    )
    other = as_tokenizer(encoding)
    shouting = as_tokenizer(like_cl100k(kind=Shouting))

    assert load(other) is other
    assert not isinstance(load(as_tokenizer(like_cl100k(special_tokens={}))), QuickTokenizer)
    assert shouting.count("hello there") == like_cl100k().encode_to_numpy("HELLO THERE").size
    assert count_all(other, ["ab", "", "abc"]) == [2, 0, 3]
    assert bears_threads(other)
    assert not bears_threads(Words())


class Words:
    """A tokenizer of a caller's own."""

    name = "words"

    def bound(self, nbytes: int, /) -> int:
        """A word has a byte at least."""
        return nbytes

    def count(self, text: str, /) -> int:
        """Words."""
        return len(text.split())

    def ends(self, text: str, /) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Where they end."""
        return np.array([match.end() for match in re.finditer(r"\S+", text)], np.int64)

    def is_stable_cut(self, text: str, cut: int, /) -> bool:
        """Between words."""
        return text[cut] == " "

    def decode(self, tokens: object, /) -> str:
        """It cannot."""
        raise ValueError
