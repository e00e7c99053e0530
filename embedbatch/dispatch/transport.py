"""One request, one reply. The only place for httpx."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
from ..settings import CONNECT_TIMEOUT
from ..version import VERSION

MAX_ERROR_BODY = 65_536  # bytes; some servers echo every input in the error
KEEPALIVE = 30.0  # seconds; shorter than what servers and balancers commonly allow an idle connection


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: status, headers (names in lower case), the whole body, and the seconds it took."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float


class Transport:
    """
    Sends bodies to one URL with one key.

    *timeout* covers a whole attempt, from the first byte out to the last byte in; an ``httpx.Timeout`` sets the
    phases instead. A client that the caller handed in is used as it is, and not closed. An ASGI *app* is reached
    without a socket.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        api_key: str | None,
        timeout: float | httpx.Timeout | None,
        max_connections: int,
        http_client: httpx.AsyncClient | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        app: Any = None,
    ) -> None:
        self._url = httpx.URL(url)
        if self._url.scheme not in ("http", "https") or not self._url.host:
            raise ConfigurationError(f"base_url: expected an http or https address, got {url!r}")
        self._api_key = api_key
        self._headers = httpx.Headers(
            {"User-Agent": f"embedbatch/{VERSION}", "Content-Type": "application/json", "Accept": "application/json"}
        )
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._headers.update(headers)
        if isinstance(timeout, httpx.Timeout):
            self._attempt_timeout, phases = None, timeout
        else:
            self._attempt_timeout, phases = timeout, httpx.Timeout(None, connect=CONNECT_TIMEOUT)
        self._phases = phases
        self._owns_client = http_client is None
        self._client = http_client or httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app) if app is not None else transport,
            limits=httpx.Limits(
                max_connections=max_connections,
                max_keepalive_connections=max_connections,
                keepalive_expiry=KEEPALIVE,
            ),
        )

    async def send(self, body: bytes) -> Reply:
        """
        POST *body*; return whatever the server replied.

        Raises :class:`ConnectionFailedError`, :class:`ConnectionLostError` and :class:`AttemptTimeoutError`, and
        :class:`MalformedReplyError` for a body whose compression is broken.
        """
        started_at = anyio.current_time()
        try:
            with anyio.fail_after(self._attempt_timeout):
                status, headers, reply = await self._post(body)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError) as error:
            raise ConnectionFailedError(f"no connection to {self._url.host}: {_describe(error)}") from error
        except (TimeoutError, httpx.TimeoutException) as error:
            seconds = anyio.current_time() - started_at
            raise AttemptTimeoutError(f"no complete reply after {seconds:.1f} s: {_describe(error)}") from error
        except httpx.DecodingError as error:
            raise MalformedReplyError(f"the reply's compression is broken: {error}") from error
        except httpx.TransportError as error:
            raise ConnectionLostError(f"the connection to {self._url.host} broke: {_describe(error)}") from error
        return Reply(status, headers, reply, anyio.current_time() - started_at)

    async def _post(self, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        request = self._client.build_request(
            "POST", self._url, content=body, headers=self._headers, timeout=self._phases
        )
        # Redirects are never followed: they would carry the key and the texts elsewhere.
        response = await self._client.send(request, stream=True, follow_redirects=False)
        try:
            parts = []
            size = 0
            async for part in response.aiter_bytes():
                parts.append(part)
                size += len(part)
                if response.status_code != 200 and size >= MAX_ERROR_BODY:
                    break
        finally:
            await response.aclose()
        # response.content would do the same with a third more time: it decodes and joins twice.
        reply = b"".join(parts)
        if response.status_code != 200:
            reply = self._redact(reply[:MAX_ERROR_BODY])
        return response.status_code, response.headers, reply

    def _redact(self, body: bytes) -> bytes:
        """An error that echoes the key must not carry it into messages and logs."""
        return body.replace(self._api_key.encode(), b"[key]") if self._api_key else body

    async def aclose(self) -> None:
        """Close the connections, unless the client is the caller's."""
        if self._owns_client:
            await self._client.aclose()


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
