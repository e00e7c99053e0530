"""
Every error this package raises on purpose.

EmbedbatchError
├── ConfigurationError          the call or its settings cannot work; nothing was sent
├── InputError                  one document cannot be embedded as it stands; it was never sent
│   ├── EmptyInputError
│   ├── InvalidInputError       not a text and not a token array
│   ├── InvalidTextError        a lone surrogate, under surrogates="error"
│   ├── TokenArrayError         a token array this endpoint does not take
│   └── InputTooLongError
├── RequestError                the endpoint did not give a usable answer
│   ├── ConnectionFailedError   no connection; nothing was sent
│   ├── ConnectionLostError     it broke before the reply was complete
│   ├── AttemptTimeoutError     no complete reply in the time of one attempt
│   ├── RateLimitedError        429: more than the endpoint grants at the moment
│   ├── ServerError             5xx
│   ├── RequestRefusedError     4xx: this request will never be accepted as it stands
│   ├── InvalidReplyError       a 200 that cannot be trusted
│   │   ├── MalformedReplyError  not embeddings at all: HTML, a cut-off body, an error in disguise
│   │   └── DimensionsError     vectors of another size than the run's
│   ├── AuthenticationError     the key is wrong or may not do this
│   ├── ModelNotFoundError      no such model at this endpoint
│   └── QuotaExhaustedError     no credit or spend limit reached; waiting does not help
├── VectorRangeError            the vector has numbers that the dtype of a job's result has no room for
├── NotAttemptedError           the run stopped before this document was sent
├── SourceError                 a corpus file that cannot be read: file, line, reason
├── JournalError                what a job keeps beside its result is broken, or cannot be written
├── DestinationError            the database that a job writes to cannot be reached, or refuses
└── RunError                    a run that ended with less than everything; carries the result
    ├── FailedDocumentsError    some documents failed, the rest is done
    └── RunStoppedError         the run ended early; what was done is kept
        ├── RunInterruptedError  somebody asked for it
        └── SpendLimitError     max_spend_tokens was reached

A failure of one document carries an InputError, a RequestError, a NotAttemptedError or a VectorRangeError. An
error that concerns everything (the key, the model, the quota) is the ``__cause__`` of a RunStoppedError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .values import Embeddings

__all__ = [
    "AttemptTimeoutError",
    "AuthenticationError",
    "ConfigurationError",
    "ConnectionFailedError",
    "ConnectionLostError",
    "DestinationError",
    "DimensionsError",
    "EmbedbatchError",
    "EmptyInputError",
    "FailedDocumentsError",
    "InputError",
    "InputTooLongError",
    "InvalidInputError",
    "InvalidReplyError",
    "InvalidTextError",
    "JournalError",
    "MalformedReplyError",
    "ModelNotFoundError",
    "NotAttemptedError",
    "QuotaExhaustedError",
    "RateLimitedError",
    "RequestError",
    "RequestRefusedError",
    "RunError",
    "RunInterruptedError",
    "RunStoppedError",
    "ServerError",
    "SourceError",
    "SpendLimitError",
    "TokenArrayError",
    "VectorRangeError",
]


class EmbedbatchError(Exception):
    """Base of every error of this package."""

    def __reduce__(self) -> tuple[Any, ...]:
        # To be copied and pickled: what __init__ takes is not what it leaves in args.
        return _restore, (type(self), self.args), vars(self)


def _restore(kind: type[EmbedbatchError], args: tuple[Any, ...]) -> EmbedbatchError:
    return kind.__new__(kind, *args)


class ConfigurationError(EmbedbatchError, ValueError):
    """The call or its settings cannot work. Nothing was sent."""


class InputError(EmbedbatchError):
    """One document cannot be embedded as it stands. It was never sent."""


class EmptyInputError(InputError):
    """The document is empty or blank, and the endpoint's contract forbids to send it."""


class InvalidInputError(InputError, TypeError):
    """The document is neither a text nor an array of token ids."""


class InvalidTextError(InputError, ValueError):
    """The text holds a lone surrogate, which UTF-8 cannot carry."""


class TokenArrayError(InputError):
    """The document is a token array, and this endpoint takes only texts."""


class InputTooLongError(InputError):
    """
    The document has more tokens than the model takes, under ``long_input="error"``.

    *tokens* is exact where *counted* is true; otherwise it is the most that the bytes can make.
    """

    def __init__(self, document: object, *, tokens: int, limit: int, counted: bool = True) -> None:
        self.document = document
        self.tokens = tokens
        self.limit = limit
        self.counted = counted
        amount = f"{tokens:,}" if counted else f"up to {tokens:,}"
        super().__init__(
            f"document {document!r} has {amount} tokens; the model takes at most {limit:,}. "
            'Pass long_input="split" to embed it in parts, or "truncate" to embed its beginning.'
        )


class RequestError(EmbedbatchError):
    """
    The endpoint did not give a usable answer.

    *status* is the HTTP status (``None`` when no reply came), *code* and *type* are the endpoint's own
    words where it said any, *request_id* is what its support will ask for.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        type: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.type = type
        self.request_id = request_id


class ConnectionFailedError(RequestError):
    """No connection to the endpoint. Nothing was sent."""


class ConnectionLostError(RequestError):
    """The connection broke before the reply was complete. What was sent may have been billed."""


class AttemptTimeoutError(RequestError):
    """No complete reply within the time of one attempt. Waiting for capacity is not counted."""


class RateLimitedError(RequestError):
    """429: more than the endpoint grants at the moment."""


class ServerError(RequestError):
    """5xx: the endpoint failed."""


class RequestRefusedError(RequestError):
    """4xx: the endpoint will never accept this request as it stands."""


class InvalidReplyError(RequestError):
    """A reply with status 200 that cannot be trusted: expected X, got Y, at which path."""


class MalformedReplyError(InvalidReplyError):
    """A reply with status 200 that is no embeddings reply: HTML, a cut-off body, an error in disguise."""


class DimensionsError(InvalidReplyError):
    """The reply's vectors have another size than the run's."""


class AuthenticationError(RequestError):
    """The key is missing, wrong, or may not do this."""


class ModelNotFoundError(RequestError):
    """The endpoint does not serve this model."""


class QuotaExhaustedError(RequestError):
    """No credit left, or a spend limit reached. Waiting does not help."""


class VectorRangeError(EmbedbatchError):
    """The vector of a document has numbers that the ``dtype`` of a job's result has no room for."""


class NotAttemptedError(EmbedbatchError):
    """The run stopped before this document was sent. Nothing was paid for it."""


class SourceError(EmbedbatchError):
    """A corpus file that cannot be read. The message names the file, the line and the reason."""

    def __init__(self, reason: str, *, path: str, line: int | None = None) -> None:
        self.path = path
        self.line = line
        self.reason = reason
        where = path if line is None else f"{path}, line {line:,}"
        super().__init__(f"{where}: {reason}")


class JournalError(EmbedbatchError):
    """
    What a job keeps beside its result is broken, or cannot be written: the message names the file and the reason.

    What was whole before still counts: nothing is lost but what could not be written.
    """

    def __init__(self, reason: str, *, path: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{path}: {reason}")


class DestinationError(EmbedbatchError):
    """
    The database that a job writes to cannot be reached, or refuses what it is told. The message says which, and why.

    What was done is in the journal or in the table: the same call goes on from there.
    """

    def __init__(self, reason: str, *, destination: str) -> None:
        self.destination = destination
        self.reason = reason
        super().__init__(f"{destination}: {reason}")


class RunError(EmbedbatchError):
    """
    A run that ended with less than everything.

    *embeddings* is the finished result with everything that was paid for: its rows of documents that
    failed or were not attempted are NaN, and its ``failures`` say why. It is ``None`` when the run was a
    stream, whose results were handed out before.
    """

    def __init__(self, message: str, embeddings: Embeddings | None = None) -> None:
        super().__init__(message)
        self.embeddings = embeddings


class FailedDocumentsError(RunError):
    """Some documents failed; the rest is done and is in ``.embeddings``."""


class RunStoppedError(RunError):
    """The run ended early because going on could not help. ``__cause__`` says why."""


class RunInterruptedError(RunStoppedError):
    """The run ended because it was asked to. What was in flight then was waited for."""


class SpendLimitError(RunStoppedError):
    """``max_spend_tokens`` was reached: the next request could have passed it."""
