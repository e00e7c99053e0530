"""Why a request was refused for good: too much of something, one of its inputs, or the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from ..errors import RequestRefusedError
from ..events import BatchSplit, CapLearned, FormLearned, Observe
from ..values import Batch
from ..wire.fault import Fault
from ..wire.refusal import Field, is_about_one_input, read_cap
from .forms import is_arrays
from .lessons import size
from .pieces import Piece, passed, spoiled
from .router import Route, Router
from .work import Work

AsText = Callable[[bytes], bytes | None]
"""Makes a text, as JSON, of a token array, as JSON; ``None`` where it is not that of a text, or who knows."""

ENOUGH_ALONE = 2  # inputs that are refused by themselves before any was accepted: then it is not the inputs


class Inquiry:
    """
    Finds it out, by what becomes of the parts.

    A cap that the endpoint names is believed at once. Otherwise the request is halved until what is refused stands
    alone; when all parts are accepted, it was too much. Before anything was accepted, one input goes first: it is
    tried in other forms, and when that is in vain and another is refused too, it is the settings.
    """

    def __init__(self, router: Router, observe: Observe, as_text: AsText = lambda wire: None) -> None:
        self._router = router
        self._observe = observe
        self._as_text = as_text

    def refuse(self, piece: Piece, fault: Fault, route: Route, work: Work, *, more: bool) -> None:
        """*piece* was refused on *route*: decide which parts of it to send. The run may have *more* than this batch."""
        error, batch = fault.error, piece.batch
        if self._is_outdated(piece, route):
            work.pieces.put_back(piece)
            return
        if fault.field is not None and self.put_otherwise(piece, route, work, fault.field):
            return
        nbytes = size(batch)
        cap = read_cap(
            error.status or 0,
            str(error),
            error.code,
            error.type,
            inputs=len(batch),
            size=nbytes + route.lessons.overhead,
        )
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
        alone = (not route.is_proven and not work.account.refused_alone) or (
            is_arrays(batch) and route.forms.is_open(batch)
        )
        work.refusals.append(work.pieces.refuse(piece, error.status, first_alone=alone))

    def put_otherwise(self, piece: Piece, route: Route, work: Work, field: Field | None = None) -> bool:
        """Try *piece* in another form on *route*, where its *field* is refused, or what nobody said. False: in vain."""
        forms, batch = route.forms, piece.batch
        form = piece.form or forms.form
        if field is None and not forms.is_open(batch):
            return False
        while (other := forms.other(form, batch, field, piece.tried)) is not None:
            piece.tried = (*piece.tried, other)
            if is_arrays(batch) and form.token_arrays and not other.token_arrays and not self._has_text(batch):
                if field is None:
                    continue
                self._learn(forms.without_token_arrays(), piece, route, work)  # the next request fails them
            else:
                piece.trial, piece.trial_at = other, route
                self.suspect(piece, route, work)
            work.pieces.put_back(piece)
            return True
        piece.trial = None
        if field is None:
            forms.is_in_vain()
        return False

    def distrust(self, piece: Piece, route: Route, work: Work) -> bool:
        """*piece* is refused without a word, or its reply is no use: it may be the form. False if that is in vain."""
        if len(piece.batch) == 1:
            route.forms.refuses_one()
        return self.put_otherwise(piece, route, work)

    def suspect(self, piece: Piece, route: Route, work: Work) -> None:
        """The form of *piece* may be the matter: others need not find that out too."""
        if route.forms.is_open(piece.batch):
            route.investigator = route.investigator or work

    def _has_text(self, batch: Batch) -> bool:
        return any(self._as_text(wire) is not None for wire in batch.inputs)

    def _is_outdated(self, piece: Piece, route: Route) -> bool:
        """True if *piece* was put as nobody would any more: something was learned since it was sent."""
        if piece.form is None:
            return False
        now = route.form_of(piece)
        return piece.form != (now if is_arrays(piece.batch) else replace(now, token_arrays=piece.form.token_arrays))

    def _learn(self, news: Iterable[tuple[Field, str]], piece: Piece, route: Route, work: Work) -> None:
        for field, instead in news:
            self._observe(FormLearned(route.name, field, instead))
            for refusal in (*work.refusals, *piece.refusals):
                if refusal.form != piece.form:
                    refusal.is_explained = True  # by that, and not by its size

    def _refuse_one(self, piece: Piece, fault: Fault, route: Route, work: Work, *, more: bool) -> None:
        about_form = fault.error.status != 413 and not is_about_one_input(str(fault.error))
        if about_form and isinstance(fault.error, RequestRefusedError) and self.distrust(piece, route, work):
            return
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
        if piece.form is not None:
            self._learn(route.forms.passes(piece.form, piece.batch), piece, route, work)
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
