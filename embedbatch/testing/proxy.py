"""
A real server behind a script: what is not answered as it was told to is passed on.

    proxy = ScriptedProxy("http://127.0.0.1:8080")
    proxy.reply_when(lambda request: Scripted(status=400) if "poison" in request.inputs else None)
    async with Embedder("my-model", base_url="http://proxy/v1", transport=proxy) as embedder:
        await embedder.embed(texts, on_failure="collect")
    assert len(proxy.received) < 50

So one sees what a client makes of a fault that the server would show too rarely, with its true vectors beside it.
"""

from __future__ import annotations

import httpx

from .server import Received, Script, Scripted, Streamed, play

# Of one connection, not of the message: the next one has its own.
_OF_A_CONNECTION = {"connection", "content-length", "keep-alive", "transfer-encoding"}


class ScriptedProxy(Script):
    """
    Passes requests on to the server at *upstream*, unless it was told to answer them itself.

    Of *upstream* the scheme, the host and the port are taken; path, headers and body stay those of the request. It is
    reached through *transport*, by default over sockets, and each request has a connection of its own.
    """

    def __init__(self, upstream: str, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        super().__init__()
        self._upstream = httpx.URL(upstream)
        self._transport = transport or httpx.AsyncHTTPTransport(limits=httpx.Limits(max_keepalive_connections=0))

    async def _reply(self, received: Received, request: httpx.Request, scripted: Scripted | None) -> httpx.Response:
        if scripted is not None:
            return await play(scripted, request)
        place = self._upstream
        headers = [(name, value) for name, value in request.headers.raw if name.lower() != b"host"]
        passed_on = httpx.Request(
            request.method,
            request.url.copy_with(scheme=place.scheme, host=place.host, port=place.port),
            headers=headers,
            content=request.content,
            extensions={"timeout": request.extensions.get("timeout", {})},
        )
        response = await self._transport.handle_async_request(passed_on)
        body = b"".join([part async for part in response.aiter_raw()])
        kept = [(name, value) for name, value in response.headers.raw if name.decode().lower() not in _OF_A_CONNECTION]
        return httpx.Response(response.status_code, headers=kept, stream=Streamed(body))

    async def aclose(self) -> None:
        """Close the connections to the server."""
        await super().aclose()
        await self._transport.aclose()
