"""
Destinations of jobs: what takes the parts of a result, and what reads a finished one.

``result`` says what a sink and a result are, ``formats`` which one serves a destination; ``parquet``, ``npy`` and
``jsonl`` are those there are. ``origin`` is what a result says of how it was made.
"""

from __future__ import annotations

from .formats import check_columns, check_destination, open_result, open_sink, read_origin, room_for
from .origin import Origin, origin_of
from .result import Block, Entry, Result, Sink

__all__ = [
    "Block",
    "Entry",
    "Origin",
    "Result",
    "Sink",
    "check_columns",
    "check_destination",
    "open_result",
    "open_sink",
    "origin_of",
    "read_origin",
    "room_for",
]
