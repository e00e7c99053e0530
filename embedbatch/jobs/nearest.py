"""The nearest documents to a query, to see that the vectors make sense."""

from __future__ import annotations

import heapq
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import ConfigurationError
from ..values import Id, Vector, Vectors
from .sinks import open_result


@dataclass(frozen=True, slots=True)
class Match:
    """
    A document near a query. *score* is their cosine, from -1 to 1; *row* the document's row in the file, counted
    from 0; *text* is ``None`` unless the job kept it.
    """

    id: Id
    score: float
    row: int
    text: str | None = None


def search(destination: str | os.PathLike[str], query: Vector | Sequence[float], k: int = 5) -> list[Match]:
    """
    The *k* documents in *destination* with the highest cosine to *query*, best first.

    Every vector is compared, a block at a time, in the calling thread; rows that failed are passed over.
    :func:`read_origin` tells which model *query* has to come from. Raises :class:`ConfigurationError` if its size
    is not that of the vectors or *destination* is a table, :class:`SourceError` if *destination* is no result of a job.
    """
    if k < 1:
        raise ConfigurationError(f"k: expected at least 1, got {k!r}")
    result = open_result(destination)
    vector = np.asarray(query, np.float32)
    if result.origin.dimensions is None:
        return []  # nothing in it was embedded
    if vector.shape != (result.origin.dimensions,):
        raise ConfigurationError(f"query: expected shape ({result.origin.dimensions},), got {vector.shape}")
    best: list[tuple[float, int]] = []  # score, and the row as a negative number: of equals, the earlier one
    first = 0
    for vectors in result.blocks():
        scores = _cosines(vectors, vector)
        top = np.argsort(-scores, kind="stable")[:k]  # NaN comes last
        best = heapq.nlargest(k, best + [(float(scores[i]), -(first + int(i))) for i in top if scores[i] == scores[i]])
        first += len(vectors)
    entries = result.entries([-row for _, row in best])
    return [Match(entries[-row].id, score, -row, entries[-row].text) for score, row in best]


def _cosines(vectors: Vectors, query: Vector) -> npt.NDArray[np.float32]:
    """The cosine of each row with *query*; NaN for rows of NaN and for zeros, which have no direction."""
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines: npt.NDArray[np.float32] = np.clip((vectors @ query) / lengths, -1, 1)
    return cosines
