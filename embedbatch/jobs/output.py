"""Results into files: rows into blocks for the destination, failures into a file of their own."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import anyio.to_thread
import msgspec
import numpy as np

from ..embedder import Embedder
from ..values import Embedding, Failure, Id, Vector
from .files import Drafts
from .formats import open_sink
from .origin import origin_of
from .result import Block, Sink
from .sources import IdType

FAILURES = ".failures.jsonl"

_BLOCK_BYTES = 16 * 2**20  # of vectors and texts: what is written, and read again, in one go
_ROW_BYTES = 64  # about what a row takes besides
_SURROGATE = re.compile("[\ud800-\udfff]")


class Output:
    """
    The files of one job, written to *drafts*.

    The destination is begun when the size of the vectors is known: where neither the model nor an answer tells it,
    the rows that failed until then are held in memory.
    """

    def __init__(self, drafts: Drafts, embedder: Embedder, *, id_type: IdType, keep_text: bool) -> None:
        self.keep_text = keep_text
        self.dimensions = embedder.dimensions
        self.embedded = 0
        self.failures = 0
        self.skipped = 0
        self._drafts = drafts
        self._embedder = embedder
        self._id_type: IdType = id_type
        self._failures = drafts.create(FAILURES, optional=True)
        self._rows = _Rows()
        self._sink: Sink | None = None

    @property
    def failures_file(self) -> Path | None:
        """Where the failures are listed, if there are any."""
        destination = self._drafts.destination
        return destination.with_name(destination.name + FAILURES) if self.failures else None

    async def add(self, result: Embedding | Failure, *, line: int, text: object) -> None:
        """Take the result of the next document, which stood in *line* of the source; *text* is what stood there."""
        kept = _writable(text) if self.keep_text and isinstance(text, str) else None
        if isinstance(result, Failure):
            self._list(result, line)
            self._rows.add(result.id, None, None, kept)
        else:
            self.embedded += 1
            self.dimensions = self.dimensions or len(result.vector)
            self._rows.add(result.id, result.vector, result.tokens, kept)
        if self._rows.bytes >= _BLOCK_BYTES and self.dimensions is not None:
            await self._flush(self.dimensions)

    async def publish(self) -> None:
        """Complete all files and put them in place."""
        # Where no document was embedded and the model is not known, the vectors have 0 dimensions: all are missing.
        await self._flush(self.dimensions or 0)
        await anyio.to_thread.run_sync(self._close)

    def _list(self, failure: Failure, line: int) -> None:
        if failure.skipped:
            self.skipped += 1
            return
        self.failures += 1
        record = {
            "id": failure.id,
            "line": line,
            "error": type(failure.error).__name__,
            "reason": _writable(str(failure.error)),
            "attempts": failure.attempts,
        }
        self._failures.write(msgspec.json.encode(record) + b"\n")

    async def _flush(self, dimensions: int) -> None:
        rows, self._rows = self._rows, _Rows()
        # In a thread: 16 MB of Parquet take 60 ms, in which the loop can receive as much again.
        await anyio.to_thread.run_sync(self._write, rows, dimensions)

    def _write(self, rows: _Rows, dimensions: int) -> None:
        with self._drafts.writing():
            if self._sink is None:
                self._sink = self._open(dimensions)
            self._sink.write(rows.block(dimensions, keep_text=self.keep_text))

    def _open(self, dimensions: int) -> Sink:
        origin = origin_of(self._embedder, self.dimensions)
        return open_sink(self._drafts, origin, dimensions=dimensions, id_type=self._id_type, keep_text=self.keep_text)

    def _close(self) -> None:
        with self._drafts.writing():
            if self._sink is not None:
                self._sink.close()
            self._drafts.publish()


@dataclass(slots=True)
class _Rows:
    """Rows on their way into a block, as columns. *bytes* is about the memory they take."""

    ids: list[Id] = field(default_factory=list)
    vectors: list[Vector | None] = field(default_factory=list)
    tokens: list[int | None] = field(default_factory=list)
    texts: list[str | None] = field(default_factory=list)
    bytes: int = 0

    def add(self, id: Id, vector: Vector | None, tokens: int | None, text: str | None) -> None:
        """Add a row; one without a vector has failed."""
        self.ids.append(id)
        self.vectors.append(vector)
        self.tokens.append(tokens)
        self.texts.append(text)
        self.bytes += _ROW_BYTES + (0 if vector is None else vector.nbytes) + len(text or "")

    def block(self, dimensions: int, *, keep_text: bool) -> Block:
        """All of them."""
        vectors = np.full((len(self.ids), dimensions), np.nan, np.float32)
        for row, vector in enumerate(self.vectors):
            if vector is not None:
                vectors[row] = vector
        return Block(ids=self.ids, vectors=vectors, tokens=self.tokens, texts=self.texts if keep_text else None)


def _writable(text: str) -> str:
    """*text* as it was sent: UTF-8 cannot carry a lone surrogate."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)
