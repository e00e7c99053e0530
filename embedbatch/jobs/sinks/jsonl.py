"""
The ``.jsonl`` destination, also ``.jsonl.gz`` and ``.jsonl.zst``: an object for each row, in a line of its own.

It has ``id``, ``embedding`` (an array, null where the document failed), ``tokens`` and, if asked for, ``text`` and
other columns. Beside it, ``….meta.json`` has the origin.
"""

from __future__ import annotations

import contextlib
import gzip
import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

import msgspec
import numpy as np
import orjson

from ...errors import SourceError
from ...values import Vectors
from ..disk import Disk, temporary_for
from ..rows import digest_of
from ..sources.streams import import_zstandard, open_bytes, reading
from . import origin as origins
from .origin import META, Origin, write_origin
from .records import lines
from .result import Block, Entry

_GZIP_LEVEL = 1  # of digits that hold no pattern, level 6 makes 12 % less in six times the time
_ROWS = 1024  # of a block that is read
_COPY = 2**20

# Of all float32, these digits alone (and those of -x) are those of another one to a reader that goes by way of float64,
# as most do. The number is written with those of its float64.
_AWKWARD, _EXACT = b"7.038531e-26", b"7.038530691851209e-26"


class JsonlSink:
    """
    Writes every part as a file in *folder*, all of which make the result.

    In a ``.gz``, each part is a member. A ``.zst`` is compressed in the end, as one frame: widely used readers take the
    first one for the whole file.
    """

    def __init__(self, disk: Disk, folder: Path, destination: Path, origin: Origin) -> None:
        self._disk = disk
        self._folder = folder
        self._destination = destination
        self._origin = origin
        self._packing = destination.suffix.lower()

    def write_part(self, number: int, blocks: Iterable[Block]) -> int:
        path = self._part(number)
        with self._writing(path, self._packing if self._packing == ".gz" else "") as file:
            for block in blocks:
                assert block.vectors is not None
                for line in lines(block, _arrays(block.vectors)):
                    file.write(line)
        return self._digest(path)

    def digest(self, number: int) -> int:
        return self._digest(self._part(number))

    def assemble(self, numbers: Sequence[int]) -> list[tuple[Path, Path]]:
        if not numbers:
            self.write_part(0, [])
        parts = [self._part(number) for number in numbers or (0,)]
        whole = parts[0]
        if len(parts) > 1 or self._packing == ".zst":
            whole = self._folder / "result.jsonl"
            with self._writing(whole, self._packing if self._packing == ".zst" else "") as file:
                for path in parts:
                    with self._disk.read(path) as part:
                        shutil.copyfileobj(part, file, _COPY)
        meta = write_origin(self._disk, self._folder, self._origin)
        return [(meta, self._destination.with_name(self._destination.name + META)), (whole, self._destination)]

    def _digest(self, path: Path) -> int:
        with self._disk.read(path) as file:
            return digest_of(file)

    @contextlib.contextmanager
    def _writing(self, target: Path, packing: str) -> Iterator[BinaryIO]:
        """What is written here is in *target*, packed, once it is complete."""
        temporary = temporary_for(target)
        self._disk.remove(temporary)
        file = self._disk.open(temporary)
        try:
            with _packed(file, packing) as stream:
                yield stream
            self._disk.publish(file, temporary, target)
        finally:
            with contextlib.suppress(OSError):
                file.close()

    def _part(self, number: int) -> Path:
        return self._folder / f"part-{number:06}.jsonl"


class JsonlResult:
    """Reads one line at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        meta = path.with_name(path.name + META)
        try:
            with path.open("rb"):
                self.origin = origins.decode(meta.read_bytes(), path)
        except OSError as error:
            raise SourceError(f"cannot be read: {error.strerror or error}", path=error.filename or str(path)) from error

    def blocks(self) -> Iterator[Vectors]:
        return (vectors for vectors, _ in self.rows(0))

    def rows(self, first: int) -> Iterator[tuple[Vectors, Sequence[int | None]]]:
        dimensions = self.origin.dimensions or 0
        numbered = islice(self._rows(), first, None)
        while some := list(islice(numbered, _ROWS)):
            vectors = np.full((len(some), dimensions), np.nan, np.float32)
            for at, (number, row) in enumerate(some):
                if row.embedding is None:
                    continue
                if len(row.embedding) != dimensions:
                    reason = f"expected {dimensions:,} numbers in embedding, got {len(row.embedding):,}"
                    raise SourceError(reason, path=str(self._path), line=number)
                vectors[at] = row.embedding
            yield vectors, [row.tokens for _, row in some]

    def entries(self, rows: Sequence[int]) -> dict[int, Entry]:
        wanted = set(rows)
        return {number - 1: Entry(row.id, row.text) for number, row in self._rows() if number - 1 in wanted}

    def _rows(self) -> Iterator[tuple[int, _Row]]:
        """The lines with their numbers, from 1."""
        decode = msgspec.json.Decoder(_Row).decode
        with reading(self._path), open_bytes(self._path) as stream:
            for number, line in enumerate(stream, 1):
                try:
                    yield number, decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    reason = f"not a row of a result: {error}"
                    raise SourceError(reason, path=str(self._path), line=number) from error


class _Row(msgspec.Struct):
    id: int | str
    embedding: list[float] | None
    tokens: int | None = None
    text: str | None = None


def _arrays(vectors: Vectors) -> Iterator[msgspec.Raw | None]:
    """
    The rows of *vectors* as JSON arrays of the fewest digits that tell a float32 from all others; None where it is NaN.

    1,536 numbers take 50 µs with orjson, 150 with msgspec, which writes them as float64 in 1.7 times as many digits,
    310 with pyarrow's cast to strings, and more than 1,000 with json or numpy (one core, orjson 3.13, pyarrow 26).
    """
    # A vector is finite or the whole row is NaN: the first number tells.
    failed = np.isnan(vectors[:, 0]) if vectors.shape[1] else np.ones(len(vectors), bool)
    for vector, has_failed in zip(np.ascontiguousarray(vectors), failed, strict=True):
        if has_failed:
            yield None
        else:
            digits = orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY)
            yield msgspec.Raw(digits.replace(_AWKWARD, _EXACT))


@contextlib.contextmanager
def _packed(file: BinaryIO, packing: str) -> Iterator[BinaryIO]:
    """What is written here goes packed into *file*, which stays open. The same bytes become the same bytes."""
    match packing:
        case ".gz":
            with gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0) as stream:
                yield cast(BinaryIO, stream)
        case ".zst":
            with import_zstandard("destination").ZstdCompressor().stream_writer(file, closefd=False) as stream:
                yield stream
        case _:
            yield file
