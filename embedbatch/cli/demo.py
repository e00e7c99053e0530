"""``embedbatch demo``: a real corpus, embedded and searched without a network."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path

from ..errors import ConfigurationError
from ..jobs.disk import Disk, temporary_for
from . import corpus
from .running import run
from .searching import print_matches, search

AT_LEAST = 4_000  # documents; CPython 3.11 has 5,062
QUERIES = ("parse command line options", "compress data with gzip", "regular expression matching")


def demo(folder: Path) -> bool:
    """Build the corpus in *folder*, embed it, search it. True if all went well."""
    source, destination = folder / "corpus.jsonl", folder / "vectors.parquet"
    print(f"Reading the docstrings of Python {platform.python_version()}'s own library")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"--output: cannot make {folder}: {error.strerror}") from error
    count = write_corpus(source)
    job = {"id_column": "id", "keep_text": True, "fresh": True}
    complete = run(source, destination, "local", job=job, options={"count_tokens": True})
    for query in QUERIES:
        print(f"\n{query}")
        print_matches(search(destination, query, k=3))
    command = os.path.relpath(Path(sys.executable).with_name("embedbatch"))
    print(f'\nAsk something else: {command} search {destination} "send an email"')
    if count < AT_LEAST:
        print(f"embedbatch: expected at least {AT_LEAST:,} docstrings in {corpus.library()}", file=sys.stderr)
    return complete and count >= AT_LEAST


def write_corpus(path: Path) -> int:
    """Write a document for each docstring of the library; return how many there are."""
    docstrings = corpus.read_docstrings(corpus.library())
    disk = Disk()
    with disk.open(temporary_for(path)) as file:
        file.truncate(0)
        for name, docstring in docstrings.items():
            # The name says a lot about a thing, so it is part of the text.
            file.write(json.dumps({"id": name, "text": f"{name}: {docstring}"}).encode() + b"\n")
        disk.publish(file, temporary_for(path), path)
    return len(docstrings)
