"""One store above another."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .store import Store
from .values import Batch, Chunks, Vector, Vectors


class Layered:
    """
    Two stores as one: *first* is asked, then *second* for what is left. What comes from an endpoint goes to both.

    What *second* knows is put into *first*, so that *first* has everything: a job's journal above a cache.
    """

    def __init__(self, first: Store, second: Store) -> None:
        self.first = first
        self.second = second

    async def known(self, chunks: Chunks, /) -> Mapping[int, Vector]:
        known = dict(await self.first.known(chunks))
        left = [row for row in range(len(chunks)) if row not in known]
        if not left:
            return known
        rest = chunks.select(left) if known else chunks
        found = await self.second.known(rest)
        if found:
            rows = sorted(found)
            await self.first.put(rest.select(rows), np.stack([found[row] for row in rows]))
            known |= {left[row]: found[row] for row in rows}
        return known

    async def put(self, batch: Batch, vectors: Vectors, /) -> None:
        try:
            await self.first.put(batch, vectors)
        finally:  # the vectors are paid for also if the first has no room for them
            await self.second.put(batch, vectors)
