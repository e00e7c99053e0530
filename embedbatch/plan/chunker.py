"""
One document becomes chunks that fit the model, by the chosen policy.

A text whose bytes prove that it fits is never tokenized. A longer one is tokenized once, and cut where people
would cut it: at the last paragraph, sentence, line or word within the last eighth of what fits, else between two
characters. The token count of a part is read off the whole document's tokens where the tokenizer can prove that
the cut leaves them as they are; elsewhere the part is counted again. Chunks joined give the document back, but for
parts that are nothing but white space.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import numpy as np

from ..errors import (
    ConfigurationError,
    EmptyInputError,
    InputError,
    InputTooLongError,
    InvalidInputError,
    InvalidTextError,
    TokenArrayError,
)
from ..settings import Empty, LongInput, Surrogates, check_choice
from ..values import Chunks, Cut, Failure, Id, Span
from .inputs import is_token, kind_of, token_sequence
from .tokens import ByteBound, Offsets, Tokenizer

# Longer texts are tokenized in pieces, so that memory stays bounded. No token of cl100k_base is longer than 128
# bytes, so a text beyond this is too long in any case: a legal input never meets a piece's end.
PIECE = 2_000_000

_LOOKBACK = 8  # a boundary counts as near the limit within this fraction of the chunk: 1/8

_BOUNDARIES = (
    re.compile(r"\n[^\S\n]*\n+"),  # paragraph
    re.compile(r"[.!?…][\"'”’)\]]*(?=\s)|[。！？][”’）」』]*"),  # sentence
    re.compile(r"\n"),
    re.compile(r"\S(?= )"),  # word: the space goes with the next one, as it does in the tokens
)
_SURROGATE = re.compile("[\ud800-\udfff]")

_encode = msgspec.json.Encoder().encode


class Source(NamedTuple):
    """A document as it entered the run."""

    position: int
    id: Id
    content: Any


class Parts(NamedTuple):
    """How a document was cut: offsets of each part in the original, and its weight in the mean."""

    spans: tuple[Span, ...]
    weights: tuple[int, ...]


class Part(NamedTuple):
    """One part of a text: characters *start* to *end*, *tokens* of the tokenizer that cut it."""

    start: int
    end: int
    tokens: int


@dataclass(slots=True)
class Plan:
    """
    What some documents became. *parts* has an entry for every document that is not simply one chunk; *cut_by_bytes*
    tells that a text was cut without knowing the model's tokenizer.
    """

    chunks: Chunks = field(default_factory=Chunks)
    parts: dict[int, Parts] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)
    repaired: list[Source] = field(default_factory=list)
    cut_by_bytes: bool = False


@dataclass(frozen=True, kw_only=True)
class Chunker:
    """
    Turns documents into chunks of at most *max_input_tokens* tokens.

    Without a *tokenizer* a byte counts as a token, which is safe for every byte-level vocabulary.
    *count_tokens* asks for the exact count of every document, also where the bound would do.
    """

    max_input_tokens: int
    tokenizer: Tokenizer | None
    long_input: LongInput = "split"
    empty: Empty = "error"
    surrogates: Surrogates = "replace"
    token_arrays: bool = False
    count_tokens: bool = False

    def __post_init__(self) -> None:
        check_choice("long_input", self.long_input, LongInput)
        check_choice("empty", self.empty, Empty)
        check_choice("surrogates", self.surrogates, Surrogates)
        if not isinstance(self.max_input_tokens, int) or self.max_input_tokens < 1:
            raise ConfigurationError(f"max_input_tokens: expected an int of at least 1, got {self.max_input_tokens!r}")

    def effort(self, content: object) -> int:
        """The number of characters that :meth:`plan` would have to tokenize, or to cut by their bytes."""
        if isinstance(content, str):
            size = len(content) if content.isascii() else 4 * len(content)
            is_long = (self.tokenizer or _BYTES).bound(size) > self.max_input_tokens
            return len(content) if is_long or (self.count_tokens and self.tokenizer) else 0
        return 0 if self.token_arrays or not isinstance(content, Sequence) else 4 * len(content)

    def plan(self, sources: Iterable[Source]) -> Plan:
        """The chunks, failures and reports of *sources*. Never raises for what a document holds."""
        plan = Plan()
        for source in sources:
            content = source.content
            try:
                if isinstance(content, str):
                    self._plan_text(source, str.__str__(content), plan)  # not np.str_, which is no JSON string
                else:
                    self._plan_tokens(source, content, plan)
            except InputError as error:
                skipped = self.empty == "skip" and isinstance(error, EmptyInputError)
                plan.failures.append(Failure(source.id, source.position, error, skipped=skipped))
        return plan

    def _plan_text(self, source: Source, text: str, plan: Plan) -> None:
        if not text or text.isspace():
            raise EmptyInputError(f"document {source.id!r} is {'blank' if text else 'empty'}")
        tokenizer = self.tokenizer or _BYTES
        is_long = tokenizer.bound(len(text)) > self.max_input_tokens  # if it is not, it may still be, in bytes
        encode = str.encode if is_long else _encode  # what is long is not sent as it is
        try:
            wire = encode(text)
        except UnicodeEncodeError as error:
            text = self._repair(source, text, error, plan)
            wire = encode(text)
        # The wire form is never shorter than the UTF-8 bytes between its quotes.
        bound = tokenizer.bound(len(wire) if is_long else len(wire) - 2)
        if bound > self.max_input_tokens and not is_long:
            bound = tokenizer.bound(len(text.encode()))
        if bound <= self.max_input_tokens:
            tokens = tokenizer.count(text) if self.count_tokens and self.tokenizer else 0
            plan.chunks.append(wire, source.position, 0, tokens, tokens or bound)
            self._note_span(source, len(text), plan)
        else:
            self._plan_long_text(source, text, tokenizer, plan)

    def as_text(self, wire: bytes) -> bytes | None:
        """The text of a token array, both as JSON; ``None`` if the tokenizer does not know it, or nobody does."""
        try:
            return _encode(self.tokenizer.decode(msgspec.json.decode(wire))) if self.tokenizer else None
        except (ValueError, KeyError, OverflowError):
            return None

    def _plan_long_text(self, source: Source, text: str, tokenizer: Tokenizer, plan: Plan) -> None:
        limit = self.max_input_tokens
        parts, tokens = _split(text, tokenizer, limit, first_only=self.long_input in ("truncate", "error"))
        if parts[0].end == len(text):
            self._note_span(source, len(text), plan)
        elif self.long_input == "error":
            is_exact = tokens is not None and self.tokenizer is not None
            most = tokenizer.bound(len(text.encode())) if tokens is None else tokens
            raise InputTooLongError(source.id, tokens=most, limit=limit, counted=is_exact)
        else:
            # A long stretch of white space can fill a part, and blank inputs are never sent.
            parts = [part for part in parts if not text[part.start : part.end].isspace()]
            if not parts:
                raise EmptyInputError(f"document {source.id!r} begins with more white space than the model takes")
            plan.cut_by_bytes = plan.cut_by_bytes or self.tokenizer is None
            self._report_cut(source, tokens if self.tokenizer else None, parts, plan)
        for number, part in enumerate(parts):
            counted = part.tokens if self.tokenizer else 0
            plan.chunks.append(_encode(text[part.start : part.end]), source.position, number, counted, part.tokens)

    def _note_span(self, source: Source, length: int, plan: Plan) -> None:
        """Under "chunks" every row says which part of its document it stands for, also where that is all of it."""
        if self.long_input == "chunks":
            plan.parts[source.position] = Parts(((0, length),), (1,))

    def _report_cut(self, source: Source, tokens: int | None, parts: Sequence[Part], plan: Plan) -> None:
        assert self.long_input != "error"
        spans = tuple((part.start, part.end) for part in parts)
        plan.cuts.append(Cut(source.id, source.position, self.long_input, tokens, spans))
        if len(parts) > 1 or self.long_input == "chunks":
            plan.parts[source.position] = Parts(spans, tuple(part.tokens for part in parts))

    def _plan_tokens(self, source: Source, content: Any, plan: Plan) -> None:
        ids = _token_ids(source.id, content)
        if not ids:
            raise EmptyInputError(f"document {source.id!r} is an empty token array")
        if not self.token_arrays:
            self._plan_text(source, self._decode(source, ids), plan)
            return
        limit = self.max_input_tokens
        if len(ids) <= limit:
            parts = [Part(0, len(ids), len(ids))]
            self._note_span(source, len(ids), plan)
        elif self.long_input == "error":
            raise InputTooLongError(source.id, tokens=len(ids), limit=limit)
        else:
            step = max(1, limit - 1)
            parts = [Part(at, min(at + step, len(ids)), min(step, len(ids) - at)) for at in range(0, len(ids), step)]
            parts = parts[:1] if self.long_input == "truncate" else parts
            self._report_cut(source, len(ids), parts, plan)
        for number, part in enumerate(parts):
            wire = _encode(ids[part.start : part.end])
            plan.chunks.append(wire, source.position, number, part.tokens, part.tokens)

    def _decode(self, source: Source, ids: list[int]) -> str:
        if self.tokenizer is None:
            raise TokenArrayError(
                f"document {source.id!r} is a token array; this endpoint takes texts only, and the model's tokenizer "
                "is not known. Pass the text, or tokenizer=."
            )
        try:
            return self.tokenizer.decode(ids)
        except (ValueError, KeyError, OverflowError) as error:
            raise TokenArrayError(
                f"document {source.id!r} is a token array; this endpoint takes texts only, and its tokens are not "
                f"those of a text in {self.tokenizer.name}: {error}"
            ) from error

    def _repair(self, source: Source, text: str, error: UnicodeEncodeError, plan: Plan) -> str:
        if self.surrogates == "error":
            raise InvalidTextError(
                f"document {source.id!r} has a lone surrogate at character {error.start:,}, which UTF-8 cannot carry. "
                'Pass surrogates="replace" to send U+FFFD in its place.'
            ) from None
        plan.repaired.append(source)
        return _SURROGATE.sub("\ufffd", text)  # one for one, so that offsets stay true


_BYTES = ByteBound()


def _token_ids(id: Id, content: Any) -> list[int]:
    """*content* as a list of ints, or the reason why it is none."""
    ids = token_sequence(content)
    if ids is None:
        raise InvalidInputError(f"document {id!r}: expected a text or an array of token ids, got {kind_of(content)}")
    for at, token in enumerate(ids):
        if (type(token) is not int and not is_token(token)) or token < 0:
            got = token if is_token(token) else kind_of(token)
            raise InvalidInputError(f"document {id!r}: expected a token id, got {got} - at [{at}]")
    return list(map(int, ids))


def _split(text: str, tokenizer: Tokenizer, limit: int, *, first_only: bool) -> tuple[list[Part], int | None]:
    """
    Cut *text* into parts of at most *limit* tokens, only the first where that is all that is needed; count it.

    The count of the whole text is not the sum over its parts, where a cut changed the tokens. It is ``None`` for a
    text that is tokenized in pieces.
    """
    parts: list[Part] = []
    tokens = None
    start = 0
    while start < len(text):
        piece = text[start : start + PIECE]
        ends = tokenizer.ends(piece)
        is_last = start + len(piece) == len(text)
        if is_last and not start:
            tokens = len(ends)
        for part in _split_piece(piece, tokenizer, ends, limit):
            if part.end == len(piece) and part.start and not is_last:
                break  # begin the next piece with this remainder: it may be longer than it looks
            parts.append(Part(start + part.start, start + part.end, part.tokens))
            if first_only:
                return parts, tokens
            reached = part.end
        start += reached
    return parts, tokens


def _split_piece(text: str, tokenizer: Tokenizer, ends: Offsets, limit: int) -> Iterator[Part]:
    start, first = 0, 0  # of the part: its first character, and the number of tokens before it
    while start < len(text):
        budget = limit if len(ends) - first <= limit else limit - 1
        part = _fit(text, tokenizer, ends, start, first, budget)
        # Only where the cut changed the tokens. One character is the least there is, whatever the limit.
        while part.tokens > limit and part.end - part.start > 1:
            budget -= max(1, part.tokens - limit)
            part = _fit(text, tokenizer, ends, start, first, budget)
        yield part
        start = part.end
        first = int(np.searchsorted(ends, start, "right"))


def _fit(text: str, tokenizer: Tokenizer, ends: Offsets, start: int, first: int, budget: int) -> Part:
    """The part that begins at *start* and has about *budget* tokens."""
    if len(ends) - first <= budget:
        end = len(text)
    else:
        end = start
        if budget > 0:
            end = int(ends[first + budget - 1])
            end -= int(ends[first + budget]) == end  # the next token is a piece of that same character
        end = max(_boundary(text, start, end), start + 1)
    edges_hold = all(cut in (0, len(text)) or tokenizer.is_stable_cut(text, cut) for cut in (start, end))
    if edges_hold:
        return Part(start, end, int(np.searchsorted(ends, end, "right")) - first)
    return Part(start, end, tokenizer.count(text[start:end]))


def _boundary(text: str, start: int, end: int) -> int:
    """The last place in the final eighth of *start* to *end* where people would accept a cut, else *end*."""
    near = end - (end - start) // _LOOKBACK
    for pattern in _BOUNDARIES:
        cut = 0
        # One character more, for the patterns that look ahead.
        for match in pattern.finditer(text, near, end + 1):
            if match.end() <= end:
                cut = match.end()
        if cut > start:
            return cut
    return _between_characters(text, start, end)


def _between_characters(text: str, start: int, end: int) -> int:
    """*end*, or a little before it where it would part a combined character, such as an emoji family."""
    for cut in range(end, max(start, end - 16), -1):
        if text[cut - 1] != "\u200d" and not _continues(text[cut : cut + 1] or " "):
            return cut
    return end


def _continues(character: str) -> bool:
    """True if *character* belongs to the one before it: a mark, a joiner, a skin tone."""
    is_mark = unicodedata.category(character).startswith("M")
    return is_mark or character == "\u200d" or "\U0001f3fb" <= character <= "\U0001f3ff"
