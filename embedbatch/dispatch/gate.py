"""Whether an endpoint may be sent to at all: pauses, outages, and the way back. Pure."""

from __future__ import annotations

import math
from random import Random

REENTRY = 1.0  # seconds over which requests come back after a pause, at most
JITTER = 0.1  # of a pause, after it
TRIP = 5  # faults without a good reply between them, after which an endpoint counts as away
FIRST_PROBE = 0.5  # seconds until it is tried again
PROBE_EVERY = 10.0  # seconds between later tries, at most


class Gate:
    """
    Open, or closed until some time; then one request goes alone, and only its good reply opens it again.

    A *pause* is what the server asked for. An *outage* is concluded from faults that come without a good reply
    between them; then the endpoint is tried at a bounded rate until it answers.
    """

    def __init__(self, places: int, rng: Random) -> None:
        self._places = places
        self._rng = rng
        self._faults = 0
        self._paused_until = -math.inf
        self._closed_until = -math.inf
        self._probing = False  # open for one request at a time
        self._probe_is_out = False
        self._probes = 0
        self._reentry_gap = 0.0
        self._reentry_until = -math.inf
        self._away_since = math.inf

    @property
    def is_away(self) -> bool:
        """True during an outage."""
        return self._away_since != math.inf

    @property
    def is_open(self) -> bool:
        """True unless there is a pause, an outage, or the first request after one."""
        return not self._probing

    @property
    def failed_probes(self) -> int:
        """How often an endpoint that is away was tried in vain."""
        return max(0, self._probes - 1) if self.is_away else 0

    def away_for(self, now: float) -> float:
        """Seconds since the outage was noticed; 0 if there is none."""
        return max(0.0, now - self._away_since)

    def ready_at(self, now: float) -> float:
        """The time from which a request may go; infinite while the reply to a probe decides."""
        return math.inf if self._probing and self._probe_is_out else self._closed_until

    def take(self, now: float) -> bool:
        """Note that a request goes now; return whether it is a probe."""
        if self._probing:
            self._probe_is_out = True
            return True
        if now < self._reentry_until:
            self._closed_until = now + self._rng.uniform(0.0, 2 * self._reentry_gap)
        return False

    def pause(self, seconds: float, now: float) -> float:
        """Let nothing go for *seconds*; return by how many that is longer than a pause that is on already."""
        longer = seconds if self._paused_until <= now else now + seconds - self._paused_until
        if longer <= 0:
            return 0.0
        self._paused_until = now + seconds
        # Coming back takes no longer than the pause itself, and no time where nobody else comes back.
        reentry = min(REENTRY, seconds) if self._places > 1 else 0.0
        self._reentry_gap = reentry / self._places
        # Others were told the same time: not everybody comes back in the same moment.
        self._close(self._paused_until + self._rng.uniform(0.0, min(REENTRY, JITTER * seconds) + self._reentry_gap))
        return longer

    def fault(self, now: float, *, probe: bool) -> bool:
        """Note a fault that may be the endpoint's; return whether an outage begins with it."""
        self._faults += 1
        if probe:
            self._probe_is_out = False
        begins = not self.is_away and self._faults >= TRIP
        if begins:
            self._away_since = now
            self._probes = 0
        if begins or (probe and self.is_away):
            wait = min(PROBE_EVERY, FIRST_PROBE * 2.0 ** min(self._probes, 16))
            self._probes += 1
            self._close(now + self._rng.uniform(wait / 2, wait))
        return begins

    def answer(self, now: float, *, probe: bool) -> bool:
        """Note a reply that shows that the endpoint works; return whether it ends a pause or an outage."""
        self._faults = 0
        if not probe:
            return False
        self._probe_is_out = False
        if self._closed_until > now:
            return False  # paused anew, meanwhile
        self._probing = False
        self._away_since = math.inf
        self._reentry_until = now + self._reentry_gap * self._places
        self._reentry_gap = min(self._reentry_gap, REENTRY / self._places)
        return True

    def withdraw(self, *, probe: bool) -> None:
        """Note that a request ended without telling anything: it was cancelled."""
        if probe:
            self._probe_is_out = False

    def _close(self, until: float) -> None:
        self._closed_until = max(self._closed_until, until)
        self._probing = True
