"""Corpus files, read row by row."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import anyio.lowlevel
import msgspec

from ..errors import ConfigurationError, SourceError
from ..values import Id

IdType: TypeAlias = Literal["int", "str"]

_BOM = b"\xef\xbb\xbf"
_INT64 = range(-(2**63), 2**63)
_SCAN_BYTES = 1_000_000  # read between two checkpoints of a scan: a few milliseconds


class Row(NamedTuple):
    """
    One document of a file. *line* is counted from 1; *bytes* is the room its line takes in the file, *offset* the
    bytes before it.
    """

    id: Id
    content: Any
    line: int
    bytes: int
    offset: int


class Place(NamedTuple):
    """Where to begin reading: the *position* of a document, and the line and the offset of its row."""

    position: int
    line: int
    offset: int


BEGINNING = Place(0, 1, 0)


class Source(Protocol):
    """A corpus that can be read more than once."""

    @property
    def path(self) -> Path:
        """Where it is."""

    def rows(self, start: Place = BEGINNING) -> Iterator[Row]:
        """Its documents, in order, from *start* on. Raises :class:`SourceError` at the first that cannot be read."""


@dataclass(frozen=True, slots=True)
class Scan:
    """What a source holds. *id_type* is ``"int"`` if all ids are integers of 64 bits."""

    documents: int
    bytes: int
    id_type: IdType


def open_source(path: Path, *, text_column: str, id_column: str | None) -> Source:
    """The source for *path*, by its suffix."""
    match path.suffix.lower():
        case ".jsonl":
            return JsonLines(path, text_column, id_column)
        case ".txt":
            if id_column is not None:
                raise ConfigurationError(f"id_column={id_column!r}: {path} is a .txt file, which has no columns")
            return TextLines(path)
        case _:
            raise ConfigurationError(f"source: expected a .jsonl or .txt file, got {path.name!r}")


async def scan(source: Source, see: Callable[[Any], object] = lambda content: None) -> Scan:
    """
    Read all of *source* once, so that a row that cannot be read is found before anything is sent.

    *see* is handed the content of each document.
    """
    documents = nbytes = 0
    checkpoint = _SCAN_BYTES
    all_ints = True
    # In the loop, as the second reading is too: a line takes microseconds, a hop to a thread fifty of them.
    for row in source.rows():
        documents += 1
        nbytes += row.bytes
        all_ints = all_ints and isinstance(row.id, int) and row.id in _INT64
        see(row.content)
        if nbytes >= checkpoint:
            checkpoint = nbytes + _SCAN_BYTES
            await anyio.lowlevel.checkpoint()
    return Scan(documents, nbytes, "int" if all_ints else "str")


@dataclass(frozen=True, slots=True)
class TextLines:
    """
    A document per line of a ``.txt`` file, without the line's end (``\\n`` or ``\\r\\n``).

    A blank line is a document too, which fails with :class:`EmptyInputError`, so that the nth line is the nth
    vector. Ids are 0, 1, 2, ….
    """

    path: Path

    def rows(self, start: Place = BEGINNING) -> Iterator[Row]:
        for number, offset, line in _lines(self.path, start):
            text = _decode(line, self.path, number)
            yield Row(number - 1, text.removesuffix("\n").removesuffix("\r"), number, len(line), offset)


@dataclass(frozen=True, slots=True)
class JsonLines:
    """
    A JSON object per line of a ``.jsonl`` file; blank lines are passed over.

    The document is what stands in *text_column*: a text, or an array of token ids. Anything else, or a row that
    lacks the column, is handed on as it is, to become a failure of that document; a column that no row has is a
    :class:`SourceError`. Ids are texts or integers; without *id_column* they are 0, 1, 2, ….
    """

    path: Path
    text_column: str
    id_column: str | None = None

    def rows(self, start: Place = BEGINNING) -> Iterator[Row]:
        count = start.position
        columns: list[str] | None = None  # of the first row, until a row has the text column
        seen = count > 0
        for number, offset, line in _lines(self.path, start):
            if not line or line.isspace():
                continue
            record = self._parse(line, number)
            seen = seen or self.text_column in record
            columns = columns or list(record)
            id = count if self.id_column is None else self._id(record, number)
            yield Row(id, record.get(self.text_column), number, len(line), offset)
            count += 1
        if count and not seen:
            raise SourceError(_no_column(self.text_column, columns or []), path=str(self.path))

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        record: object
        try:
            record = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            # msgspec is several times faster; json also takes what others write: lone surrogates and NaN.
            text = _decode(line, self.path, number)
            try:
                record = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise SourceError(f"invalid JSON: {error}", path=str(self.path), line=number) from None
        if not isinstance(record, dict):
            reason = f"expected a JSON object, got {_json_kind(record)}"
            raise SourceError(reason, path=str(self.path), line=number)
        return record

    def _id(self, record: dict[str, Any], number: int) -> Id:
        column = self.id_column or ""
        if column not in record:
            raise SourceError(_no_column(column, list(record)), path=str(self.path), line=number)
        id = record[column]
        if isinstance(id, bool) or not isinstance(id, str | int):
            reason = f"column {column!r}: expected a text or an integer, got {_json_kind(id)}"
            raise SourceError(reason, path=str(self.path), line=number)
        if isinstance(id, str) and not id.isascii() and any("\ud800" <= character <= "\udfff" for character in id):
            reason = f"column {column!r}: an id with a lone surrogate cannot be written to any file"
            raise SourceError(reason, path=str(self.path), line=number)
        return id


def _lines(path: Path, start: Place) -> Iterator[tuple[int, int, bytes]]:
    """The lines of a file from *start* on, with their numbers and offsets, without a byte order mark."""
    offset = start.offset
    try:
        with path.open("rb") as file:
            file.seek(offset)
            for number, line in enumerate(file, start.line):
                yield number, offset, line.removeprefix(_BOM) if number == 1 else line
                offset += len(line)
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror}", path=str(path)) from error


def _decode(line: bytes, path: Path, number: int) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        reason = f"invalid UTF-8 at byte {error.start + 1:,}: 0x{line[error.start]:02x}"
        raise SourceError(reason, path=str(path), line=number) from None


def _no_column(column: str, columns: list[str]) -> str:
    return f"no column {column!r}; the columns are {', '.join(map(repr, columns)) or 'none'}"


def _json_kind(value: object) -> str:
    """What JSON calls *value*."""
    kinds = {dict: "an object", list: "an array", str: "a text", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")
