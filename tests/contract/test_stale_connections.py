"""
Real sockets: servers that close connections between requests, as balancers and restarted servers do.

A connection that was kept alive and is closed before any of the reply came costs nothing: the request goes again at
once, over a new one. A new connection that is closed is a fault like any other.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random

import anyio
import anyio.abc
import numpy as np
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream

from embedbatch import AttemptFailed, Embedder, Embeddings, Event, Limits, Retries, RunStoppedError

from . import raw
from .raw import listen, read_body, right_reply, vectors_of

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("every_transport")]

TEXTS = ["first", "second 🌊", "third"]


class Balancer:
    """
    Answers *keeps* requests of a connection right, and ends the next one in the way of *ends*.

    ``"after reading"`` closes when the request has come, ``"reset"`` in the hard way, ``"idle"`` closes as soon as it
    has answered, ``"garbage"`` says something that is no HTTP. A request that has *deadly* in it ends any connection.
    """

    def __init__(self, *, keeps: Callable[[int], int], ends: str) -> None:
        self.base_url = ""
        self.deadly = b"\0"
        self.requests = 0
        self.connections = 0
        self._keeps = keeps
        self._ends = ends

    async def converse(self, stream: anyio.abc.SocketStream) -> None:
        """Serve one connection."""
        self.connections += 1
        keeps = self._keeps(self.connections)
        received = BufferedByteReceiveStream(stream)
        try:
            async with stream:
                for _ in range(keeps):
                    body = await read_body(received)
                    self.requests += 1
                    if self.deadly in body:
                        return
                    await stream.send(right_reply(body))
                if self._ends != "idle":
                    await self._end(received, stream)
        except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError):
            pass

    async def _end(self, received: BufferedByteReceiveStream, stream: anyio.abc.SocketStream) -> None:
        await read_body(received)
        self.requests += 1
        if self._ends == "garbage":
            await stream.send(b"Welcome to nginx!\r\n\r\n")
        if self._ends == "reset":
            at_once = struct.pack("ii", 1, 0)
            stream.extra(anyio.abc.SocketAttribute.raw_socket).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)


@asynccontextmanager
async def balance(*, keeps: Callable[[int], int] | int = 1, ends: str) -> AsyncIterator[Balancer]:
    """Serve so on loopback; *keeps* may depend on the number of the connection."""
    balancer = Balancer(keeps=keeps if callable(keeps) else lambda _: keeps, ends=ends)
    async with listen(balancer.converse) as port:
        balancer.base_url = f"http://127.0.0.1:{port}/v1"
        yield balancer


def connect(balancer: Balancer, events: list[Event], **options: object) -> Embedder:
    """An embedder whose retries wait 20 s: a test that needs one would not end in time."""
    patient = Retries(max_attempts=2, initial_wait=20.0)
    defaults = {
        "base_url": balancer.base_url,
        "timeout": 10.0,
        "retries": patient,
        "rng": Random(7),
        "transport": raw.over,
    }
    return Embedder("test-model", observe=events.append, **{**defaults, **options})  # type: ignore[arg-type]


def faults(events: list[Event]) -> list[str]:
    """The kinds of the attempts that failed."""
    return [event.kind for event in events if isinstance(event, AttemptFailed)]


def assert_right(embeddings: Embeddings) -> None:
    """Assert that the vectors are those of TEXTS."""
    np.testing.assert_array_equal(embeddings.vectors, vectors_of(TEXTS))


@pytest.mark.parametrize("ends", ["after reading", "reset", "idle"])
async def test_a_connection_that_was_closed_meanwhile_costs_no_attempt(ends: str) -> None:
    """Every connection serves one request and ends with the second: ten calls, ten connections, no fault."""
    events: list[Event] = []

    async with balance(ends=ends) as balancer, connect(balancer, events) as embedder:
        with anyio.fail_after(10):
            for _ in range(10):
                assert_right(await embedder.embed(TEXTS))
        stats = embedder.stats()

    assert faults(events) == []
    assert (stats.requests, stats.replies) == (10, 10)
    assert balancer.connections == 10
    assert stats.attempt.longest < 5


async def test_a_server_closes_all_its_connections() -> None:
    """After a burst over many connections each of them ends with its next request: the next burst has no fault."""
    events: list[Event] = []
    limits = Limits(max_batch_inputs=1)

    async with (
        balance(keeps=10, ends="after reading") as balancer,
        connect(balancer, events, limits=limits) as embedder,
    ):
        with anyio.fail_after(20):
            for _ in range(10):
                embeddings = await embedder.embed(TEXTS * 8)
                np.testing.assert_array_equal(embeddings.vectors, vectors_of(TEXTS * 8))
                await anyio.sleep(0.02)

    assert faults(events) == []


@pytest.mark.parametrize("ends", ["after reading", "reset"])
async def test_a_new_connection_that_is_closed_is_a_fault(ends: str) -> None:
    """The first connection answers nothing: one failed attempt, ConnectionLost, and the second one is right."""
    events: list[Event] = []
    quick = Retries(max_attempts=2, initial_wait=0.001)

    async with (
        balance(keeps=lambda number: 0 if number == 1 else 100, ends=ends) as balancer,
        connect(balancer, events, retries=quick) as embedder,
    ):
        with anyio.fail_after(10):
            assert_right(await embedder.embed(TEXTS))

    assert faults(events) == ["ConnectionLost"]
    assert (balancer.requests, balancer.connections) == (2, 2)


async def test_a_new_connection_in_place_of_an_old_one_is_not_replaced_again() -> None:
    """The old connection is closed, and so is the new one: that is one failed attempt, over exactly two connections."""
    events: list[Event] = []
    quick = Retries(max_attempts=2, initial_wait=0.001)

    async with (
        balance(keeps=lambda number: (1, 0, 100)[min(number, 3) - 1], ends="after reading") as balancer,
        connect(balancer, events, retries=quick) as embedder,
    ):
        with anyio.fail_after(10):
            assert_right(await embedder.embed(TEXTS))
            assert_right(await embedder.embed(TEXTS))

    assert faults(events) == ["ConnectionLost"]
    assert (balancer.requests, balancer.connections) == (4, 3)


async def test_what_is_no_http_is_a_fault_on_an_old_connection_too() -> None:
    """Over a connection that was kept alive something comes that is no reply: the server is there, so it counts."""
    events: list[Event] = []
    quick = Retries(max_attempts=2, initial_wait=0.001)

    async with (
        balance(keeps=lambda number: 1 if number == 1 else 100, ends="garbage") as balancer,
        connect(balancer, events, retries=quick) as embedder,
    ):
        with anyio.fail_after(10):
            assert_right(await embedder.embed(TEXTS))
            assert_right(await embedder.embed(TEXTS))

    assert faults(events) == ["ConnectionLost"]


async def test_a_text_that_makes_the_server_drop_connections_is_not_sent_for_ever() -> None:
    """A connection answers once and drops its second request, always: each attempt costs at most two requests."""
    events: list[Event] = []

    async with balance(keeps=lambda number: 1 if number == 1 else 0, ends="after reading") as balancer:
        quick = Retries(max_attempts=3, initial_wait=0.001)
        async with connect(balancer, events, retries=quick) as embedder:
            with anyio.fail_after(10):
                await embedder.embed(["warm"])
                with pytest.raises(RunStoppedError, match="broke"):
                    await embedder.embed(["a"])

    assert faults(events) == ["ConnectionLost"] * 3
    assert balancer.requests == 1 + 2 + 1 + 1


async def test_nor_is_it_sent_over_each_idle_connection() -> None:
    """A text that ends the server's worker, and eight idle connections: one of them, and a new one for each attempt."""
    events: list[Event] = []
    quick = Retries(max_attempts=3, initial_wait=0.001)
    limits = Limits(max_batch_inputs=1, max_concurrent_requests=8, initial_concurrent_requests=8)

    async with (
        balance(keeps=100, ends="after reading") as balancer,
        connect(balancer, events, retries=quick, limits=limits) as embedder,
    ):
        with anyio.fail_after(10):
            await embedder.embed(TEXTS * 20)
            assert balancer.connections > 4
            balancer.deadly = b"KILL"
            before = balancer.requests
            with pytest.raises(RunStoppedError, match="broke"):
                await embedder.embed(["KILL"])

    assert faults(events) == ["ConnectionLost"] * 3
    assert balancer.requests - before == 2 + 1 + 1
