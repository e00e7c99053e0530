"""How long a server asks to wait, and what it said, in every shape it says it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.errors import (
    RateLimitedError,
)
from embedbatch.wire.fault import (
    Fault,
    ServerMessage,
    holds_error,
    judge,
    read_message,
    read_request_id,
    read_retry_after,
)

from .judging import NONE, RATE, SPLIT, STOP, WAIT, ask, openai

# How long


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "30"}, 30.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": " 2 "}, 2.0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "0"}, 0.0),
        ({"retry-after-ms": "250.5", "retry-after": "30"}, 0.2505),
        ({"retry-after-ms": "soon", "retry-after": "30"}, 30.0),
        ({"retry-after-ms": "-1", "retry-after": "30"}, 30.0),
        ({"retry-after-ms": "nan", "retry-after": "30"}, 30.0),
        ({"retry-after-ms": "inf", "retry-after": "30"}, 30.0),
        ({"llm_provider-retry-after": "7"}, 7.0),
        ({"retry-after": "3", "llm_provider-retry-after": "7"}, 3.0),
        ({"retry-after": "-3", "llm_provider-retry-after": "7"}, 7.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "Infinity"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "5s"}, None),
        ({"retry-after": "5, 5"}, None),
        ({"retry-after-ms": "", "retry-after": ""}, None),
    ],
)
def test_the_servers_time_is_read_in_seconds(headers: dict[str, str], seconds: float | None) -> None:
    """Milliseconds come first, then seconds, then LiteLLM's header; negative, endless and odd values are ignored."""
    assert read_retry_after(headers) == seconds


NOON = "Wed, 21 Oct 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("retry_after", "date", "seconds"),
    [
        ("Wed, 21 Oct 2026 12:00:30 GMT", NOON, 30.0),
        ("Wed, 21 Oct 2026 12:00:00 GMT", NOON, 0.0),
        ("Wed, 21 Oct 2026 14:00:30 +0200", NOON, 30.0),
        ("Wednesday, 21-Oct-26 12:00:30 GMT", NOON, 30.0),
        ("Wed Oct 21 12:00:30 2026", "Wed Oct 21 12:00:00 2026", 30.0),
        ("Wed, 21 Oct 2026 11:59:59 GMT", NOON, None),
        ("Wed, 21 Oct 2026 12:00:30 GMT", None, None),
        ("Wed, 21 Oct 2026 12:00:30 GMT", "yesterday", None),
        ("Wed, 21 Oct 2026 12:00:30 -0000", NOON, None),
        ("Wed, 99 Oct 2026 12:00:30 GMT", NOON, None),
        ("Wed, 21 Oct 99999 12:00:30 GMT", NOON, None),
        ("Wed, 99999999999999999999 Oct 2026 12:00:30 GMT", NOON, None),
        ("Wed, 21 Oct 2026 12:00:30 +999999999999999999", NOON, None),
    ],
)
def test_an_http_date_is_read_against_the_replys_own(retry_after: str, date: str | None, seconds: float | None) -> None:
    """A date is the seconds from the reply's own Date; without one, or in its past, or impossible, it is ignored."""
    headers = {"retry-after": retry_after} | ({"date": date} if date else {})

    assert read_retry_after(headers) == seconds


def test_the_servers_time_pauses_everyone() -> None:
    """Any wait the server asks for by name is on the fault, of a 503 as well as of a 429; else there is none."""
    fault = ask(503, **{"Retry-After": "30"})

    assert (fault.action, fault.retry_after) == (WAIT, 30.0)
    assert ask(429).retry_after is None


@pytest.mark.parametrize("status", [400, 402, 413])
def test_a_time_to_wait_means_nothing_where_waiting_is_no_use(status: int) -> None:
    """Retry-After beside a refusal or an empty account is ignored, however long it is."""
    fault = ask(status, retry_after="30", max_wait=20)

    assert (fault.action, fault.retry_after) == (STOP if status == 402 else SPLIT, None)


def test_a_server_that_asks_for_too_long_stops_the_run() -> None:
    """With max_wait=300, 300 s are waited for; 3,600 stop the run, with both numbers in words and no pause after it."""
    assert ask(429, retry_after="300", max_wait=300).action is WAIT
    assert ask(429, retry_after="300.1", max_wait=300).action is STOP
    fault = ask(429, openai("rate_limit_exceeded"), retry_after="3600", max_wait=300)

    assert (fault.action, fault.trouble, fault.retry_after) == (STOP, RATE, None)
    assert isinstance(fault.error, RateLimitedError)
    assert str(fault.error) == "HTTP 429: Words. It asks to wait 3,600 s, more than max_server_wait=300."


def test_a_limit_that_the_server_names_is_on_the_fault() -> None:
    """The words of a rate limit are read: limit, window and the time to wait; a header's time comes before theirs."""
    told = openai(
        "rate_limit_exceeded",
        "tokens",
        "Rate limit reached on tokens per min (TPM): Limit 6000, Used 5000, Requested 2000. Please try again in 10s.",
    )
    fault = ask(429, told)

    assert fault.overrun is not None
    assert (fault.overrun.resource, fault.overrun.limit, fault.overrun.requested) == ("tokens", 6_000, 2_000)
    assert (fault.action, fault.trouble, fault.retry_after) == (WAIT, RATE, 10.0)
    assert ask(429, told, retry_after="3").retry_after == 3.0
    assert ask(429, told, max_wait=5).action is STOP
    assert ask(500, told.replace(b"rate_limit_exceeded", b"x")).overrun is None


def test_a_request_above_the_limit_of_a_minute_is_split() -> None:
    """More tokens in one request than in a minute never pass: it is not waited for, whatever time the server names."""
    told = openai(
        "rate_limit_exceeded",
        "tokens",
        "Request too large for m on tokens per min (TPM): Limit 6000, Requested 7000. Please try again in 10s.",
    )

    for fault in (ask(429, told), ask(429, told, retry_after="10"), ask(413, told), ask(429, told, max_wait=5)):
        assert (fault.action, fault.trouble, fault.retry_after) == (SPLIT, NONE, None)
        assert isinstance(fault.error, RateLimitedError)


# What it said


@pytest.mark.parametrize("code", ["a_code", 20015, None, "", 4.5])
@pytest.mark.parametrize("kind", ["a_type", None, ""])
def test_code_and_type_are_read_in_every_shape(code: Any, kind: Any) -> None:
    """In all six shapes that have a code, it may be a string, a number, null or empty; what is empty is None."""
    words = {"message": "Words.", "code": code, "type": kind}
    expected = ServerMessage("Words.", None if code in (None, "") else str(code), kind or None)

    for shape in (
        {"error": words},
        words,
        {"detail": words},
        {"detail": [words]},
        {"errors": [words, {"message": "More words."}], "success": False},
        {"error": "Words.", "code": code, "type": kind},
    ):
        assert read_message(json.dumps(shape).encode()) == expected, shape


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": "Words."}', "Words."),
        (b'{"detail": "Words."}', "Words."),
        (b'{"detail": [{"loc": ["body", "input"], "msg": "Words.", "type": "value_error"}]}', "Words."),
        (b'{"message": "Words."}', "Words."),
        (b'{"object": "error", "message": "Words.", "type": "x", "param": null, "code": null}', "Words."),
        (b'{"error": {"message": "Words."}}{"error": {"message": "Again."}}', "Words."),
        (b'{"error": {"message": "Words."}}\n\n<html>', "Words."),
        (b'\n  {"error": {"message": "Words."}}', "Words."),
        (b'{"error": {"detail": "Words."}}', "Words."),
        (b'{"error": ["Words."]}', "Words."),
        (b'{"error": [[{"message": "Words."}]]}', "Words."),
        (b'{"error": null, "message": "Words."}', "Words."),
        (b'{"error": {}, "message": "Words."}', "Words."),
        (b'{"error": true}', "True"),
        (b'{"error": {"message": ["Words."]}}', "['Words.']"),
        (b'{"error": {"message": ""}}', '{"error": {"message": ""}}'),
        (b"{}", "{}"),
        (b"[]", "[]"),
        (b"[1, 2]", "[1, 2]"),
        (b"null", "null"),
        (b"Words.", "Words."),
        (b"  Words.\n", "Words."),
        (b"<html>Words.</html>", "<html>Words.</html>"),
        (b'{"error": {"message": "Wor', '{"error": {"message": "Wor'),
        (b"W\xf6rter", "W\ufffdrter"),
        (b"", ""),
    ],
)
def test_the_message_is_found_wherever_it_is(body: bytes, message: str) -> None:
    """Every shape in the docstring, and bodies of no shape, give the words a person would look for."""
    assert read_message(body).message == message


def test_words_are_cut_at_500_characters() -> None:
    """A server that echoes its inputs does not fill the log: message, code and type end after 500 characters."""
    long = "x" * 5_000
    shapes = [long, json.dumps({"error": long}), json.dumps({"error": {"message": long, "code": long, "type": long}})]

    for shape in shapes:
        words = read_message(shape.encode())
        assert words.message == "x" * 500 + "…"
        assert len(words.code or "") <= 501
        assert len(words.type or "") <= 501
    assert len(str(ask(500, shapes[-1].encode()).error)) < 600


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (ask(500), "HTTP 500: no message."),
        (ask(500, b"Broken!"), "HTTP 500: Broken!"),
        (ask(500, b"broken"), "HTTP 500: broken."),
        (ask(401, openai()), "HTTP 401: Words. Check api_key=, or the variable that it is taken from."),
        (ask(404, openai()), "HTTP 404: Words. Check the model's name and base_url=."),
        (
            ask(402, openai()),
            "HTTP 402: Words. Waiting does not help: check the plan and billing of this key.",
        ),
    ],
)
def test_the_error_says_what_to_do(fault: Fault, message: str) -> None:
    """The message has the status, the server's words and, where there is any, advice."""
    assert str(fault.error) == message


def test_the_error_keeps_what_the_server_said() -> None:
    """Status, code, type and request id are on the error; its kind, for counting, is the class without "Error"."""
    fault = ask(429, openai("rate_limit_exceeded", "tokens"), **{"X-Request-ID": "req_1"})

    error = fault.error
    assert (error.status, error.code, error.type, error.request_id) == (429, "rate_limit_exceeded", "tokens", "req_1")
    assert fault.kind == "RateLimited"


@pytest.mark.parametrize(
    ("headers", "request_id"),
    [
        ({}, None),
        ({"x-request-id": "a", "cf-ray": "b"}, "a"),
        ({"apim-request-id": "a"}, "a"),
        ({"mistral-correlation-id": "a"}, "a"),
        ({"x-oneapi-request-id": "a"}, "a"),
        ({"cf-ray": "a"}, "a"),
    ],
)
def test_the_request_id_is_read(headers: dict[str, str], request_id: str | None) -> None:
    """The id that support will ask for is read from the headers of five kinds of servers."""
    assert read_request_id(headers) == request_id


@pytest.mark.parametrize(
    ("body", "is_error"),
    [
        (openai(), True),
        (b'{"error": "x"}', True),
        (b'{"errors": [{"message": "x"}]}', True),
        (b'{"detail": "x"}', True),
        (b'{"code": 20015, "message": "x", "data": null}', True),
        (b'{"error": {"message": "x"}, "data": []}', True),
        (b'{"error": {"message": "x"}}{"error": {}}', True),
        (b'{"data": [{"embedding": [1.0]}], "message": "ok"}', False),
        (b'{"data": [{"embedding": [1.0]}], "error": null}', False),
        (b'{"data": [], "error": null}', False),
        (b'{"object": "", "data": null, "model": ""}', False),
        (b"{}", False),
        (b"[]", False),
        (b'["error"]', False),
        (b"<html>error</html>", False),
        (b"", False),
        (b"\xff", False),
        (b'{"a":' * 100_000, False),
    ],
    ids=range(18),
)
def test_an_error_in_a_200_is_told_from_other_bodies(body: bytes, is_error: bool) -> None:
    """A body without data and with words is an error in disguise; one with data, or without words, is not."""
    assert holds_error(body) is is_error


# Laws

json_bodies = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "errors", "detail", "message", "msg", "code", "type", "data"]), inner, max_size=4
        )
    ),
    max_leaves=12,
).map(lambda value: json.dumps(value).encode())
bodies = json_bodies | st.binary(max_size=60) | st.sampled_from([b"[" * 100_000, b'{"error":' * 100_000, b"9" * 9_000])
words = st.text(st.characters(max_codepoint=255), max_size=20) | st.from_regex(
    r"[A-Z][a-z]{2}, \d{1,20} Oct \d{1,20} \d\d:\d\d:\d\d [+-]\d{1,20}", fullmatch=True
)
header_names = st.sampled_from(
    ["Retry-After", "retry-after-ms", "Date", "x-should-retry", "X-Request-Id", "llm_provider-retry-after"]
)


@given(st.integers(100, 999), st.dictionaries(header_names, words), bodies, st.booleans(), st.floats(0, 1e9))
def test_every_reply_has_one_verdict(
    status: int, headers: dict[str, str], body: bytes, proven: bool, max_wait: float
) -> None:
    """No reply raises; a time to wait is never negative or endless, nor above max_wait where it is waited for."""
    fault = judge(status, headers, body, proven=proven, max_wait=max_wait)

    assert fault.error.status == status
    assert len(str(fault.error)) < 1_200
    if fault.retry_after is not None:
        assert 0 <= fault.retry_after < math.inf
        assert fault.action is (WAIT if fault.retry_after <= max_wait else STOP)
    if fault.action is SPLIT:
        assert fault.trouble is NONE


@given(bodies)
def test_success_in_the_past_only_ever_adds_patience(body: bytes) -> None:
    """For every status, what is refused or waited for without a past success is so with one; only a stop may soften."""
    for status in (200, 301, 400, 401, 403, 404, 408, 413, 429, 500, 503):
        before, after = ask(status, body), ask(status, body, proven=True)
        assert type(before.error) is type(after.error)
        assert before.action is after.action or (before.action, after.action) == (STOP, WAIT)
