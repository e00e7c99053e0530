"""
The ``.npy`` destination: float32, shape (documents, dimensions), C order, a row of NaN where the document failed.

Beside it, ``….npy.ids.jsonl`` has ``{"id": …, "tokens": …}`` for every row, with ``"text"`` if that is kept, and
``….npy.meta.json`` the origin.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from ..errors import SourceError
from ..values import Vectors
from . import origin as origins
from .files import Drafts
from .origin import Origin
from .result import Block, Entry

_IDS = ".ids.jsonl"
_META = ".meta.json"
_BLOCK_BYTES = 16 * 2**20


class NpySink:
    """Appends rows, and writes the header again when their number is known."""

    def __init__(self, drafts: Drafts, origin: Origin, *, dimensions: int) -> None:
        self._dimensions = dimensions
        self._rows = 0
        self._vectors = drafts.create()
        self._ids = drafts.create(_IDS)
        self._vectors.write(_header(0, dimensions))
        drafts.create(_META).write(origins.encode(origin) + b"\n")

    def write(self, block: Block) -> None:
        self._rows += len(block.ids)
        self._vectors.write(np.ascontiguousarray(block.vectors, "<f4").data)
        texts: Sequence[dict[str, str | None]] = [{}] * len(block.ids)
        if block.texts is not None:
            texts = [{"text": text} for text in block.texts]
        encoder = msgspec.json.Encoder()
        for id, tokens, text in zip(block.ids, block.tokens, texts, strict=True):
            self._ids.write(encoder.encode({"id": id, "tokens": tokens, **text}) + b"\n")

    def close(self) -> None:
        self._vectors.seek(0)
        self._vectors.write(_header(self._rows, self._dimensions))


class NpyResult:
    """Maps the vectors into memory, so that only what is looked at is read."""

    def __init__(self, path: Path) -> None:
        self._ids = path.with_name(path.name + _IDS)
        try:
            self._vectors: Vectors = np.load(path, mmap_mode="r")
            meta = path.with_name(path.name + _META).read_bytes()
        except OSError as error:
            raise SourceError(f"cannot be read: {error.strerror or error}", path=error.filename or str(path)) from error
        except ValueError as error:
            raise SourceError(f"not a .npy file: {error}", path=str(path)) from error
        self.origin = origins.decode(meta, path)

    def blocks(self) -> Iterator[Vectors]:
        rows = max(1, _BLOCK_BYTES // max(1, 4 * self._vectors.shape[1]))
        for first in range(0, len(self._vectors), rows):
            yield self._vectors[first : first + rows]

    def entries(self, rows: Sequence[int]) -> dict[int, Entry]:
        wanted = set(rows)
        entries: dict[int, Entry] = {}
        with self._ids.open("rb") as file:
            for row, line in enumerate(file):
                if row in wanted:
                    values = msgspec.json.decode(line)
                    entries[row] = Entry(values["id"], values.get("text"))
        return entries


def _header(rows: int, dimensions: int) -> bytes:
    """The header of the file. It is as long for any number of rows: numpy leaves room for that number to grow."""
    header = io.BytesIO()
    shape = {"descr": "<f4", "fortran_order": False, "shape": (rows, dimensions)}
    np.lib.format.write_array_header_1_0(header, shape)
    return header.getvalue()
