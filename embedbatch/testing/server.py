"""
The wire contract in memory: an ``httpx.AsyncBaseTransport`` that answers, and misbehaves when told to.

    server = ScriptedServer()
    server.reply_next(Scripted(status=429, headers={"retry-after": "30"}))
    async with Embedder("test-model", base_url="http://test/v1", transport=server) as embedder:
        await embedder.embed(["a", "b"])
    assert len(server.received) == 2

Vectors are derived from the inputs, so a test can tell whether each is at the right place. Waiting goes through
anyio, so under trio's MockClock an hour of retries takes no time. The body is streamed in pieces.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeAlias

import anyio
import httpx
import msgspec
import numpy as np
import pybase64

from ..values import Content, Vector

Body: TypeAlias = dict[str, Any]

_PIECE = 65_536  # bytes of the body that are sent at once


@dataclass(frozen=True, slots=True)
class Received:
    """One request as the server saw it: its number (the first is 1), the time, the headers, the parsed body."""

    number: int
    at: float
    url: str
    headers: Mapping[str, str]
    body: Body
    size: int

    @property
    def inputs(self) -> list[Content]:
        """The inputs, also of a request with a single one, or one to Nomic."""
        given = self.body["input"] if "input" in self.body else self.body["texts"]
        is_one = isinstance(given, str) or (given and isinstance(given[0], int))
        return [given] if is_one else given


@dataclass(frozen=True, slots=True, kw_only=True)
class Scripted:
    """
    A reply that the server is told to give.

    *body* is sent as it is when it is bytes, as JSON otherwise; without one, a 200 carries the right vectors.
    *after* seconds pass first. *breaks* raises what httpx raises: ``"connect"`` before anything is sent,
    ``"read"`` after the request was received, ``"body"`` in the middle of the reply.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Body | list[Any] | None = None
    after: float = 0.0
    breaks: Literal["connect", "read", "body"] | None = None


Rule: TypeAlias = Callable[[Received], "Scripted | None"]
Edit: TypeAlias = Callable[[Received, Body], Body]


class Script(httpx.AsyncBaseTransport):
    """What may be told to every server here: which requests get which replies. It remembers what it *received*."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.in_flight = 0
        self.max_in_flight = 0
        self.is_closed = False
        self._next: deque[Scripted] = deque()
        self._rules: list[Rule] = []

    def reply_next(self, *replies: Scripted) -> None:
        """Give these replies to the next requests, one each, in order of arrival."""
        self._next.extend(replies)

    def reply_when(self, rule: Rule) -> None:
        """Ask *rule* about every request; where it returns a reply, that is given. Later rules are asked first."""
        self._rules.insert(0, rule)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        content = await request.aread()
        received = Received(
            len(self.received) + 1,
            anyio.current_time(),
            str(request.url),
            request.headers,
            msgspec.json.decode(content),
            len(content),
        )
        self.received.append(received)
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            return await self._reply(received, request, self._choose(received))
        finally:
            self.in_flight -= 1

    async def _reply(self, received: Received, request: httpx.Request, scripted: Scripted | None) -> httpx.Response:
        raise NotImplementedError

    def _choose(self, received: Received) -> Scripted | None:
        if self._next:
            return self._next.popleft()
        for rule in self._rules:
            scripted = rule(received)
            if scripted is not None:
                return scripted
        return None

    async def aclose(self) -> None:
        """Note that the client has closed its transport."""
        self.is_closed = True


class ScriptedServer(Script):
    """
    Answers every request with vectors derived from its inputs, unless it was told otherwise.

    *dimensions* is the size of the vectors, *latency* the seconds a reply takes, or a function that tells them
    for a request. *encodes* is what vectors are sent as: what was asked for, or always one of the two.
    """

    def __init__(
        self,
        *,
        dimensions: int = 8,
        latency: float | Callable[[Received], float] = 0.0,
        encodes: Literal["as asked", "base64", "float"] = "as asked",
    ) -> None:
        super().__init__()
        self.dimensions = dimensions
        self._latency = latency
        self._encodes = encodes
        self._edits: list[Edit] = []

    def edit(self, edit: Edit) -> None:
        """Let *edit* change the body of every good reply before it is sent."""
        self._edits.append(edit)

    def vector_of(self, content: Content, dimensions: int | None = None) -> Vector:
        """The vector this server gives for *content*: float32, shape (dimensions,), length 1."""
        return vector_of(content, dimensions or self.dimensions)

    async def _reply(self, received: Received, request: httpx.Request, scripted: Scripted | None) -> httpx.Response:
        scripted = scripted or Scripted()
        latency = self._latency(received) if callable(self._latency) else self._latency
        embed = partial(self._embed, received) if scripted.body is None and scripted.status == 200 else None
        return await play(scripted, request, embed, latency=latency)

    def _embed(self, received: Received) -> Body:
        asked = received.body.get("encoding_format", "float")
        encodes = asked if self._encodes == "as asked" else self._encodes
        dimensions = received.body.get("dimensions") or self.dimensions
        data = []
        for index, content in enumerate(received.inputs):
            vector = vector_of(content, dimensions)
            embedding = pybase64.b64encode_as_string(vector.tobytes()) if encodes == "base64" else vector.tolist()
            data.append({"object": "embedding", "index": index, "embedding": embedding})
        tokens = sum(max(1, len(content) // 4) for content in received.inputs)
        body: Body = {
            "object": "list",
            "data": data,
            "model": received.body.get("model"),
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
        for edit in self._edits:
            body = edit(received, body)
        return body


async def play(
    scripted: Scripted, request: httpx.Request, embed: Callable[[], Body] | None = None, *, latency: float = 0.0
) -> httpx.Response:
    """Reply to *request* as *scripted* says, *latency* seconds later; *embed* makes the body where it says none."""
    await anyio.sleep(latency + scripted.after)
    if scripted.breaks == "connect":
        raise httpx.ConnectError("connection refused", request=request)
    if scripted.breaks == "read":
        raise httpx.ReadError("connection reset", request=request)
    body = scripted.body if embed is None else embed()
    encoded = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
    headers = {"content-type": "application/json", **scripted.headers}
    stream = Streamed(encoded, request if scripted.breaks == "body" else None)
    return httpx.Response(scripted.status, headers=headers, stream=stream)


def vector_of(content: Content, dimensions: int) -> Vector:
    """A vector that depends on every character or token of *content*: float32, shape (dimensions,), length 1."""
    seed = content.encode() if isinstance(content, str) else b"tokens:" + msgspec.json.encode(content)
    numbers = np.frombuffer(hashlib.shake_128(seed).digest(2 * dimensions), "<i2").astype(np.float32)
    vector: Vector = numbers / np.float32(np.linalg.norm(numbers))
    return vector


class Streamed(httpx.AsyncByteStream):
    """A body that is sent in pieces, and in the middle of which the connection *breaks*, if it is to."""

    def __init__(self, body: bytes, breaks: httpx.Request | None = None) -> None:
        self._body = body
        self._breaks = breaks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        end = len(self._body) // 2 if self._breaks else len(self._body)
        for at in range(0, end, _PIECE):
            yield self._body[at : min(at + _PIECE, end)]
        if self._breaks:
            message = "peer closed connection without sending complete message body"
            raise httpx.RemoteProtocolError(message, request=self._breaks)
