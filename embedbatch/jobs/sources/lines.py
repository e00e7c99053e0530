"""Files with a document in each line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ...errors import ConfigurationError, SourceError
from ...values import Id
from .files import LineSource
from .source import BEGINNING, NO_EXTRA, Place, Row, invalid_utf8, no_column, row_of


@dataclass(frozen=True, slots=True)
class TextLines(LineSource):
    """
    A document per line of a ``.txt`` file, without the line's end (``\\n`` or ``\\r\\n``).

    A blank line is a document too, which fails with :class:`EmptyInputError`, so that the nth line is the nth
    vector. Ids are 0, 1, 2, ….
    """

    def __post_init__(self) -> None:
        if self.columns != "all" and self.columns:
            raise ConfigurationError(f"columns={self.columns!r}: {self.path} is a .txt file, which has no columns")

    def rows(self, start: Place = BEGINNING) -> Iterator[Row]:
        count = start.position
        for part in self.parts(start.line, start.offset):
            for number, offset, line in part.lines():
                try:
                    text = line.decode()
                except UnicodeDecodeError as error:
                    self.pass_over(SourceError(invalid_utf8(error), path=str(part.path), line=number))
                    continue
                text = text.removesuffix("\n").removesuffix("\r")
                yield row_of((count, text, number, len(line), offset, part.file, NO_EXTRA))
                count += 1


@dataclass(frozen=True, slots=True)
class JsonLines(LineSource):
    """
    A JSON object per line of a ``.jsonl`` file; blank lines are passed over.

    The document is what stands in *text_column*: a text, or an array of token ids. Anything else, or a row that
    lacks the column, is handed on as it is, to become a failure of that document; a column that no row has is a
    :class:`SourceError`. Ids are texts or integers; without *id_column* they are 0, 1, 2, ….
    """

    text_column: str
    id_column: str | None = None

    def rows(self, start: Place = BEGINNING) -> Iterator[Row]:
        decode = msgspec.json.Decoder().decode
        text_column, id_column, columns = self.text_column, self.id_column, self.columns
        count = start.position
        first: list[str] = []  # the columns of the first row
        named = self.chosen((), but=())
        unseen = set() if count else {text_column, *named}
        for part in self.parts(start.line, start.offset):
            file = part.file
            for number, offset, line in part.lines():
                if not line or line.isspace():
                    continue
                try:
                    try:
                        record = decode(line)
                    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                        record = _decode_slowly(line, part.path, number)
                    if type(record) is not dict:
                        reason = f"expected a JSON object, got {_json_kind(record)}"
                        raise SourceError(reason, path=str(part.path), line=number)
                    id = count if id_column is None else _id(record, id_column, part.path, number)
                except SourceError as error:
                    self.pass_over(error)
                    continue
                if unseen:
                    unseen.difference_update(record)
                    first = first or list(record)
                extra = self._extra(record) if columns else NO_EXTRA
                yield row_of((id, record.get(text_column), number, len(line), offset, file, extra))
                count += 1
        if count and unseen:
            column = next(each for each in (text_column, *named) if each in unseen)
            raise SourceError(no_column(column, first), path=str(self.path))

    def _extra(self, record: dict[str, Any]) -> dict[str, Any]:
        return {name: record.get(name) for name in self.chosen(record, but=(self.text_column, self.id_column))}


def _decode_slowly(line: bytes, path: Path, number: int) -> Any:
    # msgspec is several times faster; json also takes what others write: lone surrogates and NaN.
    try:
        return json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise SourceError(invalid_utf8(error), path=str(path), line=number) from None
    except (ValueError, RecursionError) as error:
        raise SourceError(f"invalid JSON: {error}", path=str(path), line=number) from None


def _id(record: dict[str, Any], column: str, path: Path, number: int) -> Id:
    if column not in record:
        raise SourceError(no_column(column, record), path=str(path), line=number)
    id = record[column]
    if isinstance(id, bool) or not isinstance(id, str | int):
        reason = f"column {column!r}: expected a text or an integer, got {_json_kind(id)}"
        raise SourceError(reason, path=str(path), line=number)
    if isinstance(id, str) and not id.isascii() and any("\ud800" <= character <= "\udfff" for character in id):
        reason = f"column {column!r}: an id with a lone surrogate cannot be written to any file"
        raise SourceError(reason, path=str(path), line=number)
    return id


def _json_kind(value: object) -> str:
    """What JSON calls *value*."""
    kinds = {dict: "an object", list: "an array", str: "a text", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")
