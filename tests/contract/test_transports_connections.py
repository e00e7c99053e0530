"""
The connections of each transport: whose reply comes over them, how many there are, and that none is left behind.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import httpx
import numpy as np
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream

from embedbatch import Embedder, Limits, Retries
from embedbatch.dispatch.credentials import Credentials
from embedbatch.dispatch.fast import FastTransport
from embedbatch.dispatch.transport import Transport
from embedbatch.errors import AttemptTimeoutError, RequestError
from embedbatch.testing import ScriptedServer
from embedbatch.wire.body import Body

from . import raw
from .loopback import serve_in_a_thread
from .raw import QUICK, TEXTS, Misdeed, connect, listen, read_body, right_reply, serve_raw, vectors_of

pytestmark = pytest.mark.anyio


class Intruder:
    """Answers right; and writes what it is told to, whenever, on the connection that was used last."""

    def __init__(self) -> None:
        self.base_url = ""
        self.connections = 0
        self.last = b""
        self._descriptor = -1

    async def converse(self, stream: anyio.abc.SocketStream) -> None:
        """Serve one connection."""
        self.connections += 1
        received = BufferedByteReceiveStream(stream)
        async with stream:
            try:
                while True:
                    self.last = right_reply(await read_body(received))
                    self._descriptor = stream.extra(anyio.abc.SocketAttribute.raw_socket).fileno()
                    await stream.send(self.last)
            except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError):
                pass

    def intrude(self, surplus: bytes) -> None:
        """Send *surplus*: it has arrived when this returns, and no event loop has turned meanwhile."""
        os.write(self._descriptor, surplus)


@asynccontextmanager
async def intruder() -> AsyncIterator[Intruder]:
    """Serve on loopback."""
    server = Intruder()
    async with listen(server.converse) as port:
        server.base_url = f"http://127.0.0.1:{port}/v1"
        yield server


SURPLUS: dict[str, Callable[[bytes], bytes]] = {
    "a copy": lambda last: last,
    "two copies": lambda last: last * 2,
    "half a copy": lambda last: last[: len(last) // 2],
    "a head": lambda last: last[: last.index(b"\r\n\r\n") + 4],
    "half a head": lambda last: last[:25],
    "a line's end and a copy": lambda last: b"\r\n" + last,
    "an interim reply": lambda last: b"HTTP/1.1 100 Continue\r\n\r\n",
    "an interim reply and a copy": lambda last: b"HTTP/1.1 103 -\r\n\r\n" + last,
    "a timeout": lambda last: b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    "a letter": lambda last: b"x",
    "a line's end": lambda last: b"\r\n",
}


@pytest.mark.parametrize("name", SURPLUS)
@pytest.mark.parametrize("seen", [True, False], ids=["seen", "unseen"])
async def test_what_comes_unasked_for_on_an_idle_connection_is_no_reply(
    every_transport: str, name: str, seen: bool
) -> None:
    """
    Between two requests something comes, whether the loop has had the time to see it or not: it is nobody's vectors.

    It costs no attempt either.
    """
    async with intruder() as server, connect(server) as embedder:  # type: ignore[arg-type]
        for texts in (TEXTS, TEXTS[::-1], TEXTS):
            np.testing.assert_array_equal((await embedder.embed(texts)).vectors, vectors_of(texts))
            server.intrude(SURPLUS[name](server.last))
            if seen:
                await anyio.sleep(0.02)
        stats = embedder.stats()

    assert stats.faults == {}


async def post(transport: Transport, text: str) -> bytes | str:
    """Send *text*; return its vector, or the name of the error."""
    body = Body(1)
    try:
        await transport.send(b'{"input":["%b"]}' % text.encode(), body, max_reply=10**6)
    except RequestError as error:
        return type(error).__name__
    return body.vector(0)


def transport_to(base_url: str, **options: object) -> Transport:
    defaults = {"credentials": Credentials(), "timeout": 5.0, "max_connections": 1, "transport": raw.over}
    return Transport(base_url, {}, **{**defaults, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SURPLUS)
async def test_what_came_while_the_loop_was_busy_is_no_reply(every_transport: str, name: str) -> None:
    """Nothing turns the loop between the surplus and the next request: what waits in the socket is not its reply."""
    async with intruder() as server:
        transport = transport_to(server.base_url)
        first = await post(transport, "first")
        server.intrude(SURPLUS[name](server.last))
        second = await post(transport, "second")
        await transport.aclose()

    assert [first, second] == [row.tobytes() for row in vectors_of(["first", "second"])]


@pytest.mark.parametrize("name", SURPLUS)
async def test_what_follows_a_reply_in_the_same_packet_is_not_the_next_ones(every_transport: str, name: str) -> None:
    """A reply, and more behind it: the next request gets the vectors of its own texts."""
    more = SURPLUS[name]
    misdeeds = [Misdeed(says=lambda right: right + more(right), stays=True)] * 3

    async with serve_raw(*misdeeds) as server, connect(server) as embedder:
        for texts in (TEXTS, TEXTS[::-1], TEXTS, TEXTS[::-1]):
            np.testing.assert_array_equal((await embedder.embed(texts)).vectors, vectors_of(texts))


@pytest.mark.parametrize("handed_in", [{"transport": httpx.AsyncHTTPTransport}, {"http_client": httpx.AsyncClient}])
async def test_nor_is_it_with_what_httpx_itself_makes(both_backends: str, handed_in: dict[str, Any]) -> None:
    """The same with httpx's own transport or client, which the caller made."""
    own = {name: make(verify=False) for name, make in handed_in.items()}
    misdeeds = [Misdeed(says=lambda right: right + right, stays=True)] * 3

    async with serve_raw(*misdeeds) as server, connect(server, **own) as embedder:
        for texts in (TEXTS, TEXTS[::-1], TEXTS, TEXTS[::-1]):
            np.testing.assert_array_equal((await embedder.embed(texts)).vectors, vectors_of(texts))

    for each in own.values():
        await each.aclose()


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": True})], ids=["uvloop"])
async def test_nor_is_it_on_uvloop() -> None:
    """The same on the event loop of `[fast]`, with httpx's transport, which is used there where there is a proxy."""
    misdeeds = [Misdeed(says=lambda right: right + right, stays=True)] * 3

    async with serve_raw(*misdeeds) as server, connect(server, transport="httpx") as embedder:
        for texts in (TEXTS, TEXTS[::-1], TEXTS, TEXTS[::-1]):
            np.testing.assert_array_equal((await embedder.embed(texts)).vectors, vectors_of(texts))


async def test_no_more_connections_than_may_be_in_flight_whatever_breaks(every_transport: str) -> None:
    """Three places, and a server that breaks off every fourth reply: never a fourth connection at a time."""
    most = 0
    breaks = [Misdeed(says=lambda right: right, stays=True)] * 3 + [Misdeed(says=lambda right: right[:-5])]
    limits = Limits(max_batch_inputs=1, max_concurrent_requests=3)
    texts = [f"text {number}" for number in range(80)]
    patient = Retries(max_attempts=20, initial_wait=0.001, max_wait=0.001)

    async with serve_raw(*breaks * 10) as server, connect(server, limits=limits, retries=patient) as embedder:

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, server.open)
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            embeddings = await embedder.embed(texts)
            tasks.cancel_scope.cancel()

    np.testing.assert_array_equal(embeddings.vectors, vectors_of(texts))
    assert not server.misdeeds
    assert most == 3


async def test_a_server_that_does_not_read_is_left(every_transport: str) -> None:
    """The body does not fit into the sockets' buffers: the attempt ends by its phases, and does not hang."""

    async def never_read(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await anyio.sleep_forever()

    async with listen(never_read) as port:
        transport = transport_to(f"http://127.0.0.1:{port}/v1", timeout=httpx.Timeout(0.2))
        with anyio.fail_after(10):
            assert await post(transport, "x" * 20_000_000) == AttemptTimeoutError.__name__
        await transport.aclose()


UNTIL: dict[str, Misdeed] = {
    "the head": Misdeed(stays=True),
    "the end of the head": Misdeed(says=lambda right: right[:30], stays=True),
    "the body": Misdeed(says=lambda right: right[: right.index(b"\r\n\r\n") + 4], stays=True),
    "the end of the body": Misdeed(says=lambda right: right[:-4], stays=True),
}


@pytest.mark.parametrize("kept_alive", [False, True], ids=["new", "kept alive"])
@pytest.mark.parametrize("name", UNTIL)
async def test_cancelled_in_any_phase_nothing_is_left(every_transport: str, name: str, kept_alive: bool) -> None:
    """Cancelled while it waits for one part of a reply: its connection is closed, and no task goes on."""
    async with serve_raw() as server, connect(server) as embedder:
        await embedder.embed(TEXTS)
        if not kept_alive:
            server.misdeeds.append(Misdeed())
        before = tasks_of(every_transport)
        server.misdeeds.append(UNTIL[name])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(embedder.embed, TEXTS)
            while server.misdeeds:
                await anyio.lowlevel.checkpoint()
            await anyio.sleep(0.01)  # for what the server says to arrive
            tasks.cancel_scope.cancel()
        with anyio.fail_after(5):
            await server.all_closed()
            while tasks_of(every_transport) - before:
                await anyio.lowlevel.checkpoint()
        stats = embedder.stats()
        np.testing.assert_array_equal((await embedder.embed(TEXTS)).vectors, vectors_of(TEXTS))

    assert (stats.in_flight, stats.waiting) == (0, 0)


def tasks_of(backend: str) -> set[object]:
    """The tasks of asyncio; trio has none that belong to nobody."""
    return set(asyncio.all_tasks()) if backend == "asyncio" else set()


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_cancelled_while_it_connects_or_sends_nothing_is_left(every_transport: str, scheme: str) -> None:
    """A handshake without an answer, a body that is not read: cancelled, the connection ends, and no task goes on."""
    if (raw.over, scheme) == ("httpx", "https"):
        pytest.skip("a handshake that is cancelled httpcore 1.0.9 leaves to the garbage collector")
    came, cancelled, ended = anyio.Event(), anyio.Event(), anyio.Event()

    async def take(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            came.set()
            await cancelled.wait()
            try:
                while True:
                    await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                ended.set()

    async with listen(take) as port:
        await anyio.sleep(0.01)  # for the server's own task
        before = tasks_of(every_transport)
        transport = transport_to(f"{scheme}://127.0.0.1:{port}/v1")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(post, transport, "x" * 20_000_000)
            await came.wait()
            await anyio.sleep(0.05)
            tasks.cancel_scope.cancel()
        cancelled.set()
        with anyio.fail_after(5):
            await ended.wait()
            while tasks_of(every_transport) - before:
                await anyio.lowlevel.checkpoint()
        await transport.aclose()


# Embedders that nobody closed


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_dropped_embedder_closes_what_aiohttp_had_opened() -> None:
    """Without aclose(), while the loop goes on: its connections end with it, and nothing is said about them."""
    async with serve_raw() as server:
        embedder = Embedder("m", base_url=server.base_url, transport="aiohttp", retries=QUICK)
        await embedder.embed(TEXTS)
        assert server.open == 1
        del embedder
        gc.collect()
        with anyio.fail_after(5):
            await server.all_closed()


FORGETS = """
import anyio, gc
from embedbatch import Embedder

async def main():
    embedder = Embedder("m", base_url={base_url!r}, transport={over!r})
    await embedder.embed(["a", "b"])
    return embedder if {keeps!r} else None

kept = anyio.run(main, backend={backend!r})
gc.collect()
print("done")
"""


@pytest.mark.slow
@pytest.mark.parametrize("keeps", [True, False], ids=["to the end", "to the end of the loop"])
def test_a_program_that_forgets_to_close_says_nothing(keeps: bool) -> None:
    """Its loop has ended, or its interpreter ends: no log of aiohttp's, no trace of an exception nobody handled."""
    root = str(Path(__file__).parents[2])
    with serve_in_a_thread(ScriptedServer()) as base_url:
        for backend, over in raw.CARRIERS.values():
            program = FORGETS.format(base_url=base_url, over=over, keeps=keeps, backend=backend)
            ended = subprocess.run(
                [sys.executable, "-c", program],
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, "PYTHONPATH": root},
            )
            assert (ended.stdout, ended.stderr) == ("done\n", "")


async def test_the_head_of_a_request_comes_together_with_its_body(every_transport: str) -> None:
    """One write for both, so that no server waits for the second of two packets: the first read has all of it."""
    seen: list[bytes] = []

    async def converse(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            for _ in range(2):
                seen.append(await stream.receive())
                await stream.send(right_reply(seen[-1].partition(b"\r\n\r\n")[2]))

    async with (
        listen(converse) as port,
        Embedder("m", base_url=f"http://127.0.0.1:{port}/v1", transport=raw.over) as embedder,
    ):
        for text in ("one", "two"):
            embeddings = await embedder.embed([text])
            np.testing.assert_array_equal(embeddings.vectors, vectors_of([text]))

    first, second = seen
    assert first.endswith(b'"input":["one"]}')
    assert second.endswith(b'"input":["two"]}')


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_asyncio_asks_the_system_for_half_a_megabyte_at_once() -> None:
    """A reply comes in as few parts as that allows: what [fast] asks of asyncio's transport, it has."""
    stays = anyio.Event()

    async def converse(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
            await stays.wait()
            await stream.send(b"{}")

    fast = FastTransport(verify=True, proxy=None, max_connections=1, keepalive=30.0)
    async with listen(converse) as port, fast:
        request = httpx.Request("POST", f"http://127.0.0.1:{port}/", content=b"{}")
        response = await fast.handle_async_request(request)
        (protocol,) = fast.client.connector._acquired
        assert protocol.transport.max_size == 524_288
        stays.set()
        assert await response.aread() == b"{}"
