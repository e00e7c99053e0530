"""Events as lines of JSON."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given

from embedbatch.cli.json_log import JsonLog
from embedbatch.errors import RateLimitedError
from embedbatch.events import AttemptFailed, DocumentCut, DocumentFailed, EndpointBack, Event
from embedbatch.values import Cut, Failure

from .test_timeline import events

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def logged(*several: Event) -> list[dict[str, Any]]:
    """The lines that these events leave in a log."""
    file = io.BytesIO()
    log = JsonLog(file, clock=lambda: NOON)
    for event in several:
        log.observe(event)
    return [json.loads(line) for line in file.getvalue().splitlines()]


def test_a_line_has_the_time_the_name_and_the_fields_of_an_event() -> None:
    """An error is its type and message, and what the server called it."""
    error = RateLimitedError("HTTP 429", status=429, code="rate_limit_exceeded", request_id="req_1")

    assert logged(
        EndpointBack("e", 7.5),
        AttemptFailed("e", 10, 2, 0.25, "RateLimited", error, True),
        DocumentCut(Cut("d", 3, "split", None, ((0, 5), (5, 9)))),
    ) == [
        {"time": "2026-11-22T12:00:00Z", "event": "EndpointBack", "endpoint": "e", "seconds": 7.5},
        {
            "time": "2026-11-22T12:00:00Z",
            "event": "AttemptFailed",
            "endpoint": "e",
            "inputs": 10,
            "attempt": 2,
            "seconds": 0.25,
            "kind": "RateLimited",
            "error": {
                "type": "RateLimitedError",
                "message": "HTTP 429",
                "status": 429,
                "code": "rate_limit_exceeded",
                "request_id": "req_1",
            },
            "waits": True,
        },
        {
            "time": "2026-11-22T12:00:00Z",
            "event": "DocumentCut",
            "cut": {"id": "d", "position": 3, "policy": "split", "tokens": None, "spans": [[0, 5], [5, 9]]},
        },
    ]


@given(events)
def test_every_event_is_one_line(event: Event) -> None:
    """Whatever happens, a line is one JSON object with the name of the event."""
    (line,) = logged(event)

    assert line["event"] == type(event).__name__


@pytest.mark.parametrize("text", ["two\nlines", "\u2028", "\ud800 alone", "\x00"])
def test_hostile_text_stays_one_line_of_json(text: str) -> None:
    """Line breaks, surrogates and control characters in an id or in a server's words."""
    failure = Failure(text, 0, RateLimitedError(text))

    (line,) = logged(DocumentFailed(failure))

    assert line["failure"]["error"]["message"] == text.replace("\ud800", "?")
