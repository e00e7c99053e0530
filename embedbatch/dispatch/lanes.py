"""The connections that httpx's own transport is made of, without its pool. The only place for httpcore."""

from __future__ import annotations

import contextlib
import math
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Any

import anyio
import httpcore
import httpx

from .sockets import AFRESH, has_unread

_READ = 262_144  # bytes to ask for; httpcore asks for 65,536, and every part is copied four times on its way through

_ERRORS = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
)


class Lanes(httpx.AsyncBaseTransport):
    """
    Sends each request over a connection of its own, the one that was used last, to one origin.

    httpcore's pool looks through all connections at every request and every reply, and asks the system about each
    that is idle: with 64 of them that takes longer than all the rest. There is no ceiling here: whoever sends has one.
    Connections that were idle for *keepalive* seconds are closed.
    """

    def __init__(self, *, verify: bool, keepalive: float, on_trio: bool) -> None:
        self._ssl_context = httpx.create_ssl_context() if verify else None
        self._network = _Network(httpcore.TrioBackend() if on_trio else httpcore.AnyIOBackend())
        self._keepalive = keepalive
        self._idle: deque[tuple[float, httpcore.AsyncHTTPConnection]] = deque()  # the last one was used last
        self._busy: set[httpcore.AsyncHTTPConnection] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send *request*; the body of the response is still to be read."""
        await self._close_idle(math.inf if AFRESH in request.extensions else anyio.current_time() - self._keepalive)
        url = request.url
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        lane = await self._find(target.origin)
        self._busy.add(lane)
        try:
            response = await lane.handle_async_request(
                httpcore.Request(
                    request.method,
                    target,
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        except httpcore.ConnectionNotAvailable as error:  # it was closed meanwhile, with all others
            await self.put_back(lane)
            raise httpx.ConnectError("the transport was closed", request=request) from error
        except _ERRORS as error:
            await self.put_back(lane)
            raise _as_httpx(error, request) from error
        except BaseException:
            await self.put_back(lane)
            raise
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_Lent(response.stream, lane, self, request),
            extensions=response.extensions,
        )

    async def _find(self, origin: httpcore.Origin) -> httpcore.AsyncHTTPConnection:
        """The connection that was used last and is still open, or a new one."""
        while self._idle:
            lane = self._idle.pop()[1]
            if not lane.has_expired():
                return lane
            await lane.aclose()
        return httpcore.AsyncHTTPConnection(origin, ssl_context=self._ssl_context, network_backend=self._network)

    async def put_back(self, lane: httpcore.AsyncHTTPConnection) -> None:
        """Let others use *lane*, if it can be used again."""
        self._busy.discard(lane)
        if lane.is_idle() and not lane.is_closed() and not self._network.is_closed:
            self._idle.append((anyio.current_time(), lane))
        else:
            with anyio.CancelScope(shield=True):
                await lane.aclose()

    async def _close_idle(self, since: float) -> None:
        while self._idle and self._idle[0][0] <= since:
            await self._idle.popleft()[1].aclose()

    async def aclose(self) -> None:
        """Close all connections, also those in use, and those that are being opened."""
        self._network.is_closed = True
        await self._close_idle(anyio.current_time())
        while self._busy:
            await self._busy.pop().aclose()


class _Lent(httpx.AsyncByteStream):
    """The body of a response, after which its lane is free."""

    def __init__(self, stream: Any, lane: httpcore.AsyncHTTPConnection, lanes: Lanes, request: httpx.Request) -> None:
        self._stream = stream
        self._lane: httpcore.AsyncHTTPConnection | None = lane
        self._lanes = lanes
        self._request = request

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._parts = aiter(self._stream)
        return self

    async def __anext__(self) -> bytes:
        try:
            part: bytes = await anext(self._parts)
        except _ERRORS as error:
            raise _as_httpx(error, self._request) from error
        return part

    async def aclose(self) -> None:
        lane, self._lane = self._lane, None
        if lane is None:
            return
        with anyio.CancelScope(shield=True):
            try:
                await self._stream.aclose()
            finally:
                await self._lanes.put_back(lane)


class _Network(httpcore.AsyncNetworkBackend):
    """The network, its streams read in larger parts."""

    def __init__(self, network: httpcore.AsyncNetworkBackend) -> None:
        self._network = network
        self.is_closed = False

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        stream = await self._network.connect_tcp(host, port, timeout, local_address, socket_options)
        if self.is_closed:
            await stream.aclose()
            raise httpcore.ConnectError("the transport was closed")
        return _Stream(stream)


class _Stream(httpcore.AsyncNetworkStream):
    """A stream of the network, read in larger parts. The head of a request is sent together with its body."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._head = b""
        self._socket = stream.get_extra_info("socket")
        self.aclose = stream.aclose  # type: ignore[method-assign]

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        if buffer.startswith(b"POST ") and buffer.endswith(b"\r\n\r\n"):  # no JSON
            self._head = buffer
        elif buffer:
            head, self._head = self._head, b""
            await self._stream.write(head + buffer, timeout)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        return await self._stream.read(max(max_bytes, _READ), timeout)

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable" and self._socket is not None:  # asked before each request
            return has_unread(self._socket.fileno())
        return self._stream.get_extra_info(info)

    async def start_tls(self, *arguments: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._stream.start_tls(*arguments, **options))


class Watched(httpx.AsyncByteStream):
    """The body of *response*. Whoever closes it, it is looked for a surplus before others may use its connection."""

    def __init__(self, response: httpx.Response, stream: httpx.AsyncByteStream) -> None:
        self._response = response
        self._stream = stream

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._stream)

    async def aclose(self) -> None:
        _cut_off_surplus(self._response)
        await self._stream.aclose()


def _cut_off_surplus(response: httpx.Response) -> None:
    """
    End the connection if the server has sent more than its reply.

    httpcore 1.0.9 keeps what h11 has read beyond a reply, and takes it for the reply to the next request on that
    connection: vectors of other texts. It does not tell, so this looks where it keeps it; a transport that is not
    httpcore's has no such place. What came in a record of its own is still with TLS, where httpcore does not look. On
    a socket that was shut down the next request fails and is sent again.
    """
    found: Any = response.stream
    while inner := getattr(found, "_stream", None) or getattr(found, "_httpcore_stream", None):
        found = inner
    for name in ("_connection", "_h11_state", "trailing_data"):
        found = getattr(found, name, None)
    network_stream = response.extensions.get("network_stream")
    if found and network_stream is not None and (found[0] or _has_more(network_stream.get_extra_info("ssl_object"))):
        with contextlib.suppress(OSError):  # the server has ended it already
            own = network_stream.get_extra_info("socket")
            with socket.fromfd(own.fileno(), own.family, own.type) as same:  # uvloop's own cannot be shut down
                same.shutdown(socket.SHUT_RDWR)


def _has_more(tls: ssl.SSLObject | None) -> bool:
    """True if more than what was read has come in records of *tls*, or its end: a byte of it is lost then."""
    if tls is None:
        return False
    try:
        tls.read(1)
    except ssl.SSLWantReadError:
        return False
    except ssl.SSLError:  # a damaged record, or a farewell
        return True
    return True


def _as_httpx(error: Exception, request: httpx.Request) -> httpx.TransportError:
    """The error of the same name."""
    kind: type[httpx.TransportError] = getattr(httpx, type(error).__name__)
    return kind(str(error), request=request)
