"""Which endpoint a request goes to: the first that is ready."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import anyio

from ..endpoints import Meaning
from ..plan.packer import Caps
from ..plan.tokens import TokenRatio
from ..stats import Capacity
from ..values import Batch
from ..wire.request import Form, RequestTemplate
from .forms import Forms
from .hedges import Hedges
from .lessons import Lessons
from .limiter import Lease, Limiter, acquire
from .pieces import Piece
from .shortening import Shortening
from .tickets import URGENT, Ticket

if TYPE_CHECKING:  # httpx is loaded when the first Embedder is made
    from .transport import Transport

_BEHIND = 2  # behind bulk work, where it failed; urgent calls go where they can at once
SET_ASIDE = 60.0  # seconds for which an endpoint is not used whose key, quota or model is refused


@dataclass(slots=True, eq=False)
class Route:
    """
    One endpoint with a key: the way there, and what has been learned about it.

    *key* is what it is known by where lessons are kept: the model and the address, without what may be secret.
    *is_proven* tells that it has answered, *good_at* when it last did; before *out_until* it is not used.
    *refusals* and *reads_rates* are the endpoint's: what its errors mean, and whether its rate headers are believed.
    *investigator* is who finds out why a request was refused that was larger than any before; others with such
    requests wait for the result. *trier* is who tries another size.
    """

    name: str
    key: str
    transport: Transport
    template: RequestTemplate
    limiter: Limiter
    lessons: Lessons
    forms: Forms = field(default_factory=lambda: Forms(Form()))
    refusals: Mapping[str, Meaning] = field(default_factory=dict)
    reads_rates: bool = True
    ratio: TokenRatio = field(default_factory=TokenRatio)
    hedges: Hedges = field(default_factory=Hedges)
    shortening: Shortening = field(default_factory=Shortening)
    is_proven: bool = False
    good_at: float = -math.inf
    out_until: float = -math.inf
    investigator: object = None
    trier: object = None

    def estimate(self, batch: Batch, count: int | None = None) -> float:
        """Tokens of the first *count* inputs as the endpoint will likely count them: for pace."""
        inputs, counts = batch.inputs[:count], batch.tokens[:count]
        if all(counts):
            return sum(counts)
        uncounted = (
            inputs if not any(counts) else [wire for wire, tokens in zip(inputs, counts, strict=True) if not tokens]
        )
        return sum(counts) + self.ratio.value * sum(map(len, uncounted))

    def fit(self, batch: Batch, who: object) -> int:
        """How many of the first inputs of *batch* may go in one request now. *who* may be trying another size."""
        lessons = self.lessons
        max_inputs, max_bytes = lessons.max_inputs, lessons.max_bytes
        if self.investigator not in (None, who):
            max_inputs = max(1, lessons.passed_inputs)
        elif self.trier in (None, who):
            max_inputs, max_bytes = lessons.trial() or max_inputs, lessons.byte_trial() or max_bytes
        count = lessons.fit(batch, max_inputs, max_bytes)
        most = self.limiter.batch_tokens()
        if most == math.inf:
            return count
        total = 0.0
        for row, (wire, tokens) in enumerate(zip(batch.inputs[:count], batch.tokens[:count], strict=True)):
            total += tokens or self.ratio.value * len(wire)
            if row and total > most:
                return row
        return count

    def learned(self) -> dict[str, object]:
        """What was learned by being refused, as JSON can carry it."""
        return {**self.lessons.learned(), **self.forms.learned()}

    def recall(self, learned: object) -> None:
        """Begin with what :meth:`learned` has told before."""
        if isinstance(learned, Mapping):  # a journal may be damaged
            self.lessons.recall(learned)
            self.forms.recall(learned)

    def capacity(self) -> Capacity:
        """What it grants at this moment."""
        limiter = self.limiter
        requests, tokens = limiter.rates()
        return Capacity(
            endpoint=self.name,
            in_flight=limiter.in_flight,
            places=limiter.places,
            waiting=limiter.waiting,
            requests_per_second=requests,
            tokens_per_second=tokens,
            away_seconds=limiter.away_for,
        )

    def form_of(self, piece: Piece) -> Form:
        """How *piece* is to be put here."""
        if piece.trial is None or piece.trial_at is not self:
            return self.forms.form
        return self.forms.at_most(piece.trial)

    @property
    def max_pace_bytes(self) -> float:
        """Bytes of inputs that one request should hold at most, by the pace."""
        return max(1.0, self.limiter.batch_tokens() / self.ratio.value)

    def is_open_question(self, batch: Batch, who: object) -> bool:
        """True while somebody else finds out whether a request of this size is too much."""
        if self.investigator in (None, who):
            return False
        if self.forms.is_open(batch):
            return True  # its form may be the matter as well
        lessons = self.lessons
        return lessons.fit(batch, lessons.max_inputs, lessons.max_bytes) > lessons.passed_inputs


class Router:
    """The routes there are. A request stands in the queue of each, and takes the first that is ready."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = tuple(routes)
        self._settled = anyio.Event()

    @property
    def places(self) -> int:
        """Requests that may be in flight on all routes together, at most."""
        return sum(route.limiter.max_in_flight for route in self.routes)

    def caps(self) -> Caps:
        """What a batch may hold so that every route takes it as it is."""
        offers = [route.lessons.offer() for route in self.routes]
        return Caps(
            max_inputs=min(inputs for inputs, _ in offers),
            max_tokens=min(route.lessons.max_tokens for route in self.routes),
            max_bytes=int(min(min(nbytes for _, nbytes in offers), *(route.max_pace_bytes for route in self.routes))),
        )

    def away_for(self) -> float:
        """Seconds since the last of the routes went away; 0 while one is there."""
        return min(route.limiter.away_for for route in self.routes)

    def failed_probes(self) -> int:
        """How often the routes were tried in vain; 0 while one is there."""
        return min(route.limiter.failed_probes for route in self.routes)

    def set_aside(self, route: Route, now: float) -> bool:
        """Do without *route* for a while: its key or model is refused. Return whether there is another."""
        others = any(other is not route and other.out_until <= now for other in self.routes)
        if others:
            route.out_until = now + SET_ASIDE
        return others

    async def settlement(self) -> None:
        """Wait until an investigation ends, on whichever route."""
        await self._settled.wait()

    def settle(self, route: Route) -> None:
        """End the investigation on *route*, and let those go on who waited for it."""
        route.investigator = None
        self._settled.set()
        self._settled = anyio.Event()

    async def lease(
        self,
        tokens: Callable[[Route], float],
        place: Ticket,
        avoid: set[object],
        waiting: Callable[[], AbstractContextManager[object]],
    ) -> tuple[Route, Lease]:
        """
        Wait for the first route on which a request may go that has so many *tokens* there; if so, in a block of
        *waiting*.

        On the routes in *avoid*, where it failed, it stands behind everyone else.
        """
        while True:
            now = anyio.current_time()
            routes = [route for route in self.routes if route.out_until <= now]  # one at least: see set_aside
            first = [route for route in routes if route not in avoid] or routes
            behind = place if place[0] == URGENT else (_BEHIND, place[1])
            offers = [(route.limiter, tokens(route), place if route in first else behind) for route in routes]
            back_at = min((route.out_until for route in self.routes if route not in routes), default=math.inf)
            lease = await acquire(offers, partial(_until, back_at, waiting) if back_at < math.inf else waiting)
            if lease is None:
                continue  # one that was set aside may be used again
            route = next(route for route in routes if route.limiter is lease.limiter)
            if route.out_until <= anyio.current_time():
                return route, lease
            route.limiter.withdraw(lease)  # it was set aside meanwhile


@contextmanager
def _until(deadline: float, waiting: Callable[[], AbstractContextManager[object]]) -> Iterator[None]:
    """A block of *waiting* that ends at *deadline*."""
    with waiting(), anyio.CancelScope(deadline=deadline):
        yield
