"""
Runs one job in a process of its own, which can be killed at any instant: ``python -m tests.databases.child ORDER``.

It prints a line when everything is imported, and begins when it is told to.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

import anyio
import msgspec

from embedbatch import Embedder, Limits, Retries, jobs
from embedbatch.jobs.sinks import Block, Destination, Sink, destination_of
from embedbatch.plan.tokens import ByteBound


class Order(msgspec.Struct, kw_only=True):
    """
    A job to run. The process kills itself at the part *die_at* of those that it writes, from 0: *when* that is about to
    be written, while it is, or after it, when the ledger does not know.
    """

    source: str
    destination: str
    base_url: str
    part_rows: int
    dimensions: int
    max_input_tokens: int
    die_at: int | None = None
    when: str = "after"


class Deadly:
    """A destination whose sink kills its process."""

    def __init__(self, destination: Destination, order: Order) -> None:
        self._destination = destination
        self._order = order

    def __getattr__(self, name: str) -> Any:
        return getattr(self._destination, name)

    def __str__(self) -> str:
        return str(self._destination)

    def open_sink(self, *arguments: Any, **options: Any) -> Sink:
        return DeadlySink(self._destination.open_sink(*arguments, **options), self._order)


class DeadlySink:
    """A sink that kills its process at a part."""

    def __init__(self, sink: Sink, order: Order) -> None:
        self._sink = sink
        self._order = order
        self._written = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sink, name)

    def write_part(self, number: int, blocks: Iterable[Block]) -> int:
        is_now = self._written == self._order.die_at
        self._written += 1
        if is_now and self._order.when == "before":
            die()
        if is_now and self._order.when == "during":
            blocks = then_die(blocks)
        written = self._sink.write_part(number, blocks)
        if is_now:
            die()
        return written


def then_die(blocks: Iterable[Block]) -> Iterable[Block]:
    """All *blocks*; whoever asks for more dies."""
    yield from blocks
    die()


def die() -> None:
    """End at once."""
    os.kill(os.getpid(), signal.SIGKILL)


async def run(order: Order) -> None:
    """Run the job."""
    limits = Limits(max_batch_inputs=16, max_concurrent_requests=4, initial_concurrent_requests=4, max_window_rows=256)
    async with Embedder(
        "test-model",
        base_url=order.base_url,
        dimensions=order.dimensions,
        tokenizer=ByteBound(),
        max_input_tokens=order.max_input_tokens,
        limits=limits,
        retries=Retries(initial_wait=0.001),
        rng=Random(7),
    ) as embedder:
        destination: Any = Deadly(destination_of(order.destination), order)
        await jobs.run(Path(order.source), destination, embedder, id_column="id", part_rows=order.part_rows)


def main() -> None:
    """Run what is ordered."""
    order = msgspec.json.decode(sys.argv[1], type=Order)
    destination_of(order.destination)  # which imports what it needs
    print("ready", flush=True)
    sys.stdin.readline()
    anyio.run(run, order)


if __name__ == "__main__":
    main()
