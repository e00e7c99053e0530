"""`embedbatch bench`: what it prints, writes and draws, and how it ends."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import anyio
import pytest
import trio.testing
from rich.console import Console

from embedbatch import Embedder
from embedbatch.cli.bench_report import show
from embedbatch.sweep import Budget, Grid, Sweep, Texts, bound_for, generate
from embedbatch.testing import Capacity, Latency, ProviderSimulator, Quota, Scripted, ScriptedServer

from ..contract.loopback import serve_in_a_thread
from .commanding import call, names, start, wait_until, write_corpus

SMALL = ["--model", "m", "--batch-sizes", "1,4", "--in-flight", "1,2", "--text-bytes", "20", "--max-requests", "60"]
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def endpoint(server: ScriptedServer) -> Iterator[str]:
    """The address at which *server* listens."""
    with serve_in_a_thread(server) as base_url:
        yield base_url


def swept(server: Any, *, grid: Grid | None = None, budget: Budget | None = None) -> Sweep:
    """A sweep of *server* that has run, in virtual time."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    sweep = Sweep(
        connect=partial(Embedder, "m", base_url="http://test/v1", transport=server, rng=Random(1)),
        texts=Texts(generate(60, Random(1)), bound_for("m")),
        budget=budget or Budget(max_requests=1_000, max_tokens=1_000_000),
        grid=grid or Grid(),
    )
    anyio.run(sweep.run, backend="trio", backend_options={"clock": clock})
    return sweep


def printed(sweep: Sweep, width: int) -> str:
    """What *sweep* looks like on a terminal of that *width*, without colours."""
    file = io.StringIO()
    show(sweep, Console(file=file, width=width))
    return file.getvalue()


def test_bench_says_what_it_will_send_and_then_what_it_found(server: ScriptedServer, endpoint: str) -> None:
    """The budget first; then a row for each point, the map, the knee, and the settings to copy. Status 0."""
    result = call("bench", "--base-url", endpoint, "--seed", "7", *SMALL)

    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"m at {endpoint}, with made-up texts (--seed 7) of about 2")
    assert lines[1].startswith("At most 60 requests and ")
    assert len(server.received) <= 60
    recommended = next(line for line in lines if line.startswith("Limits("))
    batch, places = recommended.removeprefix("Limits(max_batch_inputs=")[:-1].split(", max_concurrent_requests=")
    assert (int(batch), int(places)) in {(1, 1), (1, 2), (4, 1), (4, 2)}
    assert f"embedbatch run … --max-batch-inputs {batch} --max-concurrent-requests {places}" in lines


def test_the_texts_are_those_of_the_seed(server: ScriptedServer, endpoint: str) -> None:
    """The same seed, the same first texts; without one they are new."""
    firsts = []
    for seed in (["--seed", "1"], ["--seed", "1"], [], []):
        server.received.clear()
        call("bench", "--base-url", endpoint, *seed, *SMALL, "--max-requests", "1")
        firsts.append(server.received[0].inputs)

    assert firsts[0] == firsts[1]
    assert firsts[1] != firsts[2] != firsts[3]


def test_the_texts_may_be_those_of_a_corpus(server: ScriptedServer, endpoint: str, tmp_path: Path) -> None:
    """Those of the column; what is no text is passed over; when they are used up each has a number in front."""
    source = tmp_path / "corpus.jsonl"
    source.write_text('{"body": "first"}\n{"body": ""}\n{"body": [1, 2]}\n{"body": "second"}\n')

    result = call("bench", "--base-url", endpoint, "--source", source, "--text-column", "body", *SMALL)

    assert result.exit_code == 0, result.stderr
    assert f"with texts of {source} of about " in result.stdout
    sent = [text for request in server.received for text in request.inputs]
    assert sorted(sent)[-2:] == ["first", "second"]
    assert len(set(sent)) == len(sent) > 4


@pytest.mark.slow
def test_the_numbers_and_the_picture_are_written(endpoint: str, tmp_path: Path) -> None:
    """JSON with everything, also what is not known as null; a PNG of a size that can be read."""
    numbers, picture = tmp_path / "sweep.json", tmp_path / "sweep.png"

    result = call("bench", "--base-url", endpoint, "--json", numbers, "--plot", picture, *SMALL)

    assert result.exit_code == 0, result.stderr
    found = json.loads(numbers.read_text())
    assert found["spent"]["requests"] <= found["budget"]["max_requests"] == 60
    assert found["quota"]["tokens_per_second"] is None
    points = {(point["batch_inputs"], point["in_flight"]): point for point in found["points"]}
    knee = points[found["knee"]["batch_inputs"], found["knee"]["in_flight"]]
    assert found["knee"] == knee
    assert set(found["recommended"].values()) == {knee["batch_inputs"], knee["in_flight"]}
    assert 0 < knee["p50"] <= knee["p90"] <= knee["p99"]
    assert knee["in_flight_reached"] > 0
    data = picture.read_bytes()
    assert data.startswith(PNG)
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    assert (width, height) == (1_680, 756)
    assert result.stdout.endswith(f"The numbers are in {numbers}\nThe curves are in {picture}\n")


SERVERS = {
    "workers": lambda: ProviderSimulator(capacity=Capacity(workers=4)),
    "sheds": lambda: ProviderSimulator(capacity=Capacity(sheds_above=6)),
    "caps": lambda: ProviderSimulator(max_inputs=100),
    "quota": lambda: ProviderSimulator(quota=Quota(tokens_per_minute=4_000_000), latency=Latency(tail_share=0.05)),
}


@pytest.mark.parametrize("kind", SERVERS)
def test_what_is_shown_fits_the_terminal(kind: str) -> None:
    """With 80 and 120 columns no line is longer, no number is cut, and every measured point has its row."""
    sweep = swept(SERVERS[kind](), grid=Grid((1, 16, 128), (1, 4, 16)))

    for width in (80, 120):
        text = printed(sweep, width)
        assert max(map(len, text.splitlines())) <= width
        table, _, rest = text.partition("inputs/s, by inputs")
        assert "…" not in table
        rows = [line for line in table.splitlines() if line.strip() and line.strip()[0].isdigit()]
        assert len(rows) == len(sweep.measured)
        assert rest.count("◆") == 2, "in the map, and in the legend"
        assert ("█" in table) is (width == 120)


def test_what_ends_an_axis_is_told() -> None:
    """The point that was refused, what the server said, and what was not tried for that or for the budget."""
    shedding, dear = (
        swept(SERVERS["sheds"]()),
        swept(ProviderSimulator(), budget=Budget(max_requests=99, max_tokens=9_999)),
    )

    text, other = printed(shedding, 120), printed(dear, 120)

    assert "1 × 8 failed, and nothing with as many in both was tried: HTTP 503: Service busy." in text
    assert "refused" in text
    assert " points were left out for the budget; --max-requests " in other
    assert "--max-tokens " in other
    assert "Throughput still rose when the budget ended: " in other


def test_a_server_cannot_write_to_the_terminal() -> None:
    """What it says is shown without escapes and markup."""
    server = ScriptedServer(latency=0.1)
    evil = {"error": {"message": "\x1b[2J[bold]no[/nothing]"}}
    server.reply_when(lambda request: Scripted(status=503, body=evil) if server.in_flight > 1 else None)

    text = printed(swept(server, grid=Grid((1,), (1, 2))), 120)

    assert "\x1b" not in text
    assert "[2J[bold]no[/nothing]" in text


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--batch-sizes", "1,x"], "--batch-sizes: expected numbers with commas between them, such as 1,16,64; got"),
        (["--in-flight", "0"], "--in-flight: expected numbers with commas"),
        (["--in-flight", "5000"], "in_flight: expected numbers of at least 1 and at most 1,000"),
        (["--plot", "sweep.svg"], "--plot: expected a .png file, got 'sweep.svg'"),
        (["--json", "missing/sweep.json"], "--json: there is no directory missing"),
        (["--source", "missing.txt"], "missing.txt: cannot be read"),
        (["--base-url", "nowhere"], "base_url: expected an http or https address"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_sent(
    server: ScriptedServer, endpoint: str, flags: list[str], reason: str
) -> None:
    """One line, status 2, no request."""
    result = call("bench", "--base-url", endpoint, *SMALL, *flags)

    assert result.exit_code == 2
    assert reason in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert server.received == []


def test_a_corpus_without_texts_is_refused(tmp_path: Path) -> None:
    """There is nothing to send."""
    source = write_corpus(tmp_path / "corpus.txt", ["", " "])

    result = call("bench", "--model", "local", "--source", source)

    assert result.exit_code == 2
    assert f"--source {source}: expected texts to send, got none" in result.stderr


def test_bench_needs_a_key_for_openai() -> None:
    """As run does."""
    result = call("bench")

    assert result.exit_code == 2
    assert "OPENAI_API_KEY" in result.stderr


def test_a_key_that_is_refused_ends_it_with_the_reason(server: ScriptedServer, endpoint: str) -> None:
    """Status 3; one request was sent, and nothing is recommended."""
    server.reply_when(lambda request: Scripted(status=401, body={"error": {"message": "bad key"}}))

    result = call("bench", "--base-url", endpoint, *SMALL)

    assert result.exit_code == 3
    assert "the first request failed, and nothing was measured: HTTP 401: bad key" in result.stderr
    assert "Limits(" not in result.stdout
    assert len(server.received) == 1


def test_credit_that_runs_out_keeps_what_was_measured(server: ScriptedServer, endpoint: str, tmp_path: Path) -> None:
    """Status 3 and the reason; the points before are shown, and written with the reason."""
    broke = Scripted(status=429, body={"error": {"message": "pay", "code": "insufficient_quota"}})
    server.reply_when(lambda request: broke if request.number > 40 else None)

    result = call("bench", "--base-url", endpoint, "--json", tmp_path / "sweep.json", *SMALL)

    assert result.exit_code == 3
    assert "the sweep ended: HTTP 429: pay" in result.stderr
    assert "Limits(max_batch_inputs=" in result.stdout
    assert "pay" in json.loads((tmp_path / "sweep.json").read_text())["ended"]


@pytest.mark.slow
def test_without_matplotlib_the_extra_is_named(endpoint: str, server: ScriptedServer, tmp_path: Path) -> None:
    """Asked for a picture: how to get it, before anything is sent. Without a picture it is not needed."""
    absent = "import sys; sys.modules['matplotlib'] = None"
    flags = ["--base-url", endpoint, *SMALL]

    asked = start("bench", *flags, "--plot", tmp_path / "a.png", before=absent, stdout=subprocess.PIPE)
    _, stderr = asked.communicate(timeout=60)
    sent = len(server.received)
    unasked = start("bench", *flags, before=absent, stdout=subprocess.PIPE)
    unasked.communicate(timeout=60)

    assert (asked.returncode, sent) == (2, 0)
    assert "pip install 'embedbatch[bench]'" in stderr
    assert unasked.returncode == 0


@pytest.mark.slow
def test_ctrl_c_shows_what_was_measured_so_far(server: ScriptedServer, endpoint: str, tmp_path: Path) -> None:
    """Interrupted in the middle: the points so far with their settings, status 130, no file."""
    server.reply_when(lambda request: Scripted(after=3_600) if request.number > 30 else None)
    listens = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"

    flags = ["--base-url", endpoint, "--json", tmp_path / "sweep.json", *SMALL]
    process = start("bench", *flags, before=listens, stdout=subprocess.PIPE)
    wait_until(process, lambda: len(server.received) > 30)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)

    assert process.returncode == 130
    assert "The sweep ended early: interrupted" in stdout
    assert "Limits(max_batch_inputs=" in stdout
    assert stderr.startswith("embedbatch: interrupted")
    assert names(tmp_path) == set()


@pytest.mark.slow
def test_a_terminal_sees_what_is_measured_at_the_moment(endpoint: str) -> None:
    """On a pseudo-terminal stderr tells the point and what was spent; stdout has the result only."""
    terminal, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}

    process = start("bench", "--base-url", endpoint, *SMALL, stderr=theirs, stdout=subprocess.PIPE, env=environment)
    os.close(theirs)
    stdout, _ = process.communicate(timeout=60)
    shown = os.read(terminal, 1_000_000).decode(errors="replace")
    os.close(terminal)

    assert "opening a connection" in shown
    assert " of 60 requests · " in shown
    assert " of 60 requests · " not in stdout
