"""
Run the scenarios and print what came out: `./scripts/simulate [--only PATTERN] [--seeds N]`.

A cell holds the median over the seeds and, in brackets, the worst where it differs; ✗ marks what misses its bar with
any seed. The simple clients are run with fewer seeds: they are there to compare with.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
import time
from pathlib import Path

from . import trace
from .clients import CLIENTS
from .many import ALL_CLIENTS, run_all
from .running import play
from .scenarios import SCENARIOS
from .table import OURS, as_json, misses, problems, render


def read_options() -> argparse.Namespace:
    """The options of the command line."""
    options = argparse.ArgumentParser(prog="simulate", description=__doc__)
    options.add_argument("--seeds", type=int, default=5, help="seeds for embedbatch (default 5)")
    options.add_argument("--client-seeds", type=int, default=1, help="seeds for the simple clients (default 1)")
    options.add_argument("--only", default="*", metavar="PATTERN", help="scenarios whose name has this, or matches it")
    options.add_argument("--clients", action=argparse.BooleanOptionalAction, default=True, help="simple clients too")
    options.add_argument("--json", type=Path, metavar="FILE", help="write all figures of all runs there")
    options.add_argument("--processes", type=int, default=2, help="processes (default 2)")
    options.add_argument("--trace", action="store_true", help="print how each run went, ten seconds a line")
    options.add_argument("--client", default=OURS, choices=ALL_CLIENTS, help="whose run --trace prints")
    options.add_argument("--list", action="store_true", help="print the scenarios and run none")
    return options.parse_args()


def main() -> int:
    """Do what the command line says; return 1 if embedbatch misses a bar."""
    given = read_options()
    pattern = given.only if any(sign in given.only for sign in "*?[") else f"*{given.only}*"
    scenarios = [scenario for scenario in SCENARIOS if fnmatch.fnmatch(scenario.name, pattern)]
    if given.list:
        for scenario in scenarios:
            print(f"{scenario.name:18} {scenario.title}")
        return 0
    if given.trace:
        for scenario in scenarios:
            for seed in range(given.seeds):
                played = play(scenario, ALL_CLIENTS[given.client], seed)
                print(trace.render(played))
                print({name: round(value, 5) for name, value in scenario.measure(played).items()}, end="\n\n")
        return 0
    clients = {OURS: given.seeds} | (
        dict.fromkeys(CLIENTS, min(given.seeds, given.client_seeds)) if given.clients else {}
    )
    started_at = time.perf_counter()
    results = run_all(scenarios, clients, given.processes)
    print(render(scenarios, list(clients), results))
    for problem in problems(results):
        print(problem)
    missed = [line for scenario in scenarios for line in misses(scenario, results)]
    seconds = time.perf_counter() - started_at
    print(f"\n{len(scenarios)} scenarios, {given.seeds} seeds, {seconds:.0f} s; {len(missed)} figures missed their bar")
    if given.json:
        given.json.write_text(json.dumps(as_json(scenarios, results), indent=1) + "\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
