"""A server that counts, jobs that are killed, and what they have left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, Literal, TypeAlias

import httpx
import msgspec

from embedbatch.plan.chunker import Chunker
from embedbatch.plan.documents import Source
from embedbatch.plan.tokens import ByteBound
from embedbatch.testing import Received, ScriptedServer

from ..contract.loopback import ROOT
from .child import Order
from .corpus import MAX_INPUT_TOKENS, Corpus, ask, refuse

Moment: TypeAlias = "tuple[Literal['reply', 'disk', 'time'], float, bool]"
"""When a job is killed: at the nth reply, at the nth operation of the disk (before or after it), after some seconds."""


class CountingServer(ScriptedServer):
    """
    Counts every text that it has answered: *answered* in all, *in_this_run* since the run began.

    Right after it has made reply *kill_after* of the run it kills the process *victim*.
    """

    def __init__(self, seed: int, **options: Any) -> None:
        self._dice = Random(seed)
        super().__init__(latency=lambda request: self._dice.uniform(0, 0.003), **options)
        self.reply_when(self._forget_and_refuse)
        self.answered: Counter[str] = Counter()
        self.in_this_run: set[str] = set()
        self.replies = 0
        self.kill_after: int | None = None
        self.victim: int | None = None
        self._news = threading.Condition()

    def begin(self, kill_after: int | None) -> None:
        """Another run begins."""
        self.in_this_run = set()
        self.replies = 0
        self.kill_after = kill_after
        self.victim = None

    def wait_until_idle(self) -> None:
        """Return when all that was received is answered."""
        with self._news:
            assert self._news.wait_for(lambda: not self.in_flight, 30)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        if response.status_code == 200:
            texts = msgspec.json.decode(await request.aread())["input"]
            self.answered.update(texts)
            self.in_this_run.update(texts)
            self.replies += 1
            if self.replies == self.kill_after and self.victim is not None:
                os.kill(self.victim, signal.SIGKILL)
        with self._news:
            self._news.notify_all()
        return response

    def _forget_and_refuse(self, request: Received) -> Any:
        self.received.clear()  # it counts, and needs no memory of every request
        return refuse(request)


class Children:
    """The processes that run jobs."""

    def __init__(self, program: subprocess.Popen[str], server: CountingServer) -> None:
        self._program = program
        self._server = server

    def run(self, order: Order, moment: Moment | None) -> bool:
        """Run a job, and kill it at that *moment*; return whether it was killed. Otherwise it is finished."""
        kind, when, after = moment or ("none", 0, False)
        if kind == "disk":
            order = msgspec.structs.replace(order, kill_at=int(when), after=after)
        self._server.begin(int(when) if kind == "reply" else None)
        self._say(msgspec.json.encode(order).decode())
        pid = int(self._hear())
        self._server.victim = pid
        timer = threading.Timer(when, os.kill, (pid, signal.SIGKILL))
        if kind == "time":
            timer.start()
        status = int(self._hear())
        timer.cancel()
        if kind == "time":
            timer.join()
        self._server.wait_until_idle()
        self._server.victim = None
        self._say("")  # now its id may be given to another process
        assert status in (0, signal.SIGKILL), f"the job ended with {status} at {moment}"
        return status == signal.SIGKILL

    def _say(self, line: str) -> None:
        assert self._program.stdin is not None
        self._program.stdin.write(f"{line}\n")
        self._program.stdin.flush()

    def _hear(self) -> str:
        assert self._program.stdout is not None
        return self._program.stdout.readline()


@contextmanager
def children_of(server: CountingServer) -> Iterator[Children]:
    """The program that runs jobs, for as long as the block lasts."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-m", "tests.crash.child"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=ROOT, text=True
    ) as program:
        assert program.stdin is not None
        try:
            yield Children(program, server)
        finally:
            program.stdin.close()


class Chunked:
    """The chunks of each document of a corpus."""

    def __init__(self, corpus: Corpus) -> None:
        chunker = Chunker(max_input_tokens=MAX_INPUT_TOKENS, tokenizer=ByteBound(), count_tokens=True)
        sources = (Source(position, position, text) for position, text in enumerate(corpus.texts))
        self._texts: dict[int, list[str]] = {}
        chunks = chunker.plan(sources).chunks
        for document, wire in zip(chunks.documents, chunks.inputs, strict=True):
            self._texts.setdefault(document, []).append(msgspec.json.decode(wire))

    def texts(self, documents: Sequence[int]) -> set[str]:
        """What is sent for those *documents*."""
        return {text for document in documents for text in self._texts.get(document, ())}

    def durable(self, journal: Path, part_rows: int) -> set[str]:
        """The texts whose vectors would not be asked for again, going by the ledger of the *journal*."""
        complete = [number for (number,) in ask(journal, "SELECT number FROM parts WHERE is_complete")]
        texts = self.texts([row for part in complete for row in range(part * part_rows, (part + 1) * part_rows)])
        for part, first, rows in ask(journal, "SELECT part, first, rows FROM runs_of_rows"):
            begin = part * part_rows + first
            texts |= self.texts(range(begin, begin + rows))
        for part, row, number in ask(journal, "SELECT part, row, number FROM chunks"):
            texts.add(self._texts[part * part_rows + row][number])
        return texts


def draw(rng: Random, replies: int, operations: int, seconds: float) -> Moment:
    """A moment of one of the three kinds, at most that far into a run."""
    match rng.choice(["reply", "disk", "time"]):
        case "reply":
            return "reply", rng.randint(1, replies), False
        case "disk":
            return "disk", rng.randint(1, operations), rng.random() < 0.5
    return "time", rng.uniform(0, seconds), False
