"""
Tables of LanceDB: a row for each document, those of a part in one commit.

``run`` is the job and ``row`` the document's position: a part that is written again replaces its rows, and no others.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

import numpy as np

from ...errors import ConfigurationError, DestinationError
from ...values import Vectors
from ..columns import check_names
from ..disk import Disk
from ..dtypes import Dtype, check_dtype
from ..parts import Division
from ..rows import digest
from ..segments import Room
from .destination import OWN_COLUMNS, FileName, RowType, check_key, check_place, check_size, place_of
from .origin import Origin
from .result import Block

# Of two rows the one that has a vector, then the later one; of another run, the new one.
_REPLACES = (
    "(target.embedding IS NULL AND source.embedding IS NOT NULL) OR "
    "((target.embedding IS NULL) = (source.embedding IS NULL) AND "
    "(target.run != source.run OR target.row <= source.row))"
)


class LanceTable:
    """
    A *table* of the LanceDB database in the folder *uri*, or wherever else lancedb takes it to be.

    The table is made unless it is there. With ``key="id"`` it has one row for each id, of all runs: the last one that
    has a vector. *journal* is the folder of the job; by default ``TABLE.journal`` in the working directory. Needs the
    extra ``lance``. Raises :class:`ConfigurationError`.
    """

    def __init__(
        self, uri: FileName, *, table: str, key: Literal["id"] | None = None, journal: FileName | None = None
    ) -> None:
        try:
            import lancedb
        except ImportError as error:
            raise ConfigurationError(
                "destination: LanceDB needs lancedb. Install it with: pip install 'embedbatch[lance]'"
            ) from error
        check_key(key)
        if not re.fullmatch(r"[\w.-]+", table, re.ASCII):
            raise ConfigurationError(f"table: expected a name of letters, digits, _, - and ., got {table!r}")
        self._lancedb: Any = lancedb
        self._uri, self._key = os.fspath(uri), key
        self._folder = None if "://" in self._uri else Path(self._uri).absolute()
        self.name = table
        self.journal, self.failures = place_of(table, journal)

    @classmethod
    def from_url(cls, url: str, *, journal: FileName | None = None) -> LanceTable:
        """The table that *url* names: ``lancedb:///path/to/database?table=docs``, with ``&key=id`` if wanted."""
        front, _, query = url.partition("?")
        asked = dict(parse_qsl(query))
        key: Any = asked.get("key")
        path = front.partition("://")[2]
        if not asked.get("table") or not path or asked.keys() - {"table", "key"}:
            raise ConfigurationError(
                "destination: expected lancedb:///path/to/database?table=NAME, with &key=id if it is to have one row "
                "for each id"
            )
        return cls(path, table=asked["table"], key=key, journal=journal)

    def __repr__(self) -> str:
        return f"LanceTable({str(self)!r})"

    def __str__(self) -> str:
        if self._folder is not None:
            return f"lancedb://{self._folder}?table={self.name}"
        parts = urlsplit(self._uri)  # which may have secrets before the host, and in its query
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}?table={self.name}"

    @property
    def identity(self) -> Mapping[str, str]:
        return {"destination": str(self), "key": self._key or ""}

    def check(self, *, dtype: Dtype, columns: Iterable[str]) -> None:
        check_dtype(dtype)
        check_names(columns, taken=OWN_COLUMNS)
        check_place(self.journal)
        if self._folder is not None:
            self._disk_place(self._folder)

    def prepare(self, rows: RowType, run: str) -> int | None:
        """Compare the table with them; if there is none, make it in memory."""
        check_names(rows.columns, taken=OWN_COLUMNS)
        sink = LanceSink(self, Disk(), rows, Division(0, 1), run)
        with self.naming():
            table = self.table()
        if table is not None:
            return sink.compare(table)
        try:
            self._lancedb.connect("memory://").create_table(self.name, schema=sink.schema())
        except (RuntimeError, ValueError) as error:
            raise ConfigurationError(f"{self}: the table cannot be made: {_told(error)}") from error
        return None

    def holds(self, documents: int, run: str) -> bool:
        with self.naming():
            table = self.table()
            return not documents or (table is not None and table.count_rows(None if self._key else _of(run)) > 0)

    def room_for(self, folder: Path, *, division: Division, dimensions: int, dtype: Dtype) -> Room | None:
        return None

    def open_sink(
        self, disk: Disk, folder: Path, origin: Origin, rows: RowType, *, division: Division, run: str
    ) -> LanceSink:
        return LanceSink(self, disk, rows, division, run)

    @property
    def key(self) -> str | None:
        """The column that has no value twice."""
        return self._key

    @property
    def folder(self) -> Path | None:
        """Where the files of the table are, if that is on this machine."""
        return None if self._folder is None else self._folder / f"{self.name}.lance"

    def table(self, schema: Any = None) -> Any:
        """The table; a new one where there is none and a *schema* is given, else ``None``."""
        database = self._lancedb.connect(self._uri)
        try:
            return database.open_table(self.name)
        except ValueError as error:
            if "not found" not in str(error):
                raise
        return None if schema is None else database.create_table(self.name, schema=schema)

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Make a :class:`DestinationError` of what LanceDB raises in the block."""
        try:
            yield
        except (ConfigurationError, DestinationError):
            raise
        except (OSError, RuntimeError, ValueError) as error:
            kept = "What was done is kept; the same call goes on once the reason is gone"
            raise DestinationError(f"{_told(error)}. {kept}", destination=str(self)) from error

    def _disk_place(self, folder: Path) -> None:
        there = next(each for each in (folder, *folder.parents) if each.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise ConfigurationError(f"destination: {folder} cannot be made, or not be written to")


class LanceSink:
    """
    Writes every part in one commit, after one that takes away what is there of it, if anything is.

    Its digest tells rows that are gone, that came twice, or have another id, vector or token count than were written.
    Texts and other columns are not in it; and with a key, where another row may take the place of any, nothing is.
    """

    def __init__(self, destination: LanceTable, disk: Disk, rows: RowType, division: Division, run: str) -> None:
        self._destination = destination
        self._disk = disk
        self._rows = rows
        self._division = division
        self._run = run
        self._synced: set[Path] = set()

    def write_part(self, number: int, blocks: Iterable[Block]) -> int:
        table, where = self._table(), self._where(number)
        raised: list[BaseException] = []
        first = self._division.first(number)

        def batches() -> Iterator[Any]:
            nonlocal first
            try:
                for block in blocks:
                    yield self._batch(block, first)
                    first += len(block.ids)
            except BaseException as error:
                raised.append(error)  # Arrow would make another of it
                raise

        with self._destination.naming():
            import pyarrow as pa

            reader = pa.RecordBatchReader.from_batches(table.schema, batches())
            try:
                if self._destination.key:
                    self._merge(table, reader.read_all())
                else:
                    if table.count_rows(where):
                        table.delete(where)
                    table.add(reader, on_bad_vectors="null")
            except Exception:
                if raised:
                    raise raised[0] from None
                raise
            self._sync()
        return self._digest(table, where)

    def digest(self, number: int) -> int:
        return self._digest(self._table(), self._where(number))

    def assemble(self, numbers: Iterable[int]) -> list[tuple[Path, Path]]:
        return []  # it is there already

    def compare(self, table: Any) -> int | None:
        """The size of the vectors in *table*. Raises :class:`ConfigurationError` if it is not as is needed."""
        there, needed = table.schema, self.schema()
        wrong: list[str] = []
        size = None
        for field in needed:
            found = there.field(field.name).type if field.name in there.names else None
            if field.name == "embedding" and found is not None:
                size = getattr(found, "list_size", None)
                if not self._rows.dimensions and size and found.value_type == field.type.value_type:
                    continue
            if found != field.type:
                wrong.append(f"column {field.name} is {found or 'missing'}, and {field.type} is needed")
        wrong += [f"column {name} is there too" for name in there.names if name not in needed.names]
        if wrong:
            raise ConfigurationError(
                f"{self._destination}: the table is there, and is another one: {'; '.join(wrong)}. Name another table, "
                "or change this one"
            )
        return size

    def _table(self) -> Any:
        check_size(self._destination, self._rows)
        with self._destination.naming():
            table = self._destination.table(self.schema())
            self.compare(table)
            return table

    def _where(self, number: int) -> str:
        return f"{_of(self._run)} AND row >= {self._division.first(number)} AND row < {self._division.end(number)}"

    def schema(self) -> Any:
        """That of the table."""
        import pyarrow as pa

        from .parquet import fields_of

        number = pa.float32() if self._rows.dtype == "float32" else pa.float16()
        fields: list[Any] = [
            pa.field("run", pa.string(), nullable=False),
            pa.field("row", pa.int64(), nullable=False),
            pa.field("id", pa.int64() if self._rows.id_type == "int" else pa.string(), nullable=False),
            pa.field("embedding", pa.list_(number, self._rows.dimensions or 1)),
            pa.field("tokens", pa.int64()),
        ]
        if self._rows.keep_text:
            fields.append(pa.field("text", pa.large_string()))
        return pa.schema([*fields, *fields_of(self._rows.columns)])

    def _batch(self, block: Block, first: int) -> Any:
        import pyarrow as pa

        from .parquet import arrays_of, json_of, lists_of

        assert block.vectors is not None
        count = len(block.ids)
        schema = self.schema()
        columns: dict[str, Any] = {
            "run": pa.array([self._run] * count, pa.string()),
            "row": pa.array(range(first, first + count), pa.int64()),
            "embedding": lists_of(block.vectors, self._rows.dtype),
            **arrays_of(block, schema, json_of(self._rows.columns)),
        }
        return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)

    def _merge(self, table: Any, rows: Any) -> None:
        """Upsert *rows* by the key. Of those that have the same, one goes: the last that has a vector."""
        ids, lacks = rows.column("id").to_pylist(), rows.column("embedding").is_null().to_pylist()
        best: dict[Any, int] = {}
        for at in sorted(range(len(ids)), key=lambda at: (not lacks[at], at)):
            best[ids[at]] = at
        merge = table.merge_insert("id").when_matched_update_all(where=_REPLACES).when_not_matched_insert_all()
        merge.execute(rows.take(sorted(best.values())), on_bad_vectors="null")

    def _digest(self, table: Any, where: str) -> int:
        if self._destination.key:
            return 0
        total = 0
        with self._destination.naming():
            found = table.search().where(where).select(["row", "id", "tokens", "embedding"]).to_batches()
            for batch in found:
                what = zip(*(batch.column(name).to_pylist() for name in ("row", "id", "tokens")), strict=True)
                for values, vector in zip(what, _bytes(batch.column("embedding")), strict=True):
                    # The sum, as rows come in any order; twice the same does not cancel out.
                    total += digest(repr(values).encode(), vector) + 2**63
        return total % 2**64 - 2**63

    def _sync(self) -> None:
        """See to it that the files of the table are on the disk: LanceDB itself does not."""
        folder = self._destination.folder
        if folder is None or not folder.is_dir():
            return
        for path in sorted(folder.rglob("*")):
            if path not in self._synced and path.is_file():
                with self._disk.read(path) as file:
                    self._disk.sync(file)
                self._synced.add(path)
        for path in (folder.parent, folder, *(each for each in folder.iterdir() if each.is_dir())):
            self._disk.sync_directory(path)


def _told(error: Exception) -> str:
    """What LanceDB says, without where in its sources it says so."""
    return re.sub(r",? /\S+\.rs:[\d:]+", "", str(error).partition("\n")[0])[:300] or type(error).__name__


def _of(run: str) -> str:
    return f"run = '{run}'"


def _bytes(column: Any) -> Iterator[bytes]:
    """The vector of each row, nothing where it has none."""
    size = column.type.list_size
    vectors: Vectors = column.values.to_numpy(zero_copy_only=False)[column.offset * size :].reshape(-1, size)
    for vector, is_there in zip(np.ascontiguousarray(vectors), column.is_valid().to_pylist(), strict=False):
        yield vector.tobytes() if is_there else b""
