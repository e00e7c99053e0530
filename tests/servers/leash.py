"""
Run a command, and end it with all of its children when standard input ends, a signal comes, or its time is up:

    python leash.py SECONDS COMMAND …

Whoever starts it holds the other end of that pipe, which the system closes however they end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

PATIENCE = 3.0  # seconds between asking and killing


def main() -> int:
    """The status of the command, or of what ended it."""
    until = time.monotonic() + float(sys.argv[1])
    let_go = threading.Event()
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # meant for all that the terminal or CI has started
        signal.signal(sign, lambda *_: let_go.set())
    command = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=_read_to_the_end, args=(let_go,), daemon=True).start()
    while command.poll() is None and not let_go.wait(0.1) and time.monotonic() < until:
        pass
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(command.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            command.wait(PATIENCE)
    return command.wait()


def _read_to_the_end(let_go: threading.Event) -> None:
    while os.read(0, 4_096):  # without sys.stdin, whose lock a thread must not hold at the end of the interpreter
        pass
    let_go.set()


if __name__ == "__main__":
    sys.exit(main())
