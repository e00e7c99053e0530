"""Why a request was refused for good: too much of something, one of its inputs, or the settings."""

from __future__ import annotations

from ..events import BatchSplit, CapLearned, Observe
from ..wire.fault import Fault
from ..wire.refusal import read_cap
from .lessons import size
from .pieces import Piece, passed, spoiled
from .router import Route, Router
from .work import Work

ENOUGH_ALONE = 2  # inputs that are refused by themselves before any was accepted: then it is not the inputs


class Inquiry:
    """
    Finds it out, by what becomes of the parts.

    A cap that the endpoint names is believed at once. Otherwise the request is halved until what is refused stands
    alone; when all parts are accepted, it was too much. Before anything was accepted, one input goes first: when that
    is refused too, and another, it is the settings.
    """

    def __init__(self, router: Router, observe: Observe) -> None:
        self._router = router
        self._observe = observe

    def refuse(self, piece: Piece, fault: Fault, route: Route, work: Work, *, more: bool) -> None:
        """*piece* was refused on *route*: decide which parts of it to send. The run may have *more* than this batch."""
        error, batch = fault.error, piece.batch
        nbytes = size(batch)
        cap = read_cap(error.status or 0, str(error), error.code, error.type, inputs=len(batch), size=nbytes)
        if cap is not None and route.lessons.name(cap):
            self._tell(route)
            work.pieces.put_back(piece)
            return
        if len(batch) == 1:
            self._refuse_one(piece, fault, route, work, more=more)
            return
        self._observe(BatchSplit(route.name, len(batch), error))
        if route.investigator is None and route.lessons.is_news(batch):
            route.investigator = work
        alone = not route.is_proven and not work.account.refused_alone
        work.refusals.append(work.pieces.refuse(piece, error.status, first_alone=alone))

    def _refuse_one(self, piece: Piece, fault: Fault, route: Route, work: Work, *, more: bool) -> None:
        spoiled(piece)
        work.fail(piece, fault)
        if route.is_proven:
            self._release(route, work)
            return
        work.account.refused_alone += 1
        if work.account.refused_alone >= (ENOUGH_ALONE if work.pieces or more else 2 * ENOUGH_ALONE):
            work.stop(fault.error)
        elif work.pieces:
            work.pieces.single_out()

    def accept(self, piece: Piece, route: Route, work: Work) -> None:
        """*piece* was accepted on *route*: learn from it, also about what was refused."""
        route.lessons.passes(piece.batch)
        for refusal in passed(piece):
            route.lessons.proves_too_much(refusal.inputs, refusal.nbytes, refusal.status)
        self._tell(route)
        self._release(route, work)

    def _tell(self, route: Route) -> None:
        for unit, number in route.lessons.news():
            self._observe(CapLearned(route.name, unit, number))

    def note_trial(self, piece: Piece, route: Route, work: Work) -> None:
        """*piece* is about to be sent: it may be of a size that is to be tried, by one at a time."""
        if route.trier is None and route.lessons.is_trial(piece.batch):
            route.trier = work

    def _release(self, route: Route, work: Work) -> None:
        """Let others try sizes, once nothing that *work* was refused is unexplained."""
        work.refusals = [refusal for refusal in work.refusals if not refusal.is_explained]
        if not work.refusals:
            self.leave(route, work)

    def leave(self, route: Route, work: Work) -> None:
        """Let others try sizes and find things out: *work* does not go on with it."""
        if route.trier is work:
            route.trier = None
        if route.investigator is work:
            self._router.settle(route)
