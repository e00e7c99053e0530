"""
Tables of PostgreSQL with the extension pgvector: a row for each document, those of a part in one transaction.

``run`` is the job and ``row`` the document's position: a part that is written again replaces its rows, and no others.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote

from ...errors import ConfigurationError, DestinationError
from ..columns import check_names
from ..disk import Disk
from ..dtypes import Dtype, check_dtype
from ..parts import Division
from ..segments import Room
from .destination import OWN_COLUMNS, FileName, RowType, check_key, check_place, check_size, place_of
from .origin import Origin
from .postgres_rows import Table, column_types
from .result import Block

_LONGEST_NAME = 63  # bytes: what is longer is cut by PostgreSQL
_DEFAULTS = {"connect_timeout": "10", "keepalives_idle": "30", "keepalives_interval": "10", "keepalives_count": "3"}

_NOT_UNDERSTOOD = (
    "destination: the URL of the database cannot be understood. What is special there is escaped in a password: @ is "
    "%40, / is %2F, % is %25"
)
_DURABLE = "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'"


class Postgres:
    """
    A *table* (or ``schema.table``) of the PostgreSQL database that *dsn* names: a URL, or ``host=… dbname=…``.

    What *dsn* does not say is taken from libpq's variables (``PGHOST``, ``PGUSER``, …), the password also from
    ``~/.pgpass``. The table is made unless it is there. With ``key="id"`` it has one row for each id, of all runs: the
    last one that has a vector. *journal* is the folder of the job, by default ``TABLE.journal`` in the working
    directory. Needs the extra ``postgres``. Raises :class:`ConfigurationError`.
    """

    def __init__(
        self, dsn: str = "", *, table: str, key: Literal["id"] | None = None, journal: FileName | None = None
    ) -> None:
        try:
            import psycopg.conninfo
        except ImportError as error:
            raise ConfigurationError(
                "destination: PostgreSQL needs psycopg. Install it with: pip install 'embedbatch[postgres]'"
            ) from error
        check_key(key)
        schema, _, name = table.rpartition(".")
        for each in (schema, name) if schema else (name,):
            _check_name("table", each)
        try:
            self._parameters: dict[str, Any] = psycopg.conninfo.conninfo_to_dict(dsn)
        except psycopg.Error:  # whose message may tell the password
            raise ConfigurationError(_NOT_UNDERSTOOD) from None
        if any("@" in str(self._parameters.get(name, "")) for name in ("host", "port", "dbname")):
            raise ConfigurationError(_NOT_UNDERSTOOD)  # which would show the rest of a password
        self.name = table
        self.journal, self.failures = place_of(table, journal)
        self._schema, self._table, self._key = schema, name, key
        self._resolved: dict[str, str] = {}

    @classmethod
    def from_url(cls, url: str, *, journal: FileName | None = None) -> Postgres:
        """The table that *url* names: ``postgresql://user@host/database?table=docs``, with ``&key=id`` if wanted."""
        front, _, query = url.partition("?")
        pairs = [pair.partition("=") for pair in query.split("&") if pair]
        own = {name: unquote(value) for name, _, value in pairs if name in ("table", "key")}
        if not own.get("table"):
            raise ConfigurationError("destination: the URL of the database names no table. Add ?table=NAME")
        rest = "&".join("".join(pair) for pair in pairs if pair[0] not in own)
        key: Any = own.get("key")
        return cls(f"{front}?{rest}" if rest else front, table=own["table"], key=key, journal=journal)

    def __repr__(self) -> str:
        return f"Postgres({str(self)!r})"

    def __str__(self) -> str:
        known = self._resolved | {name: str(value) for name, value in self._parameters.items()}
        host, port, database = (known.get(name, "") for name in ("host", "port", "dbname"))
        address = f"{quote(host, safe=',')}:{port}" if port else quote(host, safe=",")
        return f"postgresql://{address}/{quote(database)}?table={quote(self.name)}"

    @property
    def identity(self) -> Mapping[str, str]:
        return {"destination": str(self), "key": self._key or ""}

    def check(self, *, dtype: Dtype, columns: Iterable[str]) -> None:
        """Also find out which database it is."""
        check_dtype(dtype)
        check_names(columns, taken=OWN_COLUMNS)
        check_place(self.journal)
        with self._connection(ConfigurationError) as connection:
            info = connection.info
            self._resolved = {"host": info.host, "port": str(info.port), "dbname": info.dbname}
            if (encoding := info.parameter_status("server_encoding")) != "UTF8":
                raise ConfigurationError(f"{self}: expected a database in UTF8, got {encoding}")

    def prepare(self, rows: RowType, run: str) -> int | None:
        """Try to make the table, unless it is there, and to write to it. It stays as it is until there is a part."""
        check_names(rows.columns, taken=OWN_COLUMNS)
        for name in rows.columns:
            _check_name("columns", name)
        with self._connection(ConfigurationError) as connection:
            table = self._open(connection, rows, run)
            table.put(connection, 0, 0, [])
            connection.rollback()
        return table.dimensions

    def holds(self, documents: int, run: str) -> bool:
        with self._connection(DestinationError) as connection:
            return not documents or Table(self._schema, self._table, run, self._key).has_rows(connection)

    def room_for(self, folder: Path, *, division: Division, dimensions: int, dtype: Dtype) -> Room | None:
        return None

    def open_sink(
        self, disk: Disk, folder: Path, origin: Origin, rows: RowType, *, division: Division, run: str
    ) -> PostgresSink:
        return PostgresSink(self, rows, division, run)

    @contextmanager
    def part(self, rows: RowType, run: str) -> Iterator[tuple[Table, Any]]:
        """The table and a transaction: what is written in the block is there for good after it."""
        check_size(self, rows)
        with self._connection(DestinationError) as connection:
            connection.execute(_DURABLE)
            yield self._open(connection, rows, run), connection

    def _open(self, connection: Any, rows: RowType, run: str) -> Table:
        """The table, which is made if it is missing. Raises :class:`ConfigurationError` if it is another one."""
        table = Table(self._schema, self._table, run, self._key)
        try:
            table.open(connection, rows, column_types(rows))
        except ConfigurationError as error:
            raise ConfigurationError(f"{self}: {error}") from error.__cause__
        return table

    @contextmanager
    def _connection(self, refused: type[ConfigurationError | DestinationError]) -> Iterator[Any]:
        """
        A transaction, which is committed in the end.

        Raises :class:`DestinationError` if the database is not there or goes away, and *refused* for what it refuses.
        """
        import psycopg

        defaults = dict(_DEFAULTS)
        if "PGCONNECT_TIMEOUT" in os.environ:
            del defaults["connect_timeout"]
        options: dict[str, Any] = {"application_name": "embedbatch", **defaults, **self._parameters}
        try:
            # None is kept for the next part: until that is full, whatever is between would close it for being idle.
            with psycopg.connect("", **options | {"client_encoding": "utf8"}, prepare_threshold=None) as connection:
                yield connection
        except psycopg.Error as error:
            reason = self._told(error)
            if refused is ConfigurationError and not isinstance(error, psycopg.OperationalError):
                raise ConfigurationError(f"{self}: {reason}") from None
            kept = "What was done is kept; the same call goes on from there"
            rest = "Nothing was sent" if refused is ConfigurationError else kept
            raise DestinationError(f"{reason.rstrip('.?')}. {rest}", destination=str(self)) from None

    def _told(self, error: Any) -> str:
        """What the database says: no value of a row, which may be in the rest, and no password."""
        reason = " ".join((error.diag.message_primary or str(error)).split())
        if error.diag.message_hint:
            reason += f" ({error.diag.message_hint})"
        for name in ("password", "sslpassword"):
            if secret := self._parameters.get(name):
                reason = reason.replace(str(secret), "***")
        return reason


class PostgresSink:
    """
    Writes every part in a transaction: the rows that are there of it go, and all of it comes, or nothing happens.

    Its digest tells rows that are gone, that came twice, or have another id, vector or token count than were written.
    Texts and other columns are not in it; and with a key, where another row may take the place of any, nothing is.
    """

    def __init__(self, destination: Postgres, rows: RowType, division: Division, run: str) -> None:
        self._destination = destination
        self._rows = rows
        self._division = division
        self._run = run

    def write_part(self, number: int, blocks: Iterable[Block]) -> int:
        first, end = self._division.first(number), self._division.end(number)
        with self._destination.part(self._rows, self._run) as (table, connection):
            table.put(connection, first, end, blocks)
            return table.digest(connection, first, end)

    def digest(self, number: int) -> int:
        with self._destination.part(self._rows, self._run) as (table, connection):
            return table.digest(connection, self._division.first(number), self._division.end(number))

    def assemble(self, numbers: Iterable[int]) -> list[tuple[Path, Path]]:
        return []  # it is there already


def _check_name(what: str, name: str) -> None:
    if not name or "\0" in name or len(name.encode(errors="replace")) > _LONGEST_NAME:
        raise ConfigurationError(f"{what}: {name!r} cannot be a name in PostgreSQL, of up to {_LONGEST_NAME} bytes")
