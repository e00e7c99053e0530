"""What the system knows of a connection, and the event loop not yet."""

from __future__ import annotations

import select

AFRESH = "embedbatch.afresh"
"""The extension of an httpx request that is to go over a new connection: the idle ones seem to be closed."""


def has_unread(descriptor: int) -> bool:
    """True if something has come on the socket that nobody has read yet; or its end, or it is closed here."""
    if descriptor < 0:
        return True
    if not hasattr(select, "poll"):  # on Windows
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
