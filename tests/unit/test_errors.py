"""Errors keep what they know, also when they are copied or sent to another process."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable

import numpy as np
import pytest

from embedbatch import errors
from embedbatch.errors import (
    DestinationError,
    EmbedbatchError,
    FailedDocumentsError,
    InputTooLongError,
    InvalidTextError,
    JournalError,
    RateLimitedError,
    SourceError,
)
from embedbatch.values import Embeddings, Failure

EVERY = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, EmbedbatchError)]
TOO_LONG = InputTooLongError("faq-17", tokens=9_310, limit=8_192)
RESULT = Embeddings(np.ones((1, 2), np.float32), ["faq-17"], [None], [Failure("faq-17", 0, TOO_LONG)])


SPECIAL = (DestinationError, InputTooLongError, JournalError, SourceError)


def pickled(error: EmbedbatchError) -> EmbedbatchError:
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, EmbedbatchError)
    return again


@pytest.mark.parametrize("again", [copy.copy, pickled])
@pytest.mark.parametrize(
    "error",
    [
        TOO_LONG,
        RateLimitedError("HTTP 429: Words.", status=429, code="slow_down", type="tokens", request_id="req_1"),
        SourceError("no such column", path="corpus.csv", line=7),
        InvalidTextError("a lone surrogate"),
        JournalError("disk I/O error", path="ledger.sqlite"),
        DestinationError("the connection was closed", destination="postgresql://host/db?table=docs"),
        *(kind("words") for kind in EVERY if kind not in SPECIAL),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_can_be_copied(error: EmbedbatchError, again: Callable[[EmbedbatchError], EmbedbatchError]) -> None:
    """A copy, and what another process unpickles, has the same class, message and attributes."""
    other = again(error)

    assert type(other) is type(error)
    assert str(other) == str(error)
    assert vars(other) == vars(error)


def test_a_result_with_failures_can_be_pickled() -> None:
    """A result goes to another process with its vectors, its failures and their errors; so does one inside an error."""
    for result in (pickle.loads(pickle.dumps(RESULT)), pickled(FailedDocumentsError("1 failed", RESULT)).embeddings):
        assert result.vectors.tolist() == [[1.0, 1.0]]
        assert result.failures[0].error.tokens == 9_310


def test_the_message_of_a_long_document_says_what_to_do() -> None:
    """Document, count, limit and two remedies."""
    assert str(TOO_LONG) == (
        "document 'faq-17' has 9,310 tokens; the model takes at most 8,192. "
        'Pass long_input="split" to embed it in parts, or "truncate" to embed its beginning.'
    )


@pytest.mark.parametrize(("line", "message"), [(None, "a.csv: why"), (1_234, "a.csv, line 1,234: why")])
def test_a_source_error_names_the_place(line: int | None, message: str) -> None:
    """File, line where there is one, and reason."""
    assert str(SourceError("why", path="a.csv", line=line)) == message


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """Every error is drawn in the module's docstring, and public."""
    assert errors.__doc__ is not None
    for kind in EVERY:
        assert kind.__name__ in errors.__doc__
        assert kind.__name__ in errors.__all__


def test_what_python_calls_wrong_values_and_types_is_so_too() -> None:
    """Settings are a ValueError, an input of no kind a TypeError: callers who know Python catch them."""
    assert issubclass(errors.ConfigurationError, ValueError)
    assert issubclass(errors.InvalidInputError, TypeError)
    assert issubclass(errors.InvalidTextError, ValueError)
