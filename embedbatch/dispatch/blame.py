"""Whether requests or tokens are too many, where an endpoint refuses without saying so. Pure."""

from __future__ import annotations

from collections import deque

from ..wire.quota import Resource

SPAN = 60.0  # seconds at least between two refusals that are compared: quotas are there again after a minute
ENOUGH = 4  # requests in such a span
SPANS = 8  # that are kept in mind
WELL_BELOW = 0.7  # of the share that the other one has of the most that was granted
FEW_TOKENS = 500  # in a request: OpenAI's quotas have 330 to 1,000 tokens for each request


class Blame:
    """
    Looks at what was granted from one refusal to another.

    What was granted once is within the limit. If as many requests go as ever, and far fewer tokens, the limit that was
    met is that of requests; and the other way round. Batches become smaller with the rate of tokens and larger with
    that of requests, so a wrong guess brings about the difference that shows it.
    """

    def __init__(self) -> None:
        self._spans: deque[tuple[float, float]] = deque(maxlen=SPANS)  # requests and tokens per second
        self._since: float | None = None  # when the span under way began, with a refusal
        self._requests = 0
        self._tokens = 0.0
        self._found: Resource | None = None

    @property
    def is_sure(self) -> bool:
        """True if what was granted shows it."""
        return self._found is not None

    def grant(self, tokens: float) -> None:
        """Note that a request of *tokens* was answered."""
        self._requests += 1
        self._tokens += tokens

    def refuse(self, tokens: float, now: float) -> Resource:
        """What is too much, by all that is known when a request of *tokens* is refused."""
        if self._since is None:
            self._begin(now)
        elif now - self._since >= SPAN and self._requests >= ENOUGH:
            seconds = now - self._since
            self._spans.append((self._requests / seconds, self._tokens / seconds))
            self._begin(now)
            self._found = self._compare() or self._found
        return self._found or ("requests" if tokens < FEW_TOKENS else "tokens")

    def _begin(self, now: float) -> None:
        self._since, self._requests, self._tokens = now, 0, 0.0

    def _compare(self) -> Resource | None:
        requests, tokens = self._spans[-1]
        share_of_requests = requests / max(each for each, _ in self._spans)
        share_of_tokens = tokens / (max(each for _, each in self._spans) or 1.0)
        if share_of_tokens < WELL_BELOW * share_of_requests:
            return "requests"
        return "tokens" if share_of_requests < WELL_BELOW * share_of_tokens else None
