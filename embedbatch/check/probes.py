"""What is sent to find out: each request with its body, and the most tokens it can cost. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..values import Content

TEXTS = ("The harbour is quiet in the morning.", "Seven rooks argue over one walnut.", "Compress a file with zlib.")
WRONG_KEY = "not-a-key-but-a-check-of-what-a-wrong-one-gets"
WRONG_MODEL = "no-such-model-embedbatch-check"
REPEATS = 5  # requests that may be sent once more: after a pause, or when a connection broke

_IDS = [[5, 6, 7], [8, 9, 10]]  # in every vocabulary
_LONGER = 1.25  # times the longest input; every word is at least a token
_BODY = ("river", "stone", "coast", "tea", "weather", "copper", "letter", "village")
_END = ("7", "seven", "77")  # unlike what stands before, so that whoever reads it has another vector


@dataclass(frozen=True, slots=True)
class Probe:
    """
    One request: its *name*, and the *inputs* as they stand in the body, or ``None`` where there are to be none.

    *fields* are the rest of the body; *wrong_key* asks with another key than the right one.
    """

    name: str
    inputs: str | Sequence[Content] | Sequence[int] | None
    fields: dict[str, Any] = field(default_factory=dict)
    wrong_key: bool = False

    @property
    def count(self) -> int:
        """How many vectors there are to be."""
        if not self.inputs or isinstance(self.inputs, str) or isinstance(self.inputs[0], int):
            return 1
        return len(self.inputs)

    def body(self, fields: dict[str, Any]) -> dict[str, Any]:
        """All of the body, given the *fields* that are in every request."""
        given = {} if self.inputs is None else {"input": self.inputs}
        return {**fields, **given, **self.fields}

    def bound(self, bound: Callable[[str], int]) -> int:
        """The most tokens it can cost, by the *bound* for a text."""
        if self.inputs is None:
            return 0
        if isinstance(self.inputs, str):
            return bound(self.inputs)
        return sum(
            1 if isinstance(each, int) else bound(each) if isinstance(each, str) else len(each) for each in self.inputs
        )


def plain() -> Probe:
    """The first request, which has to succeed: nothing but a text and the model."""
    return Probe("plain", [TEXTS[0]])


def first_round(max_input_tokens: int) -> Iterator[Probe]:
    """Those that depend on nothing that is found."""
    yield Probe("string", TEXTS[1])
    yield Probe("order", list(TEXTS))
    yield Probe("float", [TEXTS[0]], {"encoding_format": "float"})
    yield Probe("base64", [TEXTS[0]], {"encoding_format": "base64"})
    yield Probe("token_arrays", _IDS)
    yield Probe("one_token_array", _IDS[0])
    yield Probe("empty", [""])
    yield Probe("blank", [" "])
    yield Probe("empty_beside", [TEXTS[0], ""])
    yield Probe("long", [long_text(max_input_tokens)])
    yield Probe("no_input", None)
    yield Probe("wrong_model", [TEXTS[0]], {"model": WRONG_MODEL})
    yield Probe("wrong_key", [TEXTS[0]], wrong_key=True)


def second_round(dimensions: int, max_input_tokens: int) -> Iterator[Probe]:
    """Those that need the size of the vectors, and those that few servers have to be asked."""
    if dimensions > 1:
        yield Probe("half_dimensions", [TEXTS[0]], {"dimensions": dimensions // 2})
    yield Probe("double_dimensions", [TEXTS[0]], {"dimensions": 2 * dimensions})
    yield Probe("shortened", [shortened_text(max_input_tokens)])


def batch(inputs: int) -> Probe:
    """A request with so many short texts, each of its own."""
    return Probe(f"batch of {inputs:,}", [f"text {number}" for number in range(inputs)])


def long_text(max_input_tokens: int) -> str:
    """A text of more tokens than that, whose last fifth is unlike the rest."""
    body = shortened_text(max_input_tokens)
    return body + " " + " ".join(_cycle(_END, int(max_input_tokens * (_LONGER - 1)) + 1))


def shortened_text(max_input_tokens: int) -> str:
    """The long text without its last fifth: as many words as there may be tokens."""
    return " ".join(_cycle(_BODY, max_input_tokens))


def _cycle(words: Sequence[str], count: int) -> list[str]:
    return [words[number % len(words)] for number in range(count)]


class BatchSearch:
    """
    Looks for the most inputs that a request may have, up to *limit*: *accepted* is what is known so far.

    The limit goes first. Where it is refused, the number that the refusal names is tried, or else halves.
    """

    def __init__(self, limit: int, accepted: int) -> None:
        self.limit = limit
        self.accepted = accepted
        self.refused: int | None = None
        self._named: int | None = None
        self._next: int | None = limit if limit > accepted else None

    @staticmethod
    def most_requests(limit: int) -> int:
        """How many it sends at most: one for the limit, one for a name, and then halves."""
        return 2 + limit.bit_length()

    @property
    def next(self) -> int | None:
        """The size to try; ``None`` when it is known."""
        return self._next

    def accept(self, inputs: int) -> None:
        """A request with so many was answered."""
        self.accepted = max(self.accepted, inputs)
        self._next = None if inputs == self._named else self._between()

    def refuse(self, inputs: int, named: int | None) -> None:
        """A request with so many was refused; the refusal may have *named* the most."""
        self.refused = inputs if self.refused is None else min(self.refused, inputs)
        self._named = named if named is not None and self.accepted < named < self.refused else None
        self._next = self._named or self._between()

    def _between(self) -> int | None:
        if self.refused is None or self.refused - self.accepted < 2:
            return None
        return (self.accepted + self.refused) // 2
