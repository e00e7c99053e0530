"""`embedbatch serve`: what it says, whom it answers, and how it ends."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from embedbatch import AuthenticationError, RunStoppedError, embed

from .commanding import call, start

KEY = "sesame-open-the-door"
ADDRESS = re.compile(r"http://(127\.0\.0\.1:\d+)/v1")


@contextmanager
def serving(*flags: str, key: str | None = None) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The command at a free port; the block's value is the base URL and the process, which a signal is to end."""
    before = "" if key is None else f"import os; os.environ['EMBEDBATCH_API_KEY'] = {key!r}"
    with start("serve", "--port", "0", *flags, before=before, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = ADDRESS.search(line)
        assert found, line
        assert KEY not in line
        yield found[0], process
        process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_it_answers_until_a_signal_comes(sign: signal.Signals) -> None:
    """At port 0 it takes a free one and prints it; it ends with status 0, and has said nothing else."""
    with serving() as (base_url, process):
        assert embed(["a", "b"], model="local", base_url=base_url).vectors.shape == (2, 256)

        process.send_signal(sign)
        stdout, stderr = process.communicate(timeout=20)

    assert (process.returncode, stdout, stderr) == (0, "", "")


@pytest.mark.slow
@pytest.mark.parametrize("place", ["flag", "environment"])
def test_a_key_is_asked_for_and_never_told(place: str) -> None:
    """With a key another one is refused; neither of them, nor a broken request, shows it in what is printed."""
    flags, key = (["--api-key", KEY], None) if place == "flag" else ([], KEY)
    with serving(*flags, key=key) as (base_url, process):
        assert len(embed(["a"], model="local", base_url=base_url, api_key=KEY)) == 1
        with pytest.raises(RunStoppedError) as caught:
            embed(["a"], model="local", base_url=base_url, api_key="another key")
        broken = httpx.post(f"{base_url}/embeddings", content=b"{", headers={"authorization": f"Bearer {KEY}"})

        process.terminate()
        stdout, stderr = process.communicate(timeout=20)

    assert isinstance(caught.value.__cause__, AuthenticationError)
    assert broken.status_code == 400
    assert KEY not in stdout + stderr + broken.text


def test_a_port_that_is_taken_is_said() -> None:
    """One line, status 2."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = call("serve", "--port", str(taken.getsockname()[1]))

    assert result.exit_code == 2
    assert "--host, --port: cannot listen at '127.0.0.1'" in result.stderr


@pytest.mark.parametrize("flags", [["--host", "not an address"], ["--api-key", ""]])
def test_what_cannot_work_is_said(flags: list[str]) -> None:
    """One line, status 2."""
    result = call("serve", "--port", "0", *flags)

    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
