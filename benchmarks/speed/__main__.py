"""
Run the benchmarks and print what came out: `./scripts/bench [--only PART] [--rounds N] [--no-peers]`.

The exit status is 0 unless something crashed or gave a wrong vector; a figure that misses its bar is told, no more.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from . import machine, report
from .clients import OURS, PEERS
from .lab import ROOT, Lab
from .parts import Part
from .parts.ceiling import Ceiling
from .parts.cold_start import ColdStart
from .parts.growth import Growth
from .parts.jobs import Jobs
from .parts.latency import Latency
from .parts.long_documents import LongDocuments
from .parts.memory import Memory
from .parts.singles import Singles

DOCS = ROOT / "docs"
PICTURE = "images/benchmarks.png"
BUILD = ROOT / "build" / "bench"
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"

# Seconds that five rounds of each part take: a machine on which they take longer gets fewer rounds of all of them.
TYPICAL = {
    "ceiling": 275,
    "unpinned": 130,
    "latency": 230,
    "long": 85,
    "memory": 370,
    "singles": 45,
    "growth": 125,
    "cold": 115,
    "jobs": 90,
}


def parts(*, quick: bool) -> list[Part]:
    """All of them, in order."""
    return [
        Ceiling(pinned=True, quick=quick),
        Ceiling(pinned=False, quick=quick),
        Latency(quick),
        LongDocuments(quick),
        Memory(quick),
        Singles(quick),
        Growth(quick),
        ColdStart(quick),
        Jobs(quick),
    ]


def read_options() -> argparse.Namespace:
    """The options of the command line."""
    names = [part.name for part in parts(quick=True)]
    options = argparse.ArgumentParser(prog="bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--only", action="append", choices=names, help="this part; may be given several times")
    options.add_argument("--rounds", type=int, help="rounds of every part (default 5, or 1 with --quick)")
    options.add_argument("--minutes", type=float, default=25, help="no more than this; else fewer rounds (default 25)")
    options.add_argument("--quick", action="store_true", help="a few texts, embedbatch only: does everything run?")
    options.add_argument("--no-peers", action="store_true", help="embedbatch and the limits only")
    options.add_argument(
        "--peers-python", type=Path, default=PEERS_PYTHON, help="interpreter of the peers' environment"
    )
    options.add_argument("--json", type=Path, default=BUILD / "results.json", help="where all figures are written")
    options.add_argument("--chart", type=Path, default=BUILD / "chart.png", help="where the picture is written")
    options.add_argument("--publish", action="store_true", help="results and picture go into docs and README.md, too")
    options.add_argument("--from", dest="source", type=Path, help="measure nothing: read this JSON of an earlier run")
    given = options.parse_args()
    given.rounds = given.rounds or (1 if given.quick else 5)
    return given


def measure(given: argparse.Namespace, chosen: list[Part]) -> report.Report:
    """Run the chosen parts."""
    begun_at = time.monotonic()
    pythons = {OURS: Path(sys.executable)}
    if not given.no_peers and not given.quick:
        if not given.peers_python.exists():
            raise SystemExit(f"no peers at {given.peers_python}: run ./scripts/bench, or pass --no-peers")
        pythons[PEERS] = given.peers_python

    def say(line: str) -> None:
        print(f"{time.monotonic() - begun_at:6.0f} s  {line}", file=sys.stderr, flush=True)

    made = report.Report(machine.describe(), {"rounds": given.rounds, "quick": given.quick})
    with tempfile.TemporaryDirectory(prefix="embedbatch-bench-") as folder:
        with Lab(pythons, machine.vocabulary(Path(folder)), say) as lab:
            for number, part in enumerate(chosen):
                left = 60 * given.minutes - (time.monotonic() - begun_at)
                share = TYPICAL[part.name] / sum(TYPICAL[later.name] for later in chosen[number:])
                made.results[part.name] = lab.run(part, given.rounds, left * share)
                made.versions |= machine.versions(made.results[part.name])
        made.failures = {str(case): reason for case, reason in lab.failures.items()}
    return made


def main() -> int:
    """Do what the command line says; return 1 if something crashed or gave a wrong vector."""
    given = read_options()
    if given.source:
        made = report.Report.from_json(given.source.read_text())
        chosen = parts(quick=made.options["quick"])
    else:
        chosen = [part for part in parts(quick=given.quick) if not given.only or part.name in given.only]
        made = measure(given, chosen)
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(made.to_json(chosen) + "\n")
    print(made.as_text(chosen))
    from . import chart  # after everything was measured: not everybody has matplotlib

    chart.draw(made, given.chart)
    if given.publish:
        chart.draw(made, DOCS / PICTURE)
        report.publish(DOCS / "benchmarks.md", made.summary(chosen, PICTURE))
        report.publish(DOCS / "benchmark-results.md", made.details(chosen))
        report.publish(DOCS.parent / "README.md", made.headline())
    for case, reason in made.failures.items():
        print(f"\nFAILED: {case}\n{reason}")
    return 1 if made.failures else 0


if __name__ == "__main__":
    sys.exit(main())
