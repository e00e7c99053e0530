"""
Three simple clients, and one to compare with, written anew from what is published about the originals.

They send batches of a fixed number of texts, and take a 200 for granted: they do not look into it.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

import anyio
import httpx

from .scenario import Client, Task
from .texts import Feed

TIMEOUT = 300.0
HEADERS = {"content-type": "application/json", "authorization": "Bearer key"}


@dataclass(slots=True)
class _Batch:
    request: httpx.Request
    documents: int
    tokens: float
    attempts: int = 0


class _Sender:
    """What the clients have in common: batches, and a way to send one."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.outcome = task.outcome
        self.rng = Random(task.seed)
        self._url = f"{next(iter(task.base_urls.values()))}/embeddings"
        self._client = httpx.AsyncClient(transport=task.transport, trust_env=False, timeout=None)
        self._batches = self._cut()

    def _cut(self) -> Iterator[_Batch]:
        job, seed = self.task.job, self.task.seed
        feed = Feed(seed, job.text_bytes, job.documents, job.changed(seed) if job.changed else None)
        texts = iter(feed)
        while batch := list(itertools.islice(texts, job.batch)):
            body = json.dumps({"model": "sim", "input": batch, "encoding_format": "base64"}).encode()
            self.outcome.taken += len(batch)
            request = self._client.build_request("POST", self._url, content=body, headers=HEADERS)
            yield _Batch(request, len(batch), sum(map(len, batch)) / 4)

    def next(self) -> _Batch | None:
        """The next batch that was never sent."""
        return next(self._batches, None)

    async def post(self, batch: _Batch) -> int:
        """Send *batch*; return the status of the reply, or 0 where there was none."""
        batch.attempts += 1
        try:
            with anyio.fail_after(TIMEOUT):
                response = await self._client.send(batch.request)
        except (httpx.TransportError, TimeoutError):
            return 0
        if response.status_code == 200:
            self.outcome.embedded += batch.documents
        return response.status_code

    def give_up(self, batch: _Batch) -> None:
        """Count the documents of *batch* as failed."""
        self.outcome.failed += batch.documents


async def cookbook(task: Task) -> None:
    """
    The OpenAI cookbook's `api_request_parallel_processor`.

    Capacity for a full minute at the start, and added continuously; a loop that turns every millisecond and starts
    at most one request each time; after a 429 nothing starts for 15 s; 5 attempts, the failed ones before new ones.
    Where there is no quota to configure it has its defaults: 1,500 requests and 125,000 tokens a minute. Its check
    for 429 compares the error's code with "429", which OpenAI's is not; here the pause works.
    """
    sender = _Sender(task)
    max_requests = task.job.requests_per_minute or 1_500.0
    max_tokens = task.job.tokens_per_minute or 125_000.0
    requests, tokens, updated_at = max_requests, max_tokens, anyio.current_time()
    limited_at = -math.inf
    failed: deque[_Batch] = deque()
    in_progress = 0
    came_back = anyio.Event()

    async def call(batch: _Batch) -> None:
        nonlocal in_progress, limited_at
        status = await sender.post(batch)
        in_progress -= 1
        if status == 429:
            limited_at = anyio.current_time()
        if status != 200 and batch.attempts < 5:
            failed.append(batch)
        elif status != 200:
            sender.give_up(batch)
        came_back.set()

    async with anyio.create_task_group() as tasks:
        while True:
            batch = failed.popleft() if failed else sender.next()
            if batch is None:
                if not in_progress:
                    break
                came_back = anyio.Event()
                await came_back.wait()
                continue
            while True:
                now = anyio.current_time()
                requests = min(max_requests, requests + max_requests * (now - updated_at) / 60)
                tokens = min(max_tokens, tokens + max_tokens * (now - updated_at) / 60)
                updated_at = now
                missing = max((1 - requests) / max_requests, (batch.tokens - tokens) / max_tokens) * 60
                if missing <= 0:
                    break
                await anyio.sleep(math.ceil(missing * 1_000 + 1e-6) / 1_000)  # as the loop of 1 ms would
                await anyio.sleep(max(0.0, limited_at + 15 - anyio.current_time()))
            requests -= 1
            tokens -= batch.tokens
            in_progress += 1
            tasks.start_soon(call, batch)
            await anyio.sleep(0.001)
            await anyio.sleep(max(0.0, limited_at + 15 - anyio.current_time()))
    sender.outcome.ended_at = anyio.current_time()


async def backoff_32(task: Task) -> None:
    """
    32 in flight; tenacity's `wait_random_exponential(min=1, max=60)` and `stop_after_attempt(6)`.

    The decorator that OpenAI's guide to rate limits shows. What the server asks for is not looked at.
    """
    sender = _Sender(task)

    def wait(attempts: int) -> float:
        return sender.rng.uniform(1.0, max(1.0, min(60.0, 2.0 ** (attempts - 1))))

    await _in_parallel(sender, 32, 6, wait)


async def semaphore_128(task: Task) -> None:
    """
    A semaphore of 128, and four quick retries: 125 ms, each wait four times the last, no more than 45 s.

    The defaults of baseten-performance-client.
    """
    await _in_parallel(_Sender(task), 128, 5, lambda attempts: min(45.0, 0.125 * 4 ** (attempts - 1)))


def fixed(in_flight: int) -> Client:
    """A client that keeps so many in flight, and sends again at once what was refused."""

    async def client(task: Task) -> None:
        await _in_parallel(_Sender(task), in_flight, 1_000, lambda _: 0.0)

    return client


async def _in_parallel(sender: _Sender, in_flight: int, attempts: int, wait: Callable[[int], float]) -> None:
    """So many tasks, each with one batch at a time, and so many attempts of each batch; *wait* says how far apart."""

    async def work() -> None:
        while (batch := sender.next()) is not None:
            while await sender.post(batch) != 200:
                if batch.attempts == attempts:
                    sender.give_up(batch)
                    break
                await anyio.sleep(wait(batch.attempts))

    async with anyio.create_task_group() as tasks:
        for _ in range(in_flight):
            tasks.start_soon(work)
    sender.outcome.ended_at = anyio.current_time()


CLIENTS: dict[str, Client] = {
    "cookbook": cookbook,
    "backoff-32": backoff_32,
    "semaphore-128": semaphore_128,
}
