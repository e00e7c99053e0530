"""The main job, from a corpus file to a file of vectors."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from anyio.from_thread import start_blocking_portal

from ..blocking import loop_options
from ..embedder import Embedder
from ..errors import ConfigurationError, SourceError
from ..settings import OnOutage
from ..values import Usage
from .disk import Disk
from .dtypes import Dtype
from .job import Job
from .parts import rows_of_a_part
from .sinks import Destination, FileDestination, FileName, RowType, destination_of
from .sources import Columns, Format, Source, open_source, open_table
from .task import Progress, Task


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
    fresh: bool = False,
    retry_failed: bool = False,
    extend: bool = False,
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
    the same call goes on from there; a job that is finished is not done again. *fresh* starts over. *retry_failed* asks
    again for documents that have failed for good, and *extend* embeds what a source has more at its end since the job
    was finished: what has a vector keeps it.

    A document that fails keeps its row, without a vector, and is listed in ``DESTINATION.failures.jsonl`` with its
    id, line, error and attempts; where nothing failed there is no such file. The destination, and what belongs to
    it, is replaced when the job is complete; until then it stays as it was.

    Raises :class:`SourceError` for a source and :class:`ConfigurationError` for a destination that cannot be used, or
    a job that was begun otherwise, before anything is sent; :class:`JournalError` for a journal that is broken or
    cannot be written; :class:`DestinationError` for a database that goes away; and :class:`RunStoppedError` when going
    on could not help, *max_spend_tokens* is reached by this run, or *stop* was set.
    """
    started_at = anyio.current_time()
    _check(embedder)
    target = destination_of(destination)
    columns = columns if isinstance(columns, str) else tuple(columns)
    named = () if isinstance(columns, str) else columns
    await anyio.to_thread.run_sync(partial(target.check, dtype=dtype, columns=named))
    bad_rows: list[SourceError] = []
    reading: dict[str, Any] = {
        "text_column": text_column,
        "id_column": id_column,
        "columns": columns,
        "skip_bad_rows": skip_bad_rows,
    }
    corpus = _open(source, target, format=format, on_bad_row=bad_rows.append, **reading)
    asked = {**reading, "keep_text": keep_text, "dtype": dtype, **target.identity}
    job = Job(target, corpus, disk or Disk(), fresh=fresh)
    try:
        await job.settle(
            {**embedder.recipe, **asked},
            dimensions=embedder.dimensions,
            part_rows=part_rows or rows_of_a_part(embedder.dimensions),
            dedupe=dedupe,
            bad_rows=bad_rows,
            retry_failed=retry_failed,
            extend=extend,
        )
        if not job.is_finished:
            shape = await _prepare(job, keep_text=keep_text, dtype=dtype)
            task = Task(job, embedder, shape, progress, has_ids=id_column is not None)
            await task.run(stop, {"max_spend_tokens": max_spend_tokens, "on_outage": on_outage}, started_at)
        job.tidy()  # also what a run has left that ended while it did so
        return _summary(job)
    finally:
        job.close()


def _check(embedder: object) -> None:
    if not isinstance(embedder, Embedder):
        message = f"expected an Embedder, got {embedder!r}; run_blocking() takes a model's name"
        raise ConfigurationError(f"embedder: {message}")
    if embedder.long_input == "chunks":
        raise ConfigurationError('long_input="chunks" gives several vectors, and a file has one row per document')


def _open(source: FileName | Any, destination: Destination, *, format: Format | None, **reading: Any) -> Source:
    if not isinstance(source, str | os.PathLike):
        return open_table(source, **reading)
    path = Path(source)
    target = destination.path if isinstance(destination, FileDestination) else destination.journal
    if path.exists() and target.exists() and path.samefile(target):
        raise ConfigurationError(f"destination: {destination} is the source")
    return open_source(path, format=format, **reading)


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
