"""The command line as a person meets it: the demo, the progress bar, Ctrl-C, a full disk, a missing package."""

from __future__ import annotations

import os
import pty
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pyarrow.parquet as pq
import pytest

from embedbatch import Usage, jobs
from embedbatch.cli.corpus import read_docstrings
from embedbatch.cli.demo import QUERIES
from embedbatch.cli.running import describe

from .commanding import ROOT, call, names, start, wait_until, write_corpus


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


def test_a_summary_says_all_of_it_in_one_line() -> None:
    """What is not known, or did not happen, is left out."""
    summary = jobs.Summary(
        destination=Path("v.npy"),
        documents=2_000,
        embedded=1_990,
        failures=7,
        skipped=3,
        duplicates=20,
        bad_rows=1,
        failures_file=Path("v.npy.failures.jsonl"),
        dimensions=1_536,
        usage=Usage(total_tokens=12_345),
        seconds=4.25,
        runs=2,
    )

    assert describe(summary, "m", 2) == (
        "1,990 of 2,000 documents embedded with m into v.npy (1,536 dimensions, 12,345 tokens, 4.2 s); "
        "20 were equal to one before; 2 were longer than the model takes; 3 empty, skipped; "
        "1 rows could not be read; 7 failed: see v.npy.failures.jsonl"
    )


@pytest.mark.slow
def test_ctrl_c_waits_and_the_second_leaves_at_once(tmp_path: Path) -> None:
    """Interrupted while a server is silent: it waits; once more: status 130, and the directory is as it was."""
    source = write_corpus(tmp_path / "corpus.txt")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        options = ("-o", tmp_path / "v.parquet", "--model", "m", "--base-url", address)
        process = start("run", source, *options)
        wait_until(process, lambda: bool(select.select([silent], [], [], 0)[0]))  # it is connected
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        said = [process.stderr.readline() for _ in range(2)]
        waits = process.poll() is None
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)

    assert said[1] == "Waiting for what is in flight. Ctrl-C once more leaves at once; nothing is lost.\n"
    assert waits
    assert process.returncode == 130
    assert stderr == "embedbatch: interrupted; the same command goes on where it was\n"
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
def test_a_terminal_shows_the_job_and_then_the_summary(tmp_path: Path) -> None:
    """On a pseudo-terminal the job is seen on stderr; stdout has the summary and nothing else."""
    source = write_corpus(tmp_path / "corpus.txt", [f"text {n}" for n in range(2_000)])
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

    assert "corpus.txt → v.npy · local" in shown
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
