"""What a sweep sends."""

from __future__ import annotations

from itertools import islice
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch import ConfigurationError
from embedbatch.sweep import Texts, bound_for, generate, repeat


@given(st.integers(1, 2_000), st.integers())
def test_made_up_texts_are_of_the_size_and_all_different(nbytes: int, seed: int) -> None:
    """As long as asked or one word longer, no two the same, and the same again with the same seed."""
    texts = list(islice(generate(nbytes, Random(seed)), 100))

    assert len(set(texts)) == 100
    assert all(nbytes <= len(text.encode()) < nbytes + 20 for text in texts)
    assert texts == list(islice(generate(nbytes, Random(seed)), 100))


def test_made_up_texts_have_about_as_many_tokens_as_english() -> None:
    """Between 0.15 and 0.3 tokens a byte, so that what is measured is what texts cost."""
    texts = list(islice(generate(1_000, Random(1)), 10))

    tokens = sum(map(bound_for("text-embedding-3-small"), texts))

    assert 0.15 < tokens / sum(map(len, texts)) < 0.3


@given(st.lists(st.text(max_size=30), max_size=20), st.integers(10, 40))
def test_a_corpus_becomes_texts_that_can_be_sent(corpus: list[str], max_bytes: int) -> None:
    """Without end where there is any; none is blank, and none too long."""
    texts = list(islice(repeat(corpus, max_bytes), 60))

    assert len(texts) == 60 or not any(text[:2].strip() for text in corpus)
    assert all(text.strip() and len(text.encode()) <= max_bytes for text in texts)


def test_the_second_time_a_text_has_a_number() -> None:
    """So a cache does not answer for the endpoint."""
    assert list(islice(repeat(["a", "", "b", "a"], 100), 5)) == ["a", "b", "2: a", "2: b", "3: a"]


def test_a_text_is_cut_between_characters() -> None:
    """A character of two bytes that does not fit is left out."""
    assert next(repeat(["äöü"], 5)) == "äö"


def test_a_batch_knows_what_it_can_cost() -> None:
    """A token may be a byte, and one is added for what a server adds; where the tokenizer is known it counts."""
    assert Texts(iter(["abc", "äb", "c"]), bound_for("some-model")).take(2).bound == 4 + 4
    assert Texts(iter(["compress data", "parse"]), bound_for("text-embedding-3-small")).take(2).bound == 3


def test_no_texts_are_an_error() -> None:
    """There is nothing to send."""
    with pytest.raises(ConfigurationError, match="expected texts to send, got none"):
        Texts(iter([]), len)
