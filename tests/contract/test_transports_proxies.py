"""A real proxy on loopback, named by the environment: plain forwarding, and tunnels to servers behind TLS."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
import numpy as np
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream

from embedbatch import (
    ConfigurationError,
    ConnectionFailedError,
    Embedder,
    Limits,
    RequestRefusedError,
)

from . import raw
from .asking import fail_one, stop_one
from .raw import AUTHORITY, QUICK, TEXTS, RawServer, listen, right_reply, serve_raw, vectors_of

GONE = (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError, anyio.ClosedResourceError)

pytestmark = pytest.mark.anyio


class Proxy:
    """
    Forwards what comes in plain, as if it were the server itself, and tunnels the rest; *refusal* is all it says.

    *asked* has the first line of every request, *credentials* what came with it for the proxy.
    """

    def __init__(self, refusal: bytes) -> None:
        self.address = ""
        self.asked: list[str] = []
        self.credentials: set[str] = set()
        self._refusal = refusal

    async def converse(self, stream: anyio.abc.SocketStream) -> None:
        """Serve one connection."""
        received = BufferedByteReceiveStream(stream)
        try:
            async with stream:
                while True:
                    await self._reply(received, stream)
        except GONE:
            pass

    async def _reply(self, received: BufferedByteReceiveStream, stream: anyio.abc.SocketStream) -> None:
        head = (await received.receive_until(b"\r\n\r\n", 65_536)).decode()
        method, target, _ = head.split("\r\n")[0].split(" ")
        lines = [line.split(": ", 1) for line in head.split("\r\n")[1:]]
        fields = {name.lower(): value for name, value in lines}
        self.asked.append(f"{method} {target}")
        self.credentials.add(fields.get("proxy-authorization", ""))
        if self._refusal:
            await stream.send(self._refusal)
        elif method == "CONNECT":
            await stream.send(b"HTTP/1.1 200 Connected\r\n\r\n")
            host, port = target.split(":")
            await _tunnel(stream, await anyio.connect_tcp(host, int(port)))
        else:
            await stream.send(right_reply(await received.receive_exactly(int(fields["content-length"]))))


async def _tunnel(one: anyio.abc.SocketStream, other: anyio.abc.SocketStream) -> None:
    """Pass on what comes from either side, until one of them ends."""

    async def pump(source: anyio.abc.SocketStream, target: anyio.abc.SocketStream) -> None:
        try:
            while True:
                await target.send(await source.receive())
        except GONE:
            tasks.cancel_scope.cancel()

    async with other, anyio.create_task_group() as tasks:
        tasks.start_soon(pump, one, other)
        tasks.start_soon(pump, other, one)
    await one.aclose()


@asynccontextmanager
async def serve_proxy(refusal: bytes = b"") -> AsyncIterator[Proxy]:
    """Serve on loopback."""
    proxy = Proxy(refusal)
    async with listen(proxy.converse) as port:
        proxy.address = f"127.0.0.1:{port}"
        yield proxy


@pytest.fixture(params=[*raw.CARRIERS, "none named"])
def carrier(request: pytest.FixtureRequest) -> tuple[str, str | None]:
    """An event loop, and a transport: each by its name, and the one that is taken where none is named."""
    return raw.CARRIERS.get(request.param, ("asyncio", None))


@pytest.fixture
def anyio_backend(carrier: tuple[str, str | None]) -> str:
    return carrier[0]


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[MutableMapping[str, str]]:
    """Variables of the environment, for one test; the authority of the tests is trusted."""
    saved = dict(os.environ)
    AUTHORITY.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    os.environ["SSL_CERT_FILE"] = str(tmp_path / "authority.pem")
    os.environ["NO_PROXY"] = ""
    yield os.environ
    os.environ.clear()
    os.environ.update(saved)


def connect(server: RawServer, carrier: tuple[str, str | None], **options: object) -> Embedder:
    """An embedder for *server* that tries once more."""
    return Embedder(
        "m",
        base_url=server.base_url,
        transport=carrier[1],  # type: ignore[arg-type]
        timeout=10.0,
        retries=QUICK,
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    "form", ["http://{}", "http://{}/", "{}", "http://me:p%40ss@{}", "http://m%C3%A9:%E2%82%AC@{}"]
)
@pytest.mark.parametrize("tls", [False, True])
async def test_requests_go_through_the_proxy(
    carrier: tuple[str, str | None], environment: MutableMapping[str, str], tls: bool, form: str
) -> None:
    """In plain the proxy is asked for the whole address; to a server behind TLS it is asked for a tunnel, once."""
    async with serve_proxy() as proxy, serve_raw(tls=tls) as server:
        environment["HTTPS_PROXY" if tls else "HTTP_PROXY"] = form.format(proxy.address)
        async with connect(server, carrier) as embedder:
            for texts in (TEXTS, TEXTS[::-1]):
                np.testing.assert_array_equal((await embedder.embed(texts)).vectors, vectors_of(texts))

    address = server.base_url.split("/")[2]
    assert proxy.asked == ([f"CONNECT {address}"] if tls else [f"POST http://{address}/v1/embeddings"] * 2)
    assert server.requests == (2 if tls else 0)
    expected = {"p%40ss": "Basic bWU6cEBzcw==", "%E2%82%AC": "Basic bcOpOuKCrA=="}
    assert proxy.credentials == {next((value for key, value in expected.items() if key in form), "")}


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("form", ["127.0.0.1", "127.0.0.1:{}", "*"])
async def test_no_proxy_excepts_an_address(
    carrier: tuple[str, str | None], environment: MutableMapping[str, str], tls: bool, form: str
) -> None:
    """A host alone, a host with its port, or everything: the server is asked directly, by every transport."""
    async with serve_proxy() as proxy, serve_raw(tls=tls) as server:
        environment["HTTPS_PROXY" if tls else "HTTP_PROXY"] = f"http://{proxy.address}"
        environment["NO_PROXY"] = form.format(server.base_url.split(":")[2].split("/")[0])
        async with connect(server, carrier) as embedder:
            embeddings = await embedder.embed(TEXTS)

    np.testing.assert_array_equal(embeddings.vectors, vectors_of(TEXTS))
    assert (proxy.asked, server.requests) == ([], 1)


@pytest.mark.parametrize("tls", [False, True])
async def test_many_requests_share_tunnels(
    carrier: tuple[str, str | None], environment: MutableMapping[str, str], tls: bool
) -> None:
    """60 requests, 3 at once, through the proxy: 3 tunnels, and every vector is its text's."""
    texts = [f"text {number}" for number in range(60)]
    limits = Limits(max_batch_inputs=1, max_concurrent_requests=3)

    async with serve_proxy() as proxy, serve_raw(tls=tls) as server:
        environment["HTTPS_PROXY" if tls else "HTTP_PROXY"] = f"http://{proxy.address}"
        async with connect(server, carrier, limits=limits) as embedder:
            embeddings = await embedder.embed(texts)

    np.testing.assert_array_equal(embeddings.vectors, vectors_of(texts))
    assert len(proxy.asked) == (3 if tls else 60)


REFUSALS = {
    "407": b"HTTP/1.1 407 Who are you\r\ncontent-length: 0\r\n\r\n",
    "502": b"HTTP/1.1 502 Nobody there\r\ncontent-length: 0\r\n\r\n",
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_proxy_that_makes_no_tunnel_is_a_failed_connection(
    carrier: tuple[str, str | None], environment: MutableMapping[str, str], name: str
) -> None:
    """Whatever it refuses the tunnel with: no connection was made, and the server heard of nothing."""
    async with serve_proxy(REFUSALS[name]) as proxy, serve_raw(tls=True) as server:
        environment["HTTPS_PROXY"] = f"http://{proxy.address}"
        error = await stop_one(connect(server, carrier))

    assert type(error) is ConnectionFailedError
    assert (len(proxy.asked), server.connections) == (2, 0)


async def test_a_proxy_that_refuses_to_forward_is_a_refusal(
    carrier: tuple[str, str | None], environment: MutableMapping[str, str]
) -> None:
    """In plain its 407 is the reply, and is judged like any other 4xx."""
    async with serve_proxy(REFUSALS["407"]) as proxy, serve_raw() as server:
        environment["HTTP_PROXY"] = f"http://{proxy.address}"
        failure = await fail_one(connect(server, carrier))

    assert isinstance(failure.error, RequestRefusedError)
    assert failure.error.status == 407
    assert server.connections == 0


@pytest.mark.parametrize("tls", [False, True])
async def test_a_proxy_that_is_not_there_is_a_failed_connection(
    carrier: tuple[str, str | None], environment: MutableMapping[str, str], tls: bool
) -> None:
    """Nobody listens where the environment says: as if nobody listened at the server's own address."""
    async with serve_proxy() as proxy:
        environment["HTTPS_PROXY" if tls else "HTTP_PROXY"] = f"http://{proxy.address}"
    async with serve_raw(tls=tls) as server:
        error = await stop_one(connect(server, carrier))

    assert type(error) is ConnectionFailedError
    assert server.connections == 0


@pytest.mark.parametrize("carrier", [("asyncio", "aiohttp")])
@pytest.mark.parametrize("tls", [False, True])
async def test_what_aiohttp_cannot_go_through_it_refuses(
    carrier: tuple[str, str | None], environment: MutableMapping[str, str], tls: bool
) -> None:
    """A proxy of another kind than HTTP is a ConfigurationError, not an HTTP request to something that is no HTTP."""
    async with serve_proxy() as proxy, serve_raw(tls=tls) as server:
        environment["ALL_PROXY"] = f"socks5://{proxy.address}"
        async with connect(server, carrier) as embedder:
            with pytest.raises(ConfigurationError, match="proxies"):
                await embedder.embed(TEXTS)

    assert (proxy.asked, server.connections) == ([], 0)
