"""Tables in memory, from any library that speaks Arrow."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import xxhash

from ...errors import ConfigurationError
from ..identity import Fingerprint
from .arrow import MAX_ROWS, RowReader, decoded, is_text, is_tokens, lengths, values
from .source import BEGINNING, Place, Row, RowSource

_BLOCK_ROWS = 4096  # that are put into a digest at a time


@dataclass(frozen=True, slots=True)
class TableRows(RowSource):
    """
    A document per row of *table*, as :func:`open_table` makes it: with the columns that are needed, and no others.

    Ids are texts or integers; without *id_column* they are 0, 1, 2, ….
    """

    name: str
    table: pa.Table = field(repr=False)
    text_column: str
    id_column: str | None = None
    key: str = field(default_factory=lambda: uuid4().hex, repr=False)

    @property
    def path(self) -> Path:
        return Path(self.name)

    def rows(self, start: Place = BEGINNING) -> Iterator[Row]:
        batches = self.table.slice(start.offset).to_batches(max_chunksize=MAX_ROWS)
        reader = self.reader(self.table.schema)
        yield from reader.rows(batches, start.position, start.offset + 1, start.offset)

    def schema(self) -> pa.Schema:
        return self.reader(self.table.schema).schema

    def reader(self, schema: pa.Schema) -> RowReader:
        """What makes rows of batches of this *schema*. Raises :class:`SourceError` where that cannot be done."""
        return RowReader(self, schema, text_column=self.text_column, id_column=self.id_column, path=self.name)

    def stamp(self) -> str:
        # Nothing tells what a table was made of: another process has to compare what it holds.
        return f"{self.table.num_rows} rows {self.key}"

    def fingerprint(self) -> Fingerprint:
        total = 0
        digest = xxhash.xxh3_128()
        for name in self.table.column_names:
            column = _ColumnDigest(self.table.schema.field(name).type)
            for chunk in self.table.column(name).chunks:
                for first in range(0, len(chunk), _BLOCK_ROWS):
                    column.add(chunk.slice(first, _BLOCK_ROWS))
            digest.update(name.encode() + b"\0" + column.digest())
            total += column.bytes
        return Fingerprint(total, digest.hexdigest(), self.stamp())

    def has_grown(self, before: Fingerprint) -> bool:
        return False


def table_rows(table: Any, text_column: str, id_column: str | None, **options: Any) -> TableRows:
    """The source for *table*, as :func:`open_table` makes it. The *options* are those of :class:`RowSource`."""
    kind = type(table)
    name = f"{kind.__module__.partition('.')[0]} {kind.__qualname__}"
    source = TableRows(name=name, table=pa.table({}), text_column=text_column, id_column=id_column, **options)
    try:
        stream = _stream(table, source)
        names = source.reader(stream.schema).names
        batches = [batch.select(names) for batch in stream]
    except ConfigurationError:
        raise
    except (pa.ArrowException, TypeError, ValueError, OSError) as error:
        raise ConfigurationError(f"source: {name} cannot be read as a table: {error}") from error
    schema = pa.schema([stream.schema.field(each) for each in names])
    return replace(source, table=pa.Table.from_batches(batches, schema))


def _stream(table: Any, source: TableRows) -> pa.RecordBatchReader:
    """The rows of *table*."""
    if isinstance(table, pa.RecordBatchReader):
        return table  # a stream of its own would keep a batch whole for as long as one of its columns is in use
    if isinstance(table, pa.Table):
        return table.to_reader()
    if hasattr(table, "iloc") and hasattr(table, "columns") and source.columns != "all":
        # Of a pandas frame, only what is needed: other columns may hold what Arrow has no type for.
        wanted = {source.text_column, source.id_column or source.text_column, *source.columns}
        table = table[list(wanted)] if wanted <= set(table.columns) else table
    if hasattr(table, "__arrow_c_stream__"):
        return pa.RecordBatchReader.from_stream(table)
    is_sized = isinstance(table, Sized)  # a dataset that is streamed is not
    if is_sized and hasattr(table, "with_format") and hasattr(table, "features"):
        # A dataset of Hugging Face, which has an order of its own over its files: only what is needed is put into it.
        names = source.reader(table.features.arrow_schema).names
        return _stream(table.select_columns(names).with_format("arrow")[:], source)
    if isinstance(inner := getattr(table, "table", None), pa.Table):
        return _stream(inner, source)  # what such a dataset has as its .data
    raise ConfigurationError(
        f"source: expected a table with __arrow_c_stream__, as those of pyarrow, pandas 2.2 and polars are, or a "
        f"dataset that is no stream, got {source.name}"
    )


class _ColumnDigest:
    """
    128 bits of what a column of this *kind* holds, and its *bytes*.

    They are the same however it is cut up, and whether its texts are a dictionary, views or neither.
    """

    def __init__(self, kind: pa.DataType) -> None:
        self.bytes = 0
        self._is_text = is_text(kind) or pa.types.is_integer(kind)
        self._kind = b"text" if is_text(kind) else str(kind).encode()
        self._lengths = xxhash.xxh3_128()
        self._data = xxhash.xxh3_128()

    def add(self, chunk: Any) -> None:
        """Add some rows."""
        if pa.types.is_integer(chunk.type):
            chunk = chunk.cast(pa.string())
        if self._is_text or is_tokens(chunk.type):
            self._lengths.update(lengths(chunk).fill_null(-1).to_numpy())
            data = _text_bytes(chunk) if self._is_text else chunk.drop_null().flatten().to_numpy().tobytes()
        else:
            data = "\n".join(map(repr, values(chunk, "", {}))).encode(errors="surrogatepass")
            self._lengths.update(len(data).to_bytes(8, "little"))
        self._data.update(data)
        self.bytes += len(data)

    def digest(self) -> bytes:
        """The digest of all rows."""
        return self._kind + self._lengths.digest() + self._data.digest()


def _text_bytes(chunk: Any) -> memoryview:
    """The bytes of the texts of *chunk*, one after the other."""
    texts = decoded(chunk).cast(pa.large_string()).drop_null()
    _, ends, data = texts.buffers()
    if not len(texts) or data is None:
        return memoryview(b"")
    bounds = np.frombuffer(ends, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return memoryview(data)[bounds[0] : bounds[-1]]
