"""Many runs, in a few processes."""

from __future__ import annotations

import multiprocessing
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor

from .clients import CLIENTS
from .ours import embedbatch
from .running import run
from .scenario import Figures, Scenario
from .scenarios import SCENARIOS
from .table import OURS

ALL_CLIENTS = {OURS: embedbatch, **CLIENTS}
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


def attempt(scenario: str, client: str, seed: int) -> tuple[Figures | str, float]:
    """The figures of one run, or what went wrong; and the seconds of CPU it took."""
    started_at = time.process_time()
    try:
        return run(BY_NAME[scenario], ALL_CLIENTS[client], seed), time.process_time() - started_at
    except Exception as error:
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        return f"{type(error).__name__}: {error}", time.process_time() - started_at


def run_all(
    scenarios: list[Scenario], clients: dict[str, int], processes: int
) -> dict[tuple[str, str], list[Figures | str]]:
    """Run all scenarios with all clients and all seeds; *clients* says how many seeds each has."""
    futures: dict[Future[tuple[Figures | str, float]], tuple[str, str, int]] = {}
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        for scenario in scenarios:
            for client, seeds in clients.items():
                for seed in range(seeds if client == OURS or scenario.is_for_all else 0):
                    key = (scenario.name, client, seed)
                    futures[pool.submit(attempt, *key)] = key
        results: dict[tuple[str, str], list[Figures | str]] = {}
        for done, (future, (scenario_name, client, seed)) in enumerate(futures.items(), start=1):
            figures, seconds = future.result()
            results.setdefault((scenario_name, client), []).append(figures)
            said = f"{done}/{len(futures)} {scenario_name}, {client}, seed {seed}: {seconds:.1f} s"
            print(said.ljust(78), end="\r" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)
    return results
