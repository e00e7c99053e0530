"""Single calls that are cancelled, fail or are closed: the others go on, and nobody hangs."""

from __future__ import annotations

import asyncio
import traceback
from typing import Any

import anyio
import numpy as np
import pytest
import trio

from embedbatch import (
    AuthenticationError,
    ConfigurationError,
    ConnectionFailedError,
    Embedder,
    EmptyInputError,
    InputTooLongError,
    Limits,
    RequestRefusedError,
    RunStoppedError,
)
from embedbatch.testing import Scripted, ScriptedServer
from embedbatch.values import Batch, Chunks, Vector, Vectors

from .calling import Answer, ask, ask_all, asked, assert_answered, living
from .conftest import MakeEmbedder

pytestmark = pytest.mark.anyio

REFUSED = Scripted(status=400, body={"error": {"message": "the input is not valid"}})
DENIED = Scripted(status=401, body={"error": {"message": "no such key", "code": "invalid_api_key"}})
USED_UP = Scripted(status=429, body={"error": {"message": "no credit left", "code": "insufficient_quota"}})


# cancelled ----------------------------------------------------------------------------------------------------


async def test_cancelling_one_call_does_not_disturb_the_others(
    both_backends: object, make_embedder: MakeEmbedder
) -> None:
    """Of a hundred calls in one request fifty are cancelled while it is in flight: the others get their vectors."""
    server = ScriptedServer(latency=0.05)
    answers = [Answer(f"text {n}") for n in range(100)]

    async with make_embedder(transport=server) as embedder, anyio.create_task_group() as tasks:
        for answer in answers[:50]:
            tasks.start_soon(ask, embedder, answer)
        async with anyio.create_task_group() as doomed:
            for answer in answers[50:]:
                doomed.start_soon(ask, embedder, answer)
            await anyio.sleep(0.02)
            doomed.cancel_scope.cancel()

    assert_answered(answers[:50], server)
    assert all(answer.vector is answer.error is None for answer in answers[50:])
    assert len(server.received) == 1


async def test_one_of_two_callers_of_a_text_leaves(both_backends: object, make_embedder: MakeEmbedder) -> None:
    """The slot stays for the other, and for one who comes later."""
    server = ScriptedServer(latency=0.05)
    stays, comes = Answer("a"), Answer("a")

    async with make_embedder(transport=server) as embedder, anyio.create_task_group() as tasks:
        tasks.start_soon(ask, embedder, stays)
        tasks.start_soon(ask, embedder, comes, 0.02)
        with anyio.move_on_after(0.01):
            await ask(embedder, Answer("a"))

    assert_answered([stays, comes], server)
    assert asked(server) == [["a"]]


async def test_a_text_whose_caller_left_before_it_went_is_not_sent(make_embedder: MakeEmbedder) -> None:
    """Cancelled while it waits for the next request, a call is not in it."""
    server = ScriptedServer(latency=0.04)

    async with make_embedder(transport=server) as embedder, anyio.create_task_group() as tasks:
        tasks.start_soon(ask_all, embedder, ["a"])
        tasks.start_soon(ask, embedder, Answer("b"), 0.01)
        await anyio.sleep(0.02)
        with anyio.move_on_after(0.01):
            await embedder.embed_one("left")

    assert asked(server) == [["a"], ["b"]]


async def test_when_all_callers_have_left_the_request_is_cancelled(
    both_backends: object, make_embedder: MakeEmbedder
) -> None:
    """One request is in flight and two calls wait to go: with all three cancelled nothing is left of either."""
    server = ScriptedServer(latency=60)

    async with make_embedder(transport=server) as embedder:
        before = living()
        with anyio.move_on_after(0.03) as scope:
            await ask_all(embedder, ["a", "b", "c"], every=0.01)
        after = living()
        stats = embedder.stats()

    assert scope.cancelled_caught
    assert asked(server) == [["a"]]
    assert (server.in_flight, stats.in_flight, stats.waiting) == (0, 0, 0)
    assert after == before


async def test_a_call_after_a_cancelled_one_goes_at_once(make_embedder: MakeEmbedder) -> None:
    """Nobody waits for the first text any more: the second does not either, and the first, asked again, is sent."""
    server = ScriptedServer(latency=lambda request: 60 if request.number == 1 else 0.1)

    async with make_embedder(transport=server) as embedder:
        with anyio.move_on_after(0.01):
            await embedder.embed_one("a")
        answers = await ask_all(embedder, ["a", "b"])

    assert_answered(answers, server)
    assert [answer.seconds for answer in answers] == pytest.approx([0.1, 0.1])


async def test_a_call_in_a_cancelled_scope_sends_nothing(
    both_backends: object, server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """Cancelled before it could wait, a call leaves nothing behind."""
    async with make_embedder() as embedder:
        before = living()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await embedder.embed_one("a")
        after = living()

    assert scope.cancelled_caught
    assert server.received == []
    assert after == before


async def test_nothing_runs_on_when_the_last_call_is_answered(
    both_backends: object, make_embedder: MakeEmbedder
) -> None:
    """As soon as a call has its vector or its error, there are as many tasks as before."""
    server = ScriptedServer(latency=0.01)
    server.reply_when(lambda request: REFUSED if "bad" in request.inputs else None)

    async with make_embedder(transport=server) as embedder:
        before = living()
        await embedder.embed_one("good")
        assert living() == before
        with pytest.raises(RequestRefusedError):
            await embedder.embed_one("bad")
        assert living() == before
        await ask_all(embedder, [f"text {n}" for n in range(300)], every=0.0001)
        assert living() == before


# failed -------------------------------------------------------------------------------------------------------


async def test_one_poisoned_text_among_a_hundred_fails_alone(make_embedder: MakeEmbedder) -> None:
    """The 98 others get their vectors; both callers of the poisoned text get its error, each an instance of its own."""
    server = ScriptedServer(latency=0.1)
    server.reply_when(lambda request: REFUSED if "poison" in request.inputs else None)
    texts = [f"text {n}" for n in range(98)]

    async with make_embedder(transport=server) as embedder:
        answers = await ask_all(embedder, ["poison", *texts, "poison"])

    assert_answered(answers[1:-1], server)
    first, second = answers[0].error, answers[-1].error
    assert type(first) is type(second) is RequestRefusedError
    assert str(first) == str(second)
    assert "the input is not valid" in str(first)
    assert first.status == second.status == 400
    assert first is not second
    assert len(traceback.extract_tb(first.__traceback__)) == len(traceback.extract_tb(second.__traceback__))


async def test_inputs_that_cannot_be_sent_fail_alone(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """An empty text and one that is too long fail as document 0, whatever their place in the shared request."""
    async with make_embedder(long_input="error", max_input_tokens=16) as embedder:
        answers = await ask_all(embedder, ["a", "", "b", "x" * 17, "c"])

    assert_answered([answers[0], answers[2], answers[4]], server)
    assert asked(server) == [["a", "b", "c"]]
    assert type(answers[1].error) is EmptyInputError
    assert str(answers[1].error) == "document 0 is empty"
    assert type(answers[3].error) is InputTooLongError
    assert (answers[3].error.document, answers[3].error.limit) == (0, 16)


@pytest.mark.parametrize("bad", [None, 5, b"bytes", ["text"], {"a": 1}])
async def test_what_is_no_text_is_refused_at_once(
    bad: Any, server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """A TypeError that says what came; the calls beside it do not notice."""
    async with make_embedder() as embedder:
        answers = await ask_all(embedder, ["a", bad])

    assert_answered(answers[:1], server)
    assert isinstance(answers[1].error, TypeError)
    assert asked(server) == [["a"]]


async def test_what_stops_the_run_reaches_all_who_have_no_vector(make_embedder: MakeEmbedder) -> None:
    """A wrong key: each caller gets an error of its own with the cause, and in it nothing of the others' texts."""
    server = ScriptedServer(latency=0.1)
    server.reply_when(lambda request: DENIED)

    async with make_embedder(transport=server, dimensions=8) as embedder:
        answers = await ask_all(embedder, ["a", "b", "c", ""])

    *stopped, empty = [answer.error for answer in answers]
    assert len(server.received) == 1
    assert type(empty) is EmptyInputError
    assert len({id(error) for error in stopped}) == 3
    for error in stopped:
        assert isinstance(error, RunStoppedError)
        assert isinstance(error.__cause__, AuthenticationError)
        assert error.embeddings is not None
        assert error.embeddings.vectors.shape == (1, 8)
        assert np.isnan(error.embeddings.vectors).all()
        assert [failure.id for failure in error.embeddings.failures] == [0]
        assert error.embeddings.usage.requests == 1


async def test_a_run_that_stops_keeps_what_was_answered(make_embedder: MakeEmbedder) -> None:
    """Two requests of one round: the first is answered, then no credit is left. Only the second's callers fail."""
    server = ScriptedServer(latency=0.1)
    server.reply_when(lambda request: USED_UP if request.number == 3 else None)

    async with make_embedder(
        transport=server, limits=Limits(max_batch_inputs=2, max_concurrent_requests=1)
    ) as embedder:
        await embedder.embed(["warm"])
        answers = await ask_all(embedder, ["a", "b", "c", "d"])

    sent = [set(request.inputs) for request in server.received]
    assert_answered([answer for answer in answers if answer.content in sent[1]], server)
    assert all(isinstance(answer.error, RunStoppedError) for answer in answers if answer.content in sent[2])
    assert len(sent[1] | sent[2]) == 4


class BrokenStore:
    """Keeps nothing: its disk is full."""

    async def known(self, chunks: Chunks, /) -> dict[int, Vector]:
        return {}

    async def put(self, batch: Batch, vectors: Vectors, /) -> None:
        raise OSError("disk full")


async def test_an_error_of_a_seam_reaches_all_callers(both_backends: object, make_embedder: MakeEmbedder) -> None:
    """A store that fails: its own error comes out of every call, without the frames of the others."""
    async with make_embedder(store=BrokenStore()) as embedder:
        answers = await ask_all(embedder, [f"text {n}" for n in range(50)])

    assert {type(answer.error) for answer in answers} == {OSError}
    assert answers[0].error is not None
    assert sum(frame.name == "embed_one" for frame in traceback.extract_tb(answers[0].error.__traceback__)) == 1


# closed -------------------------------------------------------------------------------------------------------


async def test_closing_ends_the_calls_that_wait(both_backends: object, make_embedder: MakeEmbedder) -> None:
    """Closed with a call in flight and one that waits to go: both get the error at once, and nothing runs on."""
    server = ScriptedServer(latency=60)
    answers = [Answer("a"), Answer("b")]
    before = living()

    async with anyio.create_task_group() as tasks:
        async with make_embedder(transport=server) as embedder:
            for number, answer in enumerate(answers):
                tasks.start_soon(ask, embedder, answer, number * 0.01)
            await anyio.sleep(0.03)
        in_flight = server.in_flight
    with pytest.raises(ConfigurationError, match="is closed"):
        await embedder.embed_one("c")

    assert in_flight == 0
    assert living() == before
    for answer in answers:
        assert isinstance(answer.error, RunStoppedError)
        assert "is closed" in str(answer.error)
        assert isinstance(answer.error.__cause__, ConnectionFailedError)
        assert answer.error.embeddings is not None


def test_calls_do_not_outlive_trio() -> None:
    """trio.run ends while a system task waits for a vector: the call is cancelled, and nothing hangs."""
    ended: list[str] = []

    async def wait(embedder: Embedder) -> None:
        try:
            await embedder.embed_one("a")
        finally:
            ended.append("the call")

    async def main() -> None:
        embedder = Embedder("m", base_url="http://test/v1", transport=ScriptedServer(latency=60))
        trio.lowlevel.spawn_system_task(wait, embedder)
        await anyio.sleep(0.01)

    trio.run(main)

    assert ended == ["the call"]


def test_calls_do_not_outlive_asyncio() -> None:
    """asyncio.run ends while a task waits for a vector: the call is cancelled, and nothing hangs."""
    ended: list[str] = []

    async def wait(embedder: Embedder) -> None:
        try:
            await embedder.embed_one("a")
        finally:
            ended.append("the call")

    async def main() -> asyncio.Task[None]:
        embedder = Embedder("m", base_url="http://test/v1", transport=ScriptedServer(latency=60))
        task = asyncio.create_task(wait(embedder))
        await asyncio.sleep(0.01)
        return task

    task = asyncio.run(main())

    assert ended == ["the call"]
    assert task.cancelled()
