"""The rows of a table of PostgreSQL: their types, how they get there, and what tells them apart."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from uuid import UUID

import numpy as np

from ...errors import ConfigurationError
from ...values import Vectors
from ..columns import cleaned, encode, writable
from ..dtypes import Dtype, rounded
from .destination import RowType
from .result import Block

_VECTORS: dict[Dtype, tuple[str, str]] = {"float32": ("vector", ">f4"), "float16": ("halfvec", ">f2")}
_KINDS = {
    "null": "text",
    "bool": "boolean",
    "int": "bigint",
    "long": "bigint",
    "float": "double precision",
    "text": "text",
}
_PART = "embedbatch_part"  # a temporary table
_MAX_DIMENSIONS = 16_000  # of pgvector


def column_types(rows: RowType) -> dict[str, str]:
    """The columns of *rows* and their types, as PostgreSQL calls them."""
    vector = _VECTORS[rows.dtype][0]
    types = {
        "run": "uuid",
        "row": "bigint",
        "id": "bigint" if rows.id_type == "int" else "text",
        "embedding": f"{vector}({rows.dimensions})" if rows.dimensions else vector,
        "tokens": "bigint",
    }
    if rows.keep_text:
        types["text"] = "text"
    return types | {name: _type_of(kind) for name, kind in rows.columns.items()}


class Table:
    """
    A table, in the transactions that are handed in.

    *dimensions* is the size of the vectors that it has room for, ``None`` for any.
    """

    def __init__(self, schema: str, name: str, run: str, key: str | None) -> None:
        from psycopg import sql

        self.dimensions: int | None = None
        self._name = sql.Identifier(*(each for each in (schema, name) if each))
        self._run = UUID(run)
        self._key = key
        self._types: dict[str, str] = {}
        self._oids: dict[str, int] = {}
        self._vector_schema = "public"
        self._rows: RowType | None = None

    def has_rows(self, connection: Any) -> bool:
        """True if it is there, and has rows of this run; with a key, any."""
        from psycopg import sql

        if self._oid(connection) is None:
            return False
        where = sql.SQL("true") if self._key else sql.SQL("run = {}").format(self._run)
        query = sql.SQL("SELECT EXISTS (SELECT 1 FROM {} WHERE {})").format(self._name, where)
        return bool(connection.execute(query).fetchone()[0])

    def open(self, connection: Any, rows: RowType, types: Mapping[str, str]) -> None:
        """Make it with these *types*, unless it is there. Raises :class:`ConfigurationError` if it has others."""
        from psycopg import sql

        if (rows.dimensions or 0) > _MAX_DIMENSIONS:
            raise ConfigurationError(f"pgvector has room for {_MAX_DIMENSIONS:,} dimensions, not {rows.dimensions:,}")
        self._rows, self._types = rows, dict(types)
        self._find_vectors(connection, _VECTORS[rows.dtype][0])
        if self._oid(connection) is None:
            columns = [sql.SQL("{} {}{}").format(sql.Identifier(n), *self._declared(n)) for n in types]
            columns.append(sql.SQL("PRIMARY KEY ({})").format(sql.SQL("id" if self._key else 'run, "row"')))
            connection.execute(sql.SQL("CREATE TABLE {} ({})").format(self._name, sql.SQL(", ").join(columns)))
            self.dimensions = rows.dimensions
        else:
            self._compare(connection)

    def put(self, connection: Any, first: int, end: int, blocks: Iterable[Block]) -> None:
        """Write *blocks* as the rows from *first* to *end* of this run, in place of those that are there."""
        from psycopg import sql

        columns = sql.SQL(", ").join(map(sql.Identifier, self._types))
        if not self._key:
            # Literals: a name in a statement with parameters could not have a % in it.
            delete = sql.SQL('DELETE FROM {} WHERE run = {} AND "row" >= {} AND "row" < {}')
            connection.execute(delete.format(self._name, self._run, first, end))
            self._copy(connection, self._name, columns, first, blocks)
            return
        part = sql.Identifier("pg_temp", _PART)
        make = sql.SQL("CREATE TEMP TABLE {} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA")
        connection.execute(make.format(sql.Identifier(_PART), columns, self._name))
        self._copy(connection, part, columns, first, blocks)
        others = [sql.Identifier(name) for name in self._types if name != "id"]
        new = sql.SQL(", ").join(sql.SQL("{0} = EXCLUDED.{0}").format(name) for name in others)
        # Of two rows the one that has a vector, then the later one; of another run, the new one.
        upsert = sql.SQL(
            "INSERT INTO {table} AS t ({columns}) "
            'SELECT DISTINCT ON (id) {columns} FROM {part} ORDER BY id, embedding IS NULL, "row" DESC '
            "ON CONFLICT (id) DO UPDATE SET {new} "
            'WHERE (t.embedding IS NOT NULL, t.run = EXCLUDED.run AND t."row" > EXCLUDED."row") '
            "<= (EXCLUDED.embedding IS NOT NULL, false)"
        )
        connection.execute(upsert.format(table=self._name, columns=columns, part=part, new=new))

    def digest(self, connection: Any, first: int, end: int) -> int:
        """That of the rows from *first* to *end* of this run: of their number, ids, vectors and tokens."""
        from psycopg import sql

        if self._key:
            return 0
        assert self._rows is not None
        send = sql.Identifier(self._vector_schema, f"{_VECTORS[self._rows.dtype][0]}_send")
        # The sum of 64 bits of each row, which is numeric: the order does not matter, and nothing cancels out.
        query = sql.SQL(
            "SELECT count(*), coalesce(sum(hashtextextended(concat_ws(' ', \"row\", id, coalesce(tokens, -1), "
            "encode(sha256({send}(embedding)), 'hex')), 0)), 0) "
            'FROM {table} WHERE run = {run} AND "row" >= {first} AND "row" < {end}'
        )
        query = query.format(send=send, table=self._name, run=self._run, first=first, end=end)
        count, total = connection.execute(query).fetchone()
        return (int(total) + int(count) * 0x9E3779B97F4A7C15) % 2**64 - 2**63

    def _find_vectors(self, connection: Any, kind: str) -> None:
        """Find the type of the vectors, wherever pgvector has been put; have it made where that is missing."""
        query = (
            "SELECT t.oid, n.nspname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace "
            "JOIN pg_depend d ON d.objid = t.oid AND d.classid = 'pg_type'::regclass AND d.deptype = 'e' "
            "JOIN pg_extension e ON e.oid = d.refobjid WHERE e.extname = 'vector' AND t.typname = %s"
        )
        found = connection.execute(query, (kind,)).fetchone()
        if found is None:
            self._make_extension(connection)
            found = connection.execute(query, (kind,)).fetchone()
        if found is None:
            raise ConfigurationError(f"its pgvector is too old: there is no type {kind}")
        self._oids["embedding"], self._vector_schema = found

    def _make_extension(self, connection: Any) -> None:
        import psycopg

        try:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        except psycopg.errors.InsufficientPrivilege as error:
            raise ConfigurationError(
                f"the extension vector is missing, and {connection.info.user} may not create it. Have somebody who may "
                "say CREATE EXTENSION vector in this database"
            ) from error
        except (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile) as error:
            raise ConfigurationError("pgvector is not installed on the server of this database") from error

    def _declared(self, name: str) -> tuple[Any, Any]:
        """The type of a column, and whether it has a value in each row."""
        from psycopg import sql

        kind = sql.SQL(self._types[name])
        if name == "embedding":
            kind = sql.SQL("{}.{}").format(sql.Identifier(self._vector_schema), kind)
        return kind, sql.SQL(" NOT NULL" if name in ("run", "row", "id") else "")

    def _compare(self, connection: Any) -> None:
        query = (
            "SELECT attname, format_type(atttypid, atttypmod), attnotnull AND NOT atthasdef AND attidentity = '' "
            "FROM pg_attribute WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped"
        )
        there = {name: (kind, must) for name, kind, must in connection.execute(query, (self._oid(connection),))}
        wrong: list[str] = []
        for name, expected in self._types.items():
            kind = there[name][0] if name in there else "missing"
            if name == "embedding":
                kind = kind.rpartition(".")[2]
                name_of_kind, _, size = kind.rstrip(")").partition("(")
                self.dimensions = int(size) if size else None
                if name_of_kind == expected.partition("(")[0] and (not size or "(" not in expected):
                    continue
            if kind != expected:
                wrong.append(f"column {name} is {kind}, and {expected} is needed")
        wrong += [f"column {n} needs a value" for n, (_, must) in there.items() if must and n not in self._types]
        if self._key and not self._is_unique(connection):
            wrong.append("key='id' needs a unique index of the column id alone")
        if wrong:
            raise ConfigurationError(
                f"the table is there, and is another one: {'; '.join(wrong)}. Name another table, or change this one"
            )

    def _is_unique(self, connection: Any) -> bool:
        query = (
            "SELECT EXISTS (SELECT 1 FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid "
            "WHERE i.indrelid = %s AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indnkeyatts = 1 "
            "AND i.indkey[0] = a.attnum AND a.attname = 'id')"
        )
        return bool(connection.execute(query, (self._oid(connection),)).fetchone()[0])

    def _oid(self, connection: Any) -> int | None:
        found = connection.execute("SELECT to_regclass(%s)::oid", (self._name.as_string(connection),)).fetchone()
        return None if found[0] is None else int(found[0])

    def _copy(self, connection: Any, target: Any, columns: Any, first: int, blocks: Iterable[Block]) -> None:
        from psycopg import sql

        types = connection.adapters.types
        oids = {name: types.get_oid(kind) for name, kind in self._types.items() if name != "embedding"} | self._oids
        for oid in (oids["embedding"], types.get_oid("jsonb")):
            connection.adapters.register_dumper(None, _raw_dumper(oid))
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(target, columns)
        with connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types([oids[name] for name in self._types])
            for block in blocks:
                for row in self._encoded(block, first):
                    copy.write_row(row)
                first += len(block.ids)

    def _encoded(self, block: Block, first: int) -> Iterator[tuple[Any, ...]]:
        """The rows of *block*, whose first is row *first*, in the order of the columns."""
        assert block.vectors is not None and self._rows is not None
        ids = [_text(str(id)) for id in block.ids] if self._types["id"] == "text" else block.ids
        columns: list[Iterable[Any]] = [
            [self._run] * len(block.ids),
            range(first, first + len(block.ids)),
            ids,
            _vectors(block.vectors, self._rows.dtype),
            block.tokens,
        ]
        if block.texts is not None:
            columns.append(map(_text, block.texts))
        for name, values in block.extra.items():
            columns.append(map(_ENCODERS.get(self._types[name], _as_it_is), values))
        return zip(*columns, strict=True)


def _type_of(kind: Any) -> str:
    """The type for an Arrow type, or a kind of :mod:`embedbatch.jobs.columns`. What has none of its own is jsonb."""
    if isinstance(kind, str):
        return _KINDS.get(kind, "jsonb")
    from pyarrow import types

    if types.is_dictionary(kind):
        return _type_of(kind.value_type)
    if types.is_timestamp(kind):
        return "timestamp with time zone" if kind.tz else "timestamp without time zone"
    tests: list[tuple[Callable[[Any], bool], str]] = [
        (types.is_null, "text"),
        (types.is_boolean, "boolean"),
        (types.is_uint64, "numeric"),
        (types.is_integer, "bigint"),
        (types.is_floating, "double precision"),
        (types.is_decimal, "numeric"),
        (types.is_string, "text"),
        (types.is_large_string, "text"),
        (types.is_date, "date"),
        (types.is_binary, "bytea"),
        (types.is_large_binary, "bytea"),
    ]
    return next((name for test, name in tests if test(kind)), "jsonb")


def _vectors(vectors: Vectors, dtype: Dtype) -> Iterator[bytes | None]:
    """The rows of *vectors* as pgvector receives them, ``None`` where they are NaN."""
    head = np.frombuffer(struct.pack(">HH", vectors.shape[1], 0), np.uint8)
    numbers = rounded(vectors, dtype).astype(_VECTORS[dtype][1]).view(np.uint8)
    records = np.concatenate([np.broadcast_to(head, (len(vectors), 4)), numbers], axis=1)
    # A vector is finite or the whole row is NaN: the first number tells.
    for record, has_failed in zip(records, np.isnan(vectors[:, 0]).tolist(), strict=True):
        yield None if has_failed else record.tobytes()


def _text(value: Any) -> str | None:
    return None if value is None else _without_nul(str(value))


def _json(value: Any) -> bytes | None:
    if value is None:
        return None
    encoded = encode(value)
    if b"\\u0000" in encoded:
        encoded = encode(cleaned(value, _without_nul))
    return b"\x01" + encoded  # the version of the format


def _without_nul(text: str) -> str:
    """*text* without what PostgreSQL has no room for: lone surrogates, and the character NUL."""
    return writable(text).replace("\0", "\ufffd")


def _as_it_is(value: Any) -> Any:
    return value


_ENCODERS: dict[str, Callable[[Any], Any]] = {"text": _text, "jsonb": _json}


def _raw_dumper(of: int) -> type[Any]:
    """What hands bytes on as they are, for values of the type *of*."""
    from psycopg.adapt import Dumper
    from psycopg.pq import Format

    class Raw(Dumper):  # type: ignore[misc]
        oid = of
        format = Format.BINARY

        def dump(self, obj: bytes) -> bytes:
            return obj

    return Raw
