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

    def has_room(self, nbytes: int, rows: int = 1) -> bool:
        """True if documents of *nbytes* and that many *rows* may enter."""
        fits = self._rows + rows <= self._max_rows and self._bytes + nbytes <= self._max_bytes
        return fits or (self._rows == 0 and rows == 1)

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


def size_of_text(text: str) -> int:
    """About how many bytes *text* keeps in memory."""
    return len(text) if text.isascii() else 4 * len(text)


def size(content: object) -> int:
    """About how many bytes a document keeps in memory while it is unfinished."""
    if isinstance(content, str):
        return size_of_text(content)
    try:
        return 8 * len(content)  # type: ignore[arg-type]
    except TypeError:
        return 0
