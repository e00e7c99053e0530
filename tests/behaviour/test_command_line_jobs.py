"""`embedbatch run` as a job: interrupted and gone on with, watched, and within its budget."""

from __future__ import annotations

import json
import signal
import xml.etree.ElementTree
from pathlib import Path

import numpy as np
import pytest
import typer

from embedbatch.cli.outcome import outcome
from embedbatch.testing import ScriptedServer

from ..contract.loopback import serve_in_a_thread
from .commanding import call, names, start, wait_until, write_corpus


def test_a_job_is_run_again_with_the_same_command(tmp_path: Path) -> None:
    """The second time nothing is embedded and the same is told; another flag is refused, and --fresh starts over."""
    source, target = write_corpus(tmp_path / "c.txt", ["a b", "c d", "a b"]), tmp_path / "v.npy"
    options = ["run", source, "-o", target, "--model", "local"]

    first, again = call(*options), call(*options)
    other = call(*options, "--dimensions", "64")
    fresh = call(*options, "--dimensions", "64", "--fresh")

    assert "1 were equal to one before" in first.stdout
    assert (again.exit_code, again.stdout) == (0, first.stdout)
    assert other.exit_code == 2
    assert "dimensions was 256 and is 64" in other.stderr
    assert "--fresh" in other.stderr
    assert fresh.exit_code == 0
    assert np.load(target).shape == (3, 64)


@pytest.mark.parametrize("flag", ["--report", "--log-json"])
def test_a_report_is_not_written_over_what_the_run_uses(tmp_path: Path, flag: str) -> None:
    """The source or the result; and a folder that is missing is told before anything is sent."""
    source, target = write_corpus(tmp_path / "c.txt", ["a b"]), tmp_path / "v.npy"
    before = source.read_bytes()

    for path, words in ((source, "is read or written by the run"), (target, "is read or"), ("no/r", "no directory no")):
        result = call("run", source, "-o", target, "--model", "local", flag, path)
        assert result.exit_code == 2
        assert words in " ".join(result.stderr.split())
    planned = call("plan", source, "--model", "local", "--json", source)

    assert planned.exit_code == 2
    assert source.read_bytes() == before
    assert not target.exists()


def test_a_report_and_a_log_are_written(tmp_path: Path) -> None:
    """The page is well-formed and has the failures, escaped; the log has a JSON object in each line."""
    source = write_corpus(tmp_path / "<b>c.txt", ["a b", "", "c d"])
    report, log = tmp_path / "run.html", tmp_path / "log.jsonl"

    result = call(
        "run", source, "-o", tmp_path / "v.npy", "--model", "local", "--report", report, "--log-json", log, "--price", 1
    )

    assert result.exit_code == 1
    page = report.read_text()
    assert "EmptyInputError" in page
    assert "<b>c.txt" not in page
    xml.etree.ElementTree.fromstring(page.split("\n", 1)[1] if page.startswith("<!") else page)
    kinds = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert "BatchAnswered" in kinds
    assert "DocumentFailed" in kinds


def test_a_cost_needs_a_price_and_ends_the_run(tmp_path: Path) -> None:
    """Where no price is known it is asked for; with one, the run stops before it costs more, and can go on."""
    texts = [f"some words to be counted {n}" for n in range(200)]
    source, target = write_corpus(tmp_path / "c.txt", texts), tmp_path / "v.npy"
    options = ["run", source, "-o", target, "--model", "local", "--max-batch-inputs", "8"]

    unknown = call(*options[:4], "--model", "m", "--base-url", "http://127.0.0.1:1/v1", "--max-cost", "1")
    stopped = call(*options, "--max-cost", "0.0005", "--price", "1")
    done = call(*options)

    assert unknown.exit_code == 2
    assert "--price" in unknown.stderr
    assert stopped.exit_code == 3
    assert "of 200 documents are done" in stopped.stderr
    assert done.exit_code == 0
    assert len(np.load(target)) == 200


def test_a_result_holds_what_is_asked_for(tmp_path: Path) -> None:
    """Other columns by their names, or all; numbers of 16 bits; JSON lines. What cannot be is said in a line."""
    source = tmp_path / "c.jsonl"
    source.write_text('{"text": "a b", "title": "A", "lang": "en", "n": 1}\n')
    run = ["run", source, "--model", "local", "--id-column", "title", "-o"]

    some = call(*run, tmp_path / "v.npy", "--columns", "lang, n", "--dtype", "float16")
    everything = call(*run, tmp_path / "v.jsonl", "--columns", "all", "--no-tokens")
    missing = call(*run, tmp_path / "w.npy", "--columns", "language")
    other = call(*run, tmp_path / "w.npy", "--dtype", "float64")

    assert (some.exit_code, everything.exit_code, missing.exit_code, other.exit_code) == (0, 0, 2, 2)
    assert np.load(tmp_path / "v.npy").dtype == np.float16
    assert json.loads((tmp_path / "v.npy.ids.jsonl").read_text()) == {"id": "A", "tokens": 2, "lang": "en", "n": 1}
    row = json.loads((tmp_path / "v.jsonl").read_text())
    assert list(row) == ["id", "embedding", "tokens", "lang", "n"]
    assert "no column 'language'; the columns are 'text', 'title', 'lang', 'n'" in missing.stderr
    assert "dtype: expected one of float32, float16, got 'float64'" in other.stderr
    found = call("search", tmp_path / "v.jsonl", "a b")
    assert (found.exit_code, found.stdout.split()) == (0, ["1", "1.000", "A"])


def test_the_summary_says_what_the_cache_did(tmp_path: Path) -> None:
    """How many inputs came from it, and how many were sent; nothing, where a job was finished before."""
    source = write_corpus(tmp_path / "c.txt", ["a b", "c d", "e f"])
    more = write_corpus(tmp_path / "d.txt", ["a b", "c d", "g h"])
    cached = ["--model", "local", "--cache", tmp_path / "cache", "--cache-max-bytes", "2000000"]

    first = call("run", source, "-o", tmp_path / "v.npy", *cached)
    second = call("run", more, "-o", tmp_path / "w.npy", *cached)
    again = call("run", more, "-o", tmp_path / "w.npy", *cached)
    small = call("run", more, "-o", tmp_path / "x.npy", *cached[:-1], "5")
    alone = call("run", more, "-o", tmp_path / "x.npy", "--cache-max-bytes", "2000000")

    assert "; 0 inputs came from the cache, 3 were sent" in first.stdout
    assert "; 2 inputs came from the cache, 1 were sent" in second.stdout
    assert "cache" not in again.stdout.replace(str(tmp_path), "")
    assert (small.exit_code, alone.exit_code) == (2, 2)
    assert "max_bytes: expected an int of at least 1,000,000, got 5" in small.stderr
    assert "--cache-max-bytes: there is no --cache" in alone.stderr


def test_ctrl_c_promises_only_what_is_so(capsys: pytest.CaptureFixture[str]) -> None:
    """A run goes on where it was; a plan, a search and a sweep do not."""
    for resumes, words in [(True, "; the same command goes on where it was"), (False, "")]:
        with pytest.raises(typer.Exit) as caught, outcome(resumes=resumes):
            raise KeyboardInterrupt
        assert caught.value.exit_code == 130
        assert capsys.readouterr().err == f"embedbatch: interrupted{words}\n"


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_in_flight(tmp_path: Path) -> None:
    """Interrupted in the middle, with status 130 and how far it is; the same command sends only what is missing."""
    texts = [f"text {n}" for n in range(2_000)]
    source, target = write_corpus(tmp_path / "c.txt", texts), tmp_path / "v.npy"
    server = ScriptedServer(latency=0.05)
    with serve_in_a_thread(server) as address:
        options = ("run", source, "-o", target, "--model", "m", "--base-url", address, "--max-batch-inputs", "4")
        process = start(*options)
        wait_until(process, lambda: len(server.received) >= 60)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
        sent_before = len(server.received)
        second = start(*options)
        _, stderr_of_second = second.communicate(timeout=60)

    assert process.returncode == 130
    assert "of 2,000 documents are done, and kept in" in stderr
    assert 60 <= sent_before < 500
    assert second.returncode == 0, stderr_of_second
    sent = [text for request in server.received for text in request.inputs]
    assert sorted(sent) == sorted(texts)
    np.testing.assert_array_equal(np.load(target), [server.vector_of(text) for text in texts])
    assert names(tmp_path) == {"c.txt", "v.npy", "v.npy.ids.jsonl", "v.npy.meta.json", "v.npy.journal"}
