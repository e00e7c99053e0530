"""
The texts that are embedded, and the vector that belongs to each: what the server sends and every run is checked with.

There are 4,096 vectors; the checksum of a text chooses its own. A vector at the wrong text is the right one by chance
in one of 4,096 cases, so one that went astray is found.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

CHOICES = 4_096
DECIMALS = 8  # as many as OpenAI sends; the float32 vectors are what these decimal numbers stand for
BLOCK = 1_024  # vectors that are compared at once

_PHRASES = [
    *("passages of this kind", "carry about thirty words", "which say what", "one paragraph of a page has to tell"),
    *("and are long enough", "to be worth a vector of their own", "yet short enough", "that many go into one request"),
]


class WrongVectorError(Exception):
    """A vector that is not the one of its text. It fails the whole benchmark."""


def text(number: int) -> str:
    """One text of about 200 bytes; each number has its own."""
    turn = number % len(_PHRASES)
    return f"document number {number:08d}: {' '.join(_PHRASES[turn:] + _PHRASES[:turn])}"


def texts(count: int, start: int = 0) -> Iterator[str]:
    """*count* texts; those of one run never come twice."""
    return map(text, range(start, start + count))


def decimals(dimensions: int) -> npt.NDArray[np.float64]:
    """The prepared vectors as decimal numbers: shape (4096, dimensions), each of about length 1."""
    made = np.random.default_rng(20).standard_normal((CHOICES, dimensions))
    rounded: npt.NDArray[np.float64] = np.round(made / np.linalg.norm(made, axis=1, keepdims=True), DECIMALS)
    return rounded


def choice(content: bytes) -> int:
    """Which of the prepared vectors belongs to a text."""
    return zlib.crc32(content) % CHOICES


class Checker:
    """Compares what came back with what the server sends."""

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self._vectors = decimals(dimensions).astype(np.float32)

    def check(self, asked: Sequence[str], got: Any, start: int = 0) -> int:
        """Compare *got*, an array or a list of vectors, in blocks; return how many there are."""
        if len(got) != len(asked):
            raise WrongVectorError(f"expected {len(asked):,} vectors, got {len(got):,}")
        for at in range(0, len(asked), BLOCK):
            wanted = self._vectors[[choice(each.encode()) for each in asked[at : at + BLOCK]]]
            found = np.asarray(got[at : at + BLOCK], np.float32)
            if found.shape != wanted.shape:
                raise WrongVectorError(f"expected vectors of {self.dimensions:,} numbers, got an array {found.shape}")
            same = (found == wanted).all(axis=1)
            if not same.all():
                row = int(np.argmin(same)) + at
                raise WrongVectorError(f"the vector at {start + row:,} is not that of its text, {asked[row][:24]!r}…")
        return len(asked)

    def is_right(self, asked: str, vector: Any) -> bool:
        """True if *vector* is that of one text."""
        return bool(np.array_equal(vector, self._vectors[choice(asked.encode())]))
