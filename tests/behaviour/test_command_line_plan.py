"""`embedbatch plan`: what it prints and writes, and how it ends. It needs no key, and sends nothing."""

from __future__ import annotations

import io
import json
import os
import pty
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from embedbatch import Limits
from embedbatch.cli.planning import dollars, duration, show
from embedbatch.errors import ConfigurationError
from embedbatch.jobs import plan_blocking
from embedbatch.jobs.forecast import Forecast
from embedbatch.prices import Price

from .commanding import call, names, start, write_corpus

TEXTS = ["compress data", "parse text", "compress data", "", None, "send an email", "word " * 10_000]

FORECAST: dict[str, Any] = {
    "model": "m",
    "base_url": "http://test/v1",
    "tokenizer": "cl100k_base",
    "long_input": "split",
    "documents": 1_000_000,
    "sent": 990_000,
    "duplicates": 9_000,
    "empty": 900,
    "invalid": 100,
    "refused": 0,
    "bad_rows": 7,
    "too_long": 50,
    "long_chunks": 200,
    "inputs": 990_150,
    "requests": 3_900,
    "tokens": 48_000_000,
    "estimated_tokens": 48_000_000,
    "max_tokens": 48_000_000,
    "saved_tokens": 432_000,
    "minutes": 48.0,
    "bound_by": "tokens",
    "price": Price(usd_per_million=0.02, as_of="2026-09", source="https://test"),
}
UNKNOWN = {"tokenizer": None, "tokens": None, "estimated_tokens": 50_000_000, "max_tokens": 200_000_000}


def shown(width: int = 120, limits: Limits | None = None, **changes: Any) -> list[list[str]]:
    """The rows of a forecast's table, on a terminal of that *width*: what is apart in it, without blanks."""
    file = io.StringIO()
    limits = limits or Limits(max_tokens_per_minute=1_000_000, max_requests_per_minute=3_000)
    show(Forecast(**{**FORECAST, **changes}), Path("c.jsonl"), limits, Console(file=file, width=width))
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines if line.strip()]


def test_a_plan_is_a_short_table(tmp_path: Path) -> None:
    """What becomes of the documents, what is sent, how long it takes and what it costs. Status 0, no key, one table."""
    source = write_corpus(tmp_path / "corpus.jsonl", TEXTS)

    result = call("plan", source, "--max-tokens-per-minute", "60000")

    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    rows = [line.split(maxsplit=2) for line in result.stdout.splitlines()[2:]]
    assert [row[:2] for row in rows] == [
        ["documents", "7"],
        ["too", "long"],
        ["duplicates", "1"],
        ["empty", "1"],
        ["invalid", "1"],
        ["inputs", "5"],
        ["requests", "3"],
        ["tokens", "10,008"],
        ["time", "11"],
        ["price", "$0.00020"],
    ]
    assert "1  split into 2 inputs" in result.stdout
    assert result.stdout.startswith(f"{source} with text-embedding-3-small at https://api.openai.com/v1\n")
    assert names(tmp_path) == {"corpus.jsonl"}


def test_nothing_is_sent(tmp_path: Path) -> None:
    """Not a byte to the server that is named: it is never connected to."""
    source = write_corpus(tmp_path / "corpus.jsonl")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        base_url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"

        result = call("plan", source, "--base-url", base_url, "--model", "m")

        with pytest.raises(BlockingIOError):
            listener.accept()
    assert result.exit_code == 0
    assert f"with m at {base_url}" in result.stdout


def test_the_flags_reach_the_plan(tmp_path: Path) -> None:
    """Those of a run that change what is sent, and the price."""
    source = tmp_path / "corpus.jsonl"
    texts = ["one two", "one two", "", "word " * 20_000]
    source.write_text("".join(json.dumps({"key": n, "body": text}) + "\n" for n, text in enumerate(texts)))
    flags = ["--text-column", "body", "--id-column", "key", "--long-input", "error", "--empty", "skip", "--no-dedupe"]
    flags += ["--max-batch-inputs", "1", "--max-requests-per-minute", "1", "--price", "1000000"]

    result = call("plan", source, *flags)

    assert result.exit_code == 0, result.stderr
    for words in (
        ["too long", "1", "fail"],
        ["empty", "1", "skipped"],
        ["inputs", "2"],
        ["requests", "2"],
        ["tokens", "4", "counted with cl100k_base"],
        ["time", "2 min", "at 1 requests a minute"],
        ["price", "$4.00", "at $1,000,000 for a million tokens"],
    ):
        assert any(all(word in line for word in words) for line in result.stdout.splitlines()), words
    assert "duplicates" not in result.stdout


def test_a_source_is_read_as_it_is_said_to_be(tmp_path: Path) -> None:
    """A format that its name does not say, and rows that cannot be read."""
    source = tmp_path / "corpus.data"
    source.write_text('{"text": "one two"}\n{broken\n')

    result = call("plan", source, "--format", "jsonl", "--skip-bad-rows")

    assert result.exit_code == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["documents", "1"] in rows
    assert ["bad", "rows", "1", "could", "not", "be", "read"] in rows


def test_standard_input_is_planned(tmp_path: Path) -> None:
    """Under its own name, with the format that is said; nothing is left of it."""
    for flags, words in [(["--format", "txt"], ["documents", "2"]), ([], ["said", "with", "--format"])]:
        process = start(
            "plan",
            "-",
            *flags,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )
        stdout, stderr = process.communicate("one two\nthree\n", timeout=60)

        assert process.returncode == (0 if flags else 2), stderr
        assert " ".join(words) in " ".join((stdout + stderr).split())
        assert names(tmp_path) == set()
        assert not flags or stdout.startswith("- with text-embedding-3-small at")


def test_a_dry_run_is_a_plan(tmp_path: Path) -> None:
    """The same words for the same flags; nothing is written, and no key is needed."""
    source = write_corpus(tmp_path / "corpus.jsonl", TEXTS)
    flags = [source, "--id-column", "key", "--max-tokens-per-minute", "60000", "--no-dedupe", "--price", "3"]

    dry = call("run", *flags, "-o", tmp_path / "v.parquet", "--dry-run")
    plan = call("plan", *flags)

    assert (dry.exit_code, dry.stdout, dry.stderr) == (0, plan.stdout, "")
    assert names(tmp_path) == {"corpus.jsonl"}


def test_the_numbers_are_written(tmp_path: Path) -> None:
    """JSON with everything that the table has, unrounded; what is not known is null."""
    source = write_corpus(tmp_path / "corpus.jsonl", TEXTS)

    known = call("plan", source, "--json", tmp_path / "known.json")
    unknown = call("plan", source, "--json", tmp_path / "unknown.json", "--model", "m", "--base-url", "http://test/v1")

    assert (known.exit_code, unknown.exit_code) == (0, 0)
    assert known.stdout.endswith(f"The numbers are in {tmp_path / 'known.json'}\n")
    found = json.loads((tmp_path / "known.json").read_text())
    assert (found["documents"], found["sent"], found["tokens"], found["minutes"]) == (7, 4, 10_008, None)
    assert found["cost_usd"] == found["max_cost_usd"] == pytest.approx(10_008 * 0.02 / 1e6)
    assert found["price"]["source"].startswith("https://")
    found = json.loads((tmp_path / "unknown.json").read_text())
    assert (found["tokens"], found["price"], found["cost_usd"]) == (None, None, None)
    assert 0 < found["estimated_tokens"] < found["max_tokens"]


def test_the_blocking_form_does_the_same(tmp_path: Path) -> None:
    """Without a key, with the options of both."""
    source = write_corpus(tmp_path / "corpus.txt", ["one two", "one two", ""])

    forecast = plan_blocking(source, "text-embedding-3-small", dedupe=False, price=1, empty="skip")

    assert (forecast.documents, forecast.sent, forecast.tokens, forecast.empty) == (3, 2, 4, 1)
    assert forecast.cost == pytest.approx(4e-6)
    with pytest.raises(TypeError, match="unknown_option"):
        plan_blocking(source, "text-embedding-3-small", unknown_option=1)


def test_what_is_certain_is_shown_as_it_is() -> None:
    """All rows of a forecast with exact tokens."""
    assert shown()[1:] == [
        ["documents", "1,000,000"],
        ["too long", "50", "split into 200 inputs"],
        ["duplicates", "9,000", "not sent: 432,000 tokens less"],
        ["empty", "900", "fail"],
        ["invalid", "100", "fail"],
        ["bad rows", "7", "could not be read"],
        ["inputs", "990,150"],
        ["requests", "3,900"],
        ["tokens", "48,000,000", "counted with cl100k_base"],
        ["time", "48 min", "at 1,000,000 tokens a minute"],
        ["price", "$0.96", "at $0.02 for a million tokens, as of 2026-09"],
    ]


def test_what_is_not_certain_is_not_shown_as_if_it_were() -> None:
    """An estimate has its sign and its bound; what is not known has a dash, and the flag that would tell."""
    rows = {row[0]: row[1:] for row in shown(**UNKNOWN)}
    without = {row[0]: row[1:] for row in shown(minutes=None, bound_by=None, price=None)}

    assert rows["tokens"] == [
        "≈50,000,000",
        "by 4 bytes a token, at most 200,000,000; the tokenizer is not known",
    ]
    assert rows["price"] == ["≈$1.00", "at most $4.00, at $0.02 for a million tokens, as of 2026-09"]
    assert rows["duplicates"][1] == "not sent: about 432,000 tokens less"
    assert without["time"][0] == without["price"][0] == "–"
    assert "--max-tokens-per-minute" in without["time"][1]
    assert "--price" in without["price"][1]


@pytest.mark.parametrize("changes", [{}, UNKNOWN, {"minutes": None, "bound_by": None, "price": None}])
def test_the_table_fits_a_terminal_of_60_columns(changes: dict[str, Any]) -> None:
    """Remarks are broken into lines; numbers are not cut."""
    text = " ".join(cell for row in shown(60, **changes) for cell in row)

    assert "…" not in text
    assert "1,000,000" in text


@pytest.mark.parametrize(
    ("minutes", "words"),
    [
        (0, "0 s"),
        (0.001, "1 s"),
        (1.5, "90 s"),
        (1.9, "2 min"),
        (48, "48 min"),
        (99.2, "100 min"),
        (125, "2 h 5 min"),
        (90_000, "1,500 h 0 min"),
    ],
)
def test_a_time_is_rounded_up(minutes: float, words: str) -> None:
    """Nothing is done sooner than that."""
    assert duration(minutes) == words


@pytest.mark.parametrize(
    ("amount", "words"),
    [
        (0, "$0.00"),
        (1_234.567, "$1,234.57"),
        (0.1, "$0.10"),
        (0.0999, "$0.100"),
        (0.0123, "$0.012"),
        (0.00000042, "$0.00000042"),
    ],
)
def test_an_amount_has_two_digits_that_say_something(amount: float, words: str) -> None:
    """Cents, or less where it is less."""
    assert dollars(amount) == words


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--long-input", "chunks"], "--long-input chunks gives several vectors for one document"),
        (["--long-input", "half"], "long_input: expected one of 'split', 'truncate'"),
        (["--price", "-1"], "price: expected US dollars of at least 0, got -1.0"),
        (["--json", "missing/plan.json"], "--json: there is no directory missing"),
        (["--text-column", "body"], "no column 'body'"),
        (["--base-url", "nowhere"], "expected an http or https address"),
    ],
)
def test_what_cannot_work_is_said_in_a_line(tmp_path: Path, flags: list[str], reason: str) -> None:
    """Status 2, and nothing on stdout."""
    source = write_corpus(tmp_path / "corpus.jsonl")

    result = call("plan", source, *flags)

    assert (result.exit_code, result.stdout) == (2, "")
    assert reason in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_folder_for_json_that_is_away_is_noticed_first(tmp_path: Path) -> None:
    """Before hours of counting: a source that is not there either is not what is told."""
    result = call("plan", tmp_path / "missing.jsonl", "--json", tmp_path / "missing" / "plan.json")

    assert "there is no directory" in result.stderr


def test_a_plan_needs_what_an_embedder_needs() -> None:
    """But for the key: an option that nobody knows is refused."""
    with pytest.raises(ConfigurationError, match="model: expected a name"):
        plan_blocking("c.jsonl", "")


@pytest.mark.slow
def test_a_terminal_sees_how_far_it_is(tmp_path: Path) -> None:
    """On a pseudo-terminal stderr has a bar while it counts; stdout has the table only."""
    source = write_corpus(tmp_path / "corpus.jsonl", [f"{n} " + "word " * 100 for n in range(30_000)])
    terminal, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}

    process = start("plan", source, stderr=theirs, stdout=subprocess.PIPE, env=environment)
    os.close(theirs)
    stdout, _ = process.communicate(timeout=60)
    seen = os.read(terminal, 1_000_000).decode(errors="replace")
    os.close(terminal)

    assert process.returncode == 0
    assert "counting" in seen
    assert "documents" in seen
    assert "counting" not in stdout
    assert stdout.splitlines()[2].split() == ["documents", "30,000"]
