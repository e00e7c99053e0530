"""
Runs jobs in processes of their own, which can be killed at any instant.

Every line on its standard input is a job, as JSON: it is run in a fork of this program, which has imported everything
already. One line comes back when it has begun, its process's id, and one when it has ended, its exit status. The id is
not given to another process before the next line is read: killing it too late does no harm.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from pathlib import Path
from random import Random
from typing import BinaryIO

import aiohttp  # noqa: F401  what the fork would have to import by itself
import anyio
import httpx_aiohttp  # noqa: F401
import msgspec
import pyarrow.parquet

from embedbatch import Embedder, Limits, Retries, jobs
from embedbatch.jobs.disk import Disk
from embedbatch.plan.tokens import ByteBound


class Order(msgspec.Struct, kw_only=True):
    """A job to run. At operation *kill_at* of the disk it ends itself, before or *after* it is done."""

    source: str
    destination: str
    base_url: str
    part_rows: int
    max_input_tokens: int
    max_batch_inputs: int
    max_concurrent_requests: int
    kill_at: int | None = None
    after: bool = False


class SuicidalDisk(Disk):
    """Kills its process at the *nth* operation, before it or *after* it."""

    def __init__(self, nth: int | None, *, after: bool) -> None:
        self._nth = nth
        self._after = after
        self._count = 0

    def open(self, path: Path, buffering: int = -1) -> BinaryIO:
        self._count_or_die()
        file = super().open(path, buffering)
        self._die_after()
        return file

    def allocate(self, file: BinaryIO, size: int) -> None:
        self._count_or_die()
        super().allocate(file, size)
        self._die_after()

    def sync(self, file: BinaryIO) -> None:
        self._count_or_die()
        super().sync(file)
        self._die_after()

    def replace(self, source: Path, target: Path) -> None:
        self._count_or_die()
        super().replace(source, target)
        self._die_after()

    def remove(self, path: Path) -> None:
        self._count_or_die()
        super().remove(path)
        self._die_after()

    def sync_directory(self, path: Path) -> None:
        self._count_or_die()
        super().sync_directory(path)
        self._die_after()

    def _count_or_die(self) -> None:
        self._count += 1
        if not self._after:
            self._die_after()

    def _die_after(self) -> None:
        if self._nth is not None and self._count >= self._nth:
            os.kill(os.getpid(), signal.SIGKILL)


async def run(order: Order) -> None:
    """Run the job."""
    limits = Limits(
        max_batch_inputs=order.max_batch_inputs,
        max_concurrent_requests=order.max_concurrent_requests,
        initial_concurrent_requests=order.max_concurrent_requests,
        max_window_rows=2_000,
    )
    embedder = Embedder(
        "test-model",
        base_url=order.base_url,
        tokenizer=ByteBound(),
        count_tokens=True,
        max_input_tokens=order.max_input_tokens,
        limits=limits,
        retries=Retries(initial_wait=0.001),
        rng=Random(7),
    )
    async with embedder:
        await jobs.run(
            order.source,
            order.destination,
            embedder,
            id_column="id",
            part_rows=order.part_rows,
            disk=SuicidalDisk(order.kill_at, after=order.after),
        )


def run_and_exit(order: Order) -> None:
    """Run the job in this process, and end it."""
    try:
        anyio.run(run, order)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main() -> None:
    """Run what is ordered, one job after the other."""
    # What is imported now is not imported by every fork: pandas, where it is installed, and what sends requests.
    pyarrow.array([0])
    Embedder("test-model", base_url="http://127.0.0.1:9/v1")
    for line in sys.stdin:
        order = msgspec.json.decode(line, type=Order)
        pid = os.fork()
        if not pid:
            run_and_exit(order)
        print(pid, flush=True)
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        print(ended.si_status, flush=True)
        sys.stdin.readline()
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
