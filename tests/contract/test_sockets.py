"""
Real sockets, and servers that break off, lie, trickle or say nothing.

Whatever they do ends in right vectors after another attempt, or in a typed failure: never in an exception from inside
httpx, anyio or msgspec, and never in a hang.
"""

from __future__ import annotations

import gzip
from random import Random

import anyio
import numpy as np
import pytest

from embedbatch import (
    AttemptFailed,
    ConnectionFailedError,
    ConnectionLostError,
    Embedder,
    Event,
    Limits,
    NotAttemptedError,
    RequestRefusedError,
    Retries,
    RunStoppedError,
)
from embedbatch.testing import Received, Scripted, ScriptedServer

from . import raw
from .asking import stopped_by
from .raw import (
    OK,
    QUICK,
    TEXTS,
    Misdeed,
    body_of,
    connect,
    in_chunks,
    listen,
    serve_raw,
    vectors_of,
    with_length,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("every_transport")]


async def embed_twice(misdeed: Misdeed, **options: object) -> list[str]:
    """Embed against a server that does *misdeed* once; assert that all vectors are right; return the faults' names."""
    events: list[Event] = []
    async with serve_raw(misdeed) as server, connect(server, observe=events.append, **options) as embedder:
        with anyio.fail_after(20):
            first = await embedder.embed(TEXTS)
            second = await embedder.embed(TEXTS[::-1])
    np.testing.assert_array_equal(first.vectors, vectors_of(TEXTS))
    np.testing.assert_array_equal(second.vectors, vectors_of(TEXTS[::-1]))
    return [event.kind for event in events if isinstance(event, AttemptFailed)]


RIGHT = Misdeed(says=lambda right: right, stays=True)
BREAKS = {
    "at once": Misdeed(),
    "after the status line": Misdeed(says=lambda right: OK),
    "in the headers": Misdeed(says=lambda right: right[:40]),
    "in the body": Misdeed(says=lambda right: right[:-20]),
    "in a chunk": Misdeed(says=lambda right: OK + b"transfer-encoding: chunked\r\n\r\nff\r\n{"),
    "between chunks": Misdeed(says=lambda right: OK + b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n"),
    "with a reset": Misdeed(resets=True),
    "with a reset in the body": Misdeed(says=lambda right: right[:-20], resets=True),
    "in an error's body": Misdeed(says=lambda right: b"HTTP/1.1 401 -\r\ncontent-length: 50\r\n\r\n{"),
}
NO_HTTP = {
    "negative length": Misdeed(says=lambda right: OK + b"content-length: -5\r\n\r\n"),
    "two lengths": Misdeed(says=lambda right: OK + b"content-length: 1\r\ncontent-length: 2\r\n\r\n{}"),
    "chunk of no size": Misdeed(says=lambda right: OK + b"transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n"),
    "a header of 300 kB": Misdeed(says=lambda right: OK + b"x: " + b"x" * 300_000 + b"\r\n\r\n"),
    "a text": Misdeed(says=lambda right: b"Welcome to nginx!\r\n\r\n"),
    "frames of HTTP/2": Misdeed(says=lambda right: b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + bytes(18)),
    "a TLS alert": Misdeed(says=lambda right: b"\x15\x03\x01\x00\x02\x02\x46\r\n"),
    "status of two digits": Misdeed(says=lambda right: b"HTTP/1.1 20 OK\r\n\r\n"),
    "another protocol": Misdeed(says=lambda right: b"HTTP/1.1 101 -\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n"),
}
SILENCE = {
    "nothing": Misdeed(stays=True),
    "less than was promised": Misdeed(says=lambda right: right.replace(b"length: ", b"length: 9"), stays=True),
    "a header, letter by letter": Misdeed(says=lambda right: OK, trickles=b"a"),
    "a body, space by space": Misdeed(
        says=lambda right: OK + b"transfer-encoding: chunked\r\n\r\n", trickles=b"1\r\n \r\n"
    ),
    "100 Continue for ever": Misdeed(trickles=b"HTTP/1.1 100 Continue\r\n\r\n"),
}
NO_EMBEDDINGS = {
    "two objects": Misdeed(says=lambda right: with_length(body_of(right) * 2)),
    "half an object": Misdeed(says=lambda right: with_length(body_of(right)[:-30])),
    "half an object, unannounced": Misdeed(says=lambda right: OK + b"\r\n" + body_of(right)[:-30]),
    "no content": Misdeed(says=lambda right: b"HTTP/1.1 204 -\r\n\r\n"),
    "no compression": Misdeed(says=lambda right: OK + b"content-encoding: gzip\r\n\r\n" + body_of(right)),
}
ODD_BUT_RIGHT = {
    "no length": Misdeed(says=lambda right: OK + b"\r\n" + body_of(right)),
    "HTTP/1.0": Misdeed(says=lambda right: b"HTTP/1.0 200 OK\r\n\r\n" + body_of(right)),
    "no reason": Misdeed(says=lambda right: right.replace(b"200 OK", b"200 "), stays=True),
    "small chunks": Misdeed(
        says=lambda right: OK + b"transfer-encoding: chunked\r\n\r\n" + in_chunks(body_of(right)), stays=True
    ),
    "compressed": Misdeed(says=lambda right: OK + b"content-encoding: gzip\r\n\r\n" + gzip.compress(body_of(right))),
    "100 and 103 before it": Misdeed(
        says=lambda right: b"HTTP/1.1 100 -\r\n\r\n" * 3 + b"HTTP/1.1 103 -\r\nlink: x\r\n\r\n" + right, stays=True
    ),
    "odd cookies": Misdeed(
        says=lambda right: right.replace(b"OK\r\n", b"OK\r\nset-cookie: a=\xff; expires=x\r\nset-cookie: =;;\r\n"),
        stays=True,
    ),
    "odd charset": Misdeed(says=lambda right: right.replace(b"json", b"json; charset=utf-77"), stays=True),
    "3,000 headers": Misdeed(says=lambda right: right.replace(b"OK\r\n", b"OK\r\n" + b"x-a: b\r\n" * 3_000)),
}


@pytest.mark.parametrize("misdeed", BREAKS.values(), ids=BREAKS)
async def test_a_connection_that_breaks_is_tried_again(misdeed: Misdeed) -> None:
    """Wherever it breaks: one failed attempt, ConnectionLost, and right vectors from the next."""
    assert await embed_twice(misdeed) == ["ConnectionLost"]


@pytest.mark.parametrize("misdeed", NO_HTTP.values(), ids=NO_HTTP)
async def test_what_is_no_http_is_tried_again(misdeed: Misdeed) -> None:
    """Something else than HTTP/1.1 on the other side: ConnectionLost, and nothing of what h11 would raise."""
    assert await embed_twice(misdeed) == ["ConnectionLost"]


@pytest.mark.parametrize("misdeed", SILENCE.values(), ids=SILENCE)
async def test_a_server_that_never_ends_is_left(misdeed: Misdeed) -> None:
    """However busily it says nothing: the attempt ends after timeout=, AttemptTimeout, and a later one is right."""
    patient = Retries(max_attempts=50, max_wait=0.001)  # on a busy machine a right reply may take as long

    kinds = await embed_twice(misdeed, timeout=0.2, retries=patient)

    assert set(kinds) == {"AttemptTimeout"}


# httpx leaves its generators open when a decoder fails, and trio warns when they are collected.
@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
@pytest.mark.parametrize("misdeed", NO_EMBEDDINGS.values(), ids=NO_EMBEDDINGS)
async def test_a_200_that_holds_no_embeddings_is_tried_again(misdeed: Misdeed) -> None:
    """Complete for HTTP and cut, doubled or garbled for JSON: MalformedReply, and nothing of it is used."""
    assert await embed_twice(misdeed) == ["MalformedReply"]


@pytest.mark.parametrize("misdeed", ODD_BUT_RIGHT.values(), ids=ODD_BUT_RIGHT)
async def test_odd_but_right_is_right(misdeed: Misdeed) -> None:
    """What HTTP allows, and some servers do, costs no attempt."""
    assert await embed_twice(misdeed) == []


BANNER = Misdeed(says=lambda right: b"SSH-2.0-OpenSSH_9.0\r\n", stays=True)
TOO_LONG = Misdeed(says=lambda right: OK + b"content-length: 20\r\n\r\n" + body_of(right))


@pytest.mark.parametrize("misdeed", [BANNER, TOO_LONG], ids=["a banner", "more than its length"])
async def test_what_one_transport_sees_at_once_and_another_at_the_end_is_tried_again(misdeed: Misdeed) -> None:
    """aiohttp breaks off at once where httpx waits for the rest, or cuts the reply: the same for the vectors."""
    patient = Retries(max_attempts=50, max_wait=0.001)

    kinds = await embed_twice(misdeed, timeout=0.2, retries=patient)

    assert kinds
    assert set(kinds) <= {"ConnectionLost", "AttemptTimeout", "MalformedReply"}


async def test_a_server_that_never_recovers_stops_the_run() -> None:
    """Every request is cut off: the first document has two attempts, and with it the run ends; each has its reason."""
    cut = Misdeed(says=lambda right: right[:-1])

    async with serve_raw(*[cut] * 100) as server, connect(server, limits=Limits(max_batch_inputs=1)) as embedder:
        failures = await stopped_by(embedder, TEXTS)

    assert all(
        isinstance(failure.error, ConnectionLostError if failure.attempts else NotAttemptedError)
        for failure in failures
    )
    assert failures[0].attempts == 2
    assert sum(failure.attempts for failure in failures) == server.requests
    assert 2 <= server.requests <= 4  # the others may go once while the first waits for its second attempt


async def test_a_connection_that_was_closed_while_idle_costs_nothing() -> None:
    """The server closes after each reply; the close is seen before the next request, which takes a new connection."""
    says_and_closes = Misdeed(says=lambda right: right)

    async with serve_raw(*[says_and_closes] * 5) as server, connect(server) as embedder:
        for _ in range(5):
            await embedder.embed(TEXTS)
            await server.all_closed()
        stats = embedder.stats()

    assert stats.faults == {}
    assert (server.requests, server.connections) == (5, 5)


@pytest.mark.parametrize(("times", "faults"), [(1, {}), (2, {"ConnectionLost": 1}), (3, {"ConnectionLost": 2})])
async def test_a_connection_that_is_closed_under_a_request_costs_nothing(times: int, faults: dict[str, int]) -> None:
    """
    The keep-alive race: the server takes the request, and closes without a word. It is sent once more at once.

    That is free for a connection that was kept alive; the new one, if it is closed as well, costs an attempt.
    """
    async with serve_raw() as server, connect(server, retries=Retries(initial_wait=0.001)) as embedder:
        await embedder.embed(TEXTS)
        server.misdeeds += [Misdeed()] * times
        embeddings = await embedder.embed(TEXTS)
        stats = embedder.stats()

    np.testing.assert_array_equal(embeddings.vectors, vectors_of(TEXTS))
    assert stats.faults == faults
    assert (server.requests, server.connections) == (2 + times, 1 + times)


@pytest.mark.parametrize("name", ["in the body", "with a reset in the body", "in a chunk", "in an error's body"])
async def test_a_connection_that_breaks_in_a_reply_is_never_free(name: str) -> None:
    """Kept alive or not: once the head of the reply has come, the server has worked, and the attempt counts."""
    async with serve_raw() as server, connect(server) as embedder:
        await embedder.embed(TEXTS)
        server.misdeeds.append(BREAKS[name])
        embeddings = await embedder.embed(TEXTS)
        stats = embedder.stats()

    np.testing.assert_array_equal(embeddings.vectors, vectors_of(TEXTS))
    assert stats.faults == {"ConnectionLost": 1}
    assert server.requests == 3


async def test_a_reply_that_comes_twice_is_not_the_next_ones() -> None:
    """A server sends the same reply twice: the second copy is not taken for the answer to the next request."""
    twice = Misdeed(says=lambda right: right + right, stays=True)

    async with serve_raw(twice) as server, connect(server) as embedder:
        await embedder.embed(TEXTS)
        embeddings = await embedder.embed(TEXTS[::-1])

    np.testing.assert_array_equal(embeddings.vectors, vectors_of(TEXTS[::-1]))


async def test_connections_are_kept_and_not_more_than_may_be_in_flight() -> None:
    """100 requests, 4 at once: 4 connections, which are closed with the embedder."""
    limits = Limits(max_batch_inputs=1, max_concurrent_requests=4)
    texts = [f"text {n}" for n in range(100)]

    async with serve_raw() as server:
        async with connect(server, limits=limits, transport=raw.over) as embedder:
            embeddings = await embedder.embed(texts)
            connections = server.connections
        await server.all_closed()

    np.testing.assert_array_equal(embeddings.vectors, vectors_of(texts))
    assert connections == 4


async def test_broken_exchanges_leave_no_connection_behind() -> None:
    """
    After 90 misdeeds of every kind on 3 places, all places are free and at most 3 connections are open.

    Each is followed by a right reply: after five in a row the endpoint would count as away, and only be probed.
    """
    kinds = [*BREAKS.values(), *NO_HTTP.values(), Misdeed(stays=True)]
    misdeeds = [each for misdeed in Random(7).choices(kinds, k=90) for each in (misdeed, RIGHT)]
    limits = Limits(max_batch_inputs=1, max_concurrent_requests=3)
    texts = [f"text {n}" for n in range(120)]
    patient = Retries(max_attempts=100, max_wait=0.001, budget=1_000)

    async with (
        serve_raw(*misdeeds) as server,
        connect(server, limits=limits, timeout=0.05, retries=patient) as embedder,
    ):
        embeddings = await embedder.embed(texts)
        stats = embedder.stats()
        open_connections = server.open

    np.testing.assert_array_equal(embeddings.vectors, vectors_of(texts))
    assert not server.misdeeds
    assert server.requests >= 210
    assert stats.outages == 0
    assert (stats.in_flight, stats.waiting) == (0, 0)
    assert open_connections <= 3


@pytest.mark.slow
async def test_cancellation_at_any_moment_leaves_no_connection_behind(loopback: str, script: ScriptedServer) -> None:
    """Cancelled 60 times within the first 30 ms of a run: the limiter is whole, and the pool still serves."""
    rng = Random(7)
    limits = Limits(max_batch_inputs=1, max_concurrent_requests=4)
    texts = [f"text {n}" for n in range(40)]

    async with Embedder("test-model", base_url=loopback, limits=limits, transport=raw.over) as embedder:
        for _ in range(60):
            with anyio.move_on_after(rng.uniform(0, 0.03)):
                await embedder.embed(texts)
            assert (embedder.stats().in_flight, embedder.stats().waiting) == (0, 0)
        with anyio.fail_after(10):
            embeddings = await embedder.embed(texts)

    np.testing.assert_array_equal(embeddings.vectors, np.stack([script.vector_of(text) for text in texts]))


async def test_every_tenth_exchange_breaks_and_every_vector_is_right(loopback: str, script: ScriptedServer) -> None:
    """
    2,000 texts in 200 requests over 8 connections, of which one in ten breaks off: before its reply, or in the body.

    In the body it always costs an attempt; before, where the connection had been kept alive, it does not.
    """

    def breaks(request: Received) -> Scripted | None:
        if request.number % 10:
            return None
        return Scripted(breaks="read" if request.number % 20 else "body")

    script.reply_when(breaks)
    limits = Limits(max_batch_inputs=10, max_concurrent_requests=8)
    texts = [f"text {n}" for n in range(2_000)]

    async with Embedder(
        "test-model",
        base_url=loopback,
        limits=limits,
        retries=Retries(initial_wait=0.001),
        rng=Random(7),
        transport=raw.over,
    ) as embedder:
        embeddings = await embedder.embed(texts)
        stats = embedder.stats()

    np.testing.assert_array_equal(embeddings.vectors, np.stack([script.vector_of(text) for text in texts]))
    requests = len(script.received)
    assert requests == 200 + requests // 10
    assert set(stats.faults) == {"ConnectionLost"}
    assert requests // 20 <= stats.faults["ConnectionLost"] < requests // 10


async def test_where_nobody_listens_the_connection_fails() -> None:
    """A refused connection is a ConnectionFailedError, which says that nothing was sent."""
    async with serve_raw() as server:
        pass

    async with connect(server) as embedder:
        (failure,) = await stopped_by(embedder, ["a"])

    assert isinstance(failure.error, ConnectionFailedError)
    assert failure.attempts == 2


async def test_an_error_that_comes_before_the_body_was_read() -> None:
    """
    A proxy refuses 1 MB at its first bytes and hangs up: the refusal, or a lost connection, whichever came over.

    It refuses single texts as well, so the run stops.
    """

    async def refuse(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive(100)
            await stream.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")

    async with (
        listen(refuse) as port,
        Embedder("test-model", base_url=f"http://127.0.0.1:{port}/v1", retries=QUICK, transport=raw.over) as embedder,
    ):
        with pytest.raises(RunStoppedError) as caught:
            await embedder.embed(["x" * 8_000] * 125, on_failure="collect")

    assert isinstance(caught.value.__cause__, RequestRefusedError | ConnectionLostError)
    assert caught.value.embeddings is not None
    assert len(caught.value.embeddings.failures) == 125
