"""httpx's own transport, once for each connection."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx


class Lanes(httpx.AsyncBaseTransport):
    """
    Sends each request over a transport that has one connection, the one that was used last.

    httpcore looks through all connections of a pool at every request and every reply, and asks the system about each
    that is idle: with 64 of them that takes longer than all the rest. There is no ceiling here: whoever sends has one.
    Connections that were idle for *keepalive* seconds are closed.
    """

    def __init__(self, *, verify: bool, keepalive: float) -> None:
        self._verify: Any = httpx.create_ssl_context() if verify else False
        self._keepalive = keepalive
        self._limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=keepalive)
        self._idle: deque[tuple[float, httpx.AsyncHTTPTransport]] = deque()  # the one that was used last is the last
        self._busy: set[httpx.AsyncHTTPTransport] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send *request*; the body of the response is still to be read."""
        await self._close_idle(anyio.current_time() - self._keepalive)
        lane = self._idle.pop()[1] if self._idle else httpx.AsyncHTTPTransport(verify=self._verify, limits=self._limits)
        self._busy.add(lane)
        try:
            response = await lane.handle_async_request(request)
        except BaseException:
            self.put_back(lane)
            raise
        response.stream = _Lent(response.stream, lane, self)
        return response

    def put_back(self, lane: httpx.AsyncHTTPTransport) -> None:
        """Let others use *lane*."""
        self._busy.discard(lane)
        self._idle.append((anyio.current_time(), lane))

    async def _close_idle(self, since: float) -> None:
        while self._idle and self._idle[0][0] <= since:
            await self._idle.popleft()[1].aclose()

    async def aclose(self) -> None:
        """Close all connections, also those in use."""
        await self._close_idle(anyio.current_time())
        while self._busy:
            await self._busy.pop().aclose()


class _Lent(httpx.AsyncByteStream):
    """The body of a response, after which its lane is free."""

    def __init__(self, stream: Any, lane: httpx.AsyncHTTPTransport, lanes: Lanes) -> None:
        self._stream = stream
        self._lane: httpx.AsyncHTTPTransport | None = lane
        self._lanes = lanes
        self._httpcore_stream = getattr(stream, "_httpcore_stream", None)  # as httpx has it: see _cut_off_surplus

    def __aiter__(self) -> AsyncIterator[bytes]:
        iterator: AsyncIterator[bytes] = self._stream.__aiter__()
        return iterator

    async def aclose(self) -> None:
        lane, self._lane = self._lane, None
        try:
            await self._stream.aclose()
        finally:
            if lane is not None:
                self._lanes.put_back(lane)
