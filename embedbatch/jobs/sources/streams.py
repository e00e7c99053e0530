"""The bytes of files, decompressed where their names say so, and standard input."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import zlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from ...errors import ConfigurationError, SourceError

COMPRESSED = (".gz", ".zst")

_BOM = b"\xef\xbb\xbf"
_BUFFER = 2**17
_BLOCK = 2**20
_MIN_PACKED, _MAX_PACKED = 2**8, 2**14  # compressed bytes that are unpacked at once
_MAX_WINDOW = 2**31  # what `zstd --long=31` writes, as large public corpora are


class FilePart(NamedTuple):
    """
    A file from *line* and *offset* on.

    *file* is what ``Row.file`` is for its rows, and *base* what is before its first byte in ``Row.offset``.
    """

    path: Path
    line: int
    offset: int
    base: int = 0
    file: str | None = None

    def lines(self) -> Iterator[tuple[int, int, bytes]]:
        """The lines with their numbers and offsets, without a byte order mark."""
        offset = self.base + self.offset
        with reading(self.path), open_bytes(self.path, self.offset) as stream:
            for number, line in enumerate(stream, self.line):
                yield number, offset, line.removeprefix(_BOM) if number == 1 else line
                offset += len(line)


def open_bytes(path: Path, offset: int = 0) -> BinaryIO:
    """The bytes of *path*, decompressed, from *offset* on."""
    match path.suffix.lower():
        case ".gz":
            stream = _buffered(cast(io.RawIOBase, gzip.GzipFile(path, "rb")))
        case ".zst":
            stream = _buffered(_Unpacked(import_zstandard(), path.open("rb")))
        case _:
            file = path.open("rb", _BUFFER)
            file.seek(offset)
            return file
    try:
        if not path.stat().st_size:
            raise EOFError("the file is empty")  # which is no archive, though gzip takes it for one
        while offset > 0 and (block := stream.read(min(offset, _BLOCK))):
            offset -= len(block)
    except BaseException:
        stream.close()
        raise
    return stream


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Give what is raised while *path* is read the name of that file."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SourceError(f"broken archive: {error}", path=str(path)) from error
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror or error}", path=str(path)) from error


def import_zstandard(whose: str = "source") -> Any:
    """The package zstandard. Raises :class:`ConfigurationError` where it is not installed, about *whose* file it is."""
    try:
        return import_module("zstandard")
    except ImportError as error:
        raise ConfigurationError(
            f"{whose}: a .zst file needs zstandard. Install it with: pip install zstandard"
        ) from error


def spool(stream: BinaryIO, path: Path) -> int:
    """
    Copy *stream*, which can be read once, to the file *path*, which is a source; return how many bytes there were.

    The file appears when it is complete. Raises :class:`SourceError` if it cannot be read or written to the end.
    """
    temporary = path.with_name(path.name + ".spooling")
    size = 0
    try:
        with temporary.open("wb") as file:
            while block := stream.read(_BLOCK):
                size += file.write(block)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise SourceError(
                f"cannot be copied to {path}: {error.strerror or error}", path="standard input"
            ) from error
        raise
    return size


def _buffered(raw: io.RawIOBase) -> BinaryIO:
    return io.BufferedReader(raw, _BUFFER)


class _Unpacked(io.RawIOBase):
    """
    A ``.zst`` file, decompressed.

    zstandard's own reader ends without a word where a file is cut off, so this asks each frame whether it has ended.
    """

    def __init__(self, zstandard: Any, file: BinaryIO) -> None:
        self._error = zstandard.ZstdError
        self._unpacker = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
        self._file = file
        self._frame: Any = None
        self._ready = memoryview(b"")
        self._packed = b""
        self._step = _MIN_PACKED

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            if not self._unpack():
                return 0
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()

    def _unpack(self) -> bool:
        """Unpack some more; False at the end of the file."""
        packed = self._packed or self._file.read(self._step)
        self._packed = b""
        if not packed:
            if self._frame is not None:
                raise EOFError("Compressed file ended before the end of a frame was reached")
            return False
        if self._frame is None:
            self._frame = self._unpacker.decompressobj()
        try:
            unpacked = self._frame.decompress(packed)
        except self._error as error:
            raise EOFError(str(error)) from error
        if self._frame.eof:
            self._packed, self._frame = self._frame.unused_data, None
        # A few bytes can be gigabytes of one letter: how much is read depends on what it came to.
        self._step = _MIN_PACKED if len(unpacked) > _BLOCK else min(_MAX_PACKED, 2 * self._step)
        self._ready = memoryview(unpacked)
        return True
