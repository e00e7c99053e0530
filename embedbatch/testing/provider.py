"""
A provider with limits, in memory: an ``httpx.AsyncBaseTransport`` that grants, refuses and slows down as real ones do.

    provider = ProviderSimulator(quota=Quota(tokens_per_minute=1_000_000))
    async with Embedder("test-model", base_url="http://test/v1", transport=provider) as embedder:
        await embedder.embed(["a", "b"])
    assert provider.share(429) == 0

Where ScriptedServer does what a test tells it, this follows rules: a quota, a latency, a capacity, outages, other
clients. Waiting goes through anyio, so under trio's MockClock an hour of rate limits takes seconds. With the same seed
and the same requests at the same times everything is the same.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

import anyio
import httpx
import msgspec

from ..errors import ConfigurationError
from ..values import Content, Vector
from . import replies
from .conditions import Capacity, Latency, Outage
from .quota import Meter, OtherClient, Quota, Ramp
from .replies import Asked, Encoded


@dataclass(slots=True)
class RequestRecord:
    """
    One request as the provider saw it; times are in seconds since it began.

    *tokens* is what the quota counted, *granted* whether it was let through to be embedded, *in_flight* how many
    requests were open when it arrived, this one counted. *status* is None while there is no answer, and 0 for a
    refused connection.
    """

    number: int
    at: float
    inputs: int
    size: int
    in_flight: int
    tokens: float = 0.0
    granted: bool = False
    status: int | None = None
    answered_at: float | None = None


class _Answer(NamedTuple):
    """What a request gets: *work* for the good ones, a status for others; 0 is no connection, None no answer ever."""

    status: int | None
    body: bytes = b""
    headers: Mapping[str, str] | None = None
    work: _Work | None = None


class _Work(NamedTuple):
    """What is left to do for a request that was let through."""

    asked: Asked
    inputs: list[Encoded]
    usage: int


class ProviderSimulator(httpx.AsyncBaseTransport):
    """
    Embeds what its limits allow, and refuses the rest in OpenAI's words.

    *dimensions* is the size of the vectors, *latency* a :class:`Latency` or a fixed number of seconds. *others* take
    from the same *quota*. *credit_tokens* is what there is to spend, in tokens of `usage`, which are
    *usage_tokens_per_byte* of a text. *ramp* turns OpenAI's ramp rule on.

    What a client is told: *headers* with the rate limits; *retry_after* on a 429; *detailed*, whether a 429 says in
    its body which limit it is and how long to wait; *announce_caps*, whether a request above *max_inputs*,
    *max_request_bytes* or *max_request_tokens* is told the number. A request with an input for which *poison* is true
    is refused without saying which it is.

    *requests* has a :class:`RequestRecord` for each; with *remember*, *embedded* counts how often each input was
    answered.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        dimensions: int = 4,
        quota: Quota | None = None,
        latency: Latency | float = 0.2,
        capacity: Capacity | None = None,
        headers: bool = True,
        retry_after: bool = True,
        detailed: bool = True,
        max_inputs: int | None = None,
        max_request_bytes: int | None = None,
        max_request_tokens: int | None = None,
        announce_caps: bool = True,
        poison: Callable[[str], bool] | None = None,
        outages: Sequence[Outage] = (),
        others: Sequence[OtherClient] = (),
        credit_tokens: float | None = None,
        ramp: bool = False,
        usage_tokens_per_byte: float = 0.22,
        remember: bool = False,
    ) -> None:
        if others and quota is None:
            raise ConfigurationError("others: expected a quota that they take from, got none")
        if not isinstance(latency, Latency):
            latency = Latency(median=latency, sigma=0.0, refusal=min(latency, 0.03))
        self.dimensions = dimensions
        self.requests: list[RequestRecord] = []
        self.embedded: Counter[Content] = Counter()
        self.in_flight = 0
        self.max_in_flight = 0
        self.is_closed = False
        self.origin: float | None = None
        self._meter = Meter(quota or Quota(), others, Random(f"{seed} noise"))
        self._latency = latency
        self._capacity = capacity or Capacity()
        self._headers = headers
        self._retry_after = retry_after
        self._detailed = detailed
        self._max_inputs = max_inputs
        self._max_request_bytes = max_request_bytes
        self._max_request_tokens = max_request_tokens
        self._announce_caps = announce_caps
        self._poison = poison
        self._outages = tuple(outages)
        self._credit_tokens = math.inf if credit_tokens is None else credit_tokens
        self._ramp = Ramp() if ramp else None
        self._usage_tokens_per_byte = usage_tokens_per_byte
        self._remember = remember
        self._uplinks = Random(f"{seed} uplink")
        self._latencies = Random(f"{seed} latency")
        self._spent = 0
        self._accepted = 0
        self._working = 0
        self._workers: anyio.Semaphore | None = None

    def start(self) -> None:
        """Begin now, if it has not begun: *origin* is this moment. Otherwise it begins with the first request."""
        if self.origin is None:
            self.origin = anyio.current_time()
            if self._capacity.workers is not None:
                self._workers = anyio.Semaphore(self._capacity.workers)

    def vector_of(self, content: Content, dimensions: int | None = None) -> Vector:
        """The vector that *content* gets: float32, shape (dimensions,), length 1."""
        vector: Vector = replies.vectors_of([replies.encode_input(content)], dimensions or self.dimensions)[0]
        return vector

    def granted_tokens(self, start: float = 0.0, end: float = math.inf) -> float:
        """Tokens, as the quota counted them, of the requests it let through from *start* to before *end*."""
        return sum(record.tokens for record in self.requests if record.granted and start <= record.at < end)

    def share(self, status: int | None, start: float = 0.0, end: float = math.inf) -> float:
        """Which part of the requests that arrived from *start* to before *end* got this status; 0 if none arrived."""
        statuses = [record.status for record in self.requests if start <= record.at < end]
        return statuses.count(status) / len(statuses) if statuses else 0.0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request, or not."""
        content = await request.aread()
        self.start()
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        record = RequestRecord(len(self.requests) + 1, self._now(), 0, len(content), self.in_flight)
        self.requests.append(record)
        try:
            if self._latency.uplink:
                await anyio.sleep(self._uplinks.uniform(0.0, self._latency.uplink))
            answer = self._judge(record, content)
            if answer.status is None:
                await anyio.sleep_forever()
            if answer.work is None:
                await anyio.sleep(self._latency.refusal)
                body = answer.body
            else:
                body = await self._embed(record, answer.work)
            record.status = answer.status
            record.answered_at = self._now()
        finally:
            self.in_flight -= 1
        if answer.status == 0:
            raise httpx.ConnectError("connection refused", request=request)
        kind = "application/json" if body[:1] == b"{" else "text/plain"
        headers = {"content-type": kind, "x-request-id": f"req_{record.number}", **(answer.headers or {})}
        return httpx.Response(answer.status or 0, headers=headers, content=body)

    def _now(self) -> float:
        return anyio.current_time() - (self.origin or 0.0)

    def _judge(self, record: RequestRecord, content: bytes) -> _Answer:
        """What becomes of a request that is here now. The order is that in which it gets through a provider."""
        now = self._now()
        for outage in self._outages:
            if outage.start <= now < outage.end:
                return _OUT[outage.kind]
        sheds_above = self._capacity.sheds_above
        if sheds_above is not None and self._accepted >= sheds_above:
            status = self._capacity.status
            return _Answer(status, replies.BUSY if status == 503 else replies.MODEL_OVERLOADED)
        most = self._max_request_bytes
        if most is not None and record.size > most:
            return _Answer(413, replies.write_too_many_bytes(most, announce=self._announce_caps))
        try:
            asked = replies.read_request(content)
            inputs = asked.inputs()
        except (msgspec.MsgspecError, UnicodeError):
            return _Answer(400, replies.NO_JSON)
        text_bytes = sum(len(item) for item in inputs if isinstance(item, bytes))
        array_tokens = sum(len(item) for item in inputs if not isinstance(item, bytes))
        usage = max(len(inputs), round(text_bytes * self._usage_tokens_per_byte) + array_tokens)
        record.inputs = len(inputs)
        record.tokens = self._meter.estimate(text_bytes, array_tokens)
        work = _Work(asked, inputs, usage)
        refused = self._charge(record, work, now) or self._validate(record, work)
        headers = self._meter.headers(now) if self._headers else {}
        if refused is not None:
            return refused._replace(headers={**headers, **(refused.headers or {})})
        record.granted = True
        self._spent += usage
        return _Answer(200, headers=headers, work=work)

    def _charge(self, record: RequestRecord, work: _Work, now: float) -> _Answer | None:
        """Credit, quota and ramp; None if all let it through."""
        if self._spent + work.usage > self._credit_tokens:
            return _Answer(429, replies.NO_CREDIT)
        refusal = self._meter.offer(record.tokens, now)
        if refusal is not None:
            return self._limited(replies.write_refusal(refusal, work.asked.model), refusal.wait)
        wait = self._ramp.offer(record.tokens, now) if self._ramp else 0.0
        return self._limited(replies.SLOW_DOWN, wait) if wait else None

    def _limited(self, body: bytes, wait: float) -> _Answer:
        headers = {}
        if self._retry_after and not math.isinf(wait):
            headers["retry-after"] = str(max(1, math.ceil(wait)))
            headers["retry-after-ms"] = str(max(1, math.ceil(wait * 1_000)))
        return _Answer(429, body if self._detailed else replies.TOO_MANY_REQUESTS, headers)

    def _validate(self, record: RequestRecord, work: _Work) -> _Answer | None:
        """The caps and the poison; None if the request is in order. It has counted for the quota already."""
        announce = self._announce_caps
        if self._max_inputs is not None and record.inputs > self._max_inputs:
            return _Answer(400, replies.write_too_many_inputs(record.inputs, self._max_inputs, announce=announce))
        most = self._max_request_tokens
        if most is not None and record.tokens > most:
            return _Answer(400, replies.write_too_many_tokens(math.ceil(record.tokens), most, announce=announce))
        if not work.inputs or (
            self._poison and any(isinstance(item, bytes) and self._poison(item.decode()) for item in work.inputs)
        ):
            return _Answer(400, replies.INVALID_INPUT)
        return None

    async def _embed(self, record: RequestRecord, work: _Work) -> bytes:
        """Wait for a worker, take the time it takes, and write the vectors."""
        self._accepted += 1
        try:
            async with self._workers or contextlib.nullcontext():
                self._working += 1
                try:
                    seconds = self._latency.draw(record.tokens, self._latencies)
                    await anyio.sleep(seconds * self._capacity.stretch(self._working))
                finally:
                    self._working -= 1
        finally:
            self._accepted -= 1
        if self._remember:
            self.embedded.update(item.decode() if isinstance(item, bytes) else tuple(item) for item in work.inputs)
        return replies.write_embeddings(work.asked, work.inputs, self.dimensions, work.usage)

    async def aclose(self) -> None:
        """Note that the client has closed its transport."""
        self.is_closed = True


class Hosts(httpx.AsyncBaseTransport):
    """
    Several servers behind one client: each request goes to the one whose host is in its URL.

    An unknown host finds no connection. Closing this closes all of them.
    """

    def __init__(self, servers: Mapping[str, httpx.AsyncBaseTransport]) -> None:
        self._servers = dict(servers)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Let the host's server answer."""
        server = self._servers.get(request.url.host)
        if server is None:
            raise httpx.ConnectError(f"no such host: {request.url.host}", request=request)
        return await server.handle_async_request(request)

    async def aclose(self) -> None:
        """Close all servers."""
        for server in self._servers.values():
            await server.aclose()


_OUT = {
    "503": _Answer(503, replies.OVERLOADED),
    "500": _Answer(500, replies.SERVER_ERROR),
    "refused": _Answer(0),
    "silence": _Answer(None),
}
