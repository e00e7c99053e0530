"""A server that refuses one thing after the other, from a cold start; and lessons that are handed on."""

from __future__ import annotations

import json
import math
from typing import Any

import anyio
import pytest

from embedbatch import (
    CapLearned,
    Endpoint,
    Event,
    FormLearned,
    Limits,
    RequestRefusedError,
    RunStoppedError,
)
from embedbatch.testing import Received, Scripted, ScriptedServer

from .conftest import MakeEmbedder, assert_aligned
from .refusing import NO_BASE64, TOO_MANY, UNNAMED, asks_for, refuses, says

pytestmark = pytest.mark.anyio

TEXTS = [f"text {n}" for n in range(300)]


def too_many(request: Received) -> bool:
    """More than 32 inputs."""
    return len(request.inputs) > 32


def too_large(request: Received) -> bool:
    """More than 2,000,000 bytes."""
    return request.size > 2_000_000


LARGE = [f"{n:05}" + "x" * 99_990 for n in range(120)]  # 20 of them are too much
ROOM = Limits(max_batch_bytes=8_000_000, max_batch_tokens=10**9, max_window_bytes=10**9)
WIDE = Endpoint(
    name="wide",
    base_url="http://test/v1",
    max_request_bytes=8_000_000,
    max_request_tokens=10**9,
    max_input_tokens=10**6,
)


@pytest.mark.parametrize(
    ("base64", "count", "body", "bound"),
    [
        # Named, each lesson costs one request.
        (NO_BASE64, TOO_MANY, Scripted(status=413, body=b"length limit exceeded"), 3),
        # Without a word: a batch and a text for the encoding; up to 20 for the cap on inputs; and for bytes, which are
        # found to within 5 % by halving, one for each halving between 8 MB and that.
        (UNNAMED, UNNAMED, Scripted(status=413), 2 + 20 + math.ceil(math.log2(8 / (0.05 * 2)))),
    ],
    ids=["named", "unnamed"],
)
async def test_three_lessons_from_a_cold_start(
    base64: Scripted, count: Scripted, body: Scripted, bound: int, make_embedder: MakeEmbedder
) -> None:
    """
    A server that refuses base64, then more than 32 inputs, then more than 2 MB: all is embedded, no more requests are
    refused than the lessons cost, and a second run costs none.
    """
    server = refuses((asks_for("base64"), base64), (too_many, count), (too_large, body))
    texts = [f"short {n}" for n in range(2_000)] + LARGE
    events: list[Event] = []

    async with make_embedder(
        transport=server, endpoint=WIDE, limits=ROOM, max_input_tokens=10**6, observe=events.append
    ) as embedder:
        embeddings = await embedder.embed(texts)
        refused = sum(map(is_refused, server.received))
        before = len(server.received)
        await embedder.embed(texts)
        lessons, stats = embedder.lessons, embedder.stats()

    assert_aligned(embeddings, texts, server)
    assert refused <= bound
    assert sum(map(is_refused, server.received[before:])) <= (0 if base64 is NO_BASE64 else 2)
    assert stats.forms == {"wide encoding_format": "float"}
    assert stats.caps["wide inputs"] == 32
    assert lessons["test-model at http://test/v1/embeddings"]["encoding_format"] == "float"
    learned = [event for event in events if isinstance(event, FormLearned | CapLearned)]
    assert len(learned) == len(set(learned))


def is_refused(request: Received) -> bool:
    """True for what this server refuses."""
    return asks_for("base64")(request) or too_many(request) or too_large(request)


async def test_lessons_go_from_one_embedder_to_the_next(make_embedder: MakeEmbedder) -> None:
    """What one has paid for, as JSON, saves the next one all of it; what is about another server is not used."""
    server = refuses((asks_for("base64"), NO_BASE64), (too_many, TOO_MANY))

    async with make_embedder(transport=server) as first:
        assert first.lessons == {}
        await first.embed(TEXTS)
        lessons = json.loads(json.dumps(first.lessons))
    paid = len(server.received)
    async with make_embedder(transport=server) as second:
        second.recall(lessons)
        await second.embed(TEXTS)
        assert second.lessons == lessons

    assert not any(map(is_refused, server.received[paid:]))
    assert lessons == {"test-model at http://test/v1/embeddings": {"encoding_format": "float", "max_inputs": 32}}
    async with make_embedder(transport=server, base_url="http://other/v1") as third:
        third.recall(lessons)
        assert third.lessons == {}


@pytest.mark.parametrize(
    "garbage",
    [
        {"encoding_format": "hex", "dimensions": "no", "token_arrays": 0, "max_inputs": "many", "max_bytes": -1},
        {"max_inputs": True, "max_tokens": None, "max_bytes": 0, "something": {"else": []}},
        {"encoding_format": []},
        ["max_inputs", 5],
        None,
    ],
)
async def test_lessons_that_make_no_sense_are_passed_over(garbage: Any, make_embedder: MakeEmbedder) -> None:
    """Of a journal that was damaged, or is of another version, nothing is believed that cannot be."""
    server = ScriptedServer()

    async with make_embedder(transport=server) as embedder:
        embedder.recall({"test-model at http://test/v1/embeddings": garbage})
        await embedder.embed(TEXTS)
        assert embedder.lessons == {}

    assert [len(request.inputs) for request in server.received] == [256, 44]


async def test_many_runs_at_once_pay_for_a_form_once(make_embedder: MakeEmbedder) -> None:
    """20 calls together against a server that refuses base64 without a word: what one call alone would pay."""
    server = refuses((asks_for("base64"), UNNAMED))

    async with make_embedder(transport=server) as embedder, anyio.create_task_group() as tasks:
        for n in range(20):
            tasks.start_soon(embedder.embed, [f"{n} {text}" for text in TEXTS[:50]])

    assert sum(map(asks_for("base64"), server.received)) == 2


async def test_nothing_helps_where_every_form_is_refused(make_embedder: MakeEmbedder) -> None:
    """A server that wants another field refuses all forms: the run stops with its words."""
    server = refuses((lambda request: True, says("input_type is required")))

    async with make_embedder(transport=server, dimensions=8) as embedder:
        with pytest.raises(RunStoppedError, match="input_type is required") as caught:
            await embedder.embed(TEXTS)

    assert isinstance(caught.value.__cause__, RequestRefusedError)
    assert len(server.received) <= 1 + 2 * 5


async def test_replies_that_no_form_makes_whole_fail(make_embedder: MakeEmbedder) -> None:
    """One vector for many inputs, always: the texts are sent alone in the end, where one is right."""
    server = ScriptedServer()
    server.edit(lambda request, body: {**body, "data": body["data"][:1]})

    async with make_embedder(transport=server) as embedder:
        embeddings = await embedder.embed(TEXTS[:8])

    assert_aligned(embeddings, TEXTS[:8], server)
    assert max(len(request.inputs) for request in server.received[-4:]) <= 2
