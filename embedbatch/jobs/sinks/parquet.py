"""
The ``.parquet`` destination, or a folder of such files.

The columns are ``id``, ``vector``, ``tokens`` and, if asked for, ``text`` and others of the source.

``id`` is int64 if all ids are integers, else a string; ``vector`` a fixed-size list of float32 or float16, null where
the document failed; ``tokens`` int64, null where they were not counted. The origin is the schema's metadata
``embedbatch``.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import ConfigurationError, SourceError
from ...values import Vectors
from ..columns import JSON, cleaned, encode
from ..disk import Disk, temporary_for
from ..dtypes import Dtype, rounded
from ..rows import Hashed, digest_of
from ..segments import Room
from ..sources import IdType
from . import origin as origins
from .origin import Origin
from .result import Block, Entry

_METADATA = b"embedbatch"
_NUMBERS: dict[Dtype, pa.DataType] = {"float32": pa.float32(), "float16": pa.float16()}
_TYPES: dict[str, pa.DataType] = {
    "null": pa.null(),
    "bool": pa.bool_(),
    "int": pa.int64(),
    "long": pa.int64(),
    "float": pa.float64(),
    "text": pa.large_string(),
    JSON: pa.large_string(),
}


def room_of(folder: Path) -> Room:
    """Where the vectors of a job stand whose result is one file."""
    return Room(folder / "vectors.rows")


class ParquetSink:
    """
    Writes every part as a file in *folder*, each block as one row group.

    Where *destination* has no suffix, it is a folder of these files. Otherwise they are Arrow files of all but the
    vectors, which the journal writes to their :class:`Room`, and the result has a row group for each block of them:
    to write a vector as Parquet, and to read it again, takes four times as long as to write it as it is.
    """

    def __init__(
        self,
        disk: Disk,
        folder: Path,
        destination: Path,
        origin: Origin,
        *,
        dimensions: int,
        id_type: IdType,
        keep_text: bool,
        dtype: Dtype,
        columns: Mapping[str, Any],
    ) -> None:
        fields: list[pa.Field[Any]] = [
            pa.field("id", pa.int64() if id_type == "int" else pa.string(), nullable=False),
            pa.field("vector", pa.list_(_NUMBERS[dtype], dimensions)),
            pa.field("tokens", pa.int64()),
        ]
        if keep_text:
            fields.append(pa.field("text", pa.large_string()))
        fields += fields_of(columns)
        self._schema = pa.schema(fields, metadata={_METADATA: origins.encode(origin)})
        self._json = json_of(columns)
        self._dtype = dtype
        self._dimensions = dimensions
        self._disk = disk
        self._folder = folder
        self._parts = folder if destination.suffix else folder / "result"
        self._is_folder = not destination.suffix
        self._destination = destination
        disk.make_directory(self._parts)

    def write_part(self, number: int, blocks: Iterable[Block]) -> int:
        return self._write(self._part(number), map(self._table, blocks), as_parquet=self._is_folder)

    def digest(self, number: int) -> int:
        with self._disk.read(self._part(number)) as file:
            return digest_of(file)

    def assemble(self, numbers: Sequence[int]) -> list[tuple[Path, Path]]:
        if self._is_folder:
            if not numbers:
                self.write_part(0, [])
            self._disk.sync_directory(self._parts)
            return [(self._parts, self._destination)]
        whole = self._folder / "result.parquet"
        self._write(whole, self._tables(numbers), as_parquet=True)
        return [(whole, self._destination)]

    def _tables(self, numbers: Sequence[int]) -> Iterator[pa.Table]:
        """What was written of the parts, with their vectors, one block at a time."""
        width = 4 * self._dimensions
        with contextlib.ExitStack() as files:
            room = files.enter_context(self._disk.read(room_of(self._folder).path)) if numbers and width else None
            for number in numbers:
                with self._disk.read(self._part(number)) as file, pa.ipc.open_file(cast("io.IOBase", file)) as part:
                    for block in range(part.num_record_batches):
                        table = pa.Table.from_batches([part.get_batch(block)])
                        read = room.read(len(table) * width) if room else b""
                        vectors = np.frombuffer(read, "<f4").reshape(len(table), self._dimensions)
                        yield table.add_column(1, self._schema.field("vector"), lists_of(vectors, self._dtype))

    def _write(self, target: Path, tables: Iterable[pa.Table], *, as_parquet: bool) -> int:
        """Write *tables* to *target*, which appears when it is complete; return the digest of the file."""
        temporary = temporary_for(target)
        self._disk.remove(temporary)
        file = self._disk.open(temporary)
        try:
            hashed = Hashed(file)
            with self._parquet(hashed) if as_parquet else self._arrow(hashed) as write:
                for table in tables:
                    write(table)
            self._disk.publish(file, temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                file.close()
            raise
        return hashed.digest

    @contextlib.contextmanager
    def _parquet(self, file: Hashed) -> Iterator[Callable[[pa.Table], object]]:
        # No dictionaries and statistics of floats: they halve the speed (60 instead of 108 ms for 16 MB, one core,
        # pyarrow 26) and serve nobody.
        writer = pq.ParquetWriter(cast("IO[bytes]", file), self._schema, use_dictionary=False, write_statistics=["id"])
        try:
            yield lambda table: writer.write_table(table, row_group_size=max(1, len(table)))
            writer.close()
        except BaseException:
            with contextlib.suppress(OSError, pa.ArrowException):
                writer.close()
            writer.is_open = False  # where it could not be closed, its destructor would try again, and complain
            raise

    @contextlib.contextmanager
    def _arrow(self, file: Hashed) -> Iterator[Callable[[pa.Table], object]]:
        with pa.ipc.new_file(file, self._schema.remove(1)) as writer:
            yield writer.write_table

    def _table(self, block: Block) -> pa.Table:
        schema = self._schema if self._is_folder else self._schema.remove(1)
        columns = arrays_of(block, schema, self._json)
        if self._is_folder:
            assert block.vectors is not None
            columns["vector"] = lists_of(block.vectors, self._dtype)
        return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)

    def _part(self, number: int) -> Path:
        return self._parts / f"part-{number:06}.{'parquet' if self._is_folder else 'arrow'}"


class ParquetResult:
    """Reads one row group at a time, of one file or of all in a folder."""

    def __init__(self, path: Path) -> None:
        paths = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        try:
            self._files = [pq.ParquetFile(each) for each in paths or [path]]
        except OSError as error:
            raise SourceError(f"cannot be read: {error.strerror or error}", path=str(path)) from error
        except pa.ArrowException as error:
            raise SourceError(f"not a Parquet file: {error}", path=str(path)) from error
        described = [(file.schema_arrow.metadata or {}).get(_METADATA, b"") for file in self._files]
        self.origin, *others = [origins.decode(each, path) for each in described]
        for other in others:  # of one job they may differ in the version that has gone on with it
            if (other.model, other.dimensions) != (self.origin.model, self.origin.dimensions):
                raise SourceError("its files are not the result of one job", path=str(path))

    def blocks(self) -> Iterator[Vectors]:
        for file, group in self._groups():
            yield self._vectors(file.read_row_group(group, columns=["vector"]))

    def rows(self, first: int) -> Iterator[tuple[Vectors, Sequence[int | None]]]:
        for file, group in self._groups():
            count = file.metadata.row_group(group).num_rows
            if first < count:
                table = file.read_row_group(group, columns=["vector", "tokens"]).slice(first)
                yield self._vectors(table), table.column("tokens").to_pylist()
            first = max(0, first - count)

    def _vectors(self, table: pa.Table) -> Vectors:
        column = cast("pa.FixedSizeListArray[Any, Any]", table.column("vector").combine_chunks())
        vectors = np.full((len(column), self.origin.dimensions or 0), np.nan, np.float32)
        present = column.is_valid().to_numpy(zero_copy_only=False)
        vectors[present] = column.flatten().to_numpy().reshape(-1, vectors.shape[1])
        return vectors

    def entries(self, rows: Sequence[int]) -> dict[int, Entry]:
        columns = [name for name in ("id", "text") if name in self._files[0].schema_arrow.names]
        entries: dict[int, Entry] = {}
        first = 0
        for file, group in self._groups():
            end = first + file.metadata.row_group(group).num_rows
            wanted = [row for row in rows if first <= row < end]
            if wanted:
                found = file.read_row_group(group, columns=columns).take([row - first for row in wanted])
                for row, values in zip(wanted, found.to_pylist(), strict=True):
                    entries[row] = Entry(values["id"], values.get("text"))
            first = end
        return entries

    def _groups(self) -> Iterator[tuple[pq.ParquetFile, int]]:
        for file in self._files:
            for group in range(file.num_row_groups):
                yield file, group


def fields_of(columns: Mapping[str, Any]) -> list[pa.Field[Any]]:
    """
    The fields of other *columns*, each of an Arrow type, or of a kind of :mod:`embedbatch.jobs.columns`.

    Raises :class:`ConfigurationError` for types that Parquet does not have.
    """
    fields = []
    for name, kind in columns.items():
        field: pa.Field[Any] = pa.field(name, _type_of(kind) if isinstance(kind, str) else kind)
        try:
            pq.write_table(pa.schema([field]).empty_table(), pa.BufferOutputStream())
        except pa.ArrowException as error:
            raise ConfigurationError(f"columns: {name!r} cannot be written to Parquet: {error}") from error
        fields.append(field)
    return fields


def _type_of(kind: str) -> pa.DataType:
    if kind.endswith("[]"):
        return pa.list_(_type_of(kind.removesuffix("[]")))
    return _TYPES[kind]


def json_of(columns: Mapping[str, Any]) -> Collection[str]:
    """Which of *columns* are written as JSON."""
    return {name for name, kind in columns.items() if kind == JSON}


def arrays_of(block: Block, schema: pa.Schema, as_json: Collection[str]) -> dict[str, pa.Array[Any]]:
    """The columns of *block* but the vectors, for a table of this *schema*; those called *as_json* are JSON there."""
    id_type = schema.field("id").type
    ids = block.ids if pa.types.is_integer(id_type) else list(map(str, block.ids))
    arrays: dict[str, pa.Array[Any]] = {"id": pa.array(ids, id_type), "tokens": pa.array(block.tokens, pa.int64())}
    if block.texts is not None:
        arrays["text"] = pa.array(block.texts, pa.large_string())
    for name, values in block.extra.items():
        if name in as_json:
            values = [None if value is None else encode(value).decode() for value in values]
        arrays[name] = _array_of(values, schema.field(name).type)
    return arrays


def _array_of(values: Sequence[Any], kind: pa.DataType) -> pa.Array[Any]:
    """An array of *values*; texts in them are made writable."""
    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:
        return pa.array(cleaned(values), kind)


def lists_of(vectors: Vectors, dtype: Dtype) -> pa.Array[Any]:
    """The rows of *vectors* as fixed-size lists, null where they are NaN."""
    rows, dimensions = vectors.shape
    if not dimensions:
        return pa.nulls(rows, pa.list_(_NUMBERS[dtype], 0))
    # A vector is finite or the whole row is NaN: the first number tells.
    failed = pa.array(np.isnan(vectors[:, 0]))
    numbers = pa.array(rounded(vectors, dtype).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(numbers, dimensions, mask=failed)
