"""
One request after the other, as many times as are to be in flight.

An embedder looks for the number in flight by itself: it begins with one, and reaches 32 with about its 80th request.
A sweep asks what a given number does, with fewer requests than that. So each place has an embedder of its own that
has one request in flight, and what each of them measures is told apart.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TypeAlias

import anyio

from ..dispatch.limiter import Limiter
from ..dispatch.pace import Pace
from ..embedder import Embedder
from ..endpoints import Endpoint, public_url
from ..errors import MalformedReplyError
from ..events import AttemptFailed, BatchAnswered, EndpointPaused, Event
from ..settings import Limits
from ..wire.quota import QuotaHeaders
from .measurement import Answer, Fault

Connect: TypeAlias = Callable[..., Embedder]
"""Makes an embedder for the endpoint, given ``limits=``, ``limiter=`` and ``observe=``."""


class _Unpaced(Limiter):
    """
    A limiter for one request at a time that notes what the endpoint tells of its quota, and does not keep to it.

    A sweep asks what the endpoint does, not what this library would make of it. When it is too fast it is told so.
    """

    def __init__(self, told: Pace) -> None:
        super().__init__(Limits(max_concurrent_requests=1))
        self._told = told

    def hear(self, quota: QuotaHeaders, now: float) -> None:
        self._told.hear(quota, now)


class _RequestEndedError(Exception):
    """The one request of a call is over, and the embedder would send another."""


class Lane:
    """
    One place: a connection, and at most one request in flight. *told* learns the quota that the endpoint tells.

    A call is one request and never more: the first event that tells what became of it ends the call, unless that is
    how it ends anyway.
    """

    def __init__(self, connect: Connect, limits: Limits, told: Pace) -> None:
        self._connect = connect
        self._limits = limits
        self._told = told
        self._embedder = self._new_embedder()
        self._inputs = 0
        self._result: Answer | Fault | None = None
        self._scope: anyio.CancelScope | None = None

    @property
    def endpoint(self) -> Endpoint:
        """What the server at its end accepts."""
        return self._embedder.endpoint

    @property
    def base_url(self) -> str:
        """Where that is, without what may be a secret: a user, a password, a query."""
        return public_url(self._embedder.base_url)

    async def ask(self, texts: list[str]) -> Answer | Fault:
        """Send *texts* in one request, and tell what became of it."""
        self._inputs, self._result = len(texts), None
        with anyio.CancelScope() as self._scope, contextlib.suppress(_RequestEndedError):
            embeddings = await self._embedder.embed(texts, on_failure="collect")
            if self._result is None:
                raise embeddings.failures[0].error  # none of them can be sent
        assert self._result is not None
        if isinstance(self._result, Fault):
            # An embedder keeps in mind what went wrong. The next request is to meet the endpoint, not a careful client.
            await self.aclose()
            self._embedder = self._new_embedder()
        return self._result

    async def aclose(self) -> None:
        """Close the connection."""
        with anyio.CancelScope(shield=True):
            await self._embedder.aclose()

    def _new_embedder(self) -> Embedder:
        return self._connect(limits=self._limits, limiter=_Unpaced(self._told), observe=self._observe)

    def _observe(self, event: Event) -> None:
        match event:
            case BatchAnswered():
                self._result = _read(event, anyio.current_time())
                if event.bad_vectors or event.inputs < self._inputs:
                    raise _RequestEndedError
            case AttemptFailed():
                self._result = Fault(event.error)
                if not event.waits or self._scope is None:
                    raise _RequestEndedError
                # It waits before the next attempt, where the cancellation meets it. A pause is told before that.
                self._scope.cancel()
            case EndpointPaused() if isinstance(self._result, Fault):
                self._result = Fault(self._result.error, event.seconds)


def _read(event: BatchAnswered, now: float) -> Answer | Fault:
    if event.bad_vectors:
        reason = f"{event.bad_vectors:,} of {event.inputs:,} vectors cannot be used"
        return Fault(MalformedReplyError(reason, status=200))
    tokens = event.prompt_tokens if event.total_tokens is None else event.total_tokens
    return Answer(now - event.seconds, now, event.inputs, tokens)
