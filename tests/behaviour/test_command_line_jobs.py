"""`embedbatch run` as a job: interrupted and gone on with, watched, and within its budget."""

from __future__ import annotations

import json
import signal
import time
import xml.etree.ElementTree
from pathlib import Path

import numpy as np
import pytest

from embedbatch.testing import ScriptedServer

from ..contract.loopback import serve_in_a_thread
from .commanding import call, names, start, write_corpus


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


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_in_flight(tmp_path: Path) -> None:
    """Interrupted in the middle, with status 130 and how far it is; the same command sends only what is missing."""
    texts = [f"text {n}" for n in range(2_000)]
    source, target = write_corpus(tmp_path / "c.txt", texts), tmp_path / "v.npy"
    server = ScriptedServer(latency=0.05)
    with serve_in_a_thread(server) as address:
        options = ("run", source, "-o", target, "--model", "m", "--base-url", address, "--max-batch-inputs", "4")
        process = start(*options)
        while len(server.received) < 60:
            time.sleep(0.01)
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
