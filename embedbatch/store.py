"""The seam of the flow for what remembers vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from .values import Batch, Chunks, Vector, Vectors


class Store(Protocol):
    """
    A seam for what remembers vectors: deduplication, caches, journals.

    *known* is asked once for every chunk, after chunking; rows it returns are not sent. *put* is awaited with
    what a reply brought, before it counts as done.
    """

    async def known(self, chunks: Chunks, /) -> Mapping[int, Vector]:
        """The vectors already known, by row of *chunks*."""

    async def put(self, batch: Batch, vectors: Vectors, /) -> None:
        """Keep the vectors of *batch*: float32, shape (len(batch), dimensions)."""


class NoStore:
    """Remembers nothing."""

    async def known(self, chunks: Chunks, /) -> Mapping[int, Vector]:
        return {}

    async def put(self, batch: Batch, vectors: Vectors, /) -> None:
        pass
