"""What the tests of checks share: servers with ways of their own."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from embedbatch import Embedder, Endpoint
from embedbatch.check import Check, Finding
from embedbatch.testing import Received, Scripted, ScriptedServer

KEY = "the-right-key"


def error(message: str, status: int = 400) -> Scripted:
    """A refusal in OpenAI's shape."""
    return Scripted(status=status, body={"error": {"message": message, "type": "t", "param": None, "code": None}})


def refuse(server: ScriptedServer, when: Callable[[Received], Any], reply: Scripted | None = None) -> ScriptedServer:
    """Let *server* refuse a request for which *when* holds."""
    server.reply_when(lambda request: (reply or error("no")) if when(request) else None)
    return server


def openai_like(**options: Any) -> ScriptedServer:
    """A server that refuses what OpenAI refuses."""
    server = ScriptedServer(**options)
    refuse(
        server, lambda it: any(len(text) > 40_000 for text in it.inputs), error("maximum context length is 8192 tokens")
    )
    refuse(server, lambda it: "" in it.inputs, error("'$.input' is invalid"))
    refuse(server, lambda it: it.body.get("dimensions", 0) > server.dimensions, error("dimensions"))
    refuse(server, lambda it: "input" not in it.body, error("no input"))
    refuse(server, lambda it: it.body["model"] != "m", error("no such model", 404))
    return refuse(server, lambda it: it.headers.get("authorization") != f"Bearer {KEY}", error("no such key", 401))


def make_check(server: Any, *, endpoint: Endpoint | None = None, **options: Any) -> Check:
    """A check of *server*, which is *endpoint* as far as that is known."""

    always = {"base_url": "http://test/v1", "api_key": KEY, "transport": server, "endpoint": endpoint, "rng": Random(1)}

    def connect(**given: Any) -> Embedder:
        return Embedder("m", **{**always, **given})

    return Check(connect=connect, **options)


def by_name(findings: list[Finding]) -> dict[str, Any]:
    """The values."""
    return {finding.name: finding.value for finding in findings}


def edit_vectors(server: ScriptedServer, change: Callable[[Received, dict[str, Any]], None]) -> ScriptedServer:
    """Let *change* change each item of every good reply."""

    def edit(request: Received, body: dict[str, Any]) -> dict[str, Any]:
        for item in body["data"]:
            change(request, item)
        return body

    server.edit(edit)
    return server
