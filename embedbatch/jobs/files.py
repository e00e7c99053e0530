"""Files that appear complete or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class _Draft:
    file: BinaryIO
    temporary: Path
    final: Path
    optional: bool


class Drafts:
    """
    The files of one result, under temporary names in the directory of *destination* until :meth:`publish`.

    Each is named by what it adds to the name of *destination*; ``""`` is the destination itself.

    Files are written in threads, which a cancelled asyncio task does not wait for: they work inside
    :meth:`writing`, so that :meth:`discard` comes before or after them.
    """

    def __init__(self, destination: Path) -> None:
        self.destination = destination
        self._drafts: list[_Draft] = []
        self._give_up: list[Callable[[], object]] = []
        self._mark = secrets.token_hex(4)  # two runs at the same time do not write to one file
        self._lock = threading.Lock()
        self._discarded = False

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A block in which nothing is discarded. Raises ``RuntimeError`` if that has happened."""
        with self._lock:
            if self._discarded:
                raise RuntimeError(f"{self.destination} is given up")
            yield

    def create(self, suffix: str = "", *, optional: bool = False) -> BinaryIO:
        """A new file. An *optional* one that stays empty is not published; it removes what an earlier run left."""
        final = self.destination.with_name(self.destination.name + suffix)
        temporary = final.with_name(f".{final.name}.{self._mark}.partial")
        try:
            file = temporary.open("xb")
        except OSError as error:
            raise ConfigurationError(f"destination: cannot write to {final.parent}: {error.strerror}") from error
        self._drafts.append(_Draft(file, temporary, final, optional))
        return file

    def on_discard(self, give_up: Callable[[], object]) -> None:
        """Have *give_up* called before the files are closed unpublished."""
        self._give_up.append(give_up)

    def publish(self) -> None:
        """Put every file in place, the destination last. It returns when all of it is on disk."""
        for draft in self._drafts:
            draft.file.flush()
            os.fsync(draft.file.fileno())
            draft.file.close()
        self._drafts.sort(key=lambda draft: draft.final == self.destination)
        if sum(not draft.optional for draft in self._drafts) > 1:
            # Between two renames, new ids would stand beside old vectors: rather no vectors.
            self.destination.unlink(missing_ok=True)
        for draft in self._drafts:
            if draft.optional and not draft.temporary.stat().st_size:
                draft.final.unlink(missing_ok=True)
                draft.temporary.unlink()
            else:
                draft.temporary.replace(draft.final)
        self._drafts.clear()
        self._give_up.clear()
        _sync_directory(self.destination.parent)

    def discard(self) -> None:
        """Remove every file that is not published."""
        with self._lock:
            self._discarded = True
            for give_up in self._give_up:
                give_up()
            for draft in self._drafts:
                with contextlib.suppress(OSError):  # a full disk must not hide what went wrong
                    draft.file.close()
                draft.temporary.unlink(missing_ok=True)


@contextmanager
def drafts_for(destination: Path) -> Iterator[Drafts]:
    """Drafts that are discarded at the end of the block if they were not published in it."""
    drafts = Drafts(destination)
    try:
        yield drafts
    finally:
        drafts.discard()


def _sync_directory(path: Path) -> None:
    if os.name == "nt":
        return  # a directory cannot be opened there
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
