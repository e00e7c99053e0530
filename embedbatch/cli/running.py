"""``embedbatch run``: a job with a progress bar and a summary."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import anyio

from .. import jobs
from ..blocking import loop_options
from ..embedder import Embedder
from ..errors import ConfigurationError
from ..events import EndpointAway, EndpointBack, Event
from ..tasks import task_group
from .progress import progress_bar


def run(source: Path, destination: Path, model: str, *, job: Mapping[str, Any], options: Mapping[str, Any]) -> bool:
    """Do a job and report it: *job* is for ``jobs.run``, *options* for ``Embedder``. True if no document failed."""
    check(model, options)
    summary, cut = anyio.run(partial(_run, source, destination, model, job, options), backend_options=loop_options())
    print(describe(summary, model, cut))
    return not summary.failures


async def _run(
    source: Path, destination: Path, model: str, job: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[jobs.Summary, int]:
    stop = anyio.Event()
    async with Embedder(model, observe=tell, **options) as embedder, task_group() as tasks:
        tasks.start_soon(_stop_at_signal, stop)
        with progress_bar() as progress:
            summary = await jobs.run(source, destination, embedder, progress=progress, stop=stop, **job)
        tasks.cancel_scope.cancel()
        return summary, embedder.stats().cut


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


def tell(event: Event) -> None:
    """Say on stderr why nothing happens for a while, and that it goes on."""
    match event:
        case EndpointAway():
            print(f"{event.endpoint} is away: {event.error} It is tried again every 10 s at most.", file=sys.stderr)
        case EndpointBack():
            print(f"{event.endpoint} is back after {event.seconds:,.0f} s.", file=sys.stderr)


def check(model: str, options: Mapping[str, Any]) -> None:
    """Raise for what the library would refuse too, in the words of the command line."""
    if options.get("long_input") == "chunks":
        raise ConfigurationError(
            "--long-input chunks gives several vectors for one document, and a file has one row for each document: "
            "use split, truncate or error"
        )
    elsewhere = options.get("base_url") or os.environ.get("OPENAI_BASE_URL")
    if model != "local" and not elsewhere and not os.environ.get("OPENAI_API_KEY"):
        raise ConfigurationError(
            "no key for OpenAI: set OPENAI_API_KEY. Another server is reached with --base-url; "
            "--model local needs neither key nor network"
        )


def describe(summary: jobs.Summary, model: str, cut: int) -> str:
    """One line about a job, in which *cut* documents were longer than the model takes."""
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
    if cut:
        words.append(f"{cut:,} were longer than the model takes")
    if summary.skipped:
        words.append(f"{summary.skipped:,} empty, skipped")
    if summary.failures:
        words.append(f"{summary.failures:,} failed: see {summary.failures_file}")
    return "; ".join(words)
