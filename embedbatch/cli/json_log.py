"""Events as lines of JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime
from typing import IO, Any

import msgspec

from ..errors import RequestError
from ..events import Event
from ..jobs.columns import cleaned


class JsonLog:
    """
    Writes a line of JSON for every event into *file*, which is binary: the time, the name of the event, its fields.

    An error is an object with its type and message, and the status, code and request id of the server where there
    are any. Every line is flushed, so that the file can be followed.
    """

    def __init__(self, file: IO[bytes], *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._file = file
        self._clock = clock
        self._encoder = msgspec.json.Encoder(enc_hook=_describe)

    def observe(self, event: Event) -> None:
        """Write one event."""
        record = {"time": self._clock(), "event": type(event).__name__}
        record |= {field.name: getattr(event, field.name) for field in fields(event)}
        try:
            line = self._encoder.encode(record)
        except UnicodeEncodeError:  # a lone surrogate, in an id or a server's words
            line = self._encoder.encode(cleaned(msgspec.to_builtins(record, enc_hook=_describe), _encodable))
        self._file.write(line + b"\n")
        self._file.flush()


def _describe(value: object) -> dict[str, Any]:
    told: dict[str, Any] = {"type": type(value).__name__, "message": str(value)}
    if isinstance(value, RequestError):
        told |= {"status": value.status, "code": value.code, "request_id": value.request_id}
    return {name: item for name, item in told.items() if item is not None}


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")
