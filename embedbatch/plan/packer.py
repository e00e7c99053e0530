"""Chunks become batches that respect every limit of a request at once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from ..values import Batch, Chunks


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """What one request may hold: inputs, tokens (by their proven bound), bytes of inputs on the wire."""

    max_inputs: int
    max_tokens: int
    max_bytes: int


class Packer:
    """
    Packs a stream of chunks, in order, into batches; a chunk above a cap goes alone.

    Texts and token arrays never share a batch: servers that take both refuse or misnumber a mixture.
    *caps* is read whenever a batch is begun, so what is learned about an endpoint counts from the next one on.
    """

    def __init__(self, caps: Callable[[], Caps]) -> None:
        self._caps = caps
        self._texts = _Open()
        self._token_arrays = _Open()

    def __len__(self) -> int:
        """Chunks that wait in unfinished batches."""
        return len(self._texts.batch) + len(self._token_arrays.batch)

    def add(self, chunks: Chunks) -> Iterator[Batch]:
        """Take *chunks* in; yield each batch that became full."""
        tokens = [0, *accumulate(chunks.bounds)]
        nbytes = [0, *accumulate(len(wire) + 1 for wire in chunks.inputs)]  # and a comma
        # A JSON string begins with a quote, an array of ints with a bracket.
        begins = bytes([wire[0] for wire in chunks.inputs])
        at = 0
        while at < len(chunks):
            is_text = begins[at] == 0x22
            unfinished = self._texts if is_text else self._token_arrays
            other = begins.find(b"[" if is_text else b'"', at)
            last = len(chunks) if other < 0 else other
            if not unfinished.batch:
                unfinished.begin(self._caps())
            at = unfinished.fill(chunks, tokens, nbytes, at, last)
            if at < last or unfinished.is_full:
                yield unfinished.close()

    def flush(self) -> Iterator[Batch]:
        """Yield what is unfinished, although it is not full."""
        for unfinished in (self._texts, self._token_arrays):
            if unfinished.batch:
                yield unfinished.close()


class _Open:
    """A batch that is being filled."""

    __slots__ = ("batch", "bytes", "caps", "tokens")

    def __init__(self) -> None:
        self.batch = Batch()

    def begin(self, caps: Caps) -> None:
        self.caps = caps
        self.tokens = 0
        self.bytes = 0

    def fill(self, chunks: Chunks, tokens: Sequence[int], nbytes: Sequence[int], first: int, last: int) -> int:
        """
        Take in as many of the chunks *first* to *last* as fit; return the first that does not.

        *tokens* and *nbytes* are the sums up to each chunk.
        """
        caps = self.caps
        end = min(
            last,
            first + caps.max_inputs - len(self.batch),
            bisect_right(tokens, tokens[first] + caps.max_tokens - self.tokens, first) - 1,
            bisect_right(nbytes, nbytes[first] + caps.max_bytes - self.bytes, first) - 1,
        )
        end = max(end, first if self.batch else first + 1)  # above a cap, alone
        self.batch.extend(chunks, first, end)
        self.tokens += tokens[end] - tokens[first]
        self.bytes += nbytes[end] - nbytes[first]
        return end

    @property
    def is_full(self) -> bool:
        return len(self.batch) == self.caps.max_inputs

    def close(self) -> Batch:
        batch, self.batch = self.batch, Batch()
        return batch
