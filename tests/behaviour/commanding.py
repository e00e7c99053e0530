"""What the tests of the command line share."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from embedbatch.cli.app import app

ROOT = Path(__file__).parents[2]
TEXTS = ["compress data", "parse text", "send an email", "match a pattern"]


def call(*arguments: str | Path, env: Mapping[str, str] | None = None) -> Result:
    """The command line in this process, with *env* added to its environment."""
    return CliRunner().invoke(app, list(map(str, arguments)), env=env)


def start(*arguments: str | Path, before: str = "", **options: Any) -> subprocess.Popen[str]:
    """The command line in a process of its own, which does *before* first."""
    script = f"{before}\nfrom embedbatch.cli import main\nmain()"
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, text=True, **{"stderr": subprocess.PIPE, **options})


def wait_until(process: subprocess.Popen[str], came_to: Callable[[], bool], *, seconds: float = 30.0) -> None:
    """Return once *process* *came_to* it. One that ends before, or takes longer than that, is a test that fails."""
    until = time.monotonic() + seconds
    while not came_to():
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            _, stderr = process.communicate()
            pytest.fail(f"the command did not come to it: {stderr}")
        time.sleep(0.01)


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
