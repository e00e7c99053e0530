"""
Before a job: what it will send, how long that takes, and what it costs. Nothing is sent, and no key is needed.

    read → examine (cut, count) in as many threads as there are processors → records → add up (dedupe, pack)

The source is read once. In memory is what the threads have in hand; 25 bytes of every input, and 16 of every document
to find duplicates by, are kept on disk until the end.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import anyio.to_thread
import numpy as np
from anyio.from_thread import start_blocking_portal

from ..blocking import loop_options
from ..embedder import Embedder
from ..errors import ConfigurationError, SourceError
from ..plan.chunker import Chunker
from ..plan.counting import bears_threads, load
from ..plan.documents import Source as Document
from ..plan.packer import Caps
from ..plan.tokens import TokenRatio
from ..prices import Price, price_of
from ..tasks import task_group
from .duplicates import find_duplicates
from .forecast import Forecast, Rates
from .sources import Format, Source, open_source, open_table
from .survey import RECORD, Records, Share, Totals, add_up, digest, examine

SLAB = 4_096  # documents that are examined at once, at most
SLAB_CHARACTERS = 500_000  # or token ids, after which a slab is large enough: some 40 ms of work
_BLOCK = 65_536  # inputs that are added up in one go
AHEAD = 2  # slabs for each thread that are read before the first of them is done

_RECORDS, _HASHES = "records.bin", "hashes.bin"
_PLAIN = (".jsonl", ".txt", ".csv", ".tsv")

FileName: TypeAlias = "str | os.PathLike[str]"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanProgress:
    """How much of the source has been examined. *total_bytes* is ``None`` where that cannot be told."""

    documents: int
    bytes: int
    total_bytes: int | None


async def plan(
    source: FileName | Any,
    embedder: Embedder,
    *,
    format: Format | None = None,
    text_column: str = "text",
    id_column: str | None = None,
    skip_bad_rows: bool = False,
    dedupe: bool = True,
    price: Price | float | None = None,
    scratch: FileName | None = None,
    progress: Callable[[PlanProgress], object] | None = None,
) -> Forecast:
    """
    What a job with this *embedder* would send of *source*, how long that would take, and what it would cost.

    *source*, *format*, *text_column*, *id_column*, *skip_bad_rows* and *dedupe* are those of
    :func:`embedbatch.jobs.run`. Every document is cut, counted and packed as it would be there, so that ``tokens`` is
    what ``usage`` tells afterwards where the model's tokenizer is known. The time is that of the rates in the
    embedder's ``limits``.

    *price*, or its US dollars for a million tokens, stands in for the one that is known of the model at its vendor's
    own address. *scratch* is the folder for what is kept meanwhile, some 41 bytes for each document. *progress* is
    called in the event loop.

    Raises :class:`SourceError` for a source that cannot be read, and :class:`ConfigurationError` for what cannot be a
    source, a price or a folder.
    """
    if not isinstance(price, Price | None):
        price = Price(usd_per_million=price)
    bad_rows: list[SourceError] = []
    reading: dict[str, Any] = {"text_column": text_column, "id_column": id_column, "skip_bad_rows": skip_bad_rows}
    if isinstance(source, str | os.PathLike):
        corpus: Source = open_source(Path(source), format=format, on_bad_row=bad_rows.append, **reading)
    else:
        corpus = open_table(source, on_bad_row=bad_rows.append, **reading)
    chunker, router = embedder.inside.chunker, embedder.inside.router
    with (
        _folder_in(scratch) as folder,
        closing(_Survey(corpus, chunker, Path(folder), dedupe=dedupe, progress=progress)) as survey,
    ):
        await survey.run()
        batch_tokens = min(route.limiter.batch_tokens() for route in router.routes)
        totals = await anyio.to_thread.run_sync(survey.add_up, router.caps(), batch_tokens)
    return _forecast(embedder, survey, totals, len(bad_rows), price or _known_price(embedder))


def plan_blocking(source: FileName | Any, model: str, **options: Any) -> Forecast:
    """
    Do the same from a script or a notebook, and wait for it.

    Of the *options*, those that :func:`plan` has are its own; all others are those of :class:`Embedder`, none of which
    has to be a key. *progress* is called in another thread. Ctrl-C cancels it.
    """
    own = {name: options.pop(name) for name in list(options) if name in _OWN}
    embedder = embedder_without_key(model, **options)

    async def plan_and_close() -> Forecast:
        async with embedder:
            return await plan(source, embedder, **own)

    # A loop in a thread of its own: a notebook's is running already.
    with start_blocking_portal(backend_options=loop_options()) as portal:
        return portal.call(plan_and_close)


_OWN = frozenset(signature(plan).parameters) - {"source", "embedder"}


def embedder_without_key(model: str, **options: Any) -> Embedder:
    """An :class:`Embedder` to plan with. Where there is no key, it has one that no server takes."""
    key = options.pop("api_key", None) or os.environ.get("OPENAI_API_KEY") or "none"
    return Embedder(model, api_key=key, **options)


def _folder_in(scratch: FileName | None) -> tempfile.TemporaryDirectory[str]:
    """A folder that is gone at the end of a block."""
    try:
        return tempfile.TemporaryDirectory(prefix="embedbatch-plan-", dir=scratch)
    except OSError as error:
        raise ConfigurationError(f"scratch: cannot make a folder in {scratch}: {error.strerror}") from error


def _known_price(embedder: Embedder) -> Price | None:
    """The price at the embedder's endpoint. Several may have several prices."""
    if len(embedder.inside.router.routes) > 1:
        return None
    return price_of(embedder.endpoint.model or embedder.model, embedder.base_url)


def _forecast(embedder: Embedder, survey: _Survey, totals: Totals, bad_rows: int, price: Price | None) -> Forecast:
    chunker, limits = embedder.inside.chunker, embedder.inside.limits
    capacity = embedder.stats().capacity
    rates = Rates(
        requests=sum(each.requests_per_second for each in capacity),
        tokens=sum(each.tokens_per_second for each in capacity),
        ramp=limits.ramp,
    )
    is_known = chunker.tokenizer is not None
    ratio = TokenRatio().value
    estimated = totals.tokens if is_known else round(ratio * totals.nbytes)
    seconds, bound_by = rates.seconds(totals.requests, estimated) or (None, None)
    return Forecast(
        model=embedder.model,
        base_url=embedder.recipe["base_url"],
        tokenizer=chunker.tokenizer.name if chunker.tokenizer else None,
        long_input=chunker.long_input,
        documents=survey.documents,
        sent=totals.sent,
        duplicates=totals.duplicates,
        empty=survey.empty,
        invalid=survey.invalid,
        refused=survey.refused,
        bad_rows=bad_rows,
        too_long=totals.cut + survey.refused,
        long_chunks=totals.cut_chunks,
        inputs=totals.inputs,
        requests=totals.requests,
        tokens=totals.tokens if is_known else None,
        estimated_tokens=estimated,
        max_tokens=totals.tokens if is_known else totals.bounds,
        saved_tokens=totals.duplicate_tokens if is_known else round(ratio * totals.duplicate_bytes),
        minutes=None if seconds is None else seconds / 60,
        bound_by=bound_by,
        price=price,
    )


class _Survey:
    """Reads a source once, and keeps in *folder* what its documents become."""

    def __init__(
        self,
        source: Source,
        chunker: Chunker,
        folder: Path,
        *,
        dedupe: bool,
        progress: Callable[[PlanProgress], object] | None,
    ) -> None:
        self.documents = self.empty = self.invalid = self.refused = 0
        self._bytes = 0
        self._total_bytes = _size(source.path)
        self._rows = source.rows()
        self._chunker = chunker
        self._folder = folder
        self._records = (folder / _RECORDS).open("wb")
        self._hashes = (folder / _HASHES).open("wb")
        self._dedupe = dedupe
        self._read_so_far = 0
        self._progress = progress

    async def run(self) -> None:
        """Examine every document, in as many threads as there are processors for and the tokenizer bears."""
        tokenizer = self._chunker.tokenizer
        threads = _processors() if tokenizer is None or bears_threads(tokenizer) else 1
        chunker = self._chunker
        if tokenizer is not None:
            chunker = replace(chunker, tokenizer=await anyio.to_thread.run_sync(load, tokenizer))
        limiter = anyio.CapacityLimiter(threads)
        slabs: deque[_Slab] = deque()
        async with task_group() as tasks:
            while await anyio.to_thread.run_sync(self._read, slab := _Slab()):
                tasks.start_soon(slab.examine, chunker, limiter)
                slabs.append(slab)
                while slabs and (len(slabs) > AHEAD * threads or slabs[0].is_done.is_set()):
                    await self._keep(slabs.popleft())
            while slabs:
                await self._keep(slabs.popleft())

    def add_up(self, caps: Caps, batch_tokens: float) -> Totals:
        """What all of it makes together."""
        self.close()
        duplicates = find_duplicates(self._folder / _HASHES)[:, 0]
        return add_up(self._blocks(), duplicates, caps=caps, batch_tokens=batch_tokens)

    def _blocks(self) -> Iterator[Records]:
        with (self._folder / _RECORDS).open("rb") as file:
            while len(block := np.fromfile(file, RECORD, _BLOCK)):
                yield block

    def close(self) -> None:
        """Close the files."""
        self._records.close()
        self._hashes.close()

    def _read(self, slab: _Slab) -> bool:
        """Put the next documents into *slab*. False at the end."""
        documents, digests = slab.documents, []
        characters = nbytes = 0
        for position, (id, content, _, size, *_) in enumerate(self._rows, self._read_so_far):
            documents.append(Document(position, id, content))
            nbytes += size
            if isinstance(content, str | list):
                characters += len(content)
            if self._dedupe:
                digests.append(digest(content, position))
            if len(documents) >= SLAB or characters >= SLAB_CHARACTERS:
                break
        self._hashes.write(b"".join(digests))
        self._read_so_far += len(documents)
        slab.bytes = nbytes
        return bool(documents)

    async def _keep(self, slab: _Slab) -> None:
        """Keep what *slab* became, once that is known."""
        await slab.is_done.wait()
        share = slab.share
        assert share is not None
        share.records.tofile(self._records)
        self.documents += share.documents
        self.empty += share.empty
        self.invalid += share.invalid
        self.refused += share.refused
        self._bytes += slab.bytes
        if self._progress is not None:
            self._progress(PlanProgress(documents=self.documents, bytes=self._bytes, total_bytes=self._total_bytes))


class _Slab:
    """Documents that are examined together, and what became of them."""

    def __init__(self) -> None:
        self.documents: list[Document] = []
        self.bytes = 0
        self.share: Share | None = None
        self.is_done = anyio.Event()

    async def examine(self, chunker: Chunker, limiter: anyio.CapacityLimiter) -> None:
        """Find out, in a thread."""
        self.share = await anyio.to_thread.run_sync(
            examine, self.documents, chunker, abandon_on_cancel=True, limiter=limiter
        )
        self.documents = []
        self.is_done.set()


def _size(path: Path) -> int | None:
    """The bytes of a file whose rows take as many; ``None`` for a folder, a table, and what is compressed."""
    return path.stat().st_size if path.suffix.lower() in _PLAIN and path.is_file() else None


def _processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
