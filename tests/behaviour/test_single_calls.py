"""Single calls share requests: few of them, nobody waits for long, and each gets its own vector."""

from __future__ import annotations

from contextvars import ContextVar

import anyio
import numpy as np
import pytest

from embedbatch import Embedder, Event, Limits
from embedbatch.settings import LINGER
from embedbatch.testing import ScriptedServer
from embedbatch.values import Vector

from .calling import Answer, ask, ask_all, asked, assert_answered
from .conftest import MakeEmbedder, warm_up

pytestmark = pytest.mark.anyio

ONE_AT_A_TIME = Limits(max_concurrent_requests=1)


# requests -----------------------------------------------------------------------------------------------------


async def test_two_thousand_calls_at_once_are_eight_requests(
    both_backends: object, make_embedder: MakeEmbedder
) -> None:
    """2,000 concurrent calls share requests of 256 texts, and each gets the vector of its own text."""
    server = ScriptedServer(latency=0.01)

    async with make_embedder(transport=server) as embedder:
        answers = await ask_all(embedder, [f"text {n}" for n in range(2_000)])

    assert_answered(answers, server)
    assert len(server.received) == 8


async def test_a_lone_call_goes_at_once(make_embedder: MakeEmbedder) -> None:
    """One after the other, calls take the time of their requests and not a moment more."""
    server = ScriptedServer(latency=0.03)

    async with make_embedder(transport=server) as embedder:
        answers = [(await ask_all(embedder, [text]))[0] for text in ("a", "b", "c")]

    assert_answered(answers, server)
    assert asked(server) == [["a"], ["b"], ["c"]]
    assert [answer.seconds for answer in answers] == pytest.approx([0.03] * 3)


async def test_calls_that_come_meanwhile_share_the_next_request(make_embedder: MakeEmbedder) -> None:
    """While one request is in flight three calls come: they go together, as soon as it is back."""
    server = ScriptedServer(latency=0.04)

    async with make_embedder(transport=server) as embedder:
        answers = await ask_all(embedder, ["a", "b", "c", "d"], every=0.01)

    assert_answered(answers, server)
    assert asked(server) == [["a"], ["b", "c", "d"]]
    assert [answer.seconds for answer in answers] == pytest.approx([0.04, 0.07, 0.06, 0.05])


async def test_a_steady_stream_of_calls_shares_requests_and_waits_little(make_embedder: MakeEmbedder) -> None:
    """500 calls a second for 4 s, replies after 100 ms: 20 requests a second, and no wait above the bound."""
    server = ScriptedServer(latency=0.1)

    async with make_embedder(transport=server) as embedder:
        await warm_up(embedder, server, places=4)
        answers = await ask_all(embedder, [f"text {n}" for n in range(2_000)], every=0.002)

    assert_answered(answers, server)
    assert len(server.received) <= 4 / LINGER + 2
    assert max(answer.seconds for answer in answers) <= 0.1 + LINGER + 0.001


async def test_a_stuck_request_holds_nobody_up(make_embedder: MakeEmbedder) -> None:
    """A reply takes an hour: the next call waits 0.05 s for it, and those after that go at once."""
    server = ScriptedServer(latency=lambda request: 3_600.0 if request.inputs == ["stuck"] else 0.1)
    stuck, rest = Answer("stuck"), []

    async with make_embedder(transport=server, timeout=None) as embedder:
        await embedder.embed(["warm"])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, embedder, stuck)
            await anyio.sleep(0.01)
            for text in ("a", "b", "c"):
                rest += await ask_all(embedder, [text])
            tasks.cancel_scope.cancel()

    assert stuck.vector is None
    assert_answered(rest, server)
    assert [answer.seconds for answer in rest] == pytest.approx([0.1 + LINGER, 0.1, 0.1])


async def test_calls_that_wait_for_capacity_go_together(make_embedder: MakeEmbedder) -> None:
    """One request a second may go: 1,000 calls in 5 s are 10 requests at most, not one every 0.05 s in a queue."""
    server = ScriptedServer(latency=0.1)

    async with make_embedder(transport=server, limits=Limits(max_requests_per_minute=60, burst=1)) as embedder:
        answers = await ask_all(embedder, [f"text {n}" for n in range(1_000)], every=0.005)

    assert_answered(answers, server)
    assert len(server.received) <= 10
    assert max(answer.seconds for answer in answers) <= 4


# sharing ------------------------------------------------------------------------------------------------------


async def test_identical_texts_share_one_place(both_backends: object, make_embedder: MakeEmbedder) -> None:
    """A hundred calls for three texts are three inputs; what one caller does to its vector no other sees."""
    server = ScriptedServer(latency=0.01)

    async with make_embedder(transport=server) as embedder:
        answers = await ask_all(embedder, ["a", "b", "b", "c"] * 25)

    assert_answered(answers, server)
    assert asked(server) == [["a", "b", "c"]]
    assert answers[0].vector is not None
    answers[0].vector[:] = 0
    assert_answered(answers[1:], server)


async def test_a_text_that_is_in_flight_is_not_sent_again(make_embedder: MakeEmbedder) -> None:
    """A call for a text that is in flight, or waits to go, gets that vector; once it is there, a new call asks anew."""
    server = ScriptedServer(latency=0.1)

    async with make_embedder(transport=server) as embedder:
        answers = await ask_all(embedder, ["a", "a", "b", "b", "a"], every=0.03)
        answers += await ask_all(embedder, ["a"])

    assert_answered(answers, server)
    assert asked(server) == [["a"], ["b"], ["a"], ["a"]]
    assert answers[1].seconds == pytest.approx(0.07)


async def test_token_arrays_share_by_their_tokens(server: ScriptedServer) -> None:
    """A list, a tuple and an array of the same tokens are one input; a text of the same digits is another."""
    async with Embedder("text-embedding-3-small", api_key="k", transport=server, dimensions=8) as embedder:
        answers = await ask_all(embedder, [[1, 2], (1, 2), np.array([1, 2]), "1 2"])

    assert sorted(str(request.inputs) for request in server.received) == ["['1 2']", "[[1, 2]]"]
    assert all(answer.error is None for answer in answers)
    for answer in answers[:3]:
        np.testing.assert_array_equal(answer.vector, server.vector_of([1, 2]))


async def test_long_texts_share_a_request_too(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """A text above the limit is split and pooled, beside others that are not."""
    long = "Some words. " * 4_000

    async with make_embedder("text-embedding-3-small", dimensions=8) as embedder:
        alone = await embedder.embed([long])
        server.received.clear()
        answers = await ask_all(embedder, ["a", long, "b"])

    assert_answered([answers[0], answers[2]], server)
    np.testing.assert_array_equal(answers[1].vector, alone.vectors[0])
    assert [len(request.inputs) for request in server.received] == [4]


# beside other work --------------------------------------------------------------------------------------------


async def test_calls_together_go_ahead_of_bulk_work(make_embedder: MakeEmbedder) -> None:
    """With all places taken, and 20 bulk calls in the queue, 100 queries are in one of the next requests that go."""
    server = ScriptedServer(latency=1.0)
    bulk = Limits(max_concurrent_requests=4, max_batch_inputs=100)

    async with make_embedder(transport=server, limits=bulk) as embedder:
        await warm_up(embedder, server, places=4)
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(embedder.embed, [f"bulk {n}" for n in range(1_000)])
            await anyio.sleep(0.5)
            before = len(server.received)
            answers = await ask_all(embedder, [f"query {n}" for n in range(100)])
            tasks.cancel_scope.cancel()

    assert_answered(answers, server)
    assert before == 4
    assert sorted(answer.content for answer in answers) in asked(server)[4:8]
    assert max(answer.seconds for answer in answers) == pytest.approx(1.5, abs=0.1)


async def test_embedders_that_share_a_limiter_share_no_requests(make_embedder: MakeEmbedder) -> None:
    """Each sends its own: they may have other models, keys or headers."""
    one, two = ScriptedServer(latency=0.1), ScriptedServer(latency=0.1)

    async with (
        make_embedder(transport=one, limits=ONE_AT_A_TIME) as first,
        make_embedder(transport=two, limiter=first.limiter) as second,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(ask_all, first, ["a", "b"])
        tasks.start_soon(ask_all, second, ["a", "b"])

    assert asked(one) == asked(two) == [["a", "b"]]


async def test_what_is_shared_runs_in_nobodys_context(both_backends: object, make_embedder: MakeEmbedder) -> None:
    """What the caller who came first has in its context variables is not seen where the others' work is done."""
    whose: ContextVar[str] = ContextVar("whose", default="nobody's")
    seen: set[str] = set()

    def observe(event: Event) -> None:
        seen.add(whose.get())

    async with make_embedder(observe=observe) as embedder:
        whose.set("the test's")
        await embedder.embed_one("a")
        assert seen == {"nobody's"}
        await embedder.embed(["a"])

    assert seen == {"nobody's", "the test's"}


async def test_an_embedder_needs_no_block(both_backends: object, make_embedder: MakeEmbedder) -> None:
    """Used without `async with` and never closed: calls are answered, and nothing of theirs runs on."""
    server = ScriptedServer(latency=0.01)
    embedder = make_embedder(transport=server)

    answers = await ask_all(embedder, ["a", "b"])
    answers += await ask_all(embedder, ["c"])

    assert_answered(answers, server)
    assert embedder.stats().in_flight == server.in_flight == 0


async def test_the_first_call_of_a_round_takes_nobody_with_it(
    both_backends: object, make_embedder: MakeEmbedder
) -> None:
    """Two calls share a request; whichever began it, the one that is cancelled does not disturb the other."""
    server = ScriptedServer(latency=0.05)
    vectors: dict[str, Vector] = {}

    async def call(text: str, seconds: float | None) -> None:
        with anyio.move_on_after(seconds):
            vectors[text] = await embedder.embed_one(text)

    async with make_embedder(transport=server) as embedder:
        for first, second in [("early", "late"), ("late", "early")]:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call, first, 0.01 if first == "early" else None)
                tasks.start_soon(call, second, 0.01 if second == "early" else None)
            assert vectors.keys() == {"late"}
            np.testing.assert_array_equal(vectors.pop("late"), server.vector_of("late"))

    assert asked(server) == [["early", "late"]] * 2
