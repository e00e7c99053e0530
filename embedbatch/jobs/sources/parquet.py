"""Parquet files, one or several, read in pieces of their row groups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import SourceError
from .arrow import MAX_ROWS, PIECE, RowReader, united
from .files import FileSource
from .source import BEGINNING, Place, Row

_BUFFER = 2**20  # that is read at a time of each column


@dataclass(frozen=True, slots=True)
class ParquetRows(FileSource):
    """
    A document per row of ``.parquet`` files: a text, or a list of integers, in *text_column*.

    Null is handed on as ``None``. Ids are texts or integers; without *id_column* they are 0, 1, 2, …. Only the columns
    that are needed are read, and of a row group only some rows at a time.
    """

    text_column: str
    id_column: str | None = None

    def schema(self) -> pa.Schema:
        schemas = []
        for path in self.each_file():
            with _opened(path) as file:
                schemas.append(self._reader(path, file).schema)
        return united(schemas, self.name)

    def rows(self, start: Place = BEGINNING) -> Iterator[Row]:
        position, before = start.position, 0
        for path in self.each_file():
            with _opened(path) as file:
                skipped = min(max(0, start.offset - before), file.metadata.num_rows)
                if skipped < file.metadata.num_rows or not skipped:
                    reader = self._reader(path, file)
                    batches = _batches(file, path, reader.names, skipped)
                    position = yield from reader.rows(batches, position, skipped + 1, before + skipped)
                before += file.metadata.num_rows

    def _reader(self, path: Path, file: pq.ParquetFile) -> RowReader:
        return RowReader(
            self,
            file.schema_arrow,
            text_column=self.text_column,
            id_column=self.id_column,
            path=str(path),
            file=self.shown(path),
        )


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    with _named(path, "not a Parquet file"):
        file = pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False, page_checksum_verification=True)
    with file:
        yield file


def _batches(file: pq.ParquetFile, path: Path, names: list[str], skipped: int) -> Iterator[pa.RecordBatch]:
    """The rows of *file* but the first *skipped*; row groups that are only of these are not read."""
    with _named(path, "broken Parquet file"):
        for number in range(file.num_row_groups):
            group = file.metadata.row_group(number)
            if group.num_rows <= skipped:
                skipped -= group.num_rows
                continue
            chunks = (group.column(each) for each in range(group.num_columns))
            nbytes = sum(each.total_uncompressed_size for each in chunks if each.path_in_schema.split(".")[0] in names)
            size = max(1, min(MAX_ROWS, group.num_rows * PIECE // max(1, nbytes)))
            for batch in file.iter_batches(size, row_groups=[number], columns=names):
                if skipped < len(batch):
                    yield batch.slice(skipped)
                skipped = max(0, skipped - len(batch))


@contextmanager
def _named(path: Path, kind: str) -> Iterator[None]:
    """Give what Arrow raises the file's name."""
    try:
        yield
    except pa.ArrowException as error:
        raise SourceError(f"{kind}: {error}", path=str(path)) from error
    except OSError as error:
        # Arrow puts the path and more into strerror, and leaves errno out where the file is no file of its kind.
        reason = f"cannot be read: {os.strerror(error.errno)}" if error.errno else f"{kind}: {error}"
        raise SourceError(reason, path=str(path)) from error
