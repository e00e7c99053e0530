"""What the tests of chunker share."""

from __future__ import annotations

import functools
import json
from typing import Any

import pytest
import tiktoken
from hypothesis import strategies as st

from embedbatch.local import load
from embedbatch.plan import vocabulary
from embedbatch.plan.chunker import Chunker
from embedbatch.plan.documents import Plan, Source
from embedbatch.plan.tokens import Tokenizer, cl100k_base

from .tokenizing import KINDS, hf_tokenizer, raw_tokenizer

NASTY = [
    *" \n\r\t\x0b\x0c\x85\xa0\u2003\u2028\u2029\u3000\x1c\x1d\u200b\ufeff\x00",
    *("    ", "\r\n", "\n\n", "\r\n\r\n", "\n  \n", " " * 40, "\n" * 20, "=" * 80),
    *("a", "Hello", " world", " und", "über", "don't", "'LL", "ſ", "'ſ", "supercalifragilistic", "x" * 40),
    *("1", "2024", "3.14", "0" * 30, "!", "...", "?! ", '."', "<|endoftext|>", "</s>", "<s>", '"', "\\", "▁"),
    *("日本語。", "。", "！」", "한국어", "עברית", "हिन्दी", "e\u0301", "\u0301\u0323", "\u200d"),
    *("😀", "👨‍👩‍👧‍👦", "👍🏽", "🇩🇪", "❤️", "\U0010ffff", "\U00020000"),
]
nasty_texts = st.lists(st.sampled_from(NASTY) | st.text(max_size=3), min_size=1, max_size=150).map("".join)
limits = st.integers(16, 64)


@functools.cache
def encoding() -> tiktoken.Encoding:
    return tiktoken.Encoding(
        "cl100k_base",
        pat_str=vocabulary.PATTERN,
        mergeable_ranks=vocabulary.load_ranks(),
        special_tokens=vocabulary.SPECIAL_TOKENS,
    )


@functools.cache
def tokenizer(name: str) -> Tokenizer | None:
    if name in KINDS:
        return hf_tokenizer(name)
    return {"cl100k_base": cl100k_base, "bytes": lambda: None, "local": lambda: load().tokenizer}[name]()


def count(name: str, text: str) -> int:
    """The tokens of *text* as an input, counted without the code under test."""
    if name in KINDS:
        return len(raw_tokenizer(name).encode(text).ids)
    if name == "cl100k_base":
        return len(encoding().encode_ordinary(text))
    return len(text.encode()) if name == "bytes" else load().tokenizer.count(text)


def weight(name: str, tokens: int) -> int:
    """What a part with so many *tokens* weighs: those that every input has do not count."""
    return max(1, tokens - count(name, ""))


def plan(*contents: Any, limit: int = 16, vocabulary: str = "bytes", **settings: Any) -> Plan:
    """What *contents* become, as documents with the ids "d0", "d1", …"""
    chunker = Chunker(max_input_tokens=limit, tokenizer=tokenizer(vocabulary), **settings)
    return chunker.plan([Source(position, f"d{position}", content) for position, content in enumerate(contents)])


def sent(planned: Plan) -> list[Any]:
    """What the chunks of *planned* are for the endpoint that reads them."""
    return [json.loads(wire) for wire in planned.chunks.inputs]


def spans_of(text: str, planned: Plan) -> tuple[tuple[int, int], ...]:
    """The parts of the only document, *text*: in order, without overlap, all of it but blank stretches."""
    spans = planned.cuts[0].spans if planned.cuts else ((0, len(text)),)
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    assert edges == sorted(edges)
    assert not "".join(text[end:start] for end, start in zip(edges[::2], edges[1::2], strict=True)).strip()
    assert [text[start:end] for start, end in spans] == sent(planned)
    return spans


def the_error(planned: Plan) -> Exception:
    assert not planned.chunks
    (failure,) = planned.failures
    assert (failure.id, failure.position, failure.attempts) == ("d0", 0, 0)
    return failure.error


def with_text(text: str) -> str:
    """*text*, and something to see in it: blank documents are another rule's."""
    return text if text.strip() else text + "."


for_every_vocabulary = pytest.mark.parametrize("name", ["cl100k_base", "bytes", "local", *KINDS])
