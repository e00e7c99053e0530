"""Puts parts into the result: rows of the source beside rows of the journal, and the vectors of duplicates."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import islice

import numpy as np

from ..values import Id, Vectors
from .job import Job
from .journal import Journal
from .ledger import CompletePart, FailureRow
from .parts import EMBEDDED, FAILED, NO_TOKENS, OpenPart
from .rows import RowFile
from .sinks import Block, Sink
from .sources import Row

_BLOCK_BYTES = 16 * 2**20  # of vectors or texts: what is written, and read again, in one go
_EXTRA = 16  # bytes that are kept of an original beside its vector: its state and its tokens
_SURROGATE = re.compile("[\ud800-\udfff]")


class PartWriter:
    """
    Writes the parts of *job*, whose vectors are in *journal*. Used by one thread at a time.

    *open_sink* is called with the size of the vectors. *keeps_text* writes the texts; *has_ids* tells that the ids are
    in the source, and not the positions.
    """

    def __init__(
        self, job: Job, journal: Journal, open_sink: Callable[[int | None], Sink], *, keeps_text: bool, has_ids: bool
    ) -> None:
        self._job = job
        self._journal = journal
        self._open_sink = open_sink
        self._sink: Sink | None = None
        self._keeps_text = keeps_text
        self._has_ids = has_ids
        self._originals: RowFile | None = None
        self._rows: Iterator[Row] = iter(())
        self._reached = -1  # the position that *rows* gives next

    @property
    def sink(self) -> Sink:
        """Where the parts go."""
        if self._sink is None:
            self._sink = self._open_sink(self._journal.dimensions)
        return self._sink

    def write(self, part: OpenPart) -> None:
        """Put *part* into the result. When this returns it is there for good, and gone from the journal."""
        first = self._job.division.first(part.number)
        duplicates = self._job.duplicates.within(first, first + part.rows)
        numbers = {at - first: self._job.duplicates.number(original) for at, original in duplicates.items()}
        if self._journal.dimensions:
            self._journal.sync_part(part.number)
            self._keep_originals(part, first)
            self._look_up(part, numbers)
        digest = self.sink.write_part(part.number, self._blocks(part, first, numbers))
        if self._originals is not None:
            self._originals.sync()
        failures = self._failures(part, first, duplicates)
        self._job.check_source()  # until here the texts, and what stands beside the vectors, are those of this job
        embedded = int(np.count_nonzero(part.states == EMBEDDED))
        self._job.ledger.complete(part.number, CompletePart(embedded, part.bytes, digest), failures)
        self._journal.drop(part.number)

    def close(self) -> None:
        """Close the files."""
        if isinstance(self._rows, Generator):
            self._rows.close()
        if self._originals is not None:
            self._originals.close()

    def _keep_originals(self, part: OpenPart, first: int) -> None:
        """Keep the vectors of documents that come again where they can be found."""
        originals = list(self._job.duplicates.originals_within(first, first + part.rows))
        if not originals and not len(self._job.duplicates):
            return
        dimensions = self._journal.dimensions or 0
        if self._originals is None:
            path = self._job.folder / "originals.bin"
            count = len(self._job.duplicates.originals)
            self._originals = RowFile(self._job.disk, path, rows=count, width=_EXTRA + 4 * dimensions)
        step = max(1, _BLOCK_BYTES // self._originals.width)
        for begin in range(0, len(originals), step):
            picked = originals[begin : begin + step]
            rows = np.array([position - first for position, _ in picked])
            record = np.zeros(len(rows), _record(dimensions))
            record["state"], record["tokens"] = part.states[rows], part.tokens[rows]
            record["vector"] = self._journal.vectors(part.number, rows.tolist())
            self._originals.write(picked[0][1], record)

    def _look_up(self, part: OpenPart, numbers: dict[int, int]) -> None:
        """The states and tokens of duplicates are those of their originals."""
        for row, number in numbers.items():
            record = self._original(number)
            part.states[row], part.tokens[row] = record["state"], record["tokens"]

    def _original(self, number: int) -> np.void:
        assert self._originals is not None
        record: np.void = self._originals.read(number, 1).view(_record(self._journal.dimensions or 0))[0, 0]
        return record

    def _blocks(self, part: OpenPart, first: int, numbers: dict[int, int]) -> Iterator[Block]:
        most = max(1, _BLOCK_BYTES // (64 + 4 * (self._journal.dimensions or 0)))
        begin = 0
        while begin < part.rows:
            ids, texts = self._ids_and_texts(first + begin, min(most, part.rows - begin))
            end = begin + len(ids)
            tokens = [None if count == NO_TOKENS else count for count in part.tokens[begin:end].tolist()]
            yield Block(ids=ids, vectors=self._vectors(part, begin, end, numbers), tokens=tokens, texts=texts)
            begin = end

    def _vectors(self, part: OpenPart, begin: int, end: int, numbers: dict[int, int]) -> Vectors:
        dimensions = self._journal.dimensions or 0
        if not dimensions:
            return np.empty((end - begin, 0), np.float32)
        vectors = self._journal.vectors(part.number, slice(begin, end))
        for row in np.flatnonzero(part.states[begin:end] == EMBEDDED).tolist() if numbers else ():
            if begin + row in numbers:
                vectors[row] = self._original(numbers[begin + row])["vector"]
        vectors[part.states[begin:end] != EMBEDDED] = np.nan
        return vectors

    def _ids_and_texts(self, first: int, count: int) -> tuple[Sequence[Id], list[str | None] | None]:
        """The ids, and the texts if they are kept, of *count* documents from *first* on; fewer where texts are long."""
        if not self._keeps_text and not self._has_ids:
            return range(first, first + count), None
        ids: list[Id] = []
        texts: list[str | None] = []
        size = 0
        if self._reached != first:
            self._rows = self._job.rows_from(first)
        for row in islice(self._rows, count):
            ids.append(row.id)
            texts.append(writable(row.content) if isinstance(row.content, str) else None)
            size += len(texts[-1] or "") if self._keeps_text else 0
            if size >= _BLOCK_BYTES:
                break
        self._reached = first + len(ids)
        return ids, texts if self._keeps_text else None

    def _failures(self, part: OpenPart, first: int, duplicates: dict[int, int]) -> list[FailureRow]:
        """The failures of duplicates: what befell the original befell them."""
        failed = {position for position in duplicates if part.states[position - first] == FAILED}
        failures: list[FailureRow] = []
        if not failed:
            return failures
        for position, row in enumerate(islice(self._job.rows_from(first), part.rows), first):
            if position in failed:
                original = next(self._job.ledger.failures(duplicates[position], duplicates[position] + 1))
                failures.append(original._replace(position=position, line=row.line, id=row.id, file=row.file))
        return failures


def _record(dimensions: int) -> np.dtype[np.void]:
    return np.dtype([("state", "<i8"), ("tokens", "<i8"), ("vector", "<f4", (dimensions,))])


def writable(text: str) -> str:
    """*text* as it was sent: UTF-8 cannot carry a lone surrogate."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)
