"""One run of a job: what is left is embedded, and the result made."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import anyio
import anyio.to_thread

from ..embedder import Embedder
from ..errors import JournalError, RunInterruptedError, RunStoppedError
from ..store import NoStore, Store
from ..store_layers import Layered
from ..values import Usage
from .disk import naming
from .failures import list_failures
from .job import Job
from .journal import Journal
from .part_writer import PartWriter
from .segments import Room
from .sinks import RowType, Sink, origin_of
from .work import Work

_TELL_AFTER = 0.1  # seconds between two reports of progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """
    How far a job is: what is done, and how much there is.

    *bytes* are those of the source file. *tokens* is what the endpoint has counted, ``None`` if it does not tell.
    """

    documents: int
    total_documents: int
    bytes: int
    total_bytes: int
    failures: int
    tokens: int | None


class Task:
    """One run of a job."""

    def __init__(
        self,
        job: Job,
        embedder: Embedder,
        shape: RowType,
        progress: Callable[[Progress], object] | None,
        *,
        has_ids: bool,
    ) -> None:
        self._job = job
        self._embedder = embedder
        self._shape = shape
        self._progress = progress
        self._told_at = -math.inf
        self._used = job.ledger.usage()  # by the runs before
        self._lessons: Mapping[str, Any] = job.ledger.fact("lessons") or {}
        self._journal = Journal(
            job.disk,
            job.folder,
            job.ledger,
            division=job.division,
            dimensions=job.ledger.fact("dimensions"),
            room=self._room,
        )
        self._writer = PartWriter(
            job,
            self._journal,
            self._open_sink,
            keeps_text=shape.keep_text,
            has_ids=has_ids,
            columns=shape.columns,
        )

    async def run(self, stop: anyio.Event | None, options: dict[str, Any], started_at: float) -> None:
        """Embed what is left, and make the result."""
        job = self._job
        if job.ledger.fact("publishing") is None:
            with self._kept(started_at):
                await self._embed(stop, options)
                with naming(job.folder):
                    await anyio.to_thread.run_sync(self._assemble)
        with naming(job.folder):
            await anyio.to_thread.run_sync(self._publish)

    async def _embed(self, stop: anyio.Event | None, options: dict[str, Any]) -> None:
        self._embedder.recall(self._lessons)
        work = Work(self._job, self._journal, self._writer, dtype=self._shape.dtype, tell=self._tell)
        try:
            await work.embed(self._embedder, stop, {**options, "store": self._store()})
            if self._job.parts_to_do():
                raise RunInterruptedError("the run was stopped")
        except RunStoppedError as error:
            whole = self._job.division.documents
            error.add_note(
                f"{work.documents:,} of {whole:,} documents are done, and kept in {self._job.folder}. The same call "
                "goes on from there."
                if work.embedded
                else f"Nothing was written to {self._job.destination}."
            )
            raise

    def _store(self) -> Store:
        """The journal, above what the embedder remembers."""
        below = self._embedder.inside.store
        return self._journal if isinstance(below, NoStore) else Layered(self._journal, below)

    @contextmanager
    def _kept(self, started_at: float) -> Iterator[None]:
        """A block at the end of which the journal is closed, and knows what the run has used."""
        ledger = self._job.ledger
        self._journal.run = ledger.begin_run()
        try:
            yield
            self._remember()
            ledger.end_run(self._journal.run, self._journal.usage(), anyio.current_time() - started_at)
        except JournalError:
            raise
        except BaseException:
            self._remember()
            ledger.end_run(self._journal.run, self._journal.usage(), anyio.current_time() - started_at)
            raise
        finally:
            self._journal.close()
            self._writer.close()

    def _room(self, dimensions: int) -> Room | None:
        job = self._job
        return job.destination.room_for(
            job.folder, division=job.division, dimensions=dimensions, dtype=self._shape.dtype
        )

    def _open_sink(self, dimensions: int | None) -> Sink:
        job = self._job
        origin, rows = origin_of(self._embedder, dimensions), replace(self._shape, dimensions=dimensions)
        return job.destination.open_sink(job.disk, job.folder, origin, rows, division=job.division, run=job.run)

    def _assemble(self) -> None:
        """Make the files of the result, under other names."""
        job = self._job
        damaged = self._writer.damaged()
        for number in damaged:
            job.ledger.reopen(number)
        if damaged:
            reason = f"{len(damaged):,} parts of the result are damaged. The next run makes them again"
            raise JournalError(reason, path=str(job.folder))
        files = self._writer.sink.assemble(list(job.ledger.complete_parts()))
        if job.ledger.count_failures()[0] or job.ledger.bad_rows():
            files.insert(0, (list_failures(job), job.destination.failures))
        job.disk.sync_directory(job.folder)
        job.ledger.state(publishing=[(path.name, target.name) for path, target in files])
        job.ledger.sync()  # before the first of them is gone from the folder

    def _publish(self) -> None:
        """Give the files of the result their names. It may have been begun before."""
        job = self._job
        files = [
            (job.folder / name, job.destination.failures.with_name(target))
            for name, target in job.ledger.fact("publishing")
        ]
        if len(files) > 1 and files[-1][0].exists():
            # Between two renames, new ids would stand beside old vectors: rather no vectors.
            job.disk.remove(files[-1][1])
        if not job.ledger.count_failures()[0] and not job.ledger.bad_rows():
            job.disk.remove(job.destination.failures)
        for path, target in files:
            if path.exists():
                if target.is_dir():
                    job.disk.remove(target)
                job.disk.replace(path, target)
            elif not target.exists():
                raise JournalError("is gone. Start over: --fresh, in Python fresh=True", path=str(path))
        job.disk.sync_directory(job.destination.failures.parent)
        job.ledger.state(is_finished=True)
        job.ledger.sync()

    def _remember(self) -> None:
        """Keep what was learned of the endpoints: the next run begins with it."""
        if self._embedder.lessons != self._lessons:
            self._lessons = self._embedder.lessons
            self._job.ledger.state(lessons=self._lessons)

    def _tell(self, work: Work, usage: Usage) -> None:
        """Report progress, and remember what was learned: at first, at last, and not too often in between."""
        now = anyio.current_time()
        if now - self._told_at < _TELL_AFTER and work.documents < self._job.scan.documents:
            return
        self._told_at = now
        self._remember()
        if self._progress is None:
            return
        self._progress(
            Progress(
                documents=work.documents,
                total_documents=self._job.scan.documents,
                bytes=work.bytes,
                total_bytes=self._job.scan.bytes,
                failures=work.failures,
                tokens=(self._used + usage).total_tokens,
            )
        )
