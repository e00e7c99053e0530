"""What one request may hold at an endpoint: what is set, and what was learned by being refused. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from ..values import Batch
from ..wire.refusal import NamedCap, Unit

KNOWN_CAPS = (10, 16, 20, 25, 32, 64, 96, 100, 128, 250, 256, 512, 1_000, 1_024, 2_048)
"""Inputs per request at servers in use: docs/explanation/faults.md. They are tried first."""

OFFER_EVERY = 16  # batches: the one that was packed for a trial may have met a poisoned input
CLOSE_ENOUGH = 1.05  # between bytes that are known to pass and bytes that are known not to


@dataclass(slots=True)
class _Cap:
    """A cap in one unit: *passed* is known to pass, *refused* known not to."""

    passed: float = 0
    refused: float = math.inf

    def found_too_much(self, amount: float) -> None:
        self.refused = min(self.refused, amount)
        self.passed = min(self.passed, self.refused - 1)

    def found_good(self, amount: float) -> None:
        self.passed = max(self.passed, amount)
        if self.passed >= self.refused:  # the server has changed its mind
            self.refused = math.inf


class Lessons:
    """
    The caps of one endpoint, as far as they are known.

    *max_inputs*, *max_tokens* (by their bound) and *max_bytes* are what is set. The last is for the inputs; endpoints
    name the cap of a body, which has *overhead* bytes more. A cap that nobody named is proven by a
    request that was refused although all its inputs pass in smaller ones. Then one request at a time is a trial, of a
    size between what passes and what does not, until they meet.
    """

    def __init__(self, *, max_inputs: int, max_tokens: int, max_bytes: int, overhead: int = 0) -> None:
        self.overhead = overhead
        self._max_inputs = max_inputs
        self._max_tokens = max_tokens
        self._max_bytes = max_bytes
        self._found: dict[Unit, int] = {}
        self._news: list[tuple[Unit, int]] = []
        self._inputs = _Cap()
        self._bytes = _Cap()
        self._offered: tuple[int | None, int | None] = (None, None)  # the sizes that a batch was packed for
        self._offers = 0  # and how many batches ago
        self._accidents = 0  # refusals of what had passed before, since something of that size passed

    @property
    def max_inputs(self) -> int:
        """Inputs that one request may hold."""
        cap = self._inputs
        return self._max_inputs if cap.refused == math.inf else max(1, min(self._max_inputs, int(cap.passed)))

    @property
    def max_tokens(self) -> int:
        """Tokens that one request may hold, by their proven bound."""
        return self._max_tokens

    @property
    def max_bytes(self) -> int:
        """Bytes of inputs that one request may hold."""
        cap = self._bytes
        return self._max_bytes if cap.refused == math.inf else min(self._max_bytes, max(1, int(cap.passed)))

    @property
    def passed_inputs(self) -> int:
        """The most inputs that have passed in one request."""
        return int(self._inputs.passed)

    def learned(self) -> dict[str, object]:
        """The caps that were named or found out, as JSON can carry them."""
        return {f"max_{unit}": number for unit, number in self._found.items()}

    def recall(self, learned: Mapping[str, Any]) -> None:
        """Begin with what :meth:`learned` has told before. What is no such thing is passed over."""
        for unit in get_args(Unit):
            number = learned.get(f"max_{unit}")
            if isinstance(number, int) and not isinstance(number, bool) and number >= 1:
                self.name(NamedCap(unit, number))
        self.news()

    def news(self) -> list[tuple[Unit, int]]:
        """The caps that were named or found out since this was asked last."""
        news, self._news = self._news, []
        return news

    def trial(self) -> int | None:
        """How many inputs the next trial should have; ``None`` when there is nothing to find out."""
        passed, refused = self._inputs.passed, self._inputs.refused
        if refused == math.inf or refused - passed <= 1 or passed >= self._max_inputs:
            return None
        known = [cap for cap in KNOWN_CAPS if passed <= cap < refused]
        if not known:
            return int(passed + refused) // 2
        likely = known[len(known) // 2]
        return likely if likely > passed else int(passed) + 1

    def byte_trial(self) -> int | None:
        """How many bytes the next trial should have; ``None`` when there is nothing to find out."""
        passed, refused = self._bytes.passed, self._bytes.refused
        if refused == math.inf or refused <= CLOSE_ENOUGH * passed:
            return None
        return int(passed + refused) // 2

    def offer(self) -> tuple[int, int]:
        """How many inputs and bytes the next batch should have: what is to be tried, but not in every batch."""
        trials = (self.trial(), self.byte_trial())
        if trials == (None, None) or (trials == self._offered and self._offers < OFFER_EVERY):
            self._offers += 1
            return self.max_inputs, self.max_bytes
        self._offered, self._offers = trials, 0
        return trials[0] or self.max_inputs, trials[1] or self.max_bytes

    def is_trial(self, batch: Batch) -> bool:
        """True if *batch* is more than what is known to pass, because that is to be tried."""
        too_many = self.trial() is not None and len(batch) > self.max_inputs
        return too_many or (self.byte_trial() is not None and size(batch) > self.max_bytes)

    def passes(self, batch: Batch) -> None:
        """*batch* was accepted."""
        if len(batch) >= self._inputs.passed:
            self._accidents = 0
        self._inputs.found_good(len(batch))
        self._bytes.found_good(size(batch))
        self._conclude()

    def is_news(self, batch: Batch) -> bool:
        """True if more inputs are in *batch* than have ever passed."""
        return len(batch) > self._inputs.passed

    def proves_too_much(self, inputs: int, nbytes: int, status: int | None) -> None:
        """
        A request was refused whose inputs all pass in smaller ones.

        413 is about bytes. So is everything else once as many inputs have passed in one request.
        """
        if status != 413 and inputs > self._inputs.passed:
            self._inputs.found_too_much(inputs)
        elif nbytes > self._bytes.passed:
            self._bytes.found_too_much(nbytes)
        else:
            self._doubt(inputs)
        self._conclude()

    def _doubt(self, inputs: int) -> None:
        """So much has passed before. The first time it was an accident, the second time the server has changed."""
        self._accidents += 1
        if self._accidents == 2:
            self._accidents = 0
            self._inputs = _Cap(passed=inputs // 2, refused=inputs)

    def _conclude(self) -> None:
        """See what is known now: inputs exactly, bytes closely; that is left at that."""
        if self._inputs.refused - self._inputs.passed == 1:
            self._find("inputs", int(self._inputs.passed))
        if self._bytes.refused <= CLOSE_ENOUGH * self._bytes.passed:
            self._max_bytes = min(self._max_bytes, int(self._bytes.passed))
            self._find("bytes", self._max_bytes + self.overhead)

    def _find(self, unit: Unit, number: int) -> None:
        if self._found.get(unit) != number:
            self._found[unit] = number
            self._news.append((unit, number))

    def name(self, cap: NamedCap) -> bool:
        """The endpoint has named *cap*. Return whether that is news."""
        if cap.number is None:
            return False
        before = (self.max_inputs, self._max_tokens, self._max_bytes)
        if cap.unit == "inputs":
            self._inputs = _Cap(passed=cap.number, refused=cap.number + 1)
        elif cap.unit == "tokens":
            self._max_tokens = min(self._max_tokens, cap.number)
        else:
            self._max_bytes = min(self._max_bytes, max(1, cap.number - self.overhead))
        if before == (self.max_inputs, self._max_tokens, self._max_bytes):
            return False
        self._find(cap.unit, cap.number)
        return True

    def fit(self, batch: Batch, max_inputs: int, max_bytes: int) -> int:
        """How many of the first inputs of *batch* may go in one request with these caps, and that on tokens; or one."""
        if len(batch) <= max_inputs and sum(batch.bounds) <= self.max_tokens and size(batch) <= max_bytes:
            return len(batch)  # as nearly always
        tokens = nbytes = 0
        columns = zip(batch.inputs, batch.bounds, strict=True)
        for row, (wire, bound) in enumerate(columns):
            tokens += bound
            nbytes += len(wire) + 1
            if row and (row >= max_inputs or tokens > self.max_tokens or nbytes > max_bytes):
                return row
        return len(batch)


def size(batch: Batch) -> int:
    """The bytes that *batch* takes in a request: its inputs, and a comma for each."""
    return sum(map(len, batch.inputs)) + len(batch)
