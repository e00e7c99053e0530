"""What the tests of http share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest
import respx

from embedbatch import (
    Embedder,
    Failure,
    RunStoppedError,
)

VECTOR = [0.5, -0.25, 1.0]


def reply(vectors: int = 1) -> dict[str, Any]:
    """A reply as OpenAI sends it, with the same vector every time."""
    data = [{"object": "embedding", "index": index, "embedding": VECTOR} for index in range(vectors)]
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    return {"object": "list", "data": data, "model": "test-model", "usage": usage}


def sent(route: respx.Route) -> httpx.Request:
    """The one request that came."""
    assert route.call_count == 1
    request: httpx.Request = route.calls.last.request
    return request


async def fail_one(embedder: Embedder) -> Failure:
    """Embed one text, with which the run goes to its end; return its failure."""
    async with embedder:
        with anyio.fail_after(10):
            embeddings = await embedder.embed(["a"], on_failure="collect")
    return embeddings.failures[0]


async def give_up_one(embedder: Embedder) -> Failure:
    """Embed one text until its attempts are used up, and the run stops because of that; return its failure."""
    async with embedder:
        with anyio.fail_after(10), pytest.raises(RunStoppedError) as caught:
            await embedder.embed(["a"], on_failure="collect")
    assert caught.value.embeddings is not None
    (failure,) = caught.value.embeddings.failures
    assert caught.value.__cause__ is failure.error
    return failure


async def stop_one(embedder: Embedder) -> BaseException | None:
    """Embed one text; return what stopped the run."""
    async with embedder:
        with pytest.raises(RunStoppedError) as caught:
            await embedder.embed(["a"])
    return caught.value.__cause__


async def stopped_by(embedder: Embedder, texts: list[str]) -> list[Failure]:
    """Assert that embedding *texts* stops because of what the first fails with; return the failures."""
    with pytest.raises(RunStoppedError) as caught:
        await embedder.embed(texts, on_failure="collect")
    assert caught.value.embeddings is not None
    failures = list(caught.value.embeddings.failures)
    assert len(failures) == len(texts)
    assert caught.value.__cause__ is failures[0].error
    return failures


class Body(httpx.AsyncByteStream):
    """A streamed body that counts what is read of it."""

    def __init__(self, parts: list[bytes], then: Exception | None = None) -> None:
        self.parts = parts
        self.read = 0
        self.is_closed = False
        self._then = then

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self.parts:
            await anyio.lowlevel.checkpoint()
            self.read += len(part)
            yield part
        if self._then is not None:
            raise self._then

    async def aclose(self) -> None:
        self.is_closed = True
