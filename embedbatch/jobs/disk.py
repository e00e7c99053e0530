"""What a job asks of the file system. Its safety rests on these few calls; tests hand in a disk that fails."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..errors import JournalError


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Make a :class:`JournalError` that names *path* of what the file system refuses in the block."""
    try:
        yield
    except OSError as error:
        raise JournalError(error.strerror or str(error), path=str(error.filename or path)) from error


class Disk:
    """
    The local file system.

    What was written survives the end of the process; what was written and synced, a loss of power too. A file that
    was created or renamed has its name for certain once its directory is synced.
    """

    def open(self, path: Path, buffering: int = -1) -> BinaryIO:
        """The file *path*, to be read and written at any place, new if there is none. *buffering* as in ``open``."""
        # O_CREAT, not a mode of open(): none of them creates, keeps what is there, and writes where it is told to.
        return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "r+b", buffering)

    def read(self, path: Path) -> BinaryIO:
        """The file *path*, to be read. Raises ``FileNotFoundError`` if there is none."""
        return path.open("rb")

    def make_directory(self, path: Path) -> None:
        """Make the directory *path*, for certain, unless it is there."""
        if not path.is_dir():
            path.mkdir(exist_ok=True)
            self.sync_directory(path.parent)

    def allocate(self, file: BinaryIO, size: int) -> None:
        """Give *file* room for *size* bytes, zeros where nothing was written, so that a full disk shows at once."""
        missing = size - file.seek(0, os.SEEK_END)
        if missing <= 0:
            return
        file.truncate(size)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)

    def sync(self, file: BinaryIO) -> None:
        """Return when what was written to *file* is on the disk."""
        file.flush()
        os.fsync(file.fileno())

    def replace(self, source: Path, target: Path) -> None:
        """Give *source* the name *target*, in place of what had it."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """Remove a file, or a folder and all that is in it. One that is not there is fine."""
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def sync_directory(self, path: Path) -> None:
        """Return when the names in *path* are on the disk."""
        if os.name == "nt":
            return  # a directory cannot be opened there
        directory = os.open(path, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def publish(self, file: BinaryIO, temporary: Path, target: Path) -> None:
        """Close *file*, which was written as *temporary*, and give it its name *target* for certain."""
        self.sync(file)
        file.close()
        self.replace(temporary, target)
        self.sync_directory(target.parent)


def temporary_for(target: Path) -> Path:
    """The name under which *target* is written."""
    return target.with_name(f".{target.name}.partial")
