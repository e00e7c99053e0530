"""`embedbatch check`: what it prints and writes, and how it ends."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from rich.console import Console

from embedbatch import Endpoint, embed
from embedbatch.check import Cost, Finding
from embedbatch.cli.checking import is_much, show
from embedbatch.endpoints import PRESETS, read_endpoint
from embedbatch.prices import Price
from embedbatch.testing import Scripted, ScriptedServer

from ..contract.loopback import serve_in_a_thread
from ..unit.checking import KEY, openai_like
from .commanding import call, start, wait_until


@pytest.fixture
def server() -> ScriptedServer:
    return openai_like(dimensions=16)


@pytest.fixture
def endpoint(server: ScriptedServer) -> Iterator[list[str]]:
    """The flags that lead to *server*."""
    with serve_in_a_thread(server) as base_url:
        yield ["check", "--base-url", base_url, "--model", "m"]


def test_it_says_what_it_will_send_and_then_what_it_found(server: ScriptedServer, endpoint: list[str]) -> None:
    """The most it will send first; then a row for each finding; status 0."""
    result = call(*endpoint, env={"OPENAI_API_KEY": KEY})

    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0] == f"m at {endpoint[2]}"
    said = re.fullmatch(r"At most (\d+) requests and ([\d,]+) tokens will be sent\.", lines[1])
    assert said is not None
    assert len(server.received) <= int(said[1]) < 40
    assert lines[-1] == f"{len(server.received)} requests were sent."
    assert " token arrays                  taken" in result.stdout
    assert KEY not in result.stdout


def test_the_preset_is_an_endpoint(server: ScriptedServer, endpoint: list[str], tmp_path: Path) -> None:
    """All but its notes are fields of an Endpoint, with which the server can be used; no key is in it."""
    file = tmp_path / "preset.json"

    result = call(*endpoint, "--json", file, env={"OPENAI_API_KEY": KEY})

    assert result.exit_code == 0, result.stderr
    assert KEY not in file.read_text()
    found = json.loads(file.read_text())
    notes = found.pop("notes")
    assert set(found) <= {field.name for field in fields(Endpoint)}
    preset = Endpoint(**found)
    assert (preset.max_input_tokens, preset.needs_key, preset.token_arrays) == (8_192, True, True)
    assert embed(["a"], model="m", endpoint=preset, api_key=KEY).vectors.shape == (1, 16)
    assert notes["base64"] == {"value": "honoured", "words": "honoured: float32, little-endian"}
    assert notes["checked"]["model"] == "m"


def test_what_was_known_before_stays_in_the_preset(endpoint: list[str], tmp_path: Path) -> None:
    """A server that is named: what cannot be asked is kept, and what was found stands beside it."""
    file = tmp_path / "preset.json"

    result = call(*endpoint, "--endpoint", "one-api", "--json", file, env={"OPENAI_API_KEY": KEY})

    assert result.exit_code == 0, result.stderr
    known, found = PRESETS["one-api"], read_endpoint(file)
    assert (found.name, found.rate_headers, found.refusals) == ("one-api", known.rate_headers, known.refusals)
    assert (found.source, found.normalised) == ("found by embedbatch check", True)


def test_a_first_request_that_fails_is_said(endpoint: list[str]) -> None:
    """One line, status 3."""
    result = call(*endpoint, env={"OPENAI_API_KEY": "another"})

    assert result.exit_code == 3
    assert "embedbatch: the first request failed, and nothing was found out: 401: no such key" in result.stderr


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--json", "missing/preset.json"], "--json: there is no directory missing"),
        (["--max-batch", "5000"], "--max-batch"),
        (["--base-url", "nowhere"], "base_url: expected an http or https address"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_sent(
    server: ScriptedServer, endpoint: list[str], flags: list[str], reason: str
) -> None:
    """Status 2, no request."""
    result = call(*endpoint, *flags)

    assert result.exit_code == 2
    assert reason in result.stderr
    assert not server.received


def test_a_server_cannot_write_to_the_terminal() -> None:
    """What it says is shown without escapes and markup, and not at any length."""
    file = io.StringIO()
    words = "\x1b[2J[bold]no[/nothing]\n" + 500 * "x"

    show([Finding("base64", "refused", "base64", words)], Console(file=file, width=80))

    assert "\x1b" not in file.getvalue()
    assert "[2J[bold]no[/nothing]" in file.getvalue()
    assert file.getvalue().count("x") < 300


@pytest.mark.parametrize(
    ("tokens", "price", "much"),
    [
        (1_000_001, None, True),
        (1_000_000, None, False),
        (1_000_000, Price(usd_per_million=0.13), True),
        (90_000, Price(usd_per_million=0.13), False),
        (9_000_000, Price(usd_per_million=0.0), False),
    ],
)
def test_what_is_much_is_asked_about(tokens: int, price: Price | None, much: bool) -> None:
    """More than ten cents; where the price is not known, more than a million tokens."""
    assert is_much(Cost(30, tokens), price) is much


@pytest.mark.slow
def test_ctrl_c_shows_what_was_found_so_far(server: ScriptedServer, endpoint: list[str]) -> None:
    """Status 130, and the rows of the questions that were answered."""
    server.reply_when(lambda it: Scripted(after=3_600) if it.number > 5 else None)
    listens = "import os, signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    before = f"{listens}; os.environ['OPENAI_API_KEY'] = {KEY!r}"
    with start(*endpoint, before=before, stdout=subprocess.PIPE) as process:
        wait_until(process, lambda: len(server.received) >= 6)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=20)

    assert process.returncode == 130
    assert "honoured: float32, little-endian" in stdout
    assert "interrupted" in stderr
