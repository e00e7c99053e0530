"""Puts parts into the result: rows of the source beside rows of the journal, and the vectors of duplicates."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from ..errors import JournalError
from ..values import Id, Vector, Vectors
from .columns import writable
from .earlier import EarlierResult
from .job import Job
from .journal import Journal
from .ledger import CompletePart, FailureRow
from .parts import EARLIER, EMBEDDED, FAILED, NO_TOKENS, OpenPart
from .rows import RowFile, digest
from .segments import DIGEST_BYTES, Check
from .sinks import Block, Sink
from .sources import Row

_BLOCK_BYTES = 16 * 2**20  # of vectors or texts: what is written, and read again, in one go
_ORIGINALS = "originals.rows"
_WHAT_IT_IS = 16  # bytes that are kept of an original beside its vector: its state and its tokens


class PartWriter:
    """
    Writes the parts of *job*, whose vectors are in *journal*. Used by one thread at a time.

    *open_sink* is called with the size of the vectors. *keeps_text* writes the texts, and *columns* are others that go
    into the result; *has_ids* tells that the ids are in the source, and not the positions.
    """

    def __init__(
        self,
        job: Job,
        journal: Journal,
        open_sink: Callable[[int | None], Sink],
        *,
        keeps_text: bool,
        has_ids: bool,
        columns: Iterable[str] = (),
    ) -> None:
        self._job = job
        self._journal = journal
        self._open_sink = open_sink
        self._sink: Sink | None = None
        self._keeps_text = keeps_text
        self._has_ids = has_ids
        self._columns = list(columns)
        self._originals: RowFile | None = None
        self._rows: Iterator[Row] = iter(())
        self._reached = -1  # the position that *rows* gives next
        self._written: set[int] = set()  # the numbers of parts
        self._earlier = EarlierResult(job.destination)

    @property
    def sink(self) -> Sink:
        """Where the parts go."""
        if self._sink is None:
            self._sink = self._open_sink(self._journal.dimensions)
        return self._sink

    def write(self, part: OpenPart) -> None:
        """
        Put *part* into the result. When this returns it is there for good, and gone from the journal.

        Raises :class:`JournalError` if its vectors are not those that were put there.
        """
        duplicates = self._job.duplicates.within(part.first, part.first + part.rows)
        numbers = {at - part.first: self._job.duplicates.number(original) for at, original in duplicates.items()}
        is_in_place = self._journal.is_in_place
        known, check = None, None
        if self._journal.dimensions:
            put = part.states == EMBEDDED
            check = self._journal.check(part.number, put)
            if is_in_place:
                known = self._journal.digest(part.number, check)
                known = known if put.all() else None
            self._restore(part)
            self._keep_originals(part)
            self._look_up(part, numbers)
            if is_in_place:
                self._fill(part, numbers)
                self._journal.sync_part(part.number)
        written = self.sink.write_part(part.number, self._blocks(part, numbers, check))
        written ^= self._digest(part.number) if known is None else known
        self._written.add(part.number)
        if self._originals is not None:
            self._originals.sync()
        failures = self._failures(part, duplicates)
        self._job.check_source()  # until here the texts, and what stands beside the vectors, are those of this job
        embedded = part.states == EMBEDDED
        complete = CompletePart(int(np.count_nonzero(embedded)), part.bytes, written)
        noted = self._job.ledger.failures(part.first, part.first + part.rows)
        better = [each.position for each in noted if embedded[each.position - part.first]]
        self._job.ledger.complete(part.number, complete, failures, better)
        self._journal.drop(part.number)

    def damaged(self) -> list[int]:
        """The parts that are complete, by the ledger, and not what was written. Whoever has just written one knows."""
        complete = self._job.ledger.complete_parts()
        return [number for number, part in complete.items() if not self._is_whole(number, part.digest)]

    def close(self) -> None:
        """Close the files."""
        if isinstance(self._rows, Generator):
            self._rows.close()
        if self._originals is not None:
            self._originals.close()

    def _is_whole(self, number: int, known: int) -> bool:
        if number in self._written:
            return True
        try:
            return self.sink.digest(number) ^ self._digest(number) == known
        except FileNotFoundError:
            return False

    def _digest(self, number: int) -> int:
        """That of the vectors of a part, if they stay where they are."""
        return self._journal.digest(number) if self._journal.is_in_place else 0

    def _restore(self, part: OpenPart) -> None:
        """Fetch the vectors that the earlier result has."""
        rows_of_it = np.flatnonzero(part.states == EARLIER)
        if not len(rows_of_it):
            return
        end = part.first + int(rows_of_it[-1]) + 1
        for position, vectors, tokens in self._earlier.rows(part.first, end):
            begin = position - part.first
            rows = np.flatnonzero(part.states[begin : begin + len(vectors)] == EARLIER)
            if np.isnan(vectors[rows]).any():
                raise JournalError("lacks vectors that this job gave it", path=str(self._job.destination))
            for run in np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1) if len(rows) else ():
                self._journal.overwrite(part.number, begin + int(run[0]), vectors[run[0] : run[-1] + 1])
            for row in rows.tolist():
                count = tokens[row]
                part.tokens[begin + row] = NO_TOKENS if count is None else count
            part.states[begin + rows] = EMBEDDED

    def _fill(self, part: OpenPart, numbers: dict[int, int]) -> None:
        """Write the vectors of duplicates, and NaN for what has failed, to their places."""
        nothing = np.full((1, self._journal.dimensions or 0), np.nan, np.float32)
        for row in np.flatnonzero(part.states != EMBEDDED).tolist():
            self._journal.overwrite(part.number, row, nothing)
        for row, number in numbers.items():
            if part.states[row] == EMBEDDED:
                self._journal.overwrite(part.number, row, self._original(number)[2][np.newaxis])

    def _keep_originals(self, part: OpenPart) -> None:
        """Keep the vectors of documents that come again where they can be found."""
        originals = list(self._job.duplicates.originals_within(part.first, part.first + part.rows))
        if not originals and not len(self._job.duplicates):
            return
        width = 4 * (self._journal.dimensions or 0)
        if self._originals is None:
            path, count = self._job.folder / _ORIGINALS, len(self._job.duplicates.originals)
            self._originals = RowFile(self._job.disk, path, rows=count, width=width + _WHAT_IT_IS + DIGEST_BYTES)
        step = max(1, _BLOCK_BYTES // max(1, width))
        for begin in range(0, len(originals), step):
            picked = originals[begin : begin + step]
            rows = np.array([position - part.first for position, _ in picked])
            vectors = self._journal.vectors(part.number, rows.tolist()).astype("<f4", copy=False)
            what = np.stack([part.states[rows].astype("<i8"), part.tokens[rows].astype("<i8")], axis=1)
            records = np.concatenate([vectors.view(np.uint8), what.view(np.uint8)], axis=1)
            digests = np.array([[digest(record.data)] for record in records], "<i8")
            self._originals.write(picked[0][1], np.concatenate([records, digests.view(np.uint8)], axis=1))

    def _look_up(self, part: OpenPart, numbers: dict[int, int]) -> None:
        """The states and tokens of duplicates are those of their originals."""
        for row, number in numbers.items():
            part.states[row], part.tokens[row], _ = self._original(number)

    def _original(self, number: int) -> tuple[int, int, Vector]:
        """
        The state, the tokens and the vector of the original with this *number*.

        Raises :class:`JournalError` if they are not what was written. The next run makes the original's part again.
        """
        assert self._originals is not None
        record, known = np.split(self._originals.read(number, 1)[0], [-DIGEST_BYTES])
        if digest(record.data) != known.view("<i8")[0]:
            position = int(self._job.duplicates.originals[number])
            self._job.ledger.reopen(position // self._job.division.part_rows)
            reason = f"the vector of document {position:,} is damaged. The next run makes its part of the result again"
            raise JournalError(reason, path=str(self._originals.path))
        vector, what = np.split(record, [-_WHAT_IT_IS])
        state, tokens = what.view("<i8").tolist()
        return state, tokens, vector.view("<f4").astype(np.float32, copy=False)

    def _blocks(self, part: OpenPart, numbers: dict[int, int], check: Check | None) -> Iterator[Block]:
        most = max(1, _BLOCK_BYTES // (64 + 4 * (self._journal.dimensions or 0)))
        begin = 0
        while begin < part.rows:
            ids, texts, extra = self._read(part.first + begin, min(most, part.rows - begin))
            end = begin + len(ids)
            tokens = [None if count == NO_TOKENS else count for count in part.tokens[begin:end].tolist()]
            vectors = None if self._journal.is_in_place else self._vectors(part, begin, end, numbers, check)
            yield Block(ids=ids, vectors=vectors, tokens=tokens, texts=texts, extra=extra)
            begin = end

    def _vectors(self, part: OpenPart, begin: int, end: int, numbers: dict[int, int], check: Check | None) -> Vectors:
        dimensions = self._journal.dimensions or 0
        if not dimensions:
            return np.empty((end - begin, 0), np.float32)
        vectors = self._journal.vectors(part.number, slice(begin, end), check)
        for row in np.flatnonzero(part.states[begin:end] == EMBEDDED).tolist() if numbers else ():
            if begin + row in numbers:
                vectors[row] = self._original(numbers[begin + row])[2]
        vectors[part.states[begin:end] != EMBEDDED] = np.nan
        return vectors

    def _read(self, first: int, count: int) -> tuple[Sequence[Id], list[str | None] | None, dict[str, list[Any]]]:
        """The ids, texts and other columns of *count* documents from *first* on; of fewer where these are long."""
        extra: dict[str, list[Any]] = {name: [] for name in self._columns}
        if not (self._keeps_text or self._has_ids or self._columns):
            return range(first, first + count), None, extra
        ids: list[Id] = []
        texts: list[str | None] = []
        size = 0
        if self._reached != first:
            self._rows = self._job.rows_from(first)
        for row in islice(self._rows, count):
            ids.append(row.id)
            texts.append(writable(row.content) if isinstance(row.content, str) else None)
            size += len(texts[-1] or "") if self._keeps_text else 0
            for name, values in extra.items():
                values.append(value := row.extra.get(name))
                size += _weight(value)
            if size >= _BLOCK_BYTES:
                break
        self._reached = first + len(ids)
        return ids, texts if self._keeps_text else None, extra

    def _failures(self, part: OpenPart, duplicates: dict[int, int]) -> list[FailureRow]:
        """The failures of duplicates: what befell the original befell them."""
        failed = {position for position in duplicates if part.states[position - part.first] == FAILED}
        failures: list[FailureRow] = []
        if not failed:
            return failures
        for position, row in enumerate(islice(self._job.rows_from(part.first), part.rows), part.first):
            if position in failed:
                original = next(self._job.ledger.failures(duplicates[position], duplicates[position] + 1))
                failures.append(original._replace(position=position, line=row.line, id=row.id, file=row.file))
        return failures


def _weight(value: Any) -> int:
    """Roughly the bytes that *value* takes; of a list by the first that is in it."""
    match value:
        case str() | bytes():
            return 32 + len(value)
        case list() if value:
            return len(value) * _weight(value[0])
        case dict():
            return sum(map(_weight, value.values()))
        case _:
            return 32
