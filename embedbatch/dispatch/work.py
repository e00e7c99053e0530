"""One batch on its way, and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import EmbedbatchError, RequestError, SpendLimitError
from ..values import Batch, RowsFor, Vectors, no_rows
from ..wire.fault import Fault
from .account import Account
from .pieces import Piece, Pieces, Refusal
from .tickets import Ticket


@dataclass(slots=True)
class Answer:
    """
    What became of one batch.

    *done* holds the chunks that have a vector, *failed* those that have none, with the reason and the number of
    attempts. What *stopped* the run, if anything did, leaves the remaining chunks in neither.
    """

    done: list[tuple[Batch, Vectors]] = field(default_factory=list)
    failed: list[tuple[Batch, EmbedbatchError, int]] = field(default_factory=list)
    stopped: RequestError | SpendLimitError | None = None


class Work:
    """
    One batch on its way: the *pieces* still to be sent, its *place* in the queue, and the *answer* so far.

    *rows_for* tells where vectors may be written. *reserved* are the tokens set aside for the request that is about to
    be sent, *refusals* the refused requests that are not explained yet.
    """

    def __init__(self, batch: Batch, account: Account, rows_for: RowsFor = no_rows) -> None:
        self.pieces = Pieces(batch)
        self.account = account
        self.rows_for = rows_for
        self.place: Ticket | None = None
        self.reserved = 0
        self.answer = Answer()
        self.refusals: list[Refusal] = []

    def fail(self, piece: Piece, fault: Fault) -> None:
        """Give *piece* up."""
        self.answer.failed.append((piece.batch, fault.error, max(1, piece.sent, piece.asked)))

    def stop(self, error: RequestError | SpendLimitError | None) -> None:
        """Send nothing more, and end the run with *error*."""
        self.answer.stopped = error
