"""Runs measurements: a load server, one process for each case, the cases of a part in turn, round by round."""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from .case import Case, Outcome
from .clients import CLIENTS, OURS
from .parts import Part
from .tables import Results

ROOT = Path(__file__).parents[2]
PATIENCE = 300.0  # seconds that one process may take

# Nobody talks to anything but the load server: no telemetry, no price lists, no model hubs, no proxies.
ENVIRONMENT = {
    "ANONYMIZED_TELEMETRY": "false",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "LANGCHAIN_TRACING_V2": "false",
    "LANGSMITH_TRACING": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_TELEMETRY": "False",
    "NO_PROXY": "*",
    "OPENAI_API_KEY": "unused",
}
LEFT_OUT = {"OPENAI_BASE_URL", "OPENAI_API_BASE", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"}


@dataclass
class Lab:
    """
    Where measurements take place: the interpreter of each environment, and a folder with tiktoken's vocabulary.

    Clients whose environment is not there are left out. *failures* says what crashed or gave a wrong vector; such a
    case is not run again. Leaving the block ends the load servers.
    """

    pythons: dict[str, Path]
    vocabulary: Path
    say: Callable[[str], None]
    failures: dict[Case, str] = field(default_factory=dict)
    _servers: dict[int, Server] = field(default_factory=dict)
    _open: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def run(self, part: Part, rounds: int, seconds: float = math.inf) -> Results:
        """
        Measure all cases of a part once, then all of them again, and so on; each round begins with another.

        There are fewer rounds where they would take longer than *seconds*, but one.
        """
        cases = [case for case in part.cases() if CLIENTS[case.client].home in self.pythons]
        results: Results = {case: [] for case in cases}
        begun_at = time.monotonic()
        for number in range(rounds):
            if (time.monotonic() - begun_at) * (number + 1) > seconds * max(1, number):
                self.say(f"{part.name}: no time for more than {number} of {rounds} rounds")
                break
            turn = number * len(cases) // rounds
            for case in cases[turn:] + cases[:turn]:
                if case not in self.failures and number < part.most_rounds(case):
                    self._add(case, results[case], self._server(part.dimensions))
            self.say(f"{part.name}: round {number + 1} of {rounds}")
        return {case: outcomes for case, outcomes in results.items() if outcomes}

    def _server(self, dimensions: int) -> Server:
        """The load server for vectors of this size; it is started once."""
        if dimensions not in self._servers:
            self._servers[dimensions] = self._open.enter_context(serving(self.pythons[OURS], dimensions))
        return self._servers[dimensions]

    def __enter__(self) -> Self:
        allow_many_files()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _add(self, case: Case, outcomes: list[Outcome], server: Server) -> None:
        command = [str(self.pythons[CLIENTS[case.client].home]), "-m", "benchmarks.speed.worker"]
        environment = {name: value for name, value in os.environ.items() if name.upper() not in LEFT_OUT}
        with pinned(server.process, case.pinned):
            try:
                done = subprocess.run(
                    [*command, case.to_json(), server.base_url],
                    cwd=ROOT,
                    env=environment | ENVIRONMENT | {"TIKTOKEN_CACHE_DIR": str(self.vocabulary)},
                    capture_output=True,
                    text=True,
                    timeout=PATIENCE,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                self._fail(case, f"not done after {PATIENCE:.0f} s")
                return
        if done.returncode:
            self._fail(case, done.stderr.strip()[-2_000:] or f"exit status {done.returncode}")
        else:
            outcomes.append(Outcome(**json.loads(done.stdout.splitlines()[-1])))

    def _fail(self, case: Case, reason: str) -> None:
        self.failures[case] = reason
        self.say(f"FAILED: {case}\n{reason}")


@dataclass(frozen=True)
class Server:
    """The load server that runs."""

    process: int
    port: int

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


@contextlib.contextmanager
def serving(python: Path, dimensions: int) -> Iterator[Server]:
    """Run the load server; stop it when the block ends."""
    command = [str(python), "-m", "benchmarks.speed.server", "--dimensions", str(dimensions)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Server(process.pid, int(process.stdout.readline()))
        finally:
            process.stdin.close()


@contextlib.contextmanager
def pinned(server: int, is_wanted: bool) -> Iterator[None]:
    """
    Give this process, and those it starts, the first core and the server the last one; else both all of them.

    Where there is one core, or no way to say this, everybody may run everywhere.
    """
    if not can_pin():
        yield
        return
    cores = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(server, {max(cores)} if is_wanted else cores)
        os.sched_setaffinity(0, {min(cores)} if is_wanted else cores)
        yield
    finally:
        os.sched_setaffinity(0, cores)


def can_pin() -> bool:
    """True if a process can be given a core of its own here."""
    return hasattr(os, "sched_setaffinity") and len(os.sched_getaffinity(0)) > 1


def allow_many_files() -> None:
    """Some clients open a connection for every call: let this process and those it starts have as many as may be."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS takes less than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (most if most != resource.RLIM_INFINITY else 65_536, most))
