"""
The transport of ``[fast]``: aiohttp behind the interface of httpx. The only place for aiohttp.

A run takes two thirds of the processor time that it takes with httpx's own transport. It runs on asyncio only.
"""

from __future__ import annotations

import base64
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any

import aiohttp
import httpx
import httpx_aiohttp
from aiohttp.connector import Connection

from .sockets import AFRESH, has_unread

_READ = 2**19  # bytes to ask the system for; asyncio asks for half of that, and every part takes a turn of its loop
_BUFFER = 2**20  # bytes of a reply that may wait to be read; at aiohttp's own 64 KiB it stops reading again and again
_MAX_BYTES = 2**20  # of a body that is handed over as bytes; aiohttp warns above that, where a stream is as good
_MAX_LINE = 65_536  # bytes of a line in a reply's head, as with httpx
_MAX_HEADERS = 10_000

# The first that fits is taken.
_ERRORS: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = (
    (aiohttp.ClientHttpProxyError, httpx.ProxyError),
    (aiohttp.ClientProxyConnectionError, httpx.ProxyError),
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
    (aiohttp.ServerTimeoutError, httpx.ReadTimeout),
    (aiohttp.ClientConnectorError, httpx.ConnectError),
    (aiohttp.ServerDisconnectedError, httpx.RemoteProtocolError),
    (aiohttp.ClientConnectionError, httpx.ReadError),
    (aiohttp.ClientPayloadError, httpx.ReadError),
    (aiohttp.ClientError, httpx.RemoteProtocolError),
)

_Trace = Callable[[str, Mapping[str, Any]], Awaitable[None]]
_trace: ContextVar[_Trace | None] = ContextVar("_trace", default=None)
_afresh: ContextVar[bool] = ContextVar("_afresh", default=False)


class FastTransport(httpx_aiohttp.AiohttpTransport):
    """
    Sends a request of httpx with aiohttp.

    Of httpcore's ``trace`` extension it tells two events: that a connection is opened, and that a request goes over
    one that was kept alive.
    """

    def __init__(self, *, verify: bool, proxy: str | None, max_connections: int, keepalive: float) -> None:
        super().__init__(verify=verify, proxy=_read_proxy(proxy) if proxy else None, client=self._make_session)
        self._max_connections = max_connections
        self._keepalive = keepalive

    def _make_session(self) -> aiohttp.ClientSession:
        session = aiohttp.ClientSession(
            connector=_Connector(ssl=self.ssl_context, limit=self._max_connections, keepalive_timeout=self._keepalive),
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=_BUFFER,
            max_line_size=_MAX_LINE,
            max_field_size=_MAX_LINE,
            max_headers=_MAX_HEADERS,
        )
        weakref.finalize(self, session.detach)  # as in _Connector.__del__
        return session

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send *request*; the body of the response is still to be read."""
        if request.url.userinfo:  # httpx has made a header of it; aiohttp refuses to have both
            request.url = request.url.copy_with(userinfo=b"")
        if self.proxy is not None and request.url.scheme == "http":  # elsewhere aiohttp asks for the tunnel with them
            request.headers.update(self.proxy.headers)
        if len(request.content) > _MAX_BYTES:
            request = httpx.Request(
                request.method,
                request.url,
                headers=request.headers,
                stream=request.stream,
                extensions=request.extensions,
            )
        outer, outer_afresh = _trace.set(request.extensions.get("trace")), _afresh.set(AFRESH in request.extensions)
        try:
            response = await super().handle_async_request(request)
        except (httpx.TransportError, aiohttp.ClientError, OSError) as error:
            cause = error.__cause__ if isinstance(error, httpx.TransportError) else error
            raise _as_httpx(cause or error, request) from error
        finally:
            _trace.reset(outer)
            _afresh.reset(outer_afresh)
        assert isinstance(response.stream, httpx_aiohttp.transport.AiohttpResponseStream)
        response.stream = _Body(response.stream, request)
        if response.status_code < 200:  # another protocol, for which nobody had asked
            await response.aclose()
            raise httpx.RemoteProtocolError(f"unexpected status {response.status_code}", request=request)
        return response


class _Connector(aiohttp.TCPConnector):
    """Never uses a connection on which something came that nobody had asked for: it would be taken for the reply."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._known: weakref.WeakSet[object] = weakref.WeakSet()

    def __del__(self, _warnings: Any = None) -> None:
        """With httpx's own transport the sockets just close. Aiohttp would log an error as well."""
        if not self._closed:
            self._close()

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Connection:  # noqa: ASYNC109 - aiohttp's signature
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            assert protocol is not None
            is_no_use = protocol in self._known and (_afresh.get() or _has_unread(protocol))
            if not (protocol.should_close or is_no_use):
                break
            connection.close()
        trace = _trace.get()
        if trace is not None:
            was_kept_alive = protocol in self._known
            await trace(
                "http11.send_request_headers.started" if was_kept_alive else "connection.connect_tcp.started", {}
            )
        transport: Any = protocol.transport
        if hasattr(transport, "max_size"):  # that of asyncio's own event loop
            transport.max_size = _READ
        self._known.add(protocol)
        return connection


class _Body(httpx.AsyncByteStream):
    """A response's body, in parts as large as what has come."""

    def __init__(self, stream: httpx_aiohttp.transport.AiohttpResponseStream, request: httpx.Request) -> None:
        self._response = stream._aiohttp_response
        self._request = request

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            part = await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise _as_httpx(error, self._request) from error
        if not part:
            raise StopAsyncIteration
        return part

    async def aclose(self) -> None:
        self._response.close()  # one that was read to its end has given its connection back already


def _read_proxy(url: str) -> httpx.Proxy:
    """The proxy at *url*, its credentials as a header: aiohttp's own way for these is deprecated, and Latin-1 only."""
    proxy = httpx.Proxy(url)
    if proxy.raw_auth is None:
        return proxy
    credentials = base64.b64encode(b":".join(proxy.raw_auth)).decode()
    return httpx.Proxy(proxy.url, headers={"Proxy-Authorization": f"Basic {credentials}"})


def _has_unread(protocol: Any) -> bool:
    return has_unread(protocol.transport.get_extra_info("socket").fileno())


def _as_httpx(error: BaseException, request: httpx.Request) -> httpx.TransportError:
    for kind, of_httpx in _ERRORS:
        if isinstance(error, kind):
            return of_httpx(str(error) or type(error).__name__, request=request)
    return httpx.ReadError(str(error), request=request)
