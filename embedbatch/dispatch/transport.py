"""One request, one reply. The only place for httpx."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import re
import sys
import urllib.request
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import anyio
import httpx

from ..errors import (
    AttemptTimeoutError,
    ConfigurationError,
    ConnectionFailedError,
    ConnectionLostError,
    MalformedReplyError,
)
from ..settings import CONNECT_TIMEOUT, TransportName, check_choice
from ..version import VERSION
from ..wire.body import Body
from .credentials import HEADER_VALUE, Credentials
from .lanes import Lanes, Watched
from .sockets import AFRESH

MAX_ERROR_BODY = 65_536  # bytes; some servers echo every input in the error
KEEPALIVE = 30.0  # seconds; shorter than what servers and balancers commonly allow an idle connection

_FRAMING = ("content-length", "transfer-encoding")  # headers that tell where a body ends
_HEADER_NAME = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")  # RFC 9110, 5.1


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: status, headers (names in lower case); seconds until headers and in all. *key* is its number."""

    status: int
    headers: Mapping[str, str]
    header_seconds: float
    seconds: float
    key: int = 0


class Transport:
    """
    Sends bodies to one URL, with what the *credentials* are there.

    *timeout* covers a whole attempt, from the first byte out to the last byte in; an ``httpx.Timeout`` sets the
    phases instead. *transport* is the name of one or one itself; ``None`` takes aiohttp where it is installed, on
    asyncio, without a proxy in the environment, and httpx's own elsewhere. A client that the caller handed in is used
    as it is, and not closed. An ASGI *app* is reached without a socket.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        credentials: Credentials,
        timeout: float | httpx.Timeout | None,
        max_connections: int,
        http_client: httpx.AsyncClient | None = None,
        transport: httpx.AsyncBaseTransport | TransportName | None = None,
        app: Any = None,
    ) -> None:
        self._url = _read_url(url)
        self.credentials = credentials
        self._headers = _read_headers(headers)
        self._own_names = {name.lower() for name in headers}
        self._with_key: tuple[int, httpx.Headers] | None = None  # the number of a key, and the headers with it
        self._pattern_of: httpx.Headers | None = None
        if isinstance(timeout, httpx.Timeout):
            self._attempt_timeout, phases = None, _read_phases(timeout)
        elif timeout is None or (isinstance(timeout, int | float) and timeout > 0):
            self._attempt_timeout, phases = timeout, httpx.Timeout(None, connect=CONNECT_TIMEOUT)
        else:
            raise ConfigurationError(f"timeout: expected seconds above 0, an httpx.Timeout or None, got {timeout!r}")
        self._phases = phases
        self._is_closed = False
        self._max_connections = max_connections
        self._owns_client = http_client is None
        self._client = http_client
        self._direct: httpx.AsyncBaseTransport | None = None  # of a client of our own
        self._pattern: httpx.Request | None = None  # what it makes of a request
        if isinstance(transport, str):
            check_choice("transport", transport, TransportName)
            if transport == "aiohttp" and not _is_installed("httpx_aiohttp"):
                raise ConfigurationError('transport="aiohttp" is not installed: pip install "embedbatch[fast]"')
        self._transport = httpx.ASGITransport(app=app) if app is not None else transport

    @property
    def is_closed(self) -> bool:
        """True once nothing can be sent any more."""
        return self._is_closed or (self._client is not None and self._client.is_closed)

    @property
    def name(self) -> str:
        """What carries the requests, as far as can be told before the first is sent."""
        if not self._owns_client:
            return "http_client"
        chosen = self._choose()
        return chosen if isinstance(chosen, str) else type(chosen).__name__

    def _choose(self) -> httpx.AsyncBaseTransport | TransportName:
        """Which transport to use."""
        if self._transport is not None:
            return self._transport
        is_fast = _is_installed("httpx_aiohttp") and not _is_on_trio() and _proxy_for(self._url) is None
        return "aiohttp" if is_fast else "httpx"

    def _connect(self) -> httpx.AsyncClient:
        """The client. It is made in the event loop that is to use it: before, nobody knows which that is."""
        if self._client is None:
            try:
                self._client = self._make_client()
            except ConfigurationError:
                raise
            except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:
                message = f"the proxy or the certificates that the environment names cannot be used: {error}"
                raise ConfigurationError(message) from error
        return self._client

    def _make_client(self) -> httpx.AsyncClient:
        self._direct = self._make_transport()
        return httpx.AsyncClient(
            transport=self._direct,
            verify=self._url.scheme == "https",  # without TLS there is nothing to verify: reading CAs takes 80 ms
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # none: they are of no use here
            limits=httpx.Limits(
                max_connections=self._max_connections,
                max_keepalive_connections=self._max_connections,
                keepalive_expiry=KEEPALIVE,
            ),
        )

    def _make_transport(self) -> httpx.AsyncBaseTransport | None:
        """The transport; ``None`` is that of ``httpx.AsyncClient``, which finds its way through proxies."""
        chosen = self._choose()
        proxy = _proxy_for(self._url)
        verify = self._url.scheme == "https"
        if chosen == "httpx":
            return None if proxy else Lanes(verify=verify, keepalive=KEEPALIVE, on_trio=_is_on_trio())
        if chosen != "aiohttp":
            return chosen
        from .fast import FastTransport

        if _is_on_trio():
            raise ConfigurationError('transport="aiohttp" runs on asyncio only; this is trio')
        if proxy and not proxy.lower().startswith(("http://", "https://")):
            raise ConfigurationError('transport="aiohttp" takes http and https proxies only')
        return FastTransport(verify=verify, proxy=proxy, max_connections=self._max_connections, keepalive=KEEPALIVE)

    async def send(self, content: bytes, body: Body, *, max_reply: int) -> Reply:
        """
        POST *content*; return whatever the server replied, unless a good reply has *max_reply* bytes or more.

        Its *body* is taken in as it comes, and is closed then.

        A connection that was kept alive, and ends before the head of the reply has come, is replaced by a new one.

        Raises :class:`ConnectionFailedError`, :class:`ConnectionLostError` and :class:`AttemptTimeoutError`, and
        :class:`MalformedReplyError` for a body that is too large or whose compression is broken.
        """
        headers = await self._head()
        key, started_at = self.credentials.number, anyio.current_time()
        try:
            with anyio.CancelScope(deadline=started_at + (self._attempt_timeout or math.inf)) as attempt:
                response, headers_at = await self._post_afresh(content, headers)
                await self._read(response, body, max_reply)
            if attempt.cancelled_caught:
                raise TimeoutError
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError) as error:
            raise ConnectionFailedError(f"no connection to {self._url.host}: {_describe(error)}") from error
        except (TimeoutError, httpx.TimeoutException) as error:
            seconds = anyio.current_time() - started_at
            raise AttemptTimeoutError(f"no complete reply after {seconds:.1f} s: {_describe(error)}") from error
        except httpx.DecodingError as error:
            raise MalformedReplyError(f"the reply's compression is broken: {error}") from error
        # Beside its own errors httpx lets out InvalidURL, for a redirect to nowhere, followed or not; ssl.SSLError, for
        # a damaged record on asyncio; and UnicodeEncodeError, when a cookie that it was sent is not ASCII.
        except (httpx.TransportError, httpx.InvalidURL, OSError, UnicodeError) as error:
            raise ConnectionLostError(f"the connection to {self._url.host} broke: {_describe(error)}") from error
        seconds = anyio.current_time() - started_at
        # A dict: httpx looks through all of them, and decodes them, for each that is asked for.
        return Reply(response.status_code, dict(response.headers.items()), headers_at - started_at, seconds, key)

    def _check_open(self) -> None:
        if self.is_closed:
            raise ConnectionFailedError("the embedder, or the http_client it was given, is closed")

    async def _head(self) -> httpx.Headers:
        """The headers of a request, with the key of this moment unless the caller gives that header himself."""
        auth = await self.credentials.header()
        number = self.credentials.number
        if self._with_key is None or self._with_key[0] != number:
            headers = self._headers.copy()
            if auth is not None and auth[0].lower() not in self._own_names:
                headers[auth[0]] = auth[1]
            self._with_key = number, headers
        return self._with_key[1]

    async def _post_afresh(self, content: bytes, headers: httpx.Headers) -> tuple[httpx.Response, float]:
        """Send the request, and once more over a new connection if one that was kept alive turns out to be closed."""
        with contextlib.suppress(_StaleConnectionError):
            return await self._post(content, headers, {})
        return await self._post(content, headers, {AFRESH: True})

    async def _post(
        self, content: bytes, headers: httpx.Headers, extensions: dict[str, Any]
    ) -> tuple[httpx.Response, float]:
        """Send the request; return the response, whose body is still to be read, and the time."""
        connection = _Connection()
        self._check_open()
        try:
            response = await self._send(content, headers, {**extensions, "trace": connection.trace})
        except RuntimeError:  # of httpx or aiohttp, if they were closed at this moment
            self._check_open()
            raise
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as error:
            garbage = isinstance(error, httpx.RemoteProtocolError) and not str(error).startswith("Server disconnected")
            if connection.was_kept_alive and not garbage:
                raise _StaleConnectionError(str(error)) from error
            raise
        return response, anyio.current_time()

    async def _send(self, content: bytes, headers: httpx.Headers, extensions: dict[str, Any]) -> httpx.Response:
        """
        Hand the request to the client, which does with it as it was told to.

        A client of our own was told nothing, and it would find that out anew each time: 100 µs, a tenth of what a
        request of 16 texts takes. So the transport is handed what the client would have handed it.
        """
        client = self._connect()
        # Redirects are never followed: they would carry the key and the texts elsewhere.
        if self._direct is None:
            request = client.build_request(
                "POST",
                self._url,
                content=content,
                headers=headers,
                timeout=self._phases,
                extensions=extensions,
            )
            request.stream = _Content(content)
            return await client.send(request, stream=True, follow_redirects=False)
        if self._pattern is None or self._pattern_of is not headers:
            self._pattern_of = headers
            self._pattern = client.build_request("POST", self._url, headers=headers, timeout=self._phases)
            if self._url.userinfo:
                next(httpx.BasicAuth(self._url.username, self._url.password).auth_flow(self._pattern))
            del self._pattern.headers["Content-Length"]
        request = httpx.Request(
            "POST",
            self._url,
            headers=self._pattern.headers,
            stream=_Content(content),
            extensions=self._pattern.extensions | extensions,
        )
        request.headers["Content-Length"] = str(len(content))
        await request.aread()  # a transport may look at the content
        request.stream = _Content(content)
        return await self._direct.handle_async_request(request)

    async def _read(self, response: httpx.Response, body: Body, max_reply: int) -> None:
        failed = not response.is_success
        max_size = MAX_ERROR_BODY if failed else max_reply
        stream = response.stream
        if isinstance(stream, httpx.AsyncByteStream) and not response.is_stream_consumed:
            response.stream = watched = Watched(response, stream)  # httpx closes what it has decoded
            parts = response.aiter_bytes() if "content-encoding" in response.headers else aiter(watched)
        else:
            parts = response.aiter_bytes()
        try:
            with anyio.CancelScope() as enough:
                async for part in parts:
                    body.feed(part)
                    if body.size >= max_size:
                        enough.cancel()  # leaving the loop would leave httpx's generators open, which trio resents
        except httpx.DecodingError:
            if not failed:
                raise
            # What the status and the headers say is worth more than the text.
        finally:
            await response.aclose()
        if body.size >= max_size and not failed:
            raise MalformedReplyError(f"expected a reply of less than {max_reply:,} bytes, got more")
        text = body.close()
        if failed or (b'"data"' not in text and b'"embeddings"' not in text):  # an error in disguise
            body.text = self.credentials.redact(text[:MAX_ERROR_BODY])

    async def aclose(self) -> None:
        """Close the connections, unless the client is the caller's."""
        self._is_closed = True
        if self._owns_client and self._client is not None:
            await self._client.aclose()


class _StaleConnectionError(httpx.RemoteProtocolError):
    """A connection that was kept alive ended before any of the reply came: the server had closed it meanwhile."""


class _Connection:
    """Watches httpcore send one request: over a connection it opens, or one that was kept alive."""

    def __init__(self) -> None:
        self._sent = self._opened = False

    async def trace(self, name: str, info: Mapping[str, Any]) -> None:
        if name == "http11.send_request_headers.started":
            self._sent = True
        elif name == "connection.connect_tcp.started":
            self._opened = True

    @property
    def was_kept_alive(self) -> bool:
        return self._sent and not self._opened


class _Content(httpx.AsyncByteStream):
    """A request's body. httpx's own is a generator, which stays open when the sending is cancelled: trio warns."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._left = [self._body]
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _is_on_trio() -> bool:
    """True in trio; outside of any event loop asyncio is taken to be the one to come."""
    trio = sys.modules.get("trio")
    return trio is not None and trio.lowlevel.in_trio_run()


def _proxy_for(url: httpx.URL) -> str | None:
    """The proxy that the environment names for *url*."""
    proxies = urllib.request.getproxies()
    if urllib.request.proxy_bypass(url.host) or urllib.request.proxy_bypass(url.netloc.decode()):
        return None
    proxy = proxies.get(url.scheme) or proxies.get("all")
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def _read_url(url: str) -> httpx.URL:
    try:
        read = httpx.URL(url)
        read.raw_host.decode().encode("idna")  # as the resolver does: a label may be too long, or empty
        if read.scheme in ("http", "https") and read.host and (read.port is None or 0 < read.port < 65_536):
            return read
        reason = ""
    except (httpx.InvalidURL, ValueError) as error:
        reason = f": {error}"
    raise ConfigurationError(f"base_url: expected an http or https address, got {url!r}{reason}")


def _read_phases(timeout: httpx.Timeout) -> httpx.Timeout:
    """The seconds of each phase. With 0, httpx's own transport gives up at once and aiohttp waits for ever."""
    for phase, seconds in timeout.as_dict().items():
        if seconds is not None and not seconds > 0:
            raise ConfigurationError(f"timeout: expected seconds above 0 or None for {phase}, got {timeout!r}")
    return timeout


def _read_headers(headers: Mapping[str, str]) -> httpx.Headers:
    """The headers of every request. What no header can carry is refused here: h11's error would show a secret."""
    for name, value in headers.items():
        if not (isinstance(value, str) and _HEADER_NAME.fullmatch(name) and HEADER_VALUE.fullmatch(value)):
            raise ConfigurationError(f"default_headers: {name!r} is not a header that HTTP can carry")
        if name.lower() in _FRAMING:
            raise ConfigurationError(f"default_headers: {name!r} is set by whoever sends the body")
    read = httpx.Headers(
        {"User-Agent": f"embedbatch/{VERSION}", "Content-Type": "application/json", "Accept": "application/json"}
    )
    read.update(httpx.Headers(dict(headers), encoding="utf-8"))
    return read


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
