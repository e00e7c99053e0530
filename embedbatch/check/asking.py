"""The asking: one request after the other, never the same twice, unless the endpoint asked for a pause."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import anyio

from ..embedder import Embedder
from ..endpoints import Endpoint, public_url
from ..errors import ConfigurationError, ConnectionLostError, RequestError, RunStoppedError
from ..wire.body import Body
from ..wire.fault import judge, read_retry_after
from ..wire.refusal import read_cap
from . import probes
from .answers import BUSY, Answer
from .findings import Finding, Known, find
from .probes import BatchSearch, Probe

Connect: TypeAlias = Callable[..., Embedder]
"""Makes an embedder for the endpoint; given ``api_key=``, one with that key."""

MOST_INPUTS = 2_048
PATIENCE = 60.0  # seconds: for a longer pause the question is left open
_PAUSE = 1.0  # second, where the endpoint does not say how long
_MAX_REPLY = 256_000_000  # bytes


@dataclass(frozen=True, slots=True)
class Cost:
    """What is sent at most."""

    requests: int
    tokens: int


@dataclass(kw_only=True)
class Check:
    """
    Asks the endpoint that *connect* leads to what it accepts; a request has at most *max_inputs*.

    *on_probe* is told what is asked next. *answers* has what came back so far.
    """

    connect: Connect
    max_inputs: int = 256
    on_probe: Callable[[Probe], object] = lambda probe: None
    answers: dict[str, Answer] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if not 1 <= self.max_inputs <= MOST_INPUTS:
            raise ConfigurationError(f"max_inputs: expected 1 to {MOST_INPUTS:,}, got {self.max_inputs!r}")
        self._embedder = self.connect()
        self._search = BatchSearch(self.max_inputs, 1)
        self._repeats = probes.REPEATS
        self._sent = 0
        chunker = self._embedder.inside.chunker
        self._tokenizer = chunker.tokenizer
        self._max_input_tokens = chunker.max_input_tokens

    @property
    def base_url(self) -> str:
        """Where that is, without what may be a secret: a user, a password, a query."""
        return public_url(self._embedder.base_url)

    @property
    def endpoint(self) -> Endpoint:
        """What was known of it before."""
        return self._embedder.endpoint

    @property
    def requests(self) -> int:
        """How many were sent."""
        return self._sent

    def at_most(self) -> Cost:
        """What is sent at most, repeats counted in."""
        planned = [
            probes.plain(),
            *probes.first_round(self._max_input_tokens),
            *probes.second_round(2, self._max_input_tokens),
        ]
        bounds = [probe.bound(self._bound) for probe in planned]
        tokens = sum(bounds) + probes.REPEATS * max(bounds)
        largest = probes.batch(self.max_inputs).bound(self._bound)
        searches = BatchSearch.most_requests(self.max_inputs)
        return Cost(len(planned) + searches + probes.REPEATS, tokens + searches * largest)

    async def run(self) -> list[Finding]:
        """
        Ask everything, and return what was found.

        Raises :class:`RunStoppedError` if the first request, which is as plain as can be, brings no vector.
        """
        try:
            first = await self._ask(probes.plain())
            if not first.is_good or first.vector is None:
                raise RunStoppedError(f"the first request failed, and nothing was found out: {first.refusal}")
            await self._ask_all(probes.first_round(self._max_input_tokens))
            await self._ask_all(self._worth_asking(len(first.vector)))
            await self._search_batch()
        finally:
            with anyio.CancelScope(shield=True):
                await self._embedder.aclose()
        return self.findings()

    def findings(self) -> list[Finding]:
        """What the answers say so far."""
        count = self._tokenizer.count if self._tokenizer else None
        known = Known(
            count=count,
            max_input_tokens=self._max_input_tokens,
            inputs_accepted=self._search.accepted,
            inputs_refused=self._search.refused,
        )
        return find(self.answers, known)

    def _worth_asking(self, dimensions: int) -> Iterable[Probe]:
        for probe in probes.second_round(dimensions, self._max_input_tokens):
            if probe.name != "shortened" or self.answers["long"].is_good:
                yield probe

    async def _search_batch(self) -> None:
        if self.answers["order"].is_good:
            self._search.accepted = min(self.max_inputs, len(probes.TEXTS))
        tried = 0
        while (size := self._search.next) is not None and tried < BatchSearch.most_requests(self.max_inputs):
            tried += 1
            answer = await self._ask(probes.batch(size))
            if answer.is_good:
                self._search.accept(size)
            elif answer.is_open:
                return
            else:
                self._search.refuse(size, _named_cap(answer))

    async def _ask_all(self, planned: Iterable[Probe]) -> None:
        for probe in planned:
            await self._ask(probe)

    async def _ask(self, probe: Probe) -> Answer:
        """Send *probe*, and once more after the pause that the endpoint asks for."""
        self.on_probe(probe)
        answer = await self._send(probe)
        pause = _pause(answer)
        if pause is not None and pause <= PATIENCE and self._repeats:
            self._repeats -= 1
            await anyio.sleep(pause)
            answer = await self._send(probe)
        self.answers[probe.name] = answer
        return answer

    async def _send(self, probe: Probe) -> Answer:
        embedder = self.connect(api_key=probes.WRONG_KEY) if probe.wrong_key else self._embedder
        body = _Whole(probe.count)
        self._sent += 1
        try:
            content = json.dumps(_write(probe, embedder.endpoint, embedder.model)).encode()
            transport = embedder.inside.router.routes[0].transport  # a probe is one request, and no run
            reply = await transport.send(content, body, max_reply=_MAX_REPLY)
        except RequestError as error:
            return Answer(probe, error=error)
        finally:
            if probe.wrong_key:
                with anyio.CancelScope(shield=True):
                    await embedder.aclose()
        return Answer(probe, reply.status, {name.lower(): value for name, value in reply.headers.items()}, body.text)

    def _bound(self, text: str) -> int:
        return self._tokenizer.count(text) if self._tokenizer else len(text.encode()) + 1


def _write(probe: Probe, endpoint: Endpoint, model: str) -> dict[str, Any]:
    """The body of *probe*, whose fields are called as *endpoint* calls them."""
    names = {"input": endpoint.input_field, "encoding_format": endpoint.encoding_field}
    if endpoint.dimensions_field is not None:
        names["dimensions"] = endpoint.dimensions_field
    body = probe.body({"model": endpoint.model or model, **endpoint.extra_body})
    return {names.get(name, name): value for name, value in body.items()}


class _Whole(Body):
    """A body that is kept as it comes: what is asked here is how the vectors are written."""

    def __init__(self, inputs: int) -> None:
        super().__init__(inputs)
        self._whole: list[bytes] = []

    def feed(self, part: bytes) -> None:
        self.size += len(part)
        self._whole.append(part)

    def close(self) -> bytes:
        self.text = b"".join(self._whole)
        return self.text


def _pause(answer: Answer) -> float | None:
    """Seconds after which it is worth asking again; ``None`` if it is not."""
    if isinstance(answer.error, ConnectionLostError):
        return 0.0  # as after an answer with 500, which some servers follow by closing
    if answer.status not in BUSY or not answer.is_open:
        return None
    asked = read_retry_after(answer.headers or {})
    return _PAUSE if asked is None else asked


def _named_cap(answer: Answer) -> int | None:
    fault = judge(answer.status or 0, answer.headers or {}, answer.text, proven=True)
    error = fault.error
    cap = read_cap(answer.status or 0, str(error), error.code, error.type, inputs=answer.probe.count, size=0)
    return cap.number if cap is not None and cap.unit == "inputs" else None
