"""A server ends with whoever started it, however that ends."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

LEASH = str(Path(__file__).with_name("leash.py"))
# A server with a child of its own, neither of which minds being asked to stop.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def is_there(pid: int) -> bool:
    """True if the process *pid* lives."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
@pytest.mark.parametrize("end", ["let go", "killed", "told to stop", "time is up"])
def test_the_server_and_its_children_end(end: str) -> None:
    """Let go of by its owner, or by the death of that, or told to stop, or after its time: nothing of it is left."""
    seconds = "1" if end == "time is up" else "300"
    leash = [sys.executable, LEASH, seconds, sys.executable, "-c", STUBBORN]
    owner = [sys.executable, "-c", "import subprocess as s, sys; s.Popen(sys.argv[1:], stdin=s.PIPE).wait()"]
    command = [*owner, *leash] if end == "killed" else leash
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert is_there(child)
        if end == "let go":
            process.stdin.close()
        elif end == "killed":
            process.kill()
        elif end == "told to stop":
            process.terminate()
        until = time.monotonic() + 30
        while is_there(child) and time.monotonic() < until:
            time.sleep(0.1)

        assert not is_there(child)
