"""``embedbatch run``: a job that can be watched, and a summary."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

import anyio

from .. import jobs
from ..blocking import loop_options
from ..cache import Cache, CacheStats
from ..embedder import Embedder
from ..errors import ConfigurationError, RunStoppedError
from ..events import Event, Observe
from ..jobs.sinks import Destination, destination_of
from ..jobs.sources import spool
from ..prices import Price, max_spend_for, price_of
from ..tasks import task_group
from .json_log import JsonLog
from .live import View


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """
    What is to be seen of a job: an HTML *report* and a *log_json* in files, what it costs at *price* US dollars for a
    million tokens (``None`` is the vendor's, if that is known), and a *max_cost* in US dollars at which it ends.
    """

    report: Path | None = None
    log_json: Path | None = None
    price: float | None = None
    max_cost: float | None = None


def run(
    source: Path,
    destination: Path | Destination,
    model: str,
    *,
    job: Mapping[str, Any],
    options: Mapping[str, Any],
    watch: Watch = Watch(),
    cache: Cache | None = None,
) -> bool:
    """
    Do a job and report it: *job* is for ``jobs.run``, *options* for ``Embedder``. True if no document failed.

    *cache* is closed in the end.
    """
    check(model, options)
    target = destination_of(destination)
    for flag, path in (("--report", watch.report), ("--log-json", watch.log_json)):
        check_output(flag, path, source, getattr(target, "path", None))
    near = target.journal.with_name(f".{target.journal.stem}.stdin")
    with in_file(source, near, job.get("format")) as file, cache or nullcontext():
        task = partial(_run, file, target, model, job, {**options, "cache": cache}, watch)
        summary, cut = anyio.run(task, backend_options=loop_options())
    print(describe(summary, model, cut, cache.stats if cache else None))
    return not summary.failures


async def _run(
    source: Path,
    destination: Destination,
    model: str,
    job: Mapping[str, Any],
    options: Mapping[str, Any],
    watch: Watch,
) -> tuple[jobs.Summary, int]:
    began, stop = datetime.now(UTC), anyio.Event()
    observers: list[Observe] = []

    def observe(event: Event) -> None:
        for each in observers:
            each(event)

    embedder = Embedder(model, observe=observe, **options)
    price = Price(usd_per_million=watch.price) if watch.price is not None else price_of(model, embedder.base_url)
    budget = _budget(watch.max_cost, price, job.get("max_spend_tokens"))
    usd = price.usd_per_million if price else None
    view = View(title=f"{source.name} → {destination.name} · {model}", price=usd)
    observers.append(view.observe)
    summary, stopped = None, None
    try:
        with ExitStack() as files:
            if watch.log_json:
                observers.append(JsonLog(files.enter_context(_writable(watch.log_json))).observe)
            async with embedder, view, task_group() as tasks:
                view.watch(lambda: embedder.stats().capacity)
                tasks.start_soon(_stop_at_signal, stop)
                options = {**job, "max_spend_tokens": budget, "progress": view.progress, "stop": stop}
                summary = await jobs.run(source, destination, embedder, **options)
                tasks.cancel_scope.cancel()
    except RunStoppedError as error:
        stopped = str(error)
        raise
    finally:
        if watch.report:
            jobs.write_report(
                watch.report,
                view.timeline,
                source=source,
                destination=str(destination),
                model=model,
                endpoint=embedder.endpoint.name,
                summary=summary,
                progress=view.last_progress,
                stopped=stopped,
                price=usd,
                began=began,
            )
    return summary, embedder.stats().cut


def read_columns(names: str | None) -> Sequence[str] | Literal["all"]:
    """The columns that *names* lists, with commas between them."""
    if names is None:
        return ()
    return "all" if names == "all" else [name.strip() for name in names.split(",")]


def open_cache(directory: Path | None, max_bytes: int | None) -> Cache | None:
    """The cache in *directory*, if there is to be one."""
    if directory is None:
        if max_bytes is not None:
            raise ConfigurationError("--cache-max-bytes: there is no --cache")
        return None
    return Cache(directory) if max_bytes is None else Cache(directory, max_bytes=max_bytes)


@contextmanager
def in_file(source: Path, near: Path, format: str | None) -> Iterator[Path]:
    """*source*, or what comes from standard input, in a file named *near* and its format, which is gone afterwards."""
    if str(source) != "-":
        yield source
        return
    if format is None:
        raise ConfigurationError("what is in standard input is said with --format")
    file = near.with_name(f"{near.name}.{format}")
    try:
        spool(sys.stdin.buffer, file)
        yield file
    finally:
        file.unlink(missing_ok=True)


def _writable(path: Path) -> BinaryIO:
    try:
        return path.open("ab")
    except OSError as error:
        raise ConfigurationError(f"--log-json: cannot write to {path}: {error.strerror}") from error


def _budget(max_cost: float | None, price: Price | None, max_tokens: int | None) -> int | None:
    """The most tokens that may be spent: the lower of both bounds."""
    if max_cost is None:
        return max_tokens
    if price is None:
        raise ConfigurationError("--max-cost: what the model costs here is not known; say it with --price")
    bounds = [bound for bound in (max_tokens, max_spend_for(max_cost, price)) if bound is not None]
    return min(bounds, default=None)


async def _stop_at_signal(stop: anyio.Event) -> None:
    """At the first Ctrl-C send nothing more; at the second, leave at once. Nothing is lost either way."""
    if os.name == "nt":
        return  # its event loops take no signals: Ctrl-C leaves at once
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            if stop.is_set():
                raise KeyboardInterrupt
            stop.set()
            print("\nWaiting for what is in flight. Ctrl-C once more leaves at once; nothing is lost.", file=sys.stderr)


def check(model: str, options: Mapping[str, Any]) -> None:
    """Raise for what the library would refuse too, in the words of the command line."""
    if options.get("long_input") == "chunks":
        raise ConfigurationError(
            "--long-input chunks gives several vectors for one document, and a file has one row for each document: "
            "use split, truncate or error"
        )
    elsewhere = options.get("base_url") or options.get("endpoint") or os.environ.get("OPENAI_BASE_URL")
    if model != "local" and not elsewhere and not os.environ.get("OPENAI_API_KEY"):
        raise ConfigurationError(
            "no key for OpenAI: set OPENAI_API_KEY. Another server is reached with --base-url; "
            "--model local needs neither key nor network"
        )


def check_output(flag: str, path: Path | None, *taken: object) -> None:
    """Fail if the file at *path*, which *flag* names, could not be written, or is one of those that are *taken*."""
    check_folder(flag, path)
    for other in taken:
        if path is not None and isinstance(other, Path) and path.resolve() == other.resolve():
            raise ConfigurationError(f"{flag}: {path} is read or written by the run itself")


def check_folder(flag: str, path: Path | None) -> None:
    """Raise if the file that *flag* names could not be written, for want of a directory."""
    if path is not None and not path.parent.is_dir():
        raise ConfigurationError(f"{flag}: there is no directory {path.parent}")


def describe(summary: jobs.Summary, model: str, cut: int, cached: CacheStats | None = None) -> str:
    """One line about a job, in which *cut* documents were longer than the model takes. *cached* is of its last run."""
    whole = f"{summary.documents:,} documents"
    done = whole if summary.embedded == summary.documents else f"{summary.embedded:,} of {whole}"
    facts = [f"{summary.seconds:.1f} s"]
    if summary.usage.total_tokens is not None:
        facts.insert(0, f"{summary.usage.total_tokens:,} tokens")
    if summary.dimensions is not None:
        facts.insert(0, f"{summary.dimensions:,} dimensions")
    words = [f"{done} embedded with {model} into {summary.destination} ({', '.join(facts)})"]
    if summary.duplicates:
        words.append(f"{summary.duplicates:,} were equal to one before")
    if cached is not None and cached.hits + cached.misses:
        words.append(f"{cached.hits:,} inputs came from the cache, {cached.misses:,} were sent")
    if cut:
        words.append(f"{cut:,} were longer than the model takes")
    if summary.skipped:
        words.append(f"{summary.skipped:,} empty, skipped")
    if summary.bad_rows:
        words.append(f"{summary.bad_rows:,} rows could not be read")
    if summary.failures:
        words.append(f"{summary.failures:,} failed: see {summary.failures_file}")
    if summary.run is not None:
        words.append(f"the rows of this run are those with run = '{summary.run}'")
    return "; ".join(words)
