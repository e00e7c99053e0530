"""
Files of rows with delimiters: ``.csv`` and ``.tsv``.

csv.reader is handed the lines one by one and takes as many as a row has, so that the line and the offset of every row
are known. A row that breaks off inside a quote takes all lines to the next quote, or to the end: it is only its first
line that counts as bad, and reading goes on behind that.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

from ...errors import SourceError
from ..identity import Fingerprint
from .files import LineSource
from .source import BEGINNING, NO_EXTRA, Place, Row, invalid_utf8, no_column
from .streams import FilePart

# Longer than any document, and what a quote that is never closed may take before it is found out. csv's own limit,
# which is one for the whole process, is 2**17: less than many a document.
MAX_FIELD = 2**25

_Line: TypeAlias = tuple[int, int, bytes]


class _Record(NamedTuple):
    """A row: its *fields*, and the *lines* it stands in; *error* if they cannot be read."""

    fields: list[str]
    lines: list[_Line]
    error: SourceError | None


class _Header(NamedTuple):
    """What the first row says: how many columns there are, and where those are that are wanted."""

    width: int
    text: int
    id: int | None
    extra: list[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class CsvRows(LineSource):
    """
    A document per row of a ``.csv`` or ``.tsv`` file whose first row has the names of the columns.

    The document is the text in *text_column*. Fields may be quoted, and have line ends then; blank lines are passed
    over. Ids are texts; without *id_column* they are 0, 1, 2, …. Each of several files has its own first row.
    """

    text_column: str
    id_column: str | None = None
    delimiter: str = ","

    def has_grown(self, before: Fingerprint) -> bool:
        # Where a quote without an end was passed over, what was added may have closed it.
        return (bool(self.files) or not self.skip_bad_rows) and LineSource.has_grown(self, before)

    def rows(self, start: Place = BEGINNING) -> Iterator[Row]:
        count = start.position
        for part in self.parts(start.line, start.offset):
            records = _records(part._replace(line=1, offset=0), self.delimiter)
            width, text, id_at, extras = self._header(next(records, None), part.path)
            if part.offset:
                records = _records(part, self.delimiter)
            for fields, lines, error in records:
                number, offset, line = lines[0]
                if error is None and len(fields) != width:
                    reason = f"expected {width} fields, as in the first row, got {len(fields)}"
                    error = SourceError(reason, path=str(part.path), line=number)
                if error is not None:
                    self.pass_over(error)
                    continue
                nbytes = len(line) if len(lines) == 1 else sum(len(each) for _, _, each in lines)
                extra = {name: fields[at] for name, at in extras} if extras else NO_EXTRA
                id = count if id_at is None else fields[id_at]
                yield Row(id, fields[text], number, nbytes, offset, part.file, extra)
                count += 1

    def _header(self, record: _Record | None, path: Path) -> _Header:
        """What the first row of a file says. Raises :class:`SourceError` if it has not what is wanted."""
        if record is None:
            raise SourceError("is empty: expected a first row with the names of the columns", path=str(path))
        if record.error is not None:
            raise record.error
        names = record.fields
        wanted = [self.text_column, *([] if self.id_column is None else [self.id_column])]
        extra = self.chosen(names, but=wanted)
        for name in (*wanted, *extra):
            if names.count(name) != 1:
                reason = f"column {name!r} is there twice" if name in names else no_column(name, names)
                raise SourceError(reason, path=str(path), line=record.lines[0][0])
        return _Header(
            len(names),
            names.index(self.text_column),
            None if self.id_column is None else names.index(self.id_column),
            [(name, names.index(name)) for name in extra],
        )


def _records(part: FilePart, delimiter: str) -> Iterator[_Record]:
    """The rows of a file, without blank lines."""
    lines = _Lines(part)
    csv.field_size_limit(max(MAX_FIELD, csv.field_size_limit()))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        lines.begin()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # csv's own words speak of how a Python program opens a file.
            reason = "a carriage return outside of quotes" if "new-line" in str(error) else str(error)
            fields, lines.error = [], SourceError(f"invalid CSV: {reason}", path=str(part.path), line=lines.taken[0][0])
            lines.give_back()
        if fields or lines.error:
            yield _Record(fields, lines.taken, lines.error)


class _Lines:
    """The lines of a file as texts. Keeps those of a row, so that all but the first can be given back."""

    def __init__(self, part: FilePart) -> None:
        self.taken: list[_Line] = []
        self.error: SourceError | None = None
        self._path = part.path
        self._lines = part.lines()
        self._again: deque[_Line] = deque()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self.taken.append(line)
        try:
            return line[2].decode()
        except UnicodeDecodeError as error:
            self.error = SourceError(invalid_utf8(error), path=str(self._path), line=line[0])
            return line[2].decode(errors="replace")

    def begin(self) -> None:
        """Begin another row."""
        self.taken = []
        self.error = None

    def give_back(self) -> None:
        """Let all but the first line be read again."""
        self._again.extendleft(reversed(self.taken[1:]))
        self.taken = self.taken[:1]
