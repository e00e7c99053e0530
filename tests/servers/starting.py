"""Real servers, each from an environment of its own: started at a free port of 127.0.0.1, and ended in any case."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ROOT / ".venv-servers"
KEY = "sk-the-key-of-the-tests"
LONGEST_LIFE = 840  # seconds, after which a server ends by itself
LONGEST_START = 120  # seconds: the first start of infinity compiles what it imports


@dataclass(frozen=True, kw_only=True)
class RealServer:
    """
    A server that answers at *base_url*.

    *about* says what it is, with versions. *bad_input* makes a request body that it refuses; *texts* is how many it
    can be asked to embed in a test. A gateway has its vectors from *origin*.
    """

    name: str
    about: str
    base_url: str
    model: str
    bad_input: Any = field(repr=False)
    texts: int = 2_000
    origin: RealServer | None = field(default=None, repr=False)

    def post(self, **body: Any) -> httpx.Response:
        """One request, without any library between."""
        headers = {"authorization": f"Bearer {KEY}"}
        return httpx.post(
            f"{self.base_url}/embeddings", json={"model": self.model, **body}, headers=headers, timeout=60
        )


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def python_of(name: str) -> Path:
    """The Python of the environment *name*; the test is skipped where that is not set up."""
    python = ENVIRONMENTS / name / "bin" / "python"
    if not python.exists():
        pytest.skip(
            f"not run: {name} is not set up by ./scripts/test-servers; it asks for EMBEDBATCH_LLAMA=1 for llama"
        )
    return python


def versions(python: Path, *packages: str) -> str:
    """What is installed, such as ``litellm 1.106.2``."""
    script = "import sys, importlib.metadata as m; print(', '.join(f'{p} {m.version(p)}' for p in sys.argv[1:]))"
    return subprocess.run([python, "-c", script, *packages], capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def started(
    command: Sequence[str | Path], server: RealServer, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[RealServer]:
    """Run *command*, which is *server*, from when it embeds until the block ends. What it prints goes into *log*."""
    leash = [sys.executable, str(Path(__file__).with_name("leash.py")), str(LONGEST_LIFE), *map(str, command)]
    with (
        log.open("wb") as output,
        subprocess.Popen(
            leash, stdin=subprocess.PIPE, stdout=output, stderr=output, env={**os.environ, **(environment or {})}
        ) as process,
    ):
        try:
            _wait_for(server, process, log)
            yield server
        finally:
            assert process.stdin is not None
            process.stdin.close()


def _wait_for(server: RealServer, process: subprocess.Popen[bytes], log: Path) -> None:
    last: object = None
    until = time.monotonic() + LONGEST_START
    while time.monotonic() < until and process.poll() is None:
        try:
            last = server.post(input=["ready?"])
            if last.status_code == 200:
                return
        except httpx.TransportError as error:
            last = error
        time.sleep(0.2)
    said = log.read_text(errors="replace")[-3_000:]
    raise RuntimeError(f"{server.name} does not answer: {last!r}\n{said}")
