"""Chunks become batches that respect every limit of a request at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

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
        columns = zip(chunks.inputs, chunks.documents, chunks.parts, chunks.tokens, chunks.bounds, strict=True)
        for wire, document, part, tokens, bound in columns:
            is_text = wire[0] == 0x22  # a JSON string begins with a quote, an array of ints with a bracket
            unfinished = self._texts if is_text else self._token_arrays
            if not unfinished.takes(wire, bound):
                yield unfinished.close()
            if not unfinished.batch:
                unfinished.begin(self._caps())
            unfinished.bytes += len(wire) + 1  # and a comma
            unfinished.tokens += bound
            unfinished.batch.append(wire, document, part, tokens, bound)
            if len(unfinished.batch) == unfinished.caps.max_inputs:
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

    def close(self) -> Batch:
        batch, self.batch = self.batch, Batch()
        return batch

    def takes(self, wire: bytes, bound: int) -> bool:
        return not self.batch or (
            len(self.batch) < self.caps.max_inputs
            and self.tokens + bound <= self.caps.max_tokens
            and self.bytes + len(wire) + 1 <= self.caps.max_bytes
        )
