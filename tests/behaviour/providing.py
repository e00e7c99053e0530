"""Requests to a simulated provider, and what came of them."""

from __future__ import annotations

from typing import Any

import anyio
import httpx
import msgspec

from embedbatch.testing import ProviderSimulator, RequestRecord


async def ask(provider: httpx.AsyncBaseTransport, inputs: Any, *, host: str = "test", **fields: Any) -> httpx.Response:
    """One request, as a client sends it."""
    body = {"model": "test-model", "input": inputs, **fields}
    request = httpx.Request("POST", f"http://{host}/v1/embeddings", content=msgspec.json.encode(body))
    return await provider.handle_async_request(request)


async def ask_together(provider: ProviderSimulator, count: int, inputs: Any = "a") -> None:
    """So many requests at the same time, all answered."""
    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(ask, provider, inputs)


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error in a reply of OpenAI's shape."""
    error: dict[str, Any] = response.json()["error"]
    return error


def seconds_taken(record: RequestRecord) -> float:
    """From arrival to answer."""
    assert record.answered_at is not None
    return record.answered_at - record.at
