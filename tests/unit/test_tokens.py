"""How many tokens: bounds hold, counts are tiktoken's, and a cut called stable changes no token."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import tiktoken
from hypothesis import example, given
from hypothesis import strategies as st

from embedbatch.errors import ConfigurationError
from embedbatch.local import load
from embedbatch.plan import vocabulary
from embedbatch.plan.tokens import (
    ByteBound,
    LazyTokenizer,
    TiktokenTokenizer,
    Tokenizer,
    TokenRatio,
    as_tokenizer,
    cl100k_base,
)

NASTY = [
    # white space of every kind; what Python calls white space and the split pattern does not; what neither does
    *" \n\r\t\x0b\x0c\x85\xa0\u1680\u2003\u2028\u2029\u202f\u3000\x1c\x1d\x1e\x1f\u200b\ufeff\x00",
    *("  ", "    ", "\r\n", "\n\n", "\n  \n"),
    *("a", "Hello", " world", "über", "don't", "'s", "'LL", "'", "ſ", "'ſ", "K", "ß", "İ"),
    *("1", "2024", "3.14", "½", "٣", "!", "...", "?!", "=====", "-", "<|endoftext|>", "<|fim_prefix|>", "|>"),
    *("日本語", "。", "「", "한국어", "עברית", "हिन्दी", "e\u0301", "\u0301", "\u200d"),
    *("😀", "👨‍👩‍👧‍👦", "👍🏽", "🇩🇪", "❤️", "\ufffd", "\U0010ffff"),
]
texts = st.lists(st.sampled_from(NASTY) | st.text(max_size=3), max_size=24).map("".join)


@functools.cache
def encoding() -> tiktoken.Encoding:
    return tiktoken.Encoding(
        "cl100k_base",
        pat_str=vocabulary.PATTERN,
        mergeable_ranks=vocabulary.load_ranks(),
        special_tokens=vocabulary.SPECIAL_TOKENS,
    )


def ids(text: str) -> list[int]:
    return encoding().encode_ordinary(text)


def reached(text: str, pieces: Sequence[bytes]) -> list[int]:
    """For each piece, the characters of *text* that it, or one before it, has a byte of."""
    begins = [len(text[:character].encode()) for character in range(len(text))]
    ends = np.cumsum([len(piece) for piece in pieces])
    return [sum(begin < end for begin in begins) for end in ends]


@given(texts)
def test_the_count_of_cl100k_base_is_tiktokens(text: str) -> None:
    """A text has as many tokens as tiktoken's own encode_ordinary finds; "<|endoftext|>" in it is ordinary text."""
    assert cl100k_base().count(text) == len(ids(text))


def test_special_tokens_in_a_text_are_counted_as_text() -> None:
    """ "<|endoftext|>" is 7 tokens of text, not 1 special token and not an error."""
    assert cl100k_base().count("<|endoftext|>") == 7


@given(texts)
def test_no_text_has_more_tokens_than_bytes(text: str) -> None:
    """The bound of cl100k_base, and of a vocabulary that is not known, is the number of UTF-8 bytes."""
    nbytes = len(text.encode())

    assert len(ids(text)) <= cl100k_base().bound(nbytes) == nbytes
    assert ByteBound().count(text) == ByteBound().bound(nbytes) == nbytes


@given(texts)
def test_the_end_of_a_token_is_the_last_character_it_has_a_byte_of(text: str) -> None:
    """There is one end per token, int64; pieces of one character all end after it; the last is len(text)."""
    ends = cl100k_base().ends(text)

    assert ends.dtype == np.int64
    assert ends.tolist() == reached(text, encoding().decode_tokens_bytes(ids(text)))
    assert not text or ends[-1] == len(text)


@given(texts)
def test_the_ends_of_bytes_are_the_characters_begun(text: str) -> None:
    """Without a vocabulary every byte is a token, and it ends with the character it belongs to."""
    ends = ByteBound().ends(text)

    assert ends.tolist() == reached(text, [bytes([byte]) for byte in text.encode()])


@given(texts)
@example("a\n b")
@example("a\n\x1c b")
@example("a \n \n  b")
@example("!\n\n\nb")
@example("!\r\n\r\n b")
@example("a\u2028\n\u2028b")
@example("a\n\rb")
@example("a\n \r b")
@example(" \x1c b")
@example("a' s")
@example("a's 's\n's")
@example("\n\n\n")
def test_a_stable_cut_changes_no_token(text: str) -> None:
    """Wherever cl100k_base calls a cut stable, the tokens of both sides, joined, are those of the whole."""
    tokenizer = cl100k_base()
    whole = ids(text)

    for cut in range(1, len(text)):
        if tokenizer.is_stable_cut(text, cut):
            assert ids(text[:cut]) + ids(text[cut:]) == whole, cut


@given(texts)
def test_two_stable_cuts_leave_what_is_between_them(text: str) -> None:
    """The tokens between two stable cuts are those of the whole text there, so a part need not be counted again."""
    tokenizer = cl100k_base()
    ends = tokenizer.ends(text)
    cuts = [cut for cut in range(1, len(text)) if tokenizer.is_stable_cut(text, cut)]

    for first, last in itertools.pairwise(cuts):
        between = np.searchsorted(ends, last, "right") - np.searchsorted(ends, first, "right")
        assert len(ids(text[first:last])) == between


def test_plain_prose_has_a_stable_cut_before_every_space() -> None:
    """Before each of the 3 spaces of a sentence, and after a newline with text behind it, a cut is stable."""
    text = "One two. Three\nfour five"
    stable = [cut for cut in range(1, len(text)) if cl100k_base().is_stable_cut(text, cut)]

    assert stable == [3, 8, 15, 19]


def test_another_vocabulary_has_no_stable_cuts() -> None:
    """The proof is about the split pattern of cl100k_base; for any other encoding no cut is called stable."""
    other = tiktoken.Encoding("other", pat_str=r"\S+|\s+", mergeable_ranks=byte_ranks(), special_tokens={})
    text = "two words\nand more"

    assert not any(as_tokenizer(other).is_stable_cut(text, cut) for cut in range(len(text) + 1))


def test_the_ends_of_a_text_are_no_cuts() -> None:
    """Offsets 0 and len(text), and those beyond, are not called stable cuts."""
    tokenizer = cl100k_base()

    assert not any(tokenizer.is_stable_cut(" a b\nc ", cut) for cut in (-1, 0, 7, 8))
    assert not tokenizer.is_stable_cut("", 0)


@given(texts)
def test_decoding_gives_the_text_back(text: str) -> None:
    """Encoded and decoded, a text is itself."""
    assert cl100k_base().decode(ids(text)) == text
    assert ByteBound().decode(text.encode()) == text


@pytest.mark.parametrize("tokens", [[100_256], [100_261], [2**32], [2**70], [-1], [76_460]])
def test_what_is_no_text_is_not_decoded(tokens: list[int]) -> None:
    """A token id that does not exist, or half of an emoji, raises ValueError, KeyError or OverflowError."""
    with pytest.raises((ValueError, KeyError, OverflowError)):
        cl100k_base().decode(tokens)


# Tokenizers that are handed in


def byte_ranks() -> dict[bytes, int]:
    return {bytes([byte]): byte for byte in range(256)}


def test_an_encoding_of_tiktoken_is_a_tokenizer() -> None:
    """`tokenizer=` takes a tiktoken.Encoding: one with only single bytes counts 3 tokens in "語"."""
    own = tiktoken.Encoding("own", pat_str=r"\S+|\s+", mergeable_ranks=byte_ranks(), special_tokens={"<x>": 256})
    tokenizer = as_tokenizer(own)

    assert isinstance(tokenizer, TiktokenTokenizer)
    assert tokenizer.name == "own"
    assert tokenizer.count("語") == 3
    assert tokenizer.ends("a語b").tolist() == [1, 2, 2, 2, 3]
    assert tokenizer.count("<x>") == 3


def test_a_tokenizer_is_taken_as_it_is() -> None:
    """Anything with the five methods and a name is a Tokenizer; the one that was handed in is used."""
    given_one = ByteBound()

    assert as_tokenizer(given_one) is given_one
    assert isinstance(load().tokenizer, Tokenizer)


@pytest.mark.parametrize("given_one", [b"cl100k_base", None, len, 5])
def test_what_is_no_tokenizer_is_refused(given_one: object) -> None:
    """Bytes or a function as `tokenizer=` is a ConfigurationError that says what came."""
    with pytest.raises(ConfigurationError, match=f"expected a tiktoken.Encoding.* got {type(given_one).__name__}"):
        as_tokenizer(given_one)


def test_a_lazy_tokenizer_is_loaded_once_and_only_to_count() -> None:
    """Asking for bounds loads nothing; four questions about tokens load once."""
    loads = []

    def load_bytes() -> Tokenizer:
        loads.append(1)
        return ByteBound()

    tokenizer = LazyTokenizer("lazy", load_bytes, overhead=1)
    assert (tokenizer.name, tokenizer.bound(7), loads) == ("lazy", 8, [])

    assert tokenizer.count("語") == 3
    assert tokenizer.ends("ab").tolist() == [1, 2]
    assert tokenizer.is_stable_cut("ab", 1)
    assert tokenizer.decode([97]) == "a"
    assert loads == [1]


# The ratio

told = st.tuples(st.just("learn"), st.integers(0, 10**7), st.none() | st.integers(-(10**7), 10**7))
seen = st.tuples(st.just("see"), st.integers(0, 10**7), st.floats(-1e7, 1e7))


@given(st.lists(told | seen, max_size=50))
def test_the_ratio_stays_between_a_twentieth_and_one(readings: list[tuple[str, int, float | None]]) -> None:
    """Whatever endpoints say, and whatever their limiters are seen to do, it stays within 0.05 and 1."""
    ratio = TokenRatio()

    for how, nbytes, tokens in readings:
        getattr(ratio, how)(nbytes, tokens)

    assert 0.05 <= ratio.value <= 1.0


@pytest.mark.parametrize(("nbytes", "tokens"), [(1000, None), (1000, 0), (0, 10), (1000, 49), (1000, 1001), (10, -5)])
def test_an_unbelievable_count_teaches_nothing(nbytes: int, tokens: int | None) -> None:
    """A missing or zero count, and more than 1 or less than 0.05 tokens a byte, leave the ratio at 0.25."""
    ratio = TokenRatio()
    ratio.learn(nbytes, tokens)
    if tokens is not None:
        ratio.see(nbytes, tokens)

    assert ratio == TokenRatio()
    assert ratio.value == 0.25


def test_the_ratio_is_learned_in_some_fifty_replies() -> None:
    """After 50 replies at 0.43 tokens a byte the ratio is within 0.001 of it."""
    ratio = TokenRatio()
    for _ in range(50):
        ratio.learn(10_000, 4_300)

    assert ratio.value == pytest.approx(0.43, abs=0.001)


@pytest.mark.parametrize(
    ("tokens", "value"),
    [(4_300, 0.43), (1_000, 0.1), (3_126, 0.3126), (1_874, 0.1874), (3_125, 0.25625), (2_500, 0.25), (2_400, 0.249)],
)
def test_what_the_limiter_is_seen_to_count_is_taken_at_once_where_it_is_far_off(tokens: float, value: float) -> None:
    """More than a quarter away from what was assumed it replaces that; within a quarter it moves it by a tenth."""
    ratio = TokenRatio()
    ratio.see(10_000, tokens)

    assert ratio.value == pytest.approx(value)


def test_what_the_limiter_is_seen_to_count_is_believed_before_usage() -> None:
    """Once it was seen, usage teaches nothing any more, and later sights still do; before, usage counts."""
    ratio = TokenRatio()
    ratio.learn(10_000, 4_300)
    assert ratio.value == pytest.approx(0.268)

    ratio.see(10_000, 2_500)
    assert ratio.value == pytest.approx(0.2662)
    for _ in range(50):
        ratio.learn(10_000, 4_300)
    assert ratio.value == pytest.approx(0.2662)

    for _ in range(50):
        ratio.see(10_000, 2_500)
    assert ratio.value == pytest.approx(0.25, abs=0.001)


def test_an_unbelievable_sight_does_not_silence_usage() -> None:
    """A limiter that is seen to count nothing, or more than a token a byte, is not taken for one that was seen."""
    ratio = TokenRatio()
    for tokens in (0, 20_000, 499, -1):
        ratio.see(10_000, tokens)
    ratio.learn(10_000, 4_300)

    assert ratio.value == pytest.approx(0.268)
