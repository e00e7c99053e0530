"""
Destinations of jobs: what takes the parts of a result, and what reads a finished one.

``destination`` says what one is, ``opening`` finds the one that is named. Of files, ``formats`` tells which serves a
suffix: ``parquet``, ``npy`` and ``jsonl``; of databases there are ``postgres`` and ``lance``. ``result`` says what a
sink and a result are, ``origin`` what a result says of how it was made.
"""

from __future__ import annotations

from .destination import Destination, FileName, RowType
from .lance import LanceTable
from .opening import FileDestination, destination_of, open_result, read_origin
from .origin import Origin, origin_of
from .postgres import Postgres
from .result import Block, Entry, Result, Sink

__all__ = [
    "Block",
    "Destination",
    "Entry",
    "FileDestination",
    "FileName",
    "LanceTable",
    "Origin",
    "Postgres",
    "Result",
    "RowType",
    "Sink",
    "destination_of",
    "open_result",
    "origin_of",
    "read_origin",
]
