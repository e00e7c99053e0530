"""Servers that refuse something of a request, and what was asked of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from embedbatch.testing import Received, Scripted, ScriptedServer

Bad = Callable[[Received], bool]


def says(message: str, status: int = 400, **more: Any) -> Scripted:
    """A refusal in OpenAI's shape."""
    return Scripted(status=status, body={"error": {"message": message, **more}})


def refuses(*rules: tuple[Bad, Scripted]) -> ScriptedServer:
    """A server that gives the first reply whose rule holds."""
    server = ScriptedServer(latency=0.1)
    for bad, reply in reversed(rules):
        server.reply_when(lambda request, bad=bad, reply=reply: reply if bad(request) else None)  # type: ignore[misc]
    return server


def asks_for(*encodings: str | None) -> Bad:
    """True for requests that ask for one of these."""
    return lambda request: request.body.get("encoding_format") in encodings


def asks_for_size(request: Received) -> bool:
    """True for requests with a number of dimensions."""
    return "dimensions" in request.body


def has_arrays(request: Received) -> bool:
    """True for requests with token arrays."""
    return not isinstance(request.inputs[0], str)


def forms(server: ScriptedServer) -> list[str | None]:
    """What each request asked for."""
    return [request.body.get("encoding_format") for request in server.received]


UNNAMED = says("Bad request")
TOO_MANY = says("batch size 64 > maximum allowed batch size 32")
NO_BASE64 = says("encoding_format: base64 is not supported")
