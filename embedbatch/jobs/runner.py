"""The main job, from a corpus file to a file of vectors."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import anyio
from anyio.from_thread import start_blocking_portal

from ..blocking import loop_options
from ..embedder import Embedder
from ..errors import ConfigurationError, RunStoppedError
from ..settings import OnOutage
from ..values import Document, Usage
from .files import drafts_for
from .formats import check_destination
from .output import Output
from .sources import Row, Scan, Source, open_source, scan

_TELL_AFTER = 0.1  # seconds between two reports of progress

FileName: TypeAlias = "str | os.PathLike[str]"


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
    What a job has done.

    Of *documents*, *embedded* have a vector; *failures* are listed in *failures_file*, which is ``None`` if there
    are none; *skipped* are those that the embedder's policy passes over. *dimensions* is ``None`` if no document was
    embedded and the model's are not known. *seconds* is the time it took, reading the source twice included.
    """

    destination: Path
    documents: int
    embedded: int
    failures: int
    skipped: int
    failures_file: Path | None
    dimensions: int | None
    usage: Usage
    seconds: float


async def run(
    source: FileName,
    destination: FileName,
    embedder: Embedder,
    *,
    text_column: str = "text",
    id_column: str | None = None,
    keep_text: bool = False,
    max_spend_tokens: int | None = None,
    on_outage: OnOutage = "wait",
    progress: Callable[[Progress], object] | None = None,
) -> Summary:
    """
    Embed every document of the file *source* into the file *destination*, in order.

    *source* is a ``.jsonl`` file, whose documents are in *text_column* and their ids in *id_column* (without one,
    they are numbered from 0), or a ``.txt`` file with a document per line. It is read twice: once to find rows that
    cannot be read before anything is sent. *destination* is a ``.parquet`` or ``.npy`` file; *keep_text* writes the
    texts too. An endpoint that is away is waited for, or ends the job with ``on_outage="stop"``. *progress* is called
    in the event loop, ten times a second at most.

    A document that fails keeps its row, without a vector, and is listed in ``DESTINATION.failures.jsonl`` with its
    id, line, error and attempts; where nothing failed there is no such file. The destination, and what belongs to
    it, is replaced when the job is complete; until then, and if it ends with an error, it stays as it was.

    Raises :class:`SourceError` for a source and :class:`ConfigurationError` for a destination that cannot be used,
    before anything is sent, and :class:`RunStoppedError` when going on could not help or *max_spend_tokens* is
    reached.
    """
    started_at = anyio.current_time()
    target = Path(destination)
    check_destination(target)
    if embedder.long_input == "chunks":
        raise ConfigurationError('long_input="chunks" gives several vectors, and a file has one row per document')
    corpus = open_source(Path(source), text_column=text_column, id_column=id_column)
    totals = await scan(corpus)
    with drafts_for(target) as drafts:
        output = Output(drafts, embedder, id_type=totals.id_type, keep_text=keep_text)
        job = _Job(corpus, totals, output, progress)
        try:
            usage = await job.embed(embedder, max_spend_tokens, on_outage)
        except RunStoppedError as error:
            error.add_note(f"Nothing was written to {target}.")
            raise
        await output.publish()
    return Summary(
        destination=target,
        documents=totals.documents,
        embedded=output.embedded,
        failures=output.failures,
        skipped=output.skipped,
        failures_file=output.failures_file,
        dimensions=output.dimensions,
        usage=usage,
        seconds=anyio.current_time() - started_at,
    )


def run_blocking(
    source: FileName,
    destination: FileName,
    model: str,
    *,
    text_column: str = "text",
    id_column: str | None = None,
    keep_text: bool = False,
    max_spend_tokens: int | None = None,
    on_outage: OnOutage = "wait",
    progress: Callable[[Progress], object] | None = None,
    **options: Any,
) -> Summary:
    """
    Do the same from a script or a notebook, and wait for it.

    Arguments and errors are those of :func:`run`; *options* are those of :class:`Embedder`. *progress* is called in
    another thread. Ctrl-C cancels the job.
    """
    embedder = Embedder(model, **options)

    async def run_and_close() -> Summary:
        async with embedder:
            return await run(
                source,
                destination,
                embedder,
                text_column=text_column,
                id_column=id_column,
                keep_text=keep_text,
                max_spend_tokens=max_spend_tokens,
                on_outage=on_outage,
                progress=progress,
            )

    # A loop in a thread of its own: a notebook's is running already.
    with start_blocking_portal(backend_options=loop_options()) as portal:
        return portal.call(run_and_close)


class _Job:
    """Puts every document in, and hands its result on together with the row it came from."""

    def __init__(
        self, source: Source, totals: Scan, output: Output, progress: Callable[[Progress], object] | None
    ) -> None:
        self._source = source
        self._totals = totals
        self._output = output
        self._progress = progress
        self._waiting: deque[Row] = deque()  # bounded by the embedder's window
        self._documents = 0
        self._bytes = 0
        self._told_at = -math.inf

    async def embed(self, embedder: Embedder, max_spend_tokens: int | None, on_outage: OnOutage) -> Usage:
        """Embed it all; the results go to the output."""
        options: dict[str, Any] = {"max_spend_tokens": max_spend_tokens, "on_outage": on_outage}
        async with embedder.stream(self._read(), **options) as results:
            self._tell(results.usage)
            async for result in results:
                row = self._waiting.popleft()
                await self._output.add(result, line=row.line, text=row.content)
                self._documents += 1
                self._bytes += row.bytes
                self._tell(results.usage)
            return results.usage

    def _read(self) -> Iterator[Document]:
        for row in self._source.rows():
            self._waiting.append(row if self._output.keep_text else Row(row.id, None, row.line, row.bytes))
            yield Document(row.content, row.id)

    def _tell(self, usage: Usage) -> None:
        """Report progress: at first, at last, and not too often in between."""
        if self._progress is None:
            return
        now = anyio.current_time()
        if now - self._told_at < _TELL_AFTER and self._documents < self._totals.documents:
            return
        self._told_at = now
        self._progress(
            Progress(
                documents=self._documents,
                total_documents=self._totals.documents,
                bytes=self._bytes,
                total_bytes=self._totals.bytes,
                failures=self._output.failures,
                tokens=usage.total_tokens,
            )
        )
