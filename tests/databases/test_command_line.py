"""`embedbatch run` into tables."""

from __future__ import annotations

import re
from pathlib import Path

from embedbatch.testing import ScriptedServer

from ..behaviour.commanding import call, names, write_corpus
from ..contract.loopback import serve_in_a_thread
from .tables import DIMENSIONS, in_lance, in_postgres


def test_a_run_into_postgres_says_which_rows_are_its(dsn: str, tmp_path: Path) -> None:
    """The journal is where --journal says; a database that is away is exit status 3, a URL without a table 2."""
    source = write_corpus(tmp_path / "corpus.jsonl")
    with serve_in_a_thread(ScriptedServer(dimensions=DIMENSIONS)) as base_url:
        options = ("--base-url", base_url, "--model", "m", "--id-column", "key", "--journal", tmp_path / "kept")
        done = call("run", source, "-o", f"{dsn}&table=docs", *options)
        away = call("run", source, "-o", "postgresql://alice:secret@127.0.0.1:1/db?table=docs", *options)
        wrong = call("run", source, "-o", dsn, *options)

    assert (done.exit_code, away.exit_code, wrong.exit_code) == (0, 3, 2)
    found = re.search(r"the rows of this run are those with run = '(.*)'", done.stdout)
    assert found and {each.run for each in in_postgres(dsn)} == {found[1]}
    assert "Nothing was sent" in away.stderr and "secret" not in away.stderr
    assert "Add ?table=NAME" in wrong.stderr
    assert names(tmp_path) == {"corpus.jsonl", "kept", "passwords"}


def test_a_run_into_lance(tmp_path: Path) -> None:
    """The journal is in the working directory, named after the table."""
    source = write_corpus(tmp_path / "corpus.jsonl")
    with serve_in_a_thread(ScriptedServer(dimensions=DIMENSIONS)) as base_url:
        done = call("run", source, "-o", "lancedb://db?table=docs", "--base-url", base_url, "--model", "m")
        searched = call("search", "lancedb://db?table=docs", "zip a file")

    assert (done.exit_code, searched.exit_code) == (0, 2)
    assert [each.id for each in in_lance(tmp_path / "db")] == [0, 1, 2, 3]
    assert "ask its database" in searched.stderr
    assert names(tmp_path) == {"corpus.jsonl", "db", "docs.journal", "passwords"}
