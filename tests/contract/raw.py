"""
A server whose every byte is in the hands of the test.

    async with serve_raw(Misdeed(lambda right: right[:-20])) as server:
        ...                                      # the first request gets a cut reply, all others the right one

It runs in the test's own event loop, on asyncio and on trio.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random

import anyio
import anyio.abc
import numpy as np
import pybase64
import trustme
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.tls import TLSStream

from embedbatch import Embedder, Retries
from embedbatch.testing.server import vector_of

AUTHORITY = trustme.CA()  # made anew for every run of the tests
CERTIFICATE = AUTHORITY.issue_cert("127.0.0.1")
DIMENSIONS = 8
OK = b"HTTP/1.1 200 OK\r\n"
TEXTS = ["first", "second 🌊", "third"]
CARRIERS = {
    "aiohttp on asyncio": ("asyncio", "aiohttp"),
    "httpx on asyncio": ("asyncio", "httpx"),
    "httpx on trio": ("trio", "httpx"),
}
over: str | None = None  # the transport that the running test is for: see `every_transport`
QUICK = Retries(max_attempts=2, initial_wait=0.001)


@dataclass(frozen=True, kw_only=True)
class Misdeed:
    """
    What one request gets: *says* makes it of the right reply, head and body.

    Then the connection is closed, unless it *stays* open; *resets* closes it the hard way. *trickles* is sent again
    and again, for ever. *plain* is written past the encryption, where there is one.
    """

    says: Callable[[bytes], bytes] = lambda right: b""
    stays: bool = False
    resets: bool = False
    trickles: bytes = b""
    plain: bytes = b""


@dataclass
class RawServer:
    """What has come: requests in all, connections in all, and the connections that are open."""

    base_url: str = ""
    requests: int = 0
    connections: int = 0
    open: int = 0
    misdeeds: list[Misdeed] = field(default_factory=list)
    _closed: anyio.Event = field(default_factory=anyio.Event)

    async def all_closed(self) -> None:
        """Return when no connection is open."""
        while self.open:
            self._closed = anyio.Event()
            await self._closed.wait()

    async def converse(self, tcp: anyio.abc.SocketStream) -> None:
        """Answer the requests of one connection."""
        self.connections += 1
        self.open += 1
        try:
            async with tcp:
                stream = tcp if self.base_url.startswith("http:") else await _encrypt(tcp)
                received = BufferedByteReceiveStream(stream)
                while await self._reply(await read_body(received), stream, tcp):
                    pass
        except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError, ssl.SSLError):
            pass
        finally:
            self.open -= 1
            self._closed.set()

    async def _reply(self, body: bytes, stream: anyio.abc.ByteStream, tcp: anyio.abc.SocketStream) -> bool:
        """Answer one request; tell whether the connection stays open."""
        self.requests += 1
        right = right_reply(body)
        if not self.misdeeds:
            await stream.send(right)
            return True
        misdeed = self.misdeeds.pop(0)
        await stream.send(misdeed.says(right))
        if misdeed.plain:
            await tcp.send(misdeed.plain)
        while misdeed.trickles:
            await stream.send(misdeed.trickles)
            await anyio.sleep(0.01)
        if misdeed.resets:
            at_once = struct.pack("ii", 1, 0)
            tcp.extra(anyio.abc.SocketAttribute.raw_socket).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        return misdeed.stays


async def _encrypt(tcp: anyio.abc.SocketStream) -> TLSStream:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    CERTIFICATE.configure_cert(context)
    return await TLSStream.wrap(tcp, server_side=True, ssl_context=context, standard_compatible=False)


async def read_body(received: BufferedByteReceiveStream) -> bytes:
    """The body of the next request."""
    head = await received.receive_until(b"\r\n\r\n", 65_536)
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return await received.receive_exactly(int(lengths[0].split(b":")[1]))


def right_reply(body: bytes) -> bytes:
    """The whole reply to a request with this *body*: status line, headers, vectors derived from the texts."""
    data = [
        {"index": index, "embedding": pybase64.b64encode_as_string(vector_of(text, DIMENSIONS).tobytes())}
        for index, text in enumerate(json.loads(body)["input"])
    ]
    return with_length(json.dumps({"object": "list", "data": data}).encode())


def with_length(body: bytes, status: bytes = OK) -> bytes:
    """A whole reply of *body*."""
    return status + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body


def filling_a_record(reply: bytes) -> bytes:
    """*reply* with so long a head that it fills a record of TLS: what is sent behind it is in another."""
    return reply.replace(b"\r\n", b"\r\nx-long: %b\r\n" % (b"x" * (16_384 - len(reply) - len("x-long: \r\n"))), 1)


def body_of(reply: bytes) -> bytes:
    """What comes after the head."""
    return reply.split(b"\r\n\r\n", 1)[1]


def in_chunks(body: bytes, size: int = 7) -> bytes:
    """*body* in chunks, each with an extension, and a trailer at the end."""
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x;x=y\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\nx-trailer: 1\r\n\r\n"


def vectors_of(texts: list[str]) -> np.ndarray:
    """The right vectors: float32, shape (texts, DIMENSIONS)."""
    return np.stack([vector_of(text, DIMENSIONS) for text in texts])


@asynccontextmanager
async def listen(converse: Callable[[anyio.abc.SocketStream], Awaitable[None]]) -> AsyncIterator[int]:
    """Hand every connection to *converse*; the block's value is the port."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, converse)
        yield listener.extra(anyio.abc.SocketAttribute.local_port)
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def serve_raw(*misdeeds: Misdeed, tls: bool = False) -> AsyncIterator[RawServer]:
    """A server on loopback that answers the first requests with *misdeeds*, one each, and all others right."""
    server = RawServer(misdeeds=list(misdeeds))
    async with listen(server.converse) as port:
        server.base_url = f"http{'s' if tls else ''}://127.0.0.1:{port}/v1"
        yield server


def connect(server: RawServer, **options: object) -> Embedder:
    """An embedder that talks to *server*, and tries twice."""
    defaults = {"base_url": server.base_url, "timeout": 10.0, "retries": QUICK, "rng": Random(7), "transport": over}
    return Embedder("test-model", **{**defaults, **options})  # type: ignore[arg-type]
