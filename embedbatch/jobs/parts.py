"""How a job is divided: parts of equally many rows, which go into the result one after the other. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

_PART_BYTES = 128 * 2**20  # of vectors
_LEAST, _MOST = 1_024, 262_144  # rows
_USUAL_DIMENSIONS = 1_536  # where nobody knows yet

NO_TOKENS = -1
NOTHING, EMBEDDED, FAILED, EARLIER = 0, 1, 2, 3


def rows_of_a_part(dimensions: int | None) -> int:
    """How many rows a part has: a power of two, some 128 MB of vectors."""
    rows = _PART_BYTES // (4 * (dimensions or _USUAL_DIMENSIONS))
    return max(_LEAST, min(_MOST, 1 << (rows.bit_length() - 1)))


@dataclass(frozen=True, slots=True)
class Division:
    """*documents* in parts of *part_rows*, the last one with what is left."""

    documents: int
    part_rows: int

    @property
    def parts(self) -> int:
        """The number of parts."""
        return -(-self.documents // self.part_rows)

    def first(self, part: int) -> int:
        """The position of the first document in *part*."""
        return part * self.part_rows

    def end(self, part: int) -> int:
        """The position behind the last document in *part*."""
        return min(self.documents, (part + 1) * self.part_rows)

    def rows(self, part: int) -> int:
        """The number of documents in *part*."""
        return self.end(part) - self.first(part)


@dataclass(slots=True)
class OpenPart:
    """
    A part that is not in the result yet: *rows* documents from position *first* on.

    *states* and *tokens* say of each row whether it has a vector, and how many tokens it had; *bytes* are those of its
    rows in the source. It is ready when it was read to its end and nothing is *awaited*.
    """

    number: int
    first: int
    rows: int
    states: npt.NDArray[np.uint8] = field(init=False)
    tokens: npt.NDArray[np.int64] = field(init=False)
    awaited: int = 0
    bytes: int = 0
    is_read: bool = False

    def __post_init__(self) -> None:
        self.states = np.full(self.rows, NOTHING, np.uint8)
        self.tokens = np.full(self.rows, NO_TOKENS, np.int64)

    @property
    def is_ready(self) -> bool:
        """True if every document of it has a vector, a failure, or an original."""
        return self.is_read and not self.awaited

    def take(self, row: int, state: int, tokens: int | None) -> None:
        """Note what became of *row*, which was awaited."""
        self.awaited -= 1
        self.states[row] = state
        self.tokens[row] = NO_TOKENS if tokens is None else tokens
