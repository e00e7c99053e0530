"""One run: a scenario, a client, a seed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import anyio
import httpx
import trio
import trio.testing

# trio shuffles the tasks that are ready. Hypothesis has its dice registered, sorts the tasks before they are shuffled,
# and has this to seed all registered dice for a while; it is what @given itself uses.
from hypothesis.internal.entropy import deterministic_PRNG

from embedbatch.testing import Hosts, ProviderSimulator

from .ours import embedbatch
from .scenario import STOPPED, Client, Figures, Outcome, Run, Scenario, Task


def play(scenario: Scenario, client: Client = embedbatch, seed: int = 0) -> Run:
    """Let *client* do the job of *scenario* until its horizon. The same seed gives the same run."""

    async def main() -> Run:
        servers = scenario.servers(seed)
        for server in servers.values():
            server.start()
        task = Task(job=scenario.job, seed=seed, servers=servers, transport=_route(servers), outcome=Outcome())
        with anyio.move_on_after(scenario.horizon):
            await client(task)
        return Run(scenario, client, seed, servers, task.outcome)

    return in_virtual_time(main, seed)


def run(scenario: Scenario, client: Client = embedbatch, seed: int = 0) -> Figures:
    """The figures of one run, and among them how many of its streams stopped early."""
    played = play(scenario, client, seed)
    return {**scenario.measure(played), STOPPED: len(played.outcome.notes)}


def in_virtual_time(main: Callable[[], Awaitable[Run]], seed: int) -> Run:
    """Run *main* on trio with a clock of its own, which jumps to the next deadline as soon as every task waits."""
    with deterministic_PRNG(seed):
        played: Run = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return played


def _route(servers: Mapping[str, ProviderSimulator]) -> httpx.AsyncBaseTransport:
    if len(servers) == 1:
        return next(iter(servers.values()))
    return Hosts(servers)
