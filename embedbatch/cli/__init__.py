"""
The command line: flags → the public API, progress, reports.

    embedbatch run SOURCE -o DEST     a corpus file in, vectors out
    embedbatch search DEST "query"    the nearest documents
    embedbatch demo                   a real corpus, embedded and searched
    embedbatch bench                  the batch size and the requests in flight that serve an endpoint best
    embedbatch check                  what an endpoint accepts
    embedbatch serve                  the embedded model on a port
"""

from __future__ import annotations

import io
import sys

__all__ = ["main"]


def main() -> None:
    """The console script ``embedbatch``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character is no reason to stop
    try:
        from .app import app
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("embedbatch"):
            raise
        print(
            f"embedbatch: the package {error.name} is missing. Install it with: pip install 'embedbatch[jobs]'",
            file=sys.stderr,
        )
        sys.exit(2)
    app()
