"""embedbatch as a client."""

from __future__ import annotations

import itertools
from random import Random
from typing import Any

import anyio
import numpy as np

from embedbatch import Embedder, Embedding, Endpoint, Failure, NotAttemptedError, Retries, RunStoppedError
from embedbatch.values import Vector

from .scenario import Answered, Call, Task
from .texts import Feed

MODEL = "sim"


async def embedbatch(task: Task) -> None:
    """Do the job with one `Embedder`: its streams, and its calls beside them."""
    job = task.job
    async with make_embedder(task) as embedder:
        worker = _Worker(task, embedder)
        if job.streams == 1 and job.calls is None:
            await worker.stream(0)
            return
        async with anyio.create_task_group() as tasks:
            for number in range(job.streams):
                tasks.start_soon(worker.stream, number)
            if job.calls is not None:
                texts = Feed(task.seed + 1_000, job.text_bytes)
                for call in job.calls(Random(task.seed)):
                    tasks.start_soon(worker.call, call, list(itertools.islice(texts, call.texts)))


def make_embedder(task: Task) -> Embedder:
    """An embedder for these servers, with the settings of the job."""
    options: dict[str, Any] = {
        "transport": task.transport,
        "limits": task.job.limits,
        "retries": Retries(**task.job.retries),
        "rng": Random(task.seed),
    }
    if len(task.servers) == 1:
        (base_url,) = task.base_urls.values()
        return Embedder(MODEL, base_url=base_url, api_key="key", **options)
    endpoints = [Endpoint(name=host, base_url=url) for host, url in task.base_urls.items()]
    return Embedder(MODEL, endpoints=endpoints, api_key="key", **options)


class _Worker:
    def __init__(self, task: Task, embedder: Embedder) -> None:
        self._task = task
        self._embedder = embedder
        self._vector_of = next(iter(task.servers.values())).vector_of
        self._options: dict[str, Any] = {} if task.job.on_outage is None else {"on_outage": task.job.on_outage}

    async def stream(self, number: int) -> None:
        """Embed a supply of documents, and account for each of them."""
        job, outcome = self._task.job, self._task.outcome
        changed = job.changed(self._task.seed) if job.changed else None
        feed = Feed(self._task.seed + number, job.text_bytes, job.documents, changed)
        try:
            async with self._embedder.stream(feed, ordered=False, **self._options) as results:
                async for result in results:
                    self._note(result, feed)
        except RunStoppedError as error:
            outcome.notes.append(str(error.__cause__))
        finally:
            outcome.taken += feed.taken
        outcome.ended_at = anyio.current_time()

    async def call(self, call: Call, texts: list[str]) -> None:
        """Make one call when its time has come."""
        await anyio.sleep(call.at)
        waiting = self._embedder.stats().waiting
        answered = Answered(call, anyio.current_time(), waiting, sum(map(len, texts)))
        self._task.outcome.calls.append(answered)
        embeddings = await self._embedder.embed(texts, **self._options)
        answered.ended_at = anyio.current_time()
        for text, vector in zip(texts, embeddings, strict=True):
            self._check(text, vector)

    def _note(self, result: Embedding | Failure, feed: Feed) -> None:
        outcome = self._task.outcome
        if isinstance(result, Embedding):
            outcome.embedded += 1
            if result.position % self._task.job.checked == 0:
                self._check(feed.text(result.position), result.vector)
        elif isinstance(result.error, NotAttemptedError):
            outcome.not_attempted += 1
        else:
            outcome.failed += 1

    def _check(self, text: str, vector: Vector) -> None:
        if not np.array_equal(vector, self._vector_of(text)):
            self._task.outcome.wrong += 1
