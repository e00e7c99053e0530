"""
Sources of jobs: corpora that are read row by row, more than once.

``source`` says what one is; ``lines`` (.jsonl, .txt), ``delimited`` (.csv, .tsv), ``parquet`` and ``tables`` are those
there are, ``files`` and ``streams`` what they have in common, ``binding`` how it is told that files are what they were.
"""

from __future__ import annotations

from .delimited import CsvRows
from .files import FileSource, Format
from .lines import JsonLines, TextLines
from .opening import open_source, open_table
from .source import BEGINNING, BadRowHandler, Columns, IdType, Place, Row, RowSource, Scan, Source, scan
from .streams import spool

__all__ = [
    "BEGINNING",
    "BadRowHandler",
    "Columns",
    "CsvRows",
    "FileSource",
    "Format",
    "IdType",
    "JsonLines",
    "Place",
    "Row",
    "RowSource",
    "Scan",
    "Source",
    "TextLines",
    "open_source",
    "open_table",
    "scan",
    "spool",
]
