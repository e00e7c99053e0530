"""embedbatch, as a user would write it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from embedbatch import Embedder, Limits

from ..case import Case
from . import Client

DEFAULT_TRANSPORT: Literal["httpx"] = "httpx"
FAST_TRANSPORT: Literal["aiohttp"] = "aiohttp"


class Embedbatch(Client):
    """One embedder for the whole run."""

    def __init__(self, case: Case, base_url: str) -> None:
        self._streams = case.client.endswith("stream")
        self._embedder = Embedder(
            "bench",
            base_url=base_url,
            limits=Limits(
                max_batch_inputs=case.batch,
                max_concurrent_requests=case.in_flight,
                initial_concurrent_requests=case.in_flight,  # as many as the others have from the start
            ),
            transport=FAST_TRANSPORT if case.client.startswith("embedbatch-fast") else DEFAULT_TRANSPORT,
        )

    async def embed(self, texts: Sequence[str]) -> Any:
        if self._streams:
            async with self.stream(texts) as results:
                return [result.vector async for result in results]
        return (await self._embedder.embed(texts)).vectors

    async def embed_one(self, text: str) -> Any:
        return await self._embedder.embed_one(text)

    def stream(self, texts: Any) -> Any:
        return self._embedder.stream(texts)

    async def stream_file(self, source: Path) -> None:
        """Embed what the file has, and keep nothing."""
        async with self.stream(texts_of(source)) as results:
            async for _ in results:
                pass

    async def write_file(self, source: Path, destination: Path) -> None:
        """The same as a job."""
        from embedbatch import jobs  # which has what the other parts need not have in memory

        await jobs.run(source, destination, self._embedder)

    def read_file(self, destination: Path) -> Any:
        """The vectors that a job has written."""
        from embedbatch.jobs.sinks import open_result

        return np.concatenate(list(open_result(destination).blocks()))

    async def aclose(self) -> None:
        await self._embedder.aclose()


def texts_of(source: Path) -> Iterator[str]:
    """The texts in a file of JSON lines."""
    with source.open() as file:
        for line in file:
            yield json.loads(line)["text"]


def make(case: Case, base_url: str) -> Embedbatch:
    return Embedbatch(case, base_url)
