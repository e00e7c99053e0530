"""What goes into the planning of documents, and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from ..values import Chunks, Cut, Failure, Id, Span


class Source(NamedTuple):
    """A document as it entered the run."""

    position: int
    id: Id
    content: Any


source_of: Callable[[tuple[int, Id, Any]], Source] = partial(tuple.__new__, Source)
"""The source with these fields. What a named tuple makes of arguments is made in Python, in twice the time."""


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
