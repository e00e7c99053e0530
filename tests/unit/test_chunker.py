"""A long text becomes parts that fit: joined they are the text, counted they are within the limit."""

from __future__ import annotations

from typing import Any

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.errors import (
    ConfigurationError,
    EmptyInputError,
    InputTooLongError,
)
from embedbatch.plan.chunker import Chunker
from embedbatch.plan.documents import Source
from embedbatch.values import Cut

from .chunking import (
    count,
    for_every_vocabulary,
    limits,
    nasty_texts,
    plan,
    sent,
    spans_of,
    the_error,
    tokenizer,
    weight,
    with_text,
)

# Long texts


@for_every_vocabulary
@given(text=nasty_texts.map(with_text), limit=limits)
def test_parts_fit_and_join_to_the_document(name: str, text: str, limit: int) -> None:
    """Under "split" each part has 1 to *limit* tokens, counts are exact; joined the parts are the text, less blanks."""
    planned = plan(text, limit=limit, vocabulary=name)
    parts = sent(planned)
    counts = [count(name, part) for part in parts]

    spans_of(text, planned)
    assert not any(part.isspace() for part in parts)
    assert max(counts) <= limit
    assert planned.chunks.documents == [0] * len(parts)
    assert planned.chunks.parts == list(range(len(parts)))
    assert not planned.failures and not planned.repaired
    if len(parts) > 1:
        assert planned.chunks.bounds == counts
        assert planned.chunks.tokens == ([0] * len(parts) if name == "bytes" else counts)
        assert planned.parts[0].weights == tuple(weight(name, tokens) for tokens in counts)


@for_every_vocabulary
@given(text=nasty_texts.map(with_text), limit=limits)
def test_what_fits_is_left_alone(name: str, text: str, limit: int) -> None:
    """A text is cut if and only if it has more tokens than the limit, and the report has its exact count."""
    planned = plan(text, limit=limit, vocabulary=name)
    tokens = count(name, text)

    if tokens <= limit:
        assert sent(planned) == [text]
        assert not planned.parts and not planned.cuts
        assert tokens <= planned.chunks.bounds[0] <= limit
        assert planned.chunks.tokens[0] in (0, tokens)
    else:
        spans = spans_of(text, planned)
        assert planned.cuts == [Cut("d0", 0, "split", None if name == "bytes" else tokens, spans)]


@for_every_vocabulary
@given(text=nasty_texts.map(with_text), limit=limits)
def test_truncating_sends_the_first_part(name: str, text: str, limit: int) -> None:
    """ "truncate" sends what "split" sends of the beginning, and reports its span and the whole text's count."""
    planned = plan(text, limit=limit, vocabulary=name, long_input="truncate")
    split = plan(text, limit=limit, vocabulary=name)

    if spans_of(text, split)[0][0] > 0:
        assert isinstance(the_error(planned), EmptyInputError)  # the first part is blank
        return
    assert planned.chunks == split.chunks.select([0])
    assert not planned.parts
    spans = [(cut.policy, cut.tokens, cut.spans) for cut in planned.cuts]
    assert spans == [("truncate", cut.tokens, cut.spans[:1]) for cut in split.cuts]


@for_every_vocabulary
@given(text=nasty_texts.map(with_text), limit=limits)
def test_chunks_cover_the_document(name: str, text: str, limit: int) -> None:
    """Under "chunks" every document has spans, also a short one; they cover all but blanks and say what is sent."""
    planned = plan(text, limit=limit, vocabulary=name, long_input="chunks")

    assert planned.parts[0].spans == spans_of(text, planned)


@for_every_vocabulary
@given(text=nasty_texts.map(with_text), limit=limits)
def test_a_text_that_may_not_be_cut_fails_with_its_numbers(name: str, text: str, limit: int) -> None:
    """Under "error" exactly the texts above the limit fail; the error has document, limit and exact count."""
    planned = plan(text, limit=limit, vocabulary=name, long_input="error")
    tokens = count(name, text)

    if tokens <= limit:
        assert sent(planned) == [text]
        return
    error = the_error(planned)
    assert isinstance(error, InputTooLongError)
    assert (error.document, error.tokens, error.limit, error.counted) == ("d0", tokens, limit, name != "bytes")


def test_the_error_says_what_to_do() -> None:
    """The message names document, count, limit and both policies; a byte bound is called "up to"."""
    exact = the_error(plan("one two three " * 10, vocabulary="cl100k_base", long_input="error"))
    bound = the_error(plan("one two three " * 10, long_input="error"))

    assert str(exact).startswith("document 'd0' has 31 tokens; the model takes at most 16. ")
    assert str(exact).endswith('Pass long_input="split" to embed it in parts, or "truncate" to embed its beginning.')
    assert str(bound).startswith("document 'd0' has up to 140 tokens; ")


@for_every_vocabulary
@pytest.mark.parametrize(
    "text",
    ["😀😁🤣" * 5, "👨‍👩‍👧‍👦" * 5, "語" * 20, "\U00020000" * 20, "hello world " * 9, "e\u0301" * 20],
    ids=["emoji", "families", "CJK", "rare CJK", "words", "accents"],
)
def test_a_limit_below_one_character_ends_in_single_characters(name: str, text: str) -> None:
    """With a limit of 1 to 8 tokens nothing is lost and nothing hangs; what is above the limit is one character."""
    for limit in range(1, 9):
        planned = plan(text, limit=limit, vocabulary=name)
        parts = sent(planned)

        spans_of(text, planned)
        assert all(len(part) == 1 for part in parts if count(name, part) > limit)


@pytest.mark.parametrize("limit", [0, -1, None, 16.0, "16"])
def test_a_limit_that_is_no_count_is_refused(limit: Any) -> None:
    """max_input_tokens is an int of at least 1; anything else is a ConfigurationError when the chunker is made."""
    with pytest.raises(ConfigurationError, match="max_input_tokens: expected an int of at least 1"):
        Chunker(max_input_tokens=limit, tokenizer=None)


# Where it is cut

WORDS = "word " * 15  # 75 bytes


@pytest.mark.parametrize(
    ("text", "first"),
    [
        (WORDS + "end. New\n\nparagraph begins here", WORDS + "end. New\n\n"),
        (WORDS + "end. New\n \nparagraph begins here", WORDS + "end. New\n \n"),
        (WORDS + "end. New\nline begins exactly here", WORDS + "end."),
        (WORDS + 'is "it?" Another one is this here', WORDS + 'is "it?"'),
        (WORDS + "语。语 another one is this all here", WORDS + "语。"),
        (WORDS + "语。」语 another one is this here", WORDS + "语。」"),
        (WORDS + "and a\nline begins exactly here yes", WORDS + "and a\n"),
        (WORDS + "and several more words are here it", WORDS + "and several"),
        (WORDS + "x" * 60, WORDS + "x" * 13),
        ("x" * 100, "x" * 88),
    ],
    ids=["paragraph", "blank line", "sentence", "quote", "CJK", "CJK quote", "line", "word", "no word", "nothing"],
)
def test_a_cut_is_where_people_would_cut(text: str, first: str) -> None:
    """In the last eighth of 88 bytes a paragraph is looked for, then a sentence's end, a line's, a word's."""
    planned = plan(text, limit=89, long_input="truncate")

    assert sent(planned) == [first]


def test_a_boundary_far_from_the_limit_is_not_taken() -> None:
    """A paragraph that ends in the first seven eighths does not shorten the part; a word's end near the limit does."""
    text = "a b\n\n" + "word " * 40

    assert sent(plan(text, limit=89, long_input="truncate")) == ["a b\n\n" + "word " * 15 + "word"]


@pytest.mark.parametrize("character", ["e\u0301\u0323", "👨‍👩‍👧‍👦", "👍🏽", "❤️", "1\ufe0f\u20e3", "कि", "🏳️‍🌈"])
@pytest.mark.parametrize("name", ["cl100k_base", "bytes", "local"])
def test_a_combined_character_stays_whole(name: str, character: str) -> None:
    """Marks, joiners, skin tones and variation selectors stay with their base: no part begins inside what one sees."""
    text = character * 60
    planned = plan(text, limit=50, vocabulary=name)

    seen = {match.start() for match in regex.finditer(r"\X", text)}
    begins = [start for start, _ in planned.parts[0].spans]
    assert len(begins) > 1 and set(begins) <= seen


@given(
    texts=st.lists(nasty_texts | st.text(max_size=40) | st.just([1, 2]), min_size=1, max_size=4),
    limit=st.integers(16, 400),
    settings=st.fixed_dictionaries(
        {},
        optional={
            "prefix": st.just("query: "),
            "long_input": st.sampled_from(["split", "truncate", "chunks", "error"]),
            "surrogates": st.just("error"),
            "count_tokens": st.just(True),
        },
    ),
)
@pytest.mark.parametrize("name", ["bytes", "cl100k_base", "local"])
def test_short_texts_together_become_what_they_become_one_by_one(
    name: str, texts: list[Any], limit: int, settings: dict[str, Any]
) -> None:
    """All of them at once, exactly as planned one by one; or nothing, where that is not certain."""
    chunker = Chunker(max_input_tokens=limit, tokenizer=tokenizer(name), **settings)
    sources = [Source(position, f"d{position}", text) for position, text in enumerate(texts)]
    together = chunker.plan_short(sources)

    assert together in (None, chunker.plan(sources))


@pytest.mark.parametrize("prefix", ["", "query: "])
@pytest.mark.parametrize("name", ["bytes", "cl100k_base", "local"])
def test_short_texts_are_planned_together(name: str, prefix: str) -> None:
    """Nothing of these has to be told, so there is no need to look at each."""
    chunker = Chunker(max_input_tokens=200, tokenizer=tokenizer(name), prefix=prefix)
    sources = [Source(position, position, text) for position, text in enumerate(["a", "ünï 日本語 😀", 'x "y"\n' * 9])]

    assert chunker.plan_short(sources) is not None
