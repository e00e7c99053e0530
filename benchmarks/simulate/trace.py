"""How one run went: a line for every ten seconds."""

from __future__ import annotations

from embedbatch.testing import ProviderSimulator

from .measures import between, used
from .scenario import Run

STEP = 10.0
HEAD = "   from    sent     200     429   other   tokens used/allowed   in flight, at most   inputs, mean"


def render(run: Run) -> str:
    """The lines of every server of *run*."""
    parts = []
    for host, server in run.servers.items():
        end = max((request.at for request in server.requests), default=0.0)
        lines = [_line(server, step * STEP) for step in range(int(end // STEP) + 1)]
        parts.append("\n".join([f"{run.scenario} with seed {run.seed}, server {host}", HEAD, *lines]))
    return "\n\n".join([*parts, *run.outcome.notes])


def _line(server: ProviderSimulator, start: float) -> str:
    requests = list(between(server, start, start + STEP))
    good = sum(request.status == 200 for request in requests)
    limited = sum(request.status == 429 for request in requests)
    most = max((request.in_flight for request in requests), default=0)
    inputs = sum(request.inputs for request in requests) / max(1, len(requests))
    allowed = used(server, start, start + STEP)
    return (
        f"{start:7.0f} {len(requests):7} {good:7} {limited:7} {len(requests) - good - limited:7}"
        f" {100 * allowed:19.1f} % {most:20} {inputs:14.1f}"
    )
