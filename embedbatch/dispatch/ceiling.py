"""The highest rate that an endpoint seems to grant, found by being refused. Pure."""

from __future__ import annotations

import math

FIRST_CUT = 0.03  # of a rate that was set or told: it is nearly right
FIRST_CUT_BLIND = 0.3  # of a rate that nobody named
MAX_CUT = 0.5
PLATEAU = 60.0  # seconds from a cut until the refused rate is tried again
MAX_PLATEAU = 480.0
NEAR = 0.1  # of a rate: what is refused there again is the same limit
DOUBLING = 30.0  # seconds beyond the plateau after which twice the refused rate is tried


class Ceiling:
    """
    A rate that is cut when it is refused and comes back along a cubic, as TCP's CUBIC does.

    Quickly at first, slowly near the rate that was refused, and ever faster beyond it: so a limit that stays is
    used nearly in full and seldom touched, and one that is lifted is found. A refusal soon after the last cut cuts
    twice as deep; a limit that proves the same again is tried half as often.
    """

    def __init__(self) -> None:
        self._refused = math.inf
        self._known = 0.0  # what was refused last
        self._low = math.inf
        self._cut_at = -math.inf
        self._cut = 0.0
        self._plateau = PLATEAU

    def rate(self, now: float) -> float:
        """The rate to keep, per second; infinite before the first refusal."""
        if self._refused == math.inf:
            return math.inf
        seconds = max(0.0, now - self._cut_at)
        if seconds <= self._plateau:
            return self._refused - (self._refused - self._low) * (1 - seconds / self._plateau) ** 3
        return self._refused * (1 + ((seconds - self._plateau) / DOUBLING) ** 3)

    def refuse(self, rate: float, sent_at: float, now: float, *, blind: bool) -> bool:
        """
        Cut *rate*, at which a request that was sent at *sent_at* was refused; return whether that was news.

        *blind* tells that nobody named a limit. What was sent before the last cut says nothing about it.
        """
        if sent_at <= self._cut_at:
            return False
        since = now - self._cut_at
        first = FIRST_CUT_BLIND if blind and self._refused == math.inf else FIRST_CUT
        early = since < self._plateau / 2
        self._cut = min(MAX_CUT, 2 * self._cut) if early else first
        if abs(rate - self._known) > NEAR * self._known:
            self._plateau = PLATEAU
        elif not early:
            self._plateau = min(MAX_PLATEAU, 2 * self._plateau)
        self._refused = self._known = rate
        self._low = rate * (1 - self._cut)
        self._cut_at = now
        return True

    @property
    def is_cut(self) -> bool:
        """True while a refused rate is kept in mind."""
        return self._refused < math.inf

    def lift(self) -> None:
        """Forget what was refused: the rate has come back to where other limits hold."""
        self._refused = math.inf
