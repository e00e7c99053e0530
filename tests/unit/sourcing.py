"""Sources, opened and read, and what every one of them has to hold."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from embedbatch.errors import SourceError
from embedbatch.jobs.sources import Place, Row, Source, open_source

TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
"""Any text that a file can hold, line ends and quotes too."""


def opened(path: Path, **options: Any) -> Source:
    """The source for *path*, its texts in the column ``text``."""
    return open_source(path, **{"text_column": "text", "id_column": None, **options})


def contents(source: Source) -> list[Any]:
    """What the documents of *source* are."""
    return [row.content for row in source.rows()]


def refusal(source: Source) -> SourceError:
    """The error that reading *source* ends with."""
    with pytest.raises(SourceError) as caught:
        list(source.rows())
    return caught.value


def places(error: SourceError) -> tuple[str, int | None]:
    """The file, without its folder, and the line that *error* names."""
    return Path(error.path).name, error.line


def assert_can_begin_anywhere(source: Source) -> None:
    """Begun at any row, *source* gives exactly the rows from there on."""
    rows = list(source.rows())
    for position, row in enumerate(rows):
        assert list(source.rows(Place(position, row.line, row.offset))) == rows[position:]


def without_places(rows: Iterable[Row]) -> list[tuple[Any, Any, Any]]:
    """What *rows* are, wherever they stand."""
    return [(row.id, row.content, dict(row.extra)) for row in rows]


def json_lines(records: Iterable[Any]) -> bytes:
    """A ``.jsonl`` file of *records*."""
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def csv_rows(rows: Iterable[Sequence[str]], *, names: Sequence[str] = ("text",), **dialect: Any) -> bytes:
    """A ``.csv`` file of *rows*, below the *names* of the columns."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, **{"quoting": csv.QUOTE_ALL, **dialect})
    writer.writerow(names)
    writer.writerows(rows)
    return file.getvalue().encode()


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    """*folder* with *files* in it."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def split(data: Sequence[Any], cuts: Iterable[int]) -> list[Sequence[Any]]:
    """*data* in pieces, cut at *cuts*."""
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[first:end] for first, end in pairwise(bounds)]
