"""A progress bar on stderr, where that is a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from .. import jobs

_TELLING = 0.5  # seconds after which a speed means something


@contextmanager
def progress_bar(console: Console | None = None) -> Iterator[Callable[[jobs.Progress], None] | None]:
    """A bar for the duration of the block. Its value takes a job's progress; ``None`` where nobody would see it."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[counts]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("reading", total=None, start=False, counts="", left="")

        def show(progress: jobs.Progress) -> None:
            bar.start_task(task)
            # In bytes of the source: documents differ in length, and it is length that takes time.
            bar.update(
                task,
                description="embedding",
                total=progress.total_bytes,
                completed=progress.bytes,
                counts=counts(progress, bar.tasks[0].elapsed or 0.0),
                left="left",
            )

        yield show


def counts(progress: jobs.Progress, elapsed: float) -> str:
    """What is done after *elapsed* seconds, in words."""
    words = [f"{progress.documents:,} of {progress.total_documents:,} documents"]
    if progress.tokens and elapsed >= _TELLING:
        words.append(f"{progress.tokens / elapsed:,.0f} tokens/s")
    if progress.failures:
        words.append(f"{progress.failures:,} failed")
    return " · ".join(words)
