"""Whether refusals for a rate are many enough to have to do with the rate. Pure."""

from __future__ import annotations

from collections import deque

LOOK = 40  # replies
MANY = 7  # refusals among them: more than 15 %


class Chance:
    """
    Tells refusals that come whatever is sent from those of a limit that is far exceeded.

    A gateway over many accounts refuses some requests at random, no fewer when less is sent. To go slower each time
    would come to a standstill; to wait as long as it says is enough.
    """

    def __init__(self) -> None:
        self._refused: deque[bool] = deque(maxlen=LOOK)

    def accept(self) -> None:
        """Note a good reply."""
        self._refused.append(False)

    def refuse(self) -> None:
        """Note a refusal for a rate."""
        self._refused.append(True)

    @property
    def is_limit(self) -> bool:
        """True if so many of the last requests were refused that the rate has to be the reason."""
        return sum(self._refused) >= MANY
