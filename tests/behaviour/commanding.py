"""What the tests of the command line share."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
