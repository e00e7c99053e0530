"""TLS over real sockets: ports without it, handshakes that do not end, certificates and records that are wrong."""

from __future__ import annotations

import ssl

import anyio
import httpx
import numpy as np
import pytest

from embedbatch import ConnectionFailedError, Embedder

from . import raw
from .asking import stopped_by
from .raw import AUTHORITY, QUICK, TEXTS, Misdeed, connect, filling_a_record, listen, serve_raw, vectors_of

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("every_transport")]


async def test_tls_to_a_port_without_it_is_a_failed_connection() -> None:
    """https:// to a server that speaks plain HTTP: no connection was made, and nothing was sent."""

    async def speak_plainly(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")

    async with (
        listen(speak_plainly) as port,
        Embedder("test-model", base_url=f"https://127.0.0.1:{port}/v1", retries=QUICK, transport=raw.over) as embedder,
    ):
        (failure,) = await stopped_by(embedder, ["a"])

    assert isinstance(failure.error, ConnectionFailedError)


async def test_a_handshake_that_does_not_end_is_a_failed_connection() -> None:
    """A server that takes the connection and never says a word of TLS: over after the timeout for connecting."""

    async def listen_only(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await anyio.sleep_forever()

    async with (
        listen(listen_only) as port,
        Embedder(
            "test-model",
            base_url=f"https://127.0.0.1:{port}/v1",
            timeout=httpx.Timeout(0.1),
            retries=QUICK,
            transport=raw.over,
        ) as embedder,
    ):
        (failure,) = await stopped_by(embedder, ["a"])

    assert isinstance(failure.error, ConnectionFailedError)


async def test_an_unknown_certificate_is_a_failed_connection() -> None:
    """A self-signed certificate that nobody vouches for: not one byte of the request is sent."""
    async with serve_raw(tls=True) as server, connect(server) as embedder:
        (failure,) = await stopped_by(embedder, ["a"])

    assert isinstance(failure.error, ConnectionFailedError)
    assert server.requests == 0


@pytest.mark.parametrize(
    "misdeed",
    [
        Misdeed(plain=b"this is no TLS record"),
        Misdeed(says=lambda right: right[:-10], plain=b"\x17\x03\x03\x00\x20" + bytes(32)),
        Misdeed(plain=b"\x15\x03\x03\x00\x02\x02\x28"),
        Misdeed(says=lambda right: right[:-10]),
    ],
    ids=["no record", "damaged in the body", "an alert in the clear", "closed without goodbye"],
)
async def test_a_damaged_tls_stream_is_tried_again(misdeed: Misdeed) -> None:
    """On asyncio a bad record reaches httpx's caller as ssl.SSLError: it is a lost connection like any other."""
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)

    async with (
        serve_raw(misdeed, tls=True) as server,
        httpx.AsyncClient(verify=context) as client,
        connect(server, http_client=client) as embedder,
    ):
        embeddings = await embedder.embed(TEXTS)
        stats = embedder.stats()

    np.testing.assert_array_equal(embeddings.vectors, vectors_of(TEXTS))
    assert stats.faults == {"ConnectionLost": 1}


async def test_a_surplus_in_a_record_of_its_own_is_not_the_next_reply() -> None:
    """A reply that fills its record, and a copy in the next, over a client that the caller made."""
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    twice = Misdeed(says=lambda right: filling_a_record(right) + right, stays=True)

    async with (
        serve_raw(*[twice] * 3, tls=True) as server,
        httpx.AsyncClient(verify=context) as client,
        connect(server, http_client=client) as embedder,
    ):
        for texts in (TEXTS, TEXTS[::-1], TEXTS, TEXTS[::-1]):
            np.testing.assert_array_equal((await embedder.embed(texts)).vectors, vectors_of(texts))
