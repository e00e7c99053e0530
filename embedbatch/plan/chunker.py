"""
One document becomes chunks that fit the model, by the chosen policy.

A text whose bytes prove that it fits is never tokenized. A longer one is tokenized once, and cut where people
would cut it: at the last paragraph, sentence, line or word within the last eighth of what fits, else between two
characters. The token count of a part is read off the whole document's tokens where the tokenizer can prove that
the cut leaves them as they are; elsewhere the part is counted again. Chunks joined give the document back, but for
parts that are nothing but white space; each is sent with the prefix that the model expects before its texts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

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
from ..values import Chunks, Cut, Failure, Id
from .documents import Part, Parts, Plan, Source
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


@dataclass(frozen=True, kw_only=True)
class Chunker:
    """
    Turns documents into chunks of at most *max_input_tokens* tokens.

    Without a *tokenizer* a byte counts as a token, which is safe for every byte-level vocabulary, and *special_tokens*
    are added to each input. *count_tokens* asks for the exact count of every document, also where the bound would do.

    *prefix* goes before every chunk. It counts as part of it, and is no part of the document: spans do without it.
    """

    max_input_tokens: int
    tokenizer: Tokenizer | None
    long_input: LongInput = "split"
    empty: Empty = "error"
    surrogates: Surrogates = "replace"
    token_arrays: bool = False
    count_tokens: bool = False
    prefix: str = ""
    special_tokens: int = 0

    def __post_init__(self) -> None:
        check_choice("long_input", self.long_input, LongInput)
        check_choice("empty", self.empty, Empty)
        check_choice("surrogates", self.surrogates, Surrogates)
        if not isinstance(self.max_input_tokens, int) or self.max_input_tokens < 1:
            raise ConfigurationError(f"max_input_tokens: expected an int of at least 1, got {self.max_input_tokens!r}")
        meter, size = self._meter, len(self.prefix.encode())
        if size and meter.bound(size) >= self.max_input_tokens and meter.count(self.prefix) >= self.max_input_tokens:
            raise ConfigurationError(
                f"max_input_tokens: {self.max_input_tokens:,} leave no room for a text behind {self.prefix!r}"
            )

    @cached_property
    def _meter(self) -> Tokenizer:
        """What tokens are counted with."""
        return self.tokenizer or ByteBound(self.special_tokens)

    def effort(self, content: object) -> int:
        """The number of characters that :meth:`plan` would have to tokenize, or to cut by their bytes."""
        if isinstance(content, str):
            size = len(content) if content.isascii() else 4 * len(content)
            is_long = self._meter.bound(4 * len(self.prefix) + size) > self.max_input_tokens
            return len(content) if is_long or (self.count_tokens and self.tokenizer) else 0
        return 0 if self.token_arrays or not isinstance(content, Sequence) else 4 * len(content)

    def plan_short(self, sources: Collection[Source]) -> Plan | None:
        """
        What :meth:`plan` makes of *sources*, in half of the time, if each simply becomes one chunk; else ``None``.

        That is so for texts with something in them that are proven to fit, and of which nothing needs to be told.
        """
        positions, _, texts = zip(*sources, strict=True)
        if set(map(type, texts)) != {str} or self.long_input == "chunks" or (self.count_tokens and self.tokenizer):
            return None
        bound, prefix = self._meter.bound, self.prefix
        if bound(len(prefix) + max(map(len, texts))) > self.max_input_tokens or any(map(str.isspace, texts)):
            return None
        try:
            wires = [*map(_encode, [prefix + text for text in texts] if prefix else texts)]
        except UnicodeEncodeError:
            return None
        bounds = [bound(len(wire) - 2) for wire in wires]
        if not all(texts) or max(bounds) > self.max_input_tokens:
            return None
        nothing = [0] * len(texts)
        return Plan(Chunks(wires, [*positions], nothing, nothing.copy(), bounds))

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
        tokenizer, prefix = self._meter, self.prefix
        # If it is not, it may still be, in bytes.
        is_long = tokenizer.bound(len(prefix) + len(text)) > self.max_input_tokens
        encode = str.encode if is_long else _encode  # what is long is not sent as it is
        try:
            wire = encode(prefix + text)
        except UnicodeEncodeError as error:
            text = self._repair(source, text, error.start - len(prefix), plan)
            wire = encode(prefix + text)
        # The wire form is never shorter than the UTF-8 bytes between its quotes.
        bound = tokenizer.bound(len(wire) if is_long else len(wire) - 2)
        if bound > self.max_input_tokens and not is_long:
            bound = tokenizer.bound(len((prefix + text).encode()))
        if bound <= self.max_input_tokens:
            tokens = tokenizer.count(prefix + text) if self.count_tokens and self.tokenizer else 0
            plan.chunks.append(wire, source.position, 0, tokens, tokens or bound)
            self._note_span(source, len(text), plan)
        else:
            self._plan_long_text(source, text, plan)

    def as_text(self, wire: bytes) -> bytes | None:
        """The text of a token array, both as JSON; ``None`` if the tokenizer does not know it, or nobody does."""
        try:
            return _encode(self.tokenizer.decode(msgspec.json.decode(wire))) if self.tokenizer else None
        except (ValueError, KeyError, OverflowError):
            return None

    def _plan_long_text(self, source: Source, text: str, plan: Plan) -> None:
        limit, inputs = self.max_input_tokens, _Inputs(self._meter, self.prefix)
        parts, tokens = _split(text, inputs, limit, first_only=self.long_input in ("truncate", "error"))
        if parts[0].end == len(text):
            self._note_span(source, len(text), plan)
        elif self.long_input == "error":
            is_exact = tokens is not None and self.tokenizer is not None
            most = self._meter.bound(len((self.prefix + text).encode())) if tokens is None else tokens
            raise InputTooLongError(source.id, tokens=most, limit=limit, counted=is_exact)
        else:
            # A long stretch of white space can fill a part, and blank inputs are never sent.
            parts = [part for part in parts if not text[part.start : part.end].isspace()]
            if not parts:
                raise EmptyInputError(f"document {source.id!r} begins with more white space than the model takes")
            plan.cut_by_bytes = plan.cut_by_bytes or self.tokenizer is None
            self._report_cut(source, tokens if self.tokenizer else None, parts, plan, inputs.reserve)
        for number, part in enumerate(parts):
            counted = part.tokens if self.tokenizer else 0
            wire = _encode(self.prefix + text[part.start : part.end])
            plan.chunks.append(wire, source.position, number, counted, part.tokens)

    def _note_span(self, source: Source, length: int, plan: Plan) -> None:
        """Under "chunks" every row says which part of its document it stands for, also where that is all of it."""
        if self.long_input == "chunks":
            plan.parts[source.position] = Parts(((0, length),), (1,))

    def _report_cut(
        self, source: Source, tokens: int | None, parts: Sequence[Part], plan: Plan, reserve: int = 0
    ) -> None:
        """Parts weigh what they have of the document: not the *reserve*, which all of them have."""
        assert self.long_input != "error"
        spans = tuple((part.start, part.end) for part in parts)
        plan.cuts.append(Cut(source.id, source.position, self.long_input, tokens, spans))
        if len(parts) > 1 or self.long_input == "chunks":
            plan.parts[source.position] = Parts(spans, tuple(max(1, part.tokens - reserve) for part in parts))

    def _plan_tokens(self, source: Source, content: Any, plan: Plan) -> None:
        ids = _token_ids(source.id, content)
        if not ids:
            raise EmptyInputError(f"document {source.id!r} is an empty token array")
        if not self.token_arrays or self.prefix:
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
        why = "this endpoint takes texts only" if not self.token_arrays else f"{self.prefix!r} goes before it"
        if self.tokenizer is None:
            raise TokenArrayError(
                f"document {source.id!r} is a token array; {why}, and the model's tokenizer is not known. Pass the "
                "text, or tokenizer=."
            )
        try:
            return self.tokenizer.decode(ids)
        except (ValueError, KeyError, OverflowError) as error:
            raise TokenArrayError(
                f"document {source.id!r} is a token array; {why}, and its tokens are not those of a text in "
                f"{self.tokenizer.name}: {error}"
            ) from error

    def _repair(self, source: Source, text: str, at: int, plan: Plan) -> str:
        if self.surrogates == "error":
            raise InvalidTextError(
                f"document {source.id!r} has a lone surrogate at character {at:,}, which UTF-8 cannot carry. "
                'Pass surrogates="replace" to send U+FFFD in its place.'
            ) from None
        plan.repaired.append(source)
        return _SURROGATE.sub("\ufffd", text)  # one for one, so that offsets stay true


class _Inputs:
    """
    Texts as they are sent: behind *prefix*, and with the special tokens that the server adds.

    *reserve* is what one of them has without a text.
    """

    def __init__(self, tokenizer: Tokenizer, prefix: str) -> None:
        self._tokenizer = tokenizer
        self._prefix = prefix
        self.reserve = tokenizer.count(prefix)
        self.special_tokens = tokenizer.count("")

    def count(self, text: str) -> int:
        """The tokens of *text* as it is sent."""
        return self._tokenizer.count(self._prefix + text)

    def ends(self, text: str) -> tuple[Offsets, int]:
        """Where in *text* each token ends, but for special ones; and how many of them are the prefix's."""
        if not self._prefix:
            return self._tokenizer.ends(text), 0
        ends = np.maximum(self._tokenizer.ends(self._prefix + text) - len(self._prefix), 0)
        return ends, int(np.searchsorted(ends, 0, "right"))

    def are_stable_cuts(self, text: str, cuts: tuple[int, int]) -> bool:
        """True if the tokens of *text* between the *cuts* are provably those of that part as it is sent."""
        is_stable_cut = self._tokenizer.is_stable_cut
        return not self._prefix and all(cut in (0, len(text)) or is_stable_cut(text, cut) for cut in cuts)


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


def _split(text: str, inputs: _Inputs, limit: int, *, first_only: bool) -> tuple[list[Part], int | None]:
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
        ends, first = inputs.ends(piece)
        is_last = start + len(piece) == len(text)
        if is_last and not start:
            tokens = len(ends) + inputs.special_tokens
            if tokens <= limit:
                return [Part(0, len(text), tokens)], tokens
        for part in _split_piece(piece, inputs, ends, first, limit):
            if part.end == len(piece) and part.start and not is_last:
                break  # begin the next piece with this remainder: it may be longer than it looks
            parts.append(Part(start + part.start, start + part.end, part.tokens))
            if first_only:
                return parts, tokens
            reached = part.end
        start += reached
    return parts, tokens


def _split_piece(text: str, inputs: _Inputs, ends: Offsets, first: int, limit: int) -> Iterator[Part]:
    start = 0  # of the part: its first character; and *first* is the number of tokens before it
    room = limit - inputs.reserve
    while start < len(text):
        budget = room if len(ends) - first <= room else room - 1
        part = _fit(text, inputs, ends, start, first, budget)
        # Only where the cut changed the tokens. One character is the least there is, whatever the limit.
        while part.tokens > limit and part.end - part.start > 1:
            budget -= max(1, part.tokens - limit)
            part = _fit(text, inputs, ends, start, first, budget)
        yield part
        start = part.end
        first = int(np.searchsorted(ends, start, "right"))


def _fit(text: str, inputs: _Inputs, ends: Offsets, start: int, first: int, budget: int) -> Part:
    """The part that begins at *start* and has about *budget* tokens."""
    if len(ends) - first <= budget:
        end = len(text)
    else:
        end = start
        if budget > 0:
            end = int(ends[first + budget - 1])
            end -= int(ends[first + budget]) == end  # the next token is a piece of that same character
        end = max(_boundary(text, start, end), start + 1)
    if inputs.are_stable_cuts(text, (start, end)):
        return Part(start, end, int(np.searchsorted(ends, end, "right")) - first + inputs.reserve)
    return Part(start, end, inputs.count(text[start:end]))


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
