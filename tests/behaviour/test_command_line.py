"""The command line: what it prints, what it writes, and how it ends."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from embedbatch import Usage, embed, jobs
from embedbatch.cli.app import app
from embedbatch.cli.corpus import read_docstrings
from embedbatch.cli.demo import QUERIES
from embedbatch.cli.progress import counts, progress_bar
from embedbatch.cli.running import describe

ROOT = Path(__file__).parents[2]
TEXTS = ["compress data", "parse text", "send an email", "match a pattern"]


def call(*arguments: str | Path) -> Result:
    """The command line in this process."""
    return CliRunner().invoke(app, list(map(str, arguments)))


def start(*arguments: str | Path, before: str = "", **options: Any) -> subprocess.Popen[str]:
    """The command line in a process of its own, which does *before* first."""
    script = f"{before}\nfrom embedbatch.cli import main\nmain()"
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, text=True, **{"stderr": subprocess.PIPE, **options})


def write_corpus(path: Path, texts: Sequence[Any] = TEXTS) -> Path:
    """A corpus of *texts*, whose ids are d0, d1, …"""
    if path.suffix == ".txt":
        path.write_text("".join(f"{text}\n" for text in texts))
    else:
        path.write_text("".join(json.dumps({"key": f"d{n}", "text": text}) + "\n" for n, text in enumerate(texts)))
    return path


def names(folder: Path) -> set[str]:
    """What is in *folder*."""
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("destination", ["v.parquet", "v.npy"])
@pytest.mark.parametrize("source", ["corpus.jsonl", "corpus.txt"])
def test_run_embeds_every_document(tmp_path: Path, source: str, destination: str) -> None:
    """Each source to each destination: the vectors of `embed`, status 0, one line, and nothing else on a pipe."""
    write_corpus(tmp_path / source)

    result = call("run", tmp_path / source, "-o", tmp_path / destination, "--model", "local")

    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout.startswith(
        f"4 documents embedded with local into {tmp_path / destination} (256 dimensions, 10 tokens, "
    )
    assert len(result.stdout.splitlines()) == 1
    if destination == "v.npy":
        vectors = np.load(tmp_path / destination)
    else:
        vectors = np.array(pq.read_table(tmp_path / destination).column("vector").to_pylist(), np.float32)
    np.testing.assert_array_equal(vectors, embed(TEXTS, "local").vectors)


def test_the_flags_reach_the_job(tmp_path: Path) -> None:
    """Columns, dimensions and texts are as asked for; tokens are counted unless --no-tokens."""
    source = tmp_path / "corpus.jsonl"
    source.write_text(
        '{"key": "a", "body": "compress data", "text": "x"}\n{"key": "b", "body": "parse", "text": "x"}\n'
    )
    flags = ["--model", "local", "--text-column", "body", "--id-column", "key", "--dimensions", "64", "--keep-text"]

    counted = call("run", source, "-o", tmp_path / "v.parquet", *flags)
    uncounted = call("run", source, "-o", tmp_path / "u.parquet", *flags, "--no-tokens")
    rows = pq.read_table(tmp_path / "v.parquet")

    assert (counted.exit_code, uncounted.exit_code) == (0, 0)
    assert rows.schema.field("vector").type.list_size == 64
    assert rows.drop_columns(["vector"]).to_pylist() == [
        {"id": "a", "tokens": 2, "text": "compress data"},
        {"id": "b", "tokens": 1, "text": "parse"},
    ]
    assert pq.read_table(tmp_path / "u.parquet").column("tokens").to_pylist() == [None, None]


def test_failed_documents_are_listed_and_make_the_status_1(tmp_path: Path) -> None:
    """The summary says how many and where; id, line, reason and attempts are in the file."""
    source = write_corpus(tmp_path / "corpus.jsonl", ["a text", "", None])
    target = tmp_path / "v.parquet"

    result = call("run", source, "-o", target, "--model", "local", "--id-column", "key")

    assert result.exit_code == 1
    assert result.stdout.startswith("1 of 3 documents embedded with local")
    assert result.stdout.endswith(f"; 2 failed: see {target}.failures.jsonl\n")
    listed = list(map(json.loads, Path(f"{target}.failures.jsonl").read_text().splitlines()))
    assert [(entry["id"], entry["line"], entry["error"], entry["attempts"]) for entry in listed] == [
        ("d1", 2, "EmptyInputError", 0),
        ("d2", 3, "InvalidInputError", 0),
    ]


def test_skipped_documents_do_not_change_the_status(tmp_path: Path) -> None:
    """With --empty skip a blank line is no failure."""
    source = write_corpus(tmp_path / "corpus.txt", ["a text", ""])

    result = call("run", source, "-o", tmp_path / "v.npy", "--model", "local", "--empty", "skip")

    assert result.exit_code == 0
    assert result.stdout.endswith("; 1 empty, skipped\n")
    assert "v.npy.failures.jsonl" not in names(tmp_path)


def test_documents_that_were_cut_are_counted(tmp_path: Path) -> None:
    """A document above the model's limit is embedded in parts, and the summary says so."""
    source = write_corpus(tmp_path / "corpus.txt", ["word " * 9_000, "short"])

    result = call("run", source, "-o", tmp_path / "v.npy", "--model", "local")

    assert result.exit_code == 0
    assert result.stdout.endswith("; 1 were longer than the model takes\n")


@pytest.mark.parametrize(
    ("data", "flags", "reason"),
    [
        pytest.param('{"body": 1, "title": 2}\n', [], "the columns are 'body', 'title'", id="no such column"),
        pytest.param('{"text": "a"}\n{"te\n', [], "corpus.jsonl, line 2: invalid JSON", id="unreadable row"),
        pytest.param('{"text": "a"}\n', ["--id-column", "id"], "no column 'id'; the columns are 'text'", id="no id"),
        pytest.param(None, [], "corpus.jsonl: cannot be read: No such file", id="no file"),
        pytest.param("", ["--dimensions", "512"], "local gives at most 256, got 512", id="dimensions"),
        pytest.param("", ["--long-input", "chunks"], "one row for each document: use split", id="chunks"),
        pytest.param("", ["--long-input", "cut"], "long_input: expected one of 'split'", id="long input"),
        pytest.param("", ["--empty", "drop"], "empty: expected one of 'error', 'skip'", id="empty"),
        pytest.param("", ["--max-tokens-per-minute", "0"], "max_tokens_per_minute: expected more than 0", id="limits"),
        pytest.param("", ["-o", "missing/v.npy"], "there is no directory missing", id="destination"),
        pytest.param("", ["-o", "v.csv"], "expected a .parquet or .npy file, got 'v.csv'", id="format"),
    ],
)
def test_what_cannot_work_ends_with_one_line_and_status_2(
    tmp_path: Path, data: str | None, flags: list[str], reason: str
) -> None:
    """The line says what is wrong; there is no traceback, and nothing is written."""
    source = tmp_path / "corpus.jsonl"
    if data is not None:
        source.write_text(data)
    before = names(tmp_path)

    result = call("run", source, "-o", tmp_path / "v.npy", "--model", "local", *flags)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("embedbatch: ")
    assert reason in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert names(tmp_path) == before


def test_without_a_key_the_ways_out_are_named(tmp_path: Path) -> None:
    """OPENAI_API_KEY, --base-url and --model local: the default model needs one of the first two."""
    result = call("run", write_corpus(tmp_path / "corpus.txt"), "-o", tmp_path / "v.npy")

    assert result.exit_code == 2
    for way_out in ("OPENAI_API_KEY", "--base-url", "--model local"):
        assert way_out in result.stderr


def test_a_key_is_no_argument() -> None:
    """Arguments are visible to every process of a machine, so there is no flag for the key."""
    result = call("run", "corpus.txt", "-o", "v.npy", "--api-key", "secret")

    assert result.exit_code == 2
    assert "No such option" in result.stderr


def test_a_run_that_stops_early_has_status_3(tmp_path: Path) -> None:
    """--max-spend-tokens is reached: the line says so, and that nothing was written."""
    source = write_corpus(tmp_path / "corpus.txt")

    result = call("run", source, "-o", tmp_path / "v.npy", "--model", "local", "--max-spend-tokens", "1")

    assert result.exit_code == 3
    assert "max_spend_tokens=1" in result.stderr
    assert f"Nothing was written to {tmp_path / 'v.npy'}." in result.stderr
    assert names(tmp_path) == {"corpus.txt"}


@pytest.mark.parametrize("destination", ["v.parquet", "v.npy"])
@pytest.mark.parametrize("dimensions", ["64", "256"])
def test_search_prints_the_nearest_documents(tmp_path: Path, destination: str, dimensions: str) -> None:
    """Rank, cosine, id and the text's first line, best first; the query is embedded as the documents were."""
    texts = ["parse text", "compress data\nwith gzip", "send an email"]
    source, target = write_corpus(tmp_path / "corpus.jsonl", texts), tmp_path / destination
    flags = ["--model", "local", "--id-column", "key", "--keep-text", "--dimensions", dimensions]
    call("run", source, "-o", target, *flags)

    result = call("search", target, "gzip compression", "-k", "2")

    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert len(lines) == 2
    rank, score, id, text = lines[0].split(maxsplit=3)
    assert (rank, id, text) == ("1", "d1", "compress data")
    assert 0.3 < float(score) <= 1
    assert lines[1].split()[0] == "2"


def test_search_prints_nothing_that_a_terminal_obeys(tmp_path: Path) -> None:
    """An escape sequence in a document or an id is shown without its escape."""
    source = tmp_path / "corpus.jsonl"
    source.write_text(json.dumps({"id": "a\x1b[2J", "text": "red \x1b[31malert\x07"}) + "\n")
    call("run", source, "-o", tmp_path / "v.npy", "--model", "local", "--id-column", "id", "--keep-text")

    result = call("search", tmp_path / "v.npy", "alert")

    assert result.stdout.rstrip().endswith("a [2J  red  [31malert")


@pytest.mark.parametrize("destination", ["v.parquet", "v.npy"])
def test_search_says_where_there_is_nothing_to_find(tmp_path: Path, destination: str) -> None:
    """Where every document failed, a query has no answer."""
    source = write_corpus(tmp_path / "corpus.txt", ["", ""])
    call("run", source, "-o", tmp_path / destination, "--model", "local")

    result = call("search", tmp_path / destination, "a query")

    assert (result.exit_code, result.stdout) == (0, "no document in it has a vector\n")


def test_search_in_what_is_no_result_has_status_2(tmp_path: Path) -> None:
    """A file that is not there is named."""
    result = call("search", tmp_path / "v.parquet", "a query")

    assert result.exit_code == 2
    assert "v.parquet: cannot be read" in result.stderr


def test_the_demo_corpus_is_what_is_public(tmp_path: Path) -> None:
    """Docstrings of modules, classes, functions and methods, by name; nothing private, of tests, or imported."""
    box = """
        '''Boxes.'''
        raise SystemExit
        class Box:
            '''A box.'''
            def open(self):
                '''Open it.'''
            def _shut(self):
                '''Private.'''
            def bare(self): pass
    """
    pack = """
        '''Packs.'''
        if True:
            def pack():
                '''First.'''
        else:
            def pack():
                '''Second.'''
        async def fetch():
            '''Fetch.'''
            def inner():
                '''Not a name that anybody can use.'''
    """
    files = {
        "box.py": dedent(box),
        "pack/__init__.py": dedent(pack),
        "pack/_private.py": "'''Private.'''",
        "pack/tests/case.py": "'''A test.'''",
        "site-packages/other.py": "'''Installed.'''",
        "not-a-module.py": "'''No name.'''",
        "broken.py": "def",
    }
    for name, source in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)

    assert read_docstrings(tmp_path) == {
        "box": "Boxes.",
        "box.Box": "A box.",
        "box.Box.open": "Open it.",
        "pack": "Packs.",
        "pack.pack": "First.",
        "pack.fetch": "Fetch.",
    }


@pytest.mark.slow
def test_the_demo_finds_sensible_modules(tmp_path: Path) -> None:
    """At least 4,000 real documents are embedded, and each query has a module one expects among its first three."""
    expected = [{"argparse", "optparse", "getopt"}, {"gzip"}, {"re"}]

    result = call("demo", "--output", tmp_path / "demo")

    assert result.exit_code == 0, result.stderr
    assert pq.read_metadata(tmp_path / "demo" / "vectors.parquet").num_rows >= 4_000
    lines = result.stdout.splitlines()
    for query, modules in zip(QUERIES, expected, strict=True):
        first = lines.index(query) + 1
        found = {line.split()[2].partition(".")[0] for line in lines[first : first + 3]}
        assert found & modules, f"{query}: {found}"


def test_the_demo_needs_a_directory_it_can_write_to(tmp_path: Path) -> None:
    """A file in its place is named."""
    (tmp_path / "file").touch()

    result = call("demo", "--output", tmp_path / "file")

    assert result.exit_code == 2
    assert f"cannot make {tmp_path / 'file'}" in result.stderr


def some_progress(**changes: Any) -> jobs.Progress:
    """A job that is half done."""
    half = {
        "documents": 1_000,
        "total_documents": 2_000,
        "bytes": 50,
        "total_bytes": 100,
        "failures": 0,
        "tokens": 3_000,
    }
    return jobs.Progress(**{**half, **changes})


def test_progress_is_told_in_documents_and_tokens() -> None:
    """Tokens per second where the endpoint counts them, failures where there are any."""
    assert counts(some_progress(), 1.5) == "1,000 of 2,000 documents · 2,000 tokens/s"
    assert counts(some_progress(), 0.001) == "1,000 of 2,000 documents", "too early to tell"
    assert counts(some_progress(tokens=None, failures=1_234), 2.0) == "1,000 of 2,000 documents · 1,234 failed"


def test_the_bar_is_drawn_on_a_terminal_only() -> None:
    """Where nobody would see it there is none, and nothing is printed."""
    terminal, pipe = io.StringIO(), io.StringIO()

    with progress_bar(Console(file=terminal, force_terminal=True, width=120)) as show:
        assert show is not None
        show(some_progress())
    with progress_bar(Console(file=pipe, force_terminal=False)) as show_nothing:
        assert show_nothing is None

    assert "1,000 of 2,000 documents" in terminal.getvalue()
    assert pipe.getvalue() == ""


def test_a_summary_says_all_of_it_in_one_line() -> None:
    """What is not known, or did not happen, is left out."""
    summary = jobs.Summary(
        destination=Path("v.npy"),
        documents=2_000,
        embedded=1_990,
        failures=7,
        skipped=3,
        failures_file=Path("v.npy.failures.jsonl"),
        dimensions=1_536,
        usage=Usage(total_tokens=12_345),
        seconds=4.25,
    )

    assert describe(summary, "m", 2) == (
        "1,990 of 2,000 documents embedded with m into v.npy (1,536 dimensions, 12,345 tokens, 4.2 s); "
        "2 were longer than the model takes; 3 empty, skipped; 7 failed: see v.npy.failures.jsonl"
    )


@pytest.mark.slow
def test_ctrl_c_has_status_130_and_leaves_nothing(tmp_path: Path) -> None:
    """Interrupted while a server is silent: one line, and the directory is as it was."""
    source = write_corpus(tmp_path / "corpus.txt")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        process = start("run", source, "-o", tmp_path / "v.parquet", "--model", "m", "--base-url", address)
        deadline = time.monotonic() + 30
        while names(tmp_path) == {"corpus.txt"} and time.monotonic() < deadline:
            time.sleep(0.02)
        is_at_work = names(tmp_path) != {"corpus.txt"}
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)

    assert is_at_work
    assert process.returncode == 130
    assert stderr == "embedbatch: interrupted; no unfinished file is left behind\n"
    assert names(tmp_path) == {"corpus.txt"}


@pytest.mark.slow
@pytest.mark.parametrize("destination", ["v.parquet", "v.npy"])
def test_a_full_disk_has_status_3_and_leaves_nothing(tmp_path: Path, destination: str) -> None:
    """A file that may not grow beyond 100 kB: one line, no traceback, and the directory is as it was."""
    source = write_corpus(tmp_path / "corpus.txt", [f"text {n}" for n in range(1_000)])
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"

    process = start("run", source, "-o", tmp_path / destination, "--model", "local", before=limit)
    _, stderr = process.communicate(timeout=60)

    assert process.returncode == 3
    assert "File too large" in stderr
    assert len(stderr.splitlines()) == 1
    assert names(tmp_path) == {"corpus.txt"}


@pytest.mark.slow
@pytest.mark.parametrize("package", ["typer", "pyarrow"])
def test_a_missing_package_names_the_extra(tmp_path: Path, package: str) -> None:
    """Without the extra `jobs` the command line says how to get it, and prints no traceback."""
    source = write_corpus(tmp_path / "corpus.txt")
    absent = f"import sys; sys.modules[{package!r}] = None"

    process = start("run", source, "-o", tmp_path / "v.parquet", "--model", "local", before=absent)
    _, stderr = process.communicate(timeout=60)

    assert process.returncode == 2
    assert package in stderr
    assert "pip install 'embedbatch[jobs]'" in stderr
    assert len(stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_terminal_shows_a_bar_and_then_the_summary(tmp_path: Path) -> None:
    """On a pseudo-terminal the documents are counted on stderr; stdout has the summary and nothing else."""
    source = write_corpus(tmp_path / "corpus.txt", ["some text"] * 2_000)
    terminal, theirs = pty.openpty()

    process = start(
        "run",
        source,
        "-o",
        tmp_path / "v.npy",
        "--model",
        "local",
        stderr=theirs,
        stdout=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(theirs)
    stdout, _ = process.communicate(timeout=60)
    shown = read_all(terminal)

    assert "of 2,000 documents" in shown
    assert stdout.startswith("2,000 documents embedded")
    assert len(stdout.splitlines()) == 1


def read_all(terminal: int) -> str:
    """What was written to the other side of a pseudo-terminal that is closed there."""
    pieces = []
    try:
        while piece := os.read(terminal, 65_536):
            pieces.append(piece)
    except OSError:
        pass  # Linux says so at the end
    finally:
        os.close(terminal)
    return b"".join(pieces).decode(errors="replace")


@pytest.mark.slow
def test_the_module_is_the_command_line() -> None:
    """`python -m embedbatch --help` names the commands."""
    shown = subprocess.run(
        [sys.executable, "-m", "embedbatch", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )

    for command in ("run", "search", "demo"):
        assert f"\n  {command} " in shown.stdout
