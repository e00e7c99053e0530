"""What the system knows of a connection, and the event loop not yet."""

from __future__ import annotations

import select


def has_unread(descriptor: int) -> bool:
    """True if something has come on the socket that nobody has read yet; or its end, or it is closed here."""
    if descriptor < 0:
        return True
    if not hasattr(select, "poll"):  # on Windows
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
