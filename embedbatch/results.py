"""The results of a stream, one by one."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Self

from .assemble.reassembler import Block
from .dispatch.account import Account
from .pipeline import Run
from .values import Embedding, Failure, Usage

__all__ = ["Results"]


class Results:
    """The results of a stream, one for every document, and what they have cost so far."""

    def __init__(self, blocks: Run, account: Account) -> None:
        self._blocks = blocks
        self._account = account
        self._ready: deque[Iterator[Embedding | Failure]] = deque()

    @property
    def usage(self) -> Usage:
        """What the endpoint has counted so far."""
        return self._account.usage

    def stop(self) -> None:
        """Send nothing more. What is in flight is waited for; what was not sent fails as not attempted."""
        self._blocks.stop()

    def __aiter__(self) -> Self:
        return self

    def blocks(self) -> AsyncIterator[Block]:
        """The same results, many at once and as columns: for who has millions. Use either this or the iteration."""
        return self._blocks

    async def __anext__(self) -> Embedding | Failure:
        while True:
            while self._ready:
                for result in self._ready[0]:
                    return result
                self._ready.popleft()
            self._ready.append(_results(await self._blocks.__anext__()))


def _results(block: Block) -> Iterator[Embedding | Failure]:
    """The rows and failures of *block*, in order of position; each row is copied when it is asked for."""
    columns = zip(block.ids, block.positions, block.vectors, block.tokens, block.spans, strict=True)
    # Copies: a row that someone keeps would keep the whole reply's array.
    rows: Iterator[Embedding | Failure] = (
        Embedding(id, position, vector.copy(), tokens, span) for id, position, vector, tokens, span in columns
    )
    if block.failures:
        return iter(sorted([*rows, *block.failures], key=lambda result: result.position))
    return rows
