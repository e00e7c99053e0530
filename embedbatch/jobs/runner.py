"""The main job, from a corpus file to a file of vectors."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from anyio.from_thread import start_blocking_portal

from ..blocking import loop_options
from ..cache import Cache
from ..embedder import Embedder
from ..errors import ConfigurationError, JournalError, RunInterruptedError, RunStoppedError, SourceError
from ..settings import OnOutage
from ..store import Store
from ..store_layers import Layered
from ..values import Usage
from .disk import Disk, naming
from .dtypes import Dtype
from .failures import list_failures
from .job import Job
from .journal import Journal
from .part_writer import PartWriter
from .parts import rows_of_a_part
from .segments import Room
from .sinks import Destination, FileDestination, FileName, RowType, Sink, destination_of, origin_of
from .sources import Columns, Format, Source, open_source, open_table
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """
    What a job has done, in all of its runs.

    Of *documents*, *embedded* have a vector; *failures* are listed in *failures_file*, which is ``None`` if there
    are none; *bad_rows*, which could not be read and were passed over, are listed there too; *skipped* are those that
    the embedder's policy passes over. *duplicates* have the vector of an equal document before them. *dimensions* is
    ``None`` if no document was embedded and the model's are not known. *usage* and *seconds* are sums over all runs.
    *run* is in the rows of a table, where others may be, too.
    """

    destination: Path | str
    documents: int
    embedded: int
    failures: int
    skipped: int
    duplicates: int
    bad_rows: int
    failures_file: Path | None
    dimensions: int | None
    usage: Usage
    seconds: float
    runs: int
    run: str | None = None


async def run(
    source: FileName | Any,
    destination: FileName | Destination,
    embedder: Embedder,
    *,
    format: Format | None = None,
    text_column: str = "text",
    id_column: str | None = None,
    skip_bad_rows: bool = False,
    keep_text: bool = False,
    columns: Columns = (),
    dtype: Dtype = "float32",
    dedupe: bool = True,
    cache: Cache | None = None,
    fresh: bool = False,
    max_spend_tokens: int | None = None,
    on_outage: OnOutage = "wait",
    stop: anyio.Event | None = None,
    progress: Callable[[Progress], object] | None = None,
    part_rows: int | None = None,
    disk: Disk | None = None,
) -> Summary:
    """
    Embed every document of *source* into the file *destination*, in order; go on where a run before ended.

    *source* is a file, a folder or a pattern of files: ``.jsonl``, ``.csv``, ``.tsv`` or ``.parquet``, whose documents
    are in *text_column* and their ids in *id_column* (without one, they are numbered from 0), or ``.txt`` with a
    document per line; all but Parquet also as ``.gz`` and ``.zst``; *format* says which where the name does not. Or it
    is a table in memory: of pandas, polars, Arrow, or anything with Arrow's C stream. It is read twice: once to find
    rows that cannot be read, and documents that are equal, before anything is sent. With *skip_bad_rows* rows that
    cannot be read are passed over, and listed with the failures. Equal documents are sent once, unless *dedupe* is
    false.

    *destination* is a ``.parquet``, ``.npy`` or ``.jsonl`` file, the last also as ``.jsonl.gz`` and ``.jsonl.zst``, or
    a name without a suffix: a folder of Parquet files. Or it is a table: a :class:`Postgres`, a :class:`LanceTable`,
    or a URL of one. *keep_text* writes the texts too, and *columns* others of the source: those that are named, or
    ``"all"``. With *dtype* ``"float16"`` the numbers take half the room, but for JSON, and a vector that float16 has
    no room for is a failure, with :class:`VectorRangeError`.

    An endpoint that is away is waited for, or ends the job with ``on_outage="stop"``. When *stop* is set nothing more
    is sent, and what is in flight is waited for. *progress* is called in the event loop, ten times a second at most.
    Documents go into the result in parts of *part_rows*, by default some 128 MB of vectors.

    What a reply brought is kept in the folder ``DESTINATION.journal`` before it counts as done. However a run ends,
    the same call goes on from there; a job that is finished is not done again. *fresh* starts over.

    A document that fails keeps its row, without a vector, and is listed in ``DESTINATION.failures.jsonl`` with its
    id, line, error and attempts; where nothing failed there is no such file. The destination, and what belongs to
    it, is replaced when the job is complete; until then it stays as it was.

    Raises :class:`SourceError` for a source and :class:`ConfigurationError` for a destination that cannot be used, or
    a job that was begun otherwise, before anything is sent; :class:`JournalError` for a journal that is broken or
    cannot be written; :class:`DestinationError` for a database that goes away; and :class:`RunStoppedError` when going
    on could not help, *max_spend_tokens* is reached by this run, or *stop* was set.
    """
    started_at = anyio.current_time()
    target = destination_of(destination)
    named = () if isinstance(columns, str) else columns
    await anyio.to_thread.run_sync(partial(target.check, dtype=dtype, columns=named))
    if embedder.long_input == "chunks":
        raise ConfigurationError('long_input="chunks" gives several vectors, and a file has one row per document')
    bad_rows: list[SourceError] = []
    reading: dict[str, Any] = {
        "text_column": text_column,
        "id_column": id_column,
        "columns": columns,
        "skip_bad_rows": skip_bad_rows,
    }
    if isinstance(source, str | os.PathLike):
        corpus: Source = open_source(Path(source), format=format, on_bad_row=bad_rows.append, **reading)
        _check_apart(corpus.path, target)
    else:
        corpus = open_table(source, on_bad_row=bad_rows.append, **reading)
    asked = {**reading, "columns": corpus.columns, "keep_text": keep_text, "dtype": dtype}
    job = Job(target, corpus, disk or Disk(), fresh=fresh)
    try:
        rows = part_rows or rows_of_a_part(embedder.dimensions)
        identity = {**embedder.recipe, **asked, **target.identity}
        await job.settle(identity, dimensions=embedder.dimensions, part_rows=rows, dedupe=dedupe)
        if bad_rows and not job.is_finished and not job.ledger.bad_rows():
            job.ledger.note_bad_rows(bad_rows)  # those of the scan; each reading meets them again
        if not job.is_finished:
            shape = await _prepare(job, keep_text=keep_text, dtype=dtype)
            task = _Task(job, embedder, cache, shape, progress, has_ids=id_column is not None)
            await task.run(stop, {"max_spend_tokens": max_spend_tokens, "on_outage": on_outage}, started_at)
        job.tidy()  # also what a run has left that ended while it did so
        return _summary(job)
    finally:
        job.close()


def run_blocking(source: FileName | Any, destination: FileName | Destination, model: str, **options: Any) -> Summary:
    """
    Do the same from a script or a notebook, and wait for it.

    Of the *options*, those that :func:`run` has are its own; all others are those of :class:`Embedder`. *progress* is
    called in another thread. Ctrl-C cancels the job.
    """
    own = {name: options.pop(name) for name in list(options) if name in _OWN}
    embedder = Embedder(model, **options)

    async def run_and_close() -> Summary:
        async with embedder:
            return await run(source, destination, embedder, **own)

    # A loop in a thread of its own: a notebook's is running already.
    with start_blocking_portal(backend_options=loop_options()) as portal:
        return portal.call(run_and_close)


_OWN = frozenset(signature(run).parameters) - {"source", "destination", "embedder"}


async def _prepare(job: Job, *, keep_text: bool, dtype: Dtype) -> RowType:
    """Have the destination make ready, and return what its rows have."""
    rows = RowType(
        id_type=job.scan.id_type,
        keep_text=keep_text,
        dtype=dtype,
        columns=await anyio.to_thread.run_sync(job.columns),
        dimensions=job.ledger.fact("dimensions"),
    )
    size = await anyio.to_thread.run_sync(job.destination.prepare, rows, job.run)
    if rows.dimensions is None and size is not None:
        job.ledger.state(dimensions=size)
    return rows


class _Task:
    """One run of a job."""

    def __init__(
        self,
        job: Job,
        embedder: Embedder,
        cache: Cache | None,
        shape: RowType,
        progress: Callable[[Progress], object] | None,
        *,
        has_ids: bool,
    ) -> None:
        self._job = job
        self._embedder = embedder
        self._cache = cache
        self._shape = shape
        self._progress = progress
        self._told_at = -math.inf
        self._used = job.ledger.usage()  # by the runs before
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
        work = Work(self._job, self._journal, self._writer, dtype=self._shape.dtype, tell=self._tell)
        try:
            store: Store = self._journal
            if self._cache is not None:
                store = Layered(self._journal, self._cache.bound_to(self._embedder.recipe))
            await work.embed(self._embedder, stop, {**options, "store": store})
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

    @contextmanager
    def _kept(self, started_at: float) -> Iterator[None]:
        """A block at the end of which the journal is closed, and knows what the run has used."""
        ledger = self._job.ledger
        self._journal.run = ledger.begin_run()
        try:
            yield
            ledger.end_run(self._journal.run, self._journal.usage(), anyio.current_time() - started_at)
        except JournalError:
            raise
        except BaseException:
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

    def _tell(self, work: Work, usage: Usage) -> None:
        """Report progress: at first, at last, and not too often in between."""
        if self._progress is None:
            return
        now = anyio.current_time()
        if now - self._told_at < _TELL_AFTER and work.documents < self._job.scan.documents:
            return
        self._told_at = now
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


def _check_apart(source: Path, destination: Destination) -> None:
    path = destination.path if isinstance(destination, FileDestination) else destination.journal
    if source.exists() and path.exists() and source.samefile(path):
        raise ConfigurationError(f"destination: {destination} is the source")


def _summary(job: Job) -> Summary:
    ledger, target = job.ledger, job.destination
    failures, skipped = ledger.count_failures()
    bad_rows = ledger.bad_rows()
    runs, seconds = ledger.runs()
    return Summary(
        destination=target.path if (is_file := isinstance(target, FileDestination)) else str(target),
        documents=job.scan.documents,
        embedded=sum(part.embedded for part in ledger.complete_parts().values()),
        failures=failures,
        skipped=skipped,
        duplicates=ledger.fact("duplicates"),
        bad_rows=len(bad_rows),
        failures_file=target.failures if failures or bad_rows else None,
        dimensions=ledger.fact("dimensions"),
        usage=ledger.usage(),
        seconds=seconds,
        runs=runs,
        run=None if is_file else job.run,
    )
