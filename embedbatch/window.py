"""What is unfinished: read and not yet handed out."""

from __future__ import annotations

import anyio


class Window:
    """Counts what is unfinished, in documents' bytes and rows. One document always fits, however large."""

    def __init__(self, max_rows: int, max_bytes: int) -> None:
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._rows = 0
        self._bytes = 0
        self._released = anyio.Event()

    def has_room(self, nbytes: int) -> bool:
        """True if a document of *nbytes* may enter."""
        return self._rows == 0 or (self._rows < self._max_rows and self._bytes + nbytes <= self._max_bytes)

    def charge(self, rows: int, nbytes: int) -> None:
        """Count what has entered."""
        self._rows += rows
        self._bytes += nbytes

    def release(self, rows: int, nbytes: int) -> None:
        """Take back what has gone out."""
        self._rows -= rows
        self._bytes -= nbytes
        self._released.set()

    async def wait_for_change(self) -> None:
        """Return once something has gone out."""
        self._released = anyio.Event()
        await self._released.wait()
