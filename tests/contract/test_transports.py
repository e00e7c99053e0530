"""
The two transports: which one is taken, what it sends, and that one is as good as the other.

`every_transport` runs a test with each of them. What servers may do to them is in `test_sockets` and its neighbours.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
import httpx
import numpy as np
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream

from embedbatch import ConfigurationError, ConnectionFailedError, Embedder, Limits
from embedbatch.errors import AttemptTimeoutError, ConnectionLostError, EmbedbatchError, RequestRefusedError

from . import raw
from .asking import stop_one, stopped_by
from .raw import (
    AUTHORITY,
    OK,
    QUICK,
    TEXTS,
    Misdeed,
    body_of,
    connect,
    filling_a_record,
    listen,
    right_reply,
    serve_raw,
    vectors_of,
)

URL = "http://api.test/v1"


@pytest.fixture
def environment() -> Iterator[MutableMapping[str, str]]:
    """Variables of the environment, for one test."""
    saved = dict(os.environ)
    yield os.environ
    os.environ.clear()
    os.environ.update(saved)


def carrier(**options: object) -> str:
    """What an embedder says carries its requests."""
    return repr(Embedder("m", **{"base_url": URL, **options})).split(" over ")[1].split(",")[0]  # type: ignore[arg-type]


# Which one is taken


def test_outside_of_any_loop_asyncio_is_taken_to_come() -> None:
    """Nothing runs yet: aiohttp, as it is installed."""
    assert carrier() == "aiohttp"


@pytest.mark.anyio
async def test_aiohttp_carries_on_asyncio_and_httpx_on_trio(both_backends: str) -> None:
    """Nobody chose, and both are installed: aiohttp where it can run."""
    assert carrier() == ("aiohttp" if both_backends == "asyncio" else "httpx")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"HTTP_PROXY": "http://proxy.test:3128"}, "httpx"),
        ({"http_proxy": "proxy.test:3128"}, "httpx"),
        ({"ALL_PROXY": "http://proxy.test:3128"}, "httpx"),
        ({"HTTPS_PROXY": "http://proxy.test:3128"}, "aiohttp"),
        ({"HTTP_PROXY": ""}, "aiohttp"),
        ({"HTTP_PROXY": "http://proxy.test:3128", "NO_PROXY": "api.test"}, "aiohttp"),
        ({"HTTP_PROXY": "http://proxy.test:3128", "NO_PROXY": "api.test:80"}, "httpx"),
        ({"HTTP_PROXY": "http://proxy.test:3128", "NO_PROXY": "*"}, "aiohttp"),
        ({"HTTP_PROXY": "http://proxy.test:3128", "NO_PROXY": ".test"}, "aiohttp"),
        ({"HTTP_PROXY": "http://proxy.test:3128", "NO_PROXY": "other.test"}, "httpx"),
    ],
)
def test_httpx_carries_where_the_environment_names_a_proxy(
    variables: dict[str, str], expected: str, environment: MutableMapping[str, str]
) -> None:
    """A proxy for http:// addresses, which NO_PROXY does not except: then httpx's own transport is taken."""
    environment.update(variables)

    assert carrier() == expected


def test_what_was_handed_in_carries() -> None:
    """A name, a transport of httpx's kind, or a client: what the caller chose is used, and is in the repr."""
    assert carrier(transport="httpx") == "httpx"
    assert carrier(transport="aiohttp") == "aiohttp"
    assert carrier(transport=httpx.MockTransport(lambda request: httpx.Response(500))) == "MockTransport"
    assert carrier(http_client=httpx.AsyncClient()) == "http_client"


def test_a_wrong_name_is_refused() -> None:
    """A name that is none is a ConfigurationError, before anything is sent, and lists those there are."""
    with pytest.raises(ConfigurationError, match=r"transport.*httpx.*aiohttp.*got 'requests'"):
        Embedder("m", base_url=URL, transport="requests")  # type: ignore[arg-type]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_aiohttp_on_trio_is_refused() -> None:
    """transport="aiohttp" on trio is a ConfigurationError from every call: not a hang, and nothing from inside."""
    async with Embedder("m", base_url=URL, transport="aiohttp", retries=QUICK) as embedder:
        with anyio.fail_after(10):
            with pytest.raises(ConfigurationError, match="asyncio only"):
                await embedder.embed(TEXTS)
            with pytest.raises(ConfigurationError, match="asyncio only"):
                await embedder.embed_one("a")
            with pytest.raises(ConfigurationError, match="asyncio only"):
                async with embedder.stream(TEXTS) as results:
                    [result async for result in results]


WITHOUT = """
import sys
sys.path[:0] = {folders!r}
from embedbatch import ConfigurationError, Embedder
print(Embedder("m", base_url="http://api.test/v1"))
try:
    Embedder("m", base_url="http://api.test/v1", transport="aiohttp")
except ConfigurationError as error:
    print(error)
"""


def test_without_the_extra_httpx_carries(tmp_path: Path) -> None:
    """Where aiohttp is not installed httpx is taken without a word, and asking for aiohttp tells what to install."""
    for package in Path(sysconfig.get_path("purelib")).iterdir():
        if "aiohttp" not in package.name:
            (tmp_path / package.name).symlink_to(package)
    root = Path(__file__).parents[2]
    program = WITHOUT.format(folders=[str(root), str(tmp_path)])

    ended = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=False)

    assert ended.stderr == ""
    assert " over httpx, " in ended.stdout
    assert 'not installed: pip install "embedbatch[fast]"' in ended.stdout


# What it sends


class Witness:
    """A server that keeps the head of each request, and answers right, or with what *says* makes of it."""

    def __init__(self) -> None:
        self.base_url = ""
        self.heads: list[bytes] = []

    async def converse(self, stream: anyio.abc.SocketStream) -> None:
        """Serve one connection."""
        received = BufferedByteReceiveStream(stream)
        async with stream:
            try:
                while True:
                    head = await received.receive_until(b"\r\n\r\n", 65_536)
                    self.heads.append(head)
                    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                    right = right_reply(await received.receive_exactly(length))
                    await stream.send(right.replace(b"OK\r\n", b"OK\r\nset-cookie: a=b; path=/\r\n"))
            except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError):
                pass


@asynccontextmanager
async def witness() -> AsyncIterator[Witness]:
    """Serve on loopback."""
    server = Witness()
    async with listen(server.converse) as port:
        server.base_url = f"127.0.0.1:{port}"
        yield server


def fields(head: bytes) -> dict[bytes, bytes]:
    """The headers, without the port."""
    lines = [line.split(b": ", 1) for line in head.split(b"\r\n")[1:]]
    return {name.lower(): value for name, value in lines if name.lower() != b"host"}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("address", "options"),
    [
        ("http://{}/v1", {"api_key": "key"}),
        ("http://me:p%40ss@{}/v1", {}),
        ("http://token@{}/v1", {"api_key": "key"}),
        ("http://{}/a%2Fb/é?api-version=1%20a&b=%2B", {}),
        ("http://{}/v1", {"default_headers": {"X-Name": "grün €", "Accept": "*/*", "User-Agent": "mine"}}),
        ("http://{}/v1", {"default_headers": {"Accept-Encoding": "identity", "Cookie": "a=b"}}),
    ],
)
async def test_both_transports_send_the_same(every_transport: str, address: str, options: dict[str, object]) -> None:
    """The same target and the same headers, whatever is in the address: a key in it goes as Basic, on every one."""
    async with witness() as server:
        url = address.format(server.base_url)
        for over in (raw.over, "httpx"):
            async with Embedder("m", base_url=url, transport=over, retries=QUICK, **options) as embedder:  # type: ignore[arg-type]
                np.testing.assert_array_equal((await embedder.embed(TEXTS)).vectors, vectors_of(TEXTS))

    mine, reference = server.heads
    assert mine.split(b"\r\n")[0] == reference.split(b"\r\n")[0]
    assert fields(mine) == fields(reference)


@pytest.mark.anyio
async def test_no_cookie_is_kept(every_transport: str) -> None:
    """A server sets a cookie with every reply: no request carries one."""
    async with (
        witness() as server,
        Embedder("m", base_url=f"http://{server.base_url}/v1", transport=raw.over) as embedder,
    ):
        for _ in range(3):
            await embedder.embed(TEXTS)

    assert len(server.heads) == 3
    assert not [head for head in server.heads if b"cookie:" in head.lower()]


@pytest.mark.anyio
@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(every_transport: str, status: int) -> None:
    """The key and the texts go to the address they were meant for, and to no other: a redirect is a refusal."""
    async with serve_raw() as other:
        head = f"HTTP/1.1 {status} -\r\nlocation: {other.base_url}/embeddings\r\ncontent-length: 0\r\n\r\n".encode()
        async with serve_raw(Misdeed(says=lambda right: head, stays=True)) as server:
            error = await stop_one(connect(server))

    assert isinstance(error, RequestRefusedError), repr(error)
    assert (server.requests, other.connections) == (1, 0)


@pytest.mark.anyio
async def test_a_body_of_several_megabytes_is_sent(every_transport: str) -> None:
    """Above what aiohttp warns of, and above what fits into the sockets' buffers; a warning would be an error here."""
    limits = Limits(max_batch_bytes=9_000_000)
    texts = [letter * 1_500_000 for letter in "abc"]

    async with serve_raw() as server, connect(server, limits=limits, max_input_tokens=9_000_000) as embedder:
        embeddings = await embedder.embed(texts)

    np.testing.assert_array_equal(embeddings.vectors, vectors_of(texts))


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["[::1]", "localhost"])
async def test_other_names_of_this_machine_are_reached(every_transport: str, name: str) -> None:
    """IPv6 in brackets, and a name that stands for several addresses."""
    server = Witness()
    try:
        listener = await anyio.create_tcp_listener(local_host=name.strip("[]"))
    except OSError:
        pytest.skip("there is no IPv6 here")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, server.converse)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with Embedder("m", base_url=f"http://{name}:{port}/v1", transport=raw.over, retries=QUICK) as embedder:
            embeddings = await embedder.embed(TEXTS)
        tasks.cancel_scope.cancel()
    np.testing.assert_array_equal(embeddings.vectors, vectors_of(TEXTS))


@pytest.mark.anyio
async def test_an_authority_of_ones_own_is_trusted(
    every_transport: str, environment: MutableMapping[str, str], tmp_path: Path
) -> None:
    """SSL_CERT_FILE names who vouches for a server; without it the same server is not spoken to."""
    async with serve_raw(tls=True) as server:
        async with connect(server) as embedder:
            (failure,) = await stopped_by(embedder, ["a"])
        AUTHORITY.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
        environment["SSL_CERT_FILE"] = str(tmp_path / "authority.pem")
        async with connect(server) as embedder:
            embeddings = await embedder.embed(TEXTS)

    assert isinstance(failure.error, ConnectionFailedError)
    np.testing.assert_array_equal(embeddings.vectors, vectors_of(TEXTS))


DAMAGED = {
    "no record": Misdeed(plain=b"this is no TLS record"),
    "damaged in the body": Misdeed(says=lambda right: right[:-10], plain=b"\x17\x03\x03\x00\x20" + bytes(32)),
    "an alert in the clear": Misdeed(plain=b"\x15\x03\x03\x00\x02\x02\x28"),
    "closed in the body": Misdeed(says=lambda right: right[:-10]),
    "closed without a length": Misdeed(says=lambda right: OK + b"\r\n" + body_of(right)[:-10]),
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", DAMAGED)
async def test_a_damaged_tls_stream_is_tried_again(
    every_transport: str, environment: MutableMapping[str, str], tmp_path: Path, name: str
) -> None:
    """What breaks inside of TLS is one failed attempt, and the next reply is right: a cut one is never used."""
    AUTHORITY.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    environment["SSL_CERT_FILE"] = str(tmp_path / "authority.pem")

    async with serve_raw(DAMAGED[name], tls=True) as server, connect(server) as embedder:
        embeddings = await embedder.embed(TEXTS)
        stats = embedder.stats()

    np.testing.assert_array_equal(embeddings.vectors, vectors_of(TEXTS))
    assert sum(stats.faults.values()) == 1


@pytest.mark.anyio
async def test_what_follows_a_reply_in_another_tls_record_is_not_the_next_ones(
    every_transport: str, environment: MutableMapping[str, str], tmp_path: Path
) -> None:
    """A reply that fills its record, and a copy in the next: the next request gets the vectors of its own texts."""
    AUTHORITY.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    environment["SSL_CERT_FILE"] = str(tmp_path / "authority.pem")
    twice = Misdeed(says=lambda right: filling_a_record(right) + right, stays=True)

    async with serve_raw(*[twice] * 3, tls=True) as server, connect(server) as embedder:
        for texts in (TEXTS, TEXTS[::-1], TEXTS, TEXTS[::-1]):
            np.testing.assert_array_equal((await embedder.embed(texts)).vectors, vectors_of(texts))


# One is as good as the other


STAYS_SILENT = Misdeed(stays=True)
STAYS_UNDONE = Misdeed(says=lambda right: right[:-9], stays=True)
FAILURES: dict[str, tuple[Misdeed, object, type[EmbedbatchError]]] = {
    "the whole, no head": (STAYS_SILENT, 0.1, AttemptTimeoutError),
    "the whole, no end": (STAYS_UNDONE, 0.1, AttemptTimeoutError),
    "read, no head": (STAYS_SILENT, httpx.Timeout(5, read=0.1), AttemptTimeoutError),
    "read, no end": (
        Misdeed(says=lambda right: right[:-9], stays=True),
        httpx.Timeout(5, read=0.1),
        AttemptTimeoutError,
    ),
    "closed": (Misdeed(), httpx.Timeout(5), ConnectionLostError),
    "closed in the body": (Misdeed(says=lambda right: right[:-9]), httpx.Timeout(5), ConnectionLostError),
    "reset": (Misdeed(resets=True), httpx.Timeout(5), ConnectionLostError),
    "no HTTP": (Misdeed(says=lambda right: b"SSH-2.0\r\n\r\n"), httpx.Timeout(5), ConnectionLostError),
    "a huge header": (
        Misdeed(says=lambda right: OK + b"x: " + b"x" * 200_000 + b"\r\n\r\n" + body_of(right)),
        httpx.Timeout(5),
        ConnectionLostError,
    ),
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", FAILURES)
async def test_both_transports_fail_with_the_same_error(every_transport: str, name: str) -> None:
    """What timeout= says, whole or by phases, and what servers do: one type of error for each."""
    misdeed, timeout, expected = FAILURES[name]

    async with serve_raw(*[misdeed] * 2) as server, connect(server, timeout=timeout) as embedder:
        with anyio.fail_after(10):
            (failure,) = await stopped_by(embedder, ["a"])

    assert type(failure.error) is expected
    assert server.requests == 2
