"""What a job will send, how long that takes, and what it costs. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..dispatch.pace import RAMP_FROM, RAMP_GROWTH, RAMP_PERIOD
from ..prices import Price
from ..settings import LongInput

Resource: TypeAlias = Literal["requests", "tokens"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """
    What a job will send and cost, if nothing is refused or sent twice.

    Of *documents*, *sent* are sent; *duplicates* equal one before them, and would cost *saved_tokens*; *empty*,
    *invalid* and *refused* ones fail, or are skipped, without being sent. *too_long* of those that are sent or refused
    have more tokens than the model takes, and *long_input* leaves *long_chunks* inputs of them. All *inputs* together
    go in *requests*. *bad_rows* are no documents: they could not be read, and were passed over.

    *tokens* is what ``usage`` will tell, counted with *tokenizer*; both are ``None`` where the model's is not known.
    Then *estimated_tokens* goes by four bytes a token, and *max_tokens* by one byte: a byte-level vocabulary needs no
    more, but what a server adds to each input comes on top. Where *tokens* is known all three are equal.

    *minutes* is the least that the rates allow, and *bound_by* what they run out of; ``None`` where no rate is known.
    *price* is ``None`` where it is not known.
    """

    model: str
    base_url: str
    tokenizer: str | None
    long_input: LongInput
    documents: int
    sent: int
    duplicates: int
    empty: int
    invalid: int
    refused: int
    bad_rows: int
    too_long: int
    long_chunks: int
    inputs: int
    requests: int
    tokens: int | None
    estimated_tokens: int
    max_tokens: int
    saved_tokens: int
    minutes: float | None
    bound_by: Resource | None
    price: Price | None

    @property
    def cost(self) -> float | None:
        """US dollars: for *tokens*, or for *estimated_tokens* where those are not known."""
        return None if self.price is None else self.price.cost(self.estimated_tokens)

    @property
    def max_cost(self) -> float | None:
        """US dollars for *max_tokens*."""
        return None if self.price is None else self.price.cost(self.max_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Requests and tokens that may go in a second; infinite where no limit is known. *ramp* is that of ``Limits``."""

    requests: float
    tokens: float
    ramp: bool = False

    def seconds(self, requests: int, tokens: int) -> tuple[float, Resource] | None:
        """The time that so many *requests* and *tokens* take at least, and which of them it is that takes it."""
        if math.isinf(self.requests) and math.isinf(self.tokens) and not self.ramp:
            return None
        for_requests, for_tokens = requests / self.requests, self._seconds_for(tokens)
        return (for_requests, "requests") if for_requests > for_tokens else (for_tokens, "tokens")

    def _seconds_for(self, tokens: int) -> float:
        if not self.ramp or self.tokens <= RAMP_FROM:
            return tokens / self.tokens
        # The rate grows by a constant share each second, from RAMP_FROM on until it is *tokens*.
        growth = math.log(RAMP_GROWTH) / RAMP_PERIOD
        until_full = math.log(self.tokens / RAMP_FROM) / growth
        seconds = math.log1p(tokens * growth / RAMP_FROM) / growth
        if seconds <= until_full:
            return seconds
        return until_full + (tokens - (self.tokens - RAMP_FROM) / growth) / self.tokens
