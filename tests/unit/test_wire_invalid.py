"""A 5xx that is a refusal: its words say that the request is not valid."""

from __future__ import annotations

import json

import pytest

from embedbatch import RequestRefusedError, ServerError
from embedbatch.wire.fault import Action, judge
from embedbatch.wire.refusal import is_invalid_in_disguise

from .test_wire_refusal import BUSY, ORDINARY, RATES

# What llama-cpp-python 0.3.36 answers with 500 to a token array and to an empty input, as it was measured.
INVALID = [
    "2 validation errors:\n  {'type': 'string_type', 'loc': ('body', 'input', 'str'), 'msg': 'Input should be a valid "
    "string', 'input': [[5, 6]]}",
    "1 validation error:\n  {'type': 'missing', 'loc': ('body', 'input'), 'msg': 'Field required'}",
    "llama_decode returned -1",
]


@pytest.mark.parametrize("message", INVALID)
def test_a_5xx_about_validity_is_no_failure(message: str) -> None:
    """The server works, and the request is the matter; a 4xx says so itself."""
    assert is_invalid_in_disguise(500, message)
    assert not is_invalid_in_disguise(400, message)


@pytest.mark.parametrize("message", ORDINARY + RATES + [message for _, message, _ in BUSY])
def test_a_plain_5xx_is_not_about_validity(message: str) -> None:
    """Failures, gateways' pages and busy servers say nothing about the request."""
    assert not is_invalid_in_disguise(500, message)


@pytest.mark.parametrize("message", INVALID)
@pytest.mark.parametrize("proven", [True, False])
def test_it_is_split_like_any_refusal(message: str, proven: bool) -> None:
    """So a bad text is found, and a batch of nothing but good ones goes on."""
    body = json.dumps({"error": {"message": message, "type": "internal_server_error", "param": None, "code": None}})

    fault = judge(500, {}, body.encode(), proven=proven)

    assert (fault.action, type(fault.error)) == (Action.SPLIT, RequestRefusedError)
    assert type(judge(500, {}, b"Internal Server Error", proven=proven).error) is ServerError
