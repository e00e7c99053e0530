"""What an earlier run of a job has made: a job that goes on from its own result takes the vectors from there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..errors import ConfigurationError, JournalError
from ..values import Vectors
from .sinks import Destination, FileDestination, Result, open_result


@dataclass(frozen=True, slots=True)
class Earlier:
    """
    The first *documents* have their vectors in the result that is there.

    Those that failed are asked for again: all of them if *failures*, else those that may succeed another time.
    """

    documents: int
    failures: bool


def result_of(destination: Destination) -> Result:
    """The result in *destination*. Raises :class:`ConfigurationError` for a table."""
    if not isinstance(destination, FileDestination):
        raise ConfigurationError(f"{destination} is a table, and no job goes on from that: for files only")
    return open_result(destination.path)


class EarlierResult:
    """Reads the result in *destination*, from one row on to the end, a part at a time."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._blocks: Iterator[tuple[Vectors, Sequence[int | None]]] = iter(())
        self._reached = -1

    def rows(self, first: int, end: int) -> Iterator[tuple[int, Vectors, Sequence[int | None]]]:
        """
        The rows from *first* to *end*, in pieces: where a piece begins, its vectors and their numbers of tokens.

        Raises :class:`JournalError` if there are fewer.
        """
        if first != self._reached:
            self._blocks = result_of(self._destination).rows(first)
        while first < end:
            piece = next(self._blocks, None)
            if piece is None:
                raise JournalError("has fewer rows than this job gave it", path=str(self._destination))
            vectors, tokens = piece
            count = min(len(vectors), end - first)
            yield first, vectors[:count], tokens[:count]
            first += count
            if count < len(vectors):
                self._blocks = _before((vectors[count:], tokens[count:]), self._blocks)
        self._reached = end


def _before(
    piece: tuple[Vectors, Sequence[int | None]], others: Iterator[tuple[Vectors, Sequence[int | None]]]
) -> Iterator[tuple[Vectors, Sequence[int | None]]]:
    yield piece
    yield from others
