"""Single calls, and what became of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import anyio
import numpy as np
import trio

from embedbatch import Embedder
from embedbatch.testing import ScriptedServer
from embedbatch.values import Vector


@dataclass
class Answer:
    """What a call for *content* got, and after how many seconds; neither vector nor error if it was cancelled."""

    content: Any
    vector: Vector | None = None
    error: Exception | None = None
    seconds: float = 0.0


async def ask(embedder: Embedder, answer: Answer, after: float = 0.0) -> None:
    """Call for the content of *answer*, and keep what comes."""
    await anyio.sleep(after)
    began = anyio.current_time()
    try:
        answer.vector = await embedder.embed_one(answer.content)
    except Exception as error:
        answer.error = error
    answer.seconds = anyio.current_time() - began


async def ask_all(embedder: Embedder, contents: Sequence[Any], *, every: float = 0.0) -> list[Answer]:
    """A call for each of *contents*: all at once, or one *every* so many seconds."""
    answers = [Answer(content) for content in contents]
    async with anyio.create_task_group() as tasks:
        for number, answer in enumerate(answers):
            tasks.start_soon(ask, embedder, answer, number * every)
    return answers


def assert_answered(answers: Sequence[Answer], server: ScriptedServer) -> None:
    """Assert that every call got the vector of its own text, as its own array."""
    for answer in answers:
        assert answer.error is None
        assert answer.vector is not None
        np.testing.assert_array_equal(answer.vector, server.vector_of(answer.content))
        assert answer.vector.dtype == np.float32
        assert answer.vector.base is None


def asked(server: ScriptedServer) -> list[list[Any]]:
    """The inputs of each request, sorted: calls that come at one time are in any order."""
    return [sorted(request.inputs) for request in server.received]


def living() -> int:
    """How many tasks there are in this event loop."""
    if trio.lowlevel.in_trio_run():
        return trio.lowlevel.current_statistics().tasks_living
    return len(asyncio.all_tasks())
