"""What the documents of a source become, and what that makes together. Pure."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
import xxhash

from ..errors import EmptyInputError, InputTooLongError
from ..plan.chunker import Chunker
from ..plan.counting import count_all
from ..plan.documents import Source
from ..plan.packer import Caps, Packer
from ..plan.tokens import TokenRatio
from ..values import Batch, Chunks

Records: TypeAlias = npt.NDArray[np.void]
"""Chunks, with the fields of ``RECORD``."""

# The position of its document; its bytes on the wire; the most tokens it can have; what a run knows of its tokens, or
# 0; its exact tokens, or 0 where the tokenizer is not known; which of the properties below it has.
RECORD = np.dtype(
    [("position", "<i8"), ("nbytes", "<u4"), ("bound", "<u4"), ("known", "<u4"), ("tokens", "<u4"), ("kind", "u1")]
)
_TEXT, _FIRST, _LONG = 1, 2, 4  # it is no token array; the first of its document; of a document that was cut
_RATIO = TokenRatio().value

_decode = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode


class Share(NamedTuple):
    """What so many *documents* became: their chunks, and how many have none, for which reason."""

    documents: int
    records: Records
    empty: int
    invalid: int
    refused: int


def examine(sources: Sequence[Source], chunker: Chunker) -> Share:
    """
    What *sources* become in the hands of *chunker*.

    The exact tokens are those of the very inputs that it would send, counted together and not one by one.
    """
    plan = replace(chunker, count_tokens=False).plan(sources)
    chunks = plan.chunks
    records = np.empty(len(chunks), RECORD)
    records["position"] = chunks.documents
    records["nbytes"] = [len(wire) for wire in chunks.inputs]
    records["bound"], records["known"], records["tokens"] = chunks.bounds, chunks.tokens, chunks.tokens
    if chunker.tokenizer is not None:
        rows = np.flatnonzero(records["tokens"] == 0)
        texts = [_decode(chunks.inputs[row]) for row in rows.tolist()]
        records["tokens"][rows] = count_all(chunker.tokenizer, texts)
        if chunker.count_tokens:
            for field in ("known", "bound"):
                records[field][rows] = records["tokens"][rows]
    records["kind"] = np.array([wire[0] == 0x22 for wire in chunks.inputs], bool) * _TEXT
    records["kind"] |= (np.array(chunks.parts) == 0) * np.uint8(_FIRST)
    if plan.cuts:
        records["kind"] |= np.isin(chunks.documents, [cut.position for cut in plan.cuts]) * np.uint8(_LONG)
    errors = [failure.error for failure in plan.failures]
    empty = sum(isinstance(error, EmptyInputError) for error in errors)
    refused = sum(isinstance(error, InputTooLongError) for error in errors)
    return Share(len(sources), records, empty, len(errors) - empty - refused, refused)


def digest(content: Any, position: int) -> bytes:
    """
    16 bytes of the document at *position*: those of an equal text or token array, and of no other.

    That two differ and have the same does not happen by chance. Whoever makes it happen gets a wrong forecast; a run
    takes the time for a hash of which nobody can.
    """
    if isinstance(content, str):
        return xxhash.xxh3_128_digest(content.encode("utf-8", "surrogatepass"))
    if isinstance(content, list):
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            return xxhash.xxh3_128_digest(_encode(content), seed=1)
    return xxhash.xxh3_128_digest(position.to_bytes(8, "little"), seed=2)


@dataclass(slots=True)
class Totals:
    """Sums over the chunks that are sent, and over the duplicates that are not. Bytes are those on the wire."""

    sent: int = 0
    inputs: int = 0
    requests: int = 0
    tokens: int = 0
    bounds: int = 0
    nbytes: int = 0
    cut: int = 0
    cut_chunks: int = 0
    duplicates: int = 0
    duplicate_tokens: int = 0
    duplicate_bytes: int = 0


def add_up(blocks: Iterable[Records], duplicates: npt.NDArray[np.int64], *, caps: Caps, batch_tokens: float) -> Totals:
    """
    What all *blocks* make together, without the documents at the positions *duplicates*, which ascend.

    They are packed by the very packer of a run, with *caps*; a batch is sent in parts of at most *batch_tokens*.
    """
    totals = Totals()
    packer = Packer(lambda: caps)
    for block in blocks:
        if len(duplicates):
            at = np.searchsorted(duplicates, block["position"])
            again = duplicates[np.minimum(at, len(duplicates) - 1)] == block["position"]
            _add_duplicates(totals, block[again])
            block = block[~again]
        _add_sent(totals, block)
        totals.requests += sum(_requests(batch, batch_tokens) for batch in packer.add(_stand_ins(block)))
    totals.requests += sum(_requests(batch, batch_tokens) for batch in packer.flush())
    return totals


def _add_sent(totals: Totals, block: Records) -> None:
    kind, first = block["kind"], block["kind"] & _FIRST != 0
    totals.sent += int(np.count_nonzero(first))
    totals.inputs += len(block)
    totals.tokens += _sum(block["tokens"])
    totals.bounds += _sum(block["bound"])
    totals.nbytes += _sum(block["nbytes"])
    totals.cut += int(np.count_nonzero(first & (kind & _LONG != 0)))
    totals.cut_chunks += int(np.count_nonzero(kind & _LONG))


def _add_duplicates(totals: Totals, block: Records) -> None:
    totals.duplicates += int(np.count_nonzero(block["kind"] & _FIRST))
    totals.duplicate_tokens += _sum(block["tokens"])
    totals.duplicate_bytes += _sum(block["nbytes"])


def _sum(column: npt.NDArray[np.uint32]) -> int:
    return int(column.sum(dtype=np.int64))


def _stand_ins(block: Records) -> Chunks:
    """Chunks of the sizes in *block*. The packer looks at the first byte of an input, and at how many there are."""
    longest = int(block["nbytes"].max(initial=0))
    text, array = memoryview(b'"' * longest), memoryview(b"[" * longest)  # whose slices take no memory of their own
    sizes, kinds = block["nbytes"].tolist(), (block["kind"] & _TEXT).tolist()
    inputs: Any = [(text if is_text else array)[:size] for size, is_text in zip(sizes, kinds, strict=True)]
    zeros = [0] * len(block)
    return Chunks(inputs, zeros, zeros, block["known"].tolist(), block["bound"].tolist())


def _requests(batch: Batch, batch_tokens: float) -> int:
    """How many requests *batch* becomes by the pace: what ``Route.fit`` leaves over goes in the next."""
    if math.isinf(batch_tokens):
        return 1
    requests, total = 1, 0.0
    for wire, tokens in zip(batch.inputs, batch.tokens, strict=True):
        amount = tokens or _RATIO * len(wire)
        if total and total + amount > batch_tokens:
            requests, total = requests + 1, 0.0
        total += amount
    return requests
