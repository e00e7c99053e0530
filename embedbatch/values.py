"""
What flows through the library, as frozen records.

A document is what the user hands in; a chunk is a run of it that fits the model; a batch is the chunks of
one request. Batches are columns, not objects per text: the whole budget of a text is some 15 µs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from .errors import EmbedbatchError

__all__ = ["Cut", "Document", "Embedding", "Embeddings", "Failure", "Usage"]

Vectors: TypeAlias = npt.NDArray[np.float32]
"""float32, shape (rows, dimensions)."""

Vector: TypeAlias = npt.NDArray[np.float32]
"""float32, shape (dimensions,)."""

Content: TypeAlias = "str | Sequence[int]"
Id: TypeAlias = "str | int"
Span: TypeAlias = "tuple[int, int]"


@dataclass(frozen=True, slots=True)
class Document:
    """
    A text or a token array, with an optional id.

    *content* is the text, or the token ids in the vocabulary of the model. *id* comes back with the result;
    without one it is the document's position, counted from 0.
    """

    content: Content
    id: Id | None = None


@dataclass(frozen=True, slots=True)
class Embedding:
    """
    The answer for one document.

    *vector* is float32 of shape (dimensions,). *tokens* is the exact count of what was embedded, in the model's
    tokenizer (for a document that was split, the sum over its parts), with the prefix of its role and what the server
    adds; or ``None`` when it was not needed and not asked for. *span* is set by ``long_input="chunks"``, for every
    document: the part of the text this vector stands for, as character offsets (start, end) into the original; for a
    token array that was sent as one, into the array.
    """

    id: Id
    position: int
    vector: Vector
    tokens: int | None = None
    span: Span | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """
    The other answer for one document: what went wrong, after how many attempts.

    *skipped* is true where the caller's policy asked for it (``empty="skip"``): not counted as an error.
    """

    id: Id
    position: int
    error: EmbedbatchError
    attempts: int = 0
    skipped: bool = False


@dataclass(frozen=True, slots=True)
class Cut:
    """
    Report of a document that was longer than the model takes.

    *policy* is what was done with it. *tokens* is the count of the whole document, were it sent as one input, ``None``
    if unknown. *spans* are
    the parts that were embedded, as character offsets (start, end) into the text; for a token array that was sent
    as one, into the array. Parts that are nothing but white space are not embedded.
    """

    id: Id
    position: int
    policy: Literal["split", "truncate", "chunks"]
    tokens: int | None
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """
    What the endpoint said it counted, summed over all replies of a run.

    *prompt_tokens* and *total_tokens* are ``None`` when no reply told; *replies_without_usage* says how many
    did not. *requests* counts every attempt that was sent, failed ones too.
    """

    requests: int = 0
    replies: int = 0
    replies_without_usage: int = 0
    prompt_tokens: int | None = None
    total_tokens: int | None = None

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.requests + other.requests,
            self.replies + other.replies,
            self.replies_without_usage + other.replies_without_usage,
            _add_known(self.prompt_tokens, other.prompt_tokens),
            _add_known(self.total_tokens, other.total_tokens),
        )


def _add_known(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else a + b


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """
    The result of one ``embed()`` call, usable as an array.

    *vectors* is float32 of shape (len(texts), dimensions), one row per document in the order they were handed
    in; with ``long_input="chunks"`` one row per chunk. A row that failed is NaN and has an entry in *failures*.
    *ids* and *tokens* are parallel to the rows; *spans* maps a row to its part of the document, for
    ``"chunks"``. *cut* reports every document that was too long, *repaired* the ids of those whose lone
    surrogates became U+FFFD.

    ``np.asarray(embeddings)``, ``len(embeddings)``, ``embeddings[i]`` and iteration see the rows of *vectors*.
    """

    vectors: Vectors
    ids: Sequence[Id]
    tokens: Sequence[int | None]
    failures: Sequence[Failure] = ()
    cut: Sequence[Cut] = ()
    repaired: Sequence[Id] = ()
    usage: Usage = field(default_factory=Usage)
    spans: Mapping[int, Span] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.vectors)

    def __iter__(self) -> Iterator[Vector]:
        return iter(self.vectors)

    def __getitem__(self, row: Any) -> Any:
        return self.vectors[row]

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(self.vectors, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        rows, dimensions = self.vectors.shape
        return f"<Embeddings {rows:,} × {dimensions:,}, {len(self.failures):,} failures, {len(self.cut):,} cut>"


@dataclass(slots=True)
class Chunks:
    """
    Chunks as parallel columns.

    *inputs* are the chunks as they go on the wire (JSON: a string or an array of ints); *documents* the position
    of the document each belongs to; *parts* its number within that document; *tokens* its exact count, or 0 where
    only a bound is proven; *bounds* the most tokens it can have.
    """

    inputs: list[bytes] = field(default_factory=list)
    documents: list[int] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    bounds: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.inputs)

    def append(self, wire: bytes, document: int, part: int, tokens: int, bound: int) -> None:
        """Add one chunk."""
        self.inputs.append(wire)
        self.documents.append(document)
        self.parts.append(part)
        self.tokens.append(tokens)
        self.bounds.append(bound)

    def extend(self, other: Chunks, first: int, end: int) -> None:
        """Add the chunks *first* to *end* of *other*."""
        self.inputs += other.inputs[first:end]
        self.documents += other.documents[first:end]
        self.parts += other.parts[first:end]
        self.tokens += other.tokens[first:end]
        self.bounds += other.bounds[first:end]

    def select(self, rows: Sequence[int]) -> Chunks:
        """The chunks in the given *rows*, in that order."""
        columns = (self.inputs, self.documents, self.parts, self.tokens, self.bounds)
        return Chunks(*([column[row] for row in rows] for column in columns))  # type: ignore[arg-type]


RowsFor: TypeAlias = Callable[[Sequence[int]], "Vectors | None"]
"""
Tells where the vectors of the documents at these positions may be written as they come: float32 of shape
(positions, dimensions), or ``None``. What is written there counts only once it was delivered.
"""


def no_rows(positions: Sequence[int]) -> Vectors | None:
    """Vectors may be written nowhere yet."""


Batch: TypeAlias = Chunks
"""The chunks of one request: all texts, or all token arrays."""
