"""The key of an endpoint, and where another comes from when it is refused."""

from __future__ import annotations

import inspect
import re
from collections import deque
from collections.abc import Callable
from functools import partial

import anyio
import anyio.to_thread

from ..endpoints import ApiKey
from ..errors import AuthenticationError, ConfigurationError
from ..settings import DEFAULT_TIMEOUT

SHORTEST_SECRET = 8  # characters; a placeholder for a key is a word, which messages may have
_EARLIER = 4  # keys that errors may still echo

# RFC 9110, 5.5, as h11 reads it.
HEADER_VALUE = re.compile(r"(?:[^\x00-\x20\x7f](?:[^\x00-\x08\x0a-\x1f\x7f]*[^\x00-\x20\x7f])?)?")


def bearer(key: str) -> tuple[str, str]:
    """The usual header for a key."""
    return "Authorization", f"Bearer {key}"


def _can_be_sent(key: str) -> bool:
    return key.isascii() and HEADER_VALUE.fullmatch(key) is not None


class Credentials:
    """
    What a request shows to be let in: *source* is a key, or is asked for one, *auth* makes a header of it.

    A callable is asked before the first request, and again when its key is refused: once for all requests that were
    refused with that key. One that is not async runs in a thread, since it may wait. Keys are never shown.
    """

    def __init__(self, source: ApiKey | None = None, auth: Callable[[str], tuple[str, str]] = bearer) -> None:
        self._source = source if callable(source) else None
        self._auth = auth
        self._keys: deque[str] = deque(maxlen=_EARLIER)
        self._number = 0  # of keys so far
        self._answers = 0
        self._turn = anyio.Lock()
        if isinstance(source, str) and source:
            if not _can_be_sent(source):  # refused here: h11's error would show it
                message = "expected ASCII characters, without white space around them and control characters in them"
                raise ConfigurationError(f"api_key: {message}")
            self._keys.append(source)

    async def header(self) -> tuple[str, str] | None:
        """
        The header's name and value; ``None`` where no key is needed.

        Raises :class:`AuthenticationError` if the callable has none.
        """
        if self._source is not None and not self._keys:
            await self.renew(0)
        return self._auth(self._keys[-1]) if self._keys else None

    @property
    def number(self) -> int:
        """Of the key that :meth:`header` gives now."""
        return self._number

    async def renew(self, number: int) -> bool:
        """
        The key with that *number* was refused: ask for another. Return whether there is one.

        Raises :class:`AuthenticationError` if the callable fails, or gives what is no key.
        """
        if self._source is None:
            return False
        answers = self._answers
        async with self._turn:
            if self._number == number and self._answers == answers:  # nobody else was answered meanwhile
                try:
                    key = await _ask(self._source)
                except AuthenticationError:
                    self._answers += 1  # for those who wait as well
                    raise
                self._answers += 1
                if not self._keys or key != self._keys[-1]:
                    self._keys.append(key)
                    self._number += 1
            return self._number != number

    def redact(self, text: bytes) -> bytes:
        """*text* without the keys: an error that echoes one must not carry it into messages and logs."""
        for key in self._keys:
            if len(key) >= SHORTEST_SECRET:
                text = text.replace(key.encode(), b"[key]")
        return text

    def __repr__(self) -> str:
        return f"<Credentials {'from a callable' if self._source else 'fixed' if self._keys else 'none'}>"


async def _ask(source: Callable[[], object]) -> str:
    is_async = inspect.iscoroutinefunction(source) or inspect.iscoroutinefunction(type(source).__call__)
    try:
        # In a tuple: a thread may give back what is to be awaited here, and trio takes that for a mistake.
        in_tuple = partial(anyio.to_thread.run_sync, lambda: (source(),), abandon_on_cancel=True)
        (key,) = (source(),) if is_async else await in_tuple()
        if inspect.isawaitable(key):
            with anyio.fail_after(DEFAULT_TIMEOUT):
                key = await key
    except Exception as error:
        raise AuthenticationError(f"api_key: the callable raised {type(error).__name__}") from error
    if not isinstance(key, str) or not key or not _can_be_sent(key):
        kind = "another text" if isinstance(key, str) else type(key).__name__
        raise AuthenticationError(f"api_key: expected the callable to give a key that a header can carry, got {kind}")
    return key
