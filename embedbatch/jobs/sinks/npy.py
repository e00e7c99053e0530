"""
The ``.npy`` destination: float32 or float16, shape (documents, dimensions), C order, a row of NaN where one failed.

Beside it, ``….npy.ids.jsonl`` has ``{"id": …, "tokens": …}`` for every row, with ``"text"`` and other columns if those
are kept, and ``….npy.meta.json`` the origin.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt

from ...errors import SourceError
from ...values import Vectors
from ..disk import Disk, temporary_for
from ..dtypes import Dtype, rounded
from ..rows import Hashed, digest, digest_of
from ..segments import Room
from . import origin as origins
from .origin import META, Origin, write_origin
from .records import lines
from .result import Block, Entry

_IDS = ".ids.jsonl"
_VECTORS = "vectors.npy"
_BLOCK_BYTES = 16 * 2**20


def room_of(folder: Path, *, documents: int, dimensions: int) -> Room:
    """Where the vectors of a float32 result stand from the first."""
    return Room(folder / _VECTORS, len(_header(documents, dimensions, "float32")))


class NpySink:
    """
    The vectors of all parts are in one file, each in its place, and the ids of each part in a file of its own.

    Blocks that have no vectors are those of a job whose journal writes them to their places: see :func:`room_of`.
    """

    def __init__(
        self,
        disk: Disk,
        folder: Path,
        destination: Path,
        origin: Origin,
        *,
        documents: int,
        part_rows: int,
        dtype: Dtype,
    ) -> None:
        dimensions = origin.dimensions or 0
        self._dtype = dtype
        self._row_bytes = np.dtype(dtype).itemsize * dimensions
        self._header = _header(documents, dimensions, dtype)
        self._documents = documents
        self._part_rows = part_rows
        self._origin = origin
        self._disk = disk
        self._folder = folder
        self._destination = destination
        self._is_in_place = dtype == "float32"

    def write_part(self, number: int, blocks: Iterable[Block]) -> int:
        temporary = temporary_for(self._ids(number))
        self._disk.remove(temporary)
        with contextlib.ExitStack() as files:
            ids = Hashed(files.enter_context(self._disk.open(temporary)))
            vectors = None if self._is_in_place else files.enter_context(self._vectors())
            rows = Hashed(vectors or io.BytesIO())
            if vectors is not None:
                vectors.seek(self._offset(number))
            for block in blocks:
                ids.write(b"".join(lines(block)))
                if block.vectors is not None:
                    rows.write(rounded(block.vectors, self._dtype).reshape(-1).view(np.uint8).data)
            if vectors is not None:
                self._disk.sync(vectors)
            self._disk.publish(ids.file, temporary, self._ids(number))
        return ids.digest ^ rows.digest

    def digest(self, number: int) -> int:
        with self._disk.read(self._ids(number)) as ids:
            of_ids = digest_of(ids)
        if self._is_in_place:
            return of_ids ^ digest(b"")
        rows = min(self._part_rows, self._documents - number * self._part_rows)
        with self._disk.read(self._folder / _VECTORS) as vectors:
            vectors.seek(self._offset(number))
            return of_ids ^ digest_of(vectors, rows * self._row_bytes)

    def assemble(self, numbers: Sequence[int]) -> list[tuple[Path, Path]]:
        with self._vectors() as vectors:
            self._disk.sync(vectors)
        ids = self._folder / "ids.jsonl"
        self._disk.remove(ids)
        with self._disk.open(ids) as whole:
            for number in numbers:
                with self._disk.read(self._ids(number)) as file:
                    shutil.copyfileobj(file, whole)
            self._disk.sync(whole)
        name = self._destination.name
        return [
            (ids, self._destination.with_name(name + _IDS)),
            (write_origin(self._disk, self._folder, self._origin), self._destination.with_name(name + META)),
            (self._folder / _VECTORS, self._destination),
        ]

    def _vectors(self) -> BinaryIO:
        """The file of all vectors, with its header and room for all rows."""
        file = self._disk.open(self._folder / _VECTORS)
        try:
            self._disk.allocate(file, len(self._header) + self._documents * self._row_bytes)
            file.seek(0)
            file.write(self._header)
        except BaseException:
            with contextlib.suppress(OSError):
                file.close()
            raise
        return file

    def _offset(self, number: int) -> int:
        return len(self._header) + number * self._part_rows * self._row_bytes

    def _ids(self, number: int) -> Path:
        return self._folder / f"ids-{number:06}.jsonl"


class NpyResult:
    """Maps the vectors into memory, so that only what is looked at is read."""

    def __init__(self, path: Path) -> None:
        self._ids = path.with_name(path.name + _IDS)
        try:
            self._vectors: npt.NDArray[np.floating] = np.load(path, mmap_mode="r")
            meta = path.with_name(path.name + META).read_bytes()
        except OSError as error:
            raise SourceError(f"cannot be read: {error.strerror or error}", path=error.filename or str(path)) from error
        except ValueError as error:
            raise SourceError(f"not a .npy file: {error}", path=str(path)) from error
        self.origin = origins.decode(meta, path)

    def blocks(self) -> Iterator[Vectors]:
        for first in range(0, len(self._vectors), self._step):
            yield self._vectors[first : first + self._step].astype(np.float32, copy=False)

    def rows(self, first: int) -> Iterator[tuple[Vectors, Sequence[int | None]]]:
        with self._ids.open("rb") as file:
            tokens = (msgspec.json.decode(line)["tokens"] for line in islice(file, first, None))
            for begin in range(first, len(self._vectors), self._step):
                vectors = self._vectors[begin : begin + self._step].astype(np.float32, copy=False)
                yield vectors, list(islice(tokens, len(vectors)))

    def entries(self, rows: Sequence[int]) -> dict[int, Entry]:
        wanted = set(rows)
        entries: dict[int, Entry] = {}
        with self._ids.open("rb") as file:
            for row, line in enumerate(file):
                if row in wanted:
                    values = msgspec.json.decode(line)
                    entries[row] = Entry(values["id"], values.get("text"))
        return entries

    @property
    def _step(self) -> int:
        """The rows that are read together."""
        return max(1, _BLOCK_BYTES // max(1, 4 * int(self._vectors.shape[1])))


def _header(rows: int, dimensions: int, dtype: Dtype) -> bytes:
    """The header of the file. It is as long for any number of rows: numpy leaves room for that number to grow."""
    header = io.BytesIO()
    shape = {"descr": np.dtype(dtype).newbyteorder("<").str, "fortran_order": False, "shape": (rows, dimensions)}
    np.lib.format.write_array_header_1_0(header, shape)
    return header.getvalue()
