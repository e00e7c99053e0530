"""``embedbatch plan``: what a job will send, how long that takes and what it costs, in the terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from .. import jobs
from ..blocking import loop_options
from ..jobs import Forecast, PlanProgress
from ..jobs.planning import embedder_without_key
from ..settings import Limits
from ..version import VERSION
from .running import check, check_output, in_file
from .shown import printable

_SHARED = ("format", "text_column", "id_column", "skip_bad_rows", "dedupe")  # by jobs.plan and jobs.run


def plan(
    source: Path, model: str, *, job: Mapping[str, Any], options: Mapping[str, Any], json_file: Path | None
) -> None:
    """Plan a job, and show it: *job* is for ``jobs.plan``, *options* for ``Embedder``."""
    if options["long_input"] == "chunks":
        check(model, options)  # which says why not
    check_output("--json", json_file, source)
    with (
        TemporaryDirectory(prefix="embedbatch-plan-") as folder,
        in_file(source, Path(folder) / "stdin", job["format"]) as file,
    ):
        forecast = anyio.run(partial(_plan, file, model, job, options), backend_options=loop_options())
    show(forecast, source, options["limits"], Console(), skips_empty=options["empty"] == "skip")
    if json_file is not None:
        json_file.write_text(json.dumps(report(forecast, source), indent=2, allow_nan=False) + "\n")
        print(f"The numbers are in {json_file}")


def plan_run(
    source: Path, model: str, *, job: Mapping[str, Any], options: Mapping[str, Any], price: float | None
) -> None:
    """Plan what a run with the same *job* and *options* would do, and show it."""
    plan(source, model, job={**{name: job[name] for name in _SHARED}, "price": price}, options=options, json_file=None)


async def _plan(source: Path, model: str, job: Mapping[str, Any], options: Mapping[str, Any]) -> Forecast:
    async with embedder_without_key(model, **options) as embedder:
        with _progress_bar() as progress:
            return await jobs.plan(source, embedder, progress=progress, **job)


@contextmanager
def _progress_bar() -> Iterator[Callable[[PlanProgress], None] | None]:
    """A bar on stderr for the duration of the block; ``None`` where nobody would see it."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (
        TextColumn("counting"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[documents]:,} documents"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, documents=0)

        def tell(progress: PlanProgress) -> None:
            bar.update(task, total=progress.total_bytes, completed=progress.bytes, documents=progress.documents)

        yield tell


def report(forecast: Forecast, source: Path) -> dict[str, Any]:
    """All of it, as it goes into a JSON file. What is not known is null."""
    costs = {"cost_usd": forecast.cost, "max_cost_usd": forecast.max_cost}
    return {"embedbatch": VERSION, "source": str(source), **asdict(forecast), **costs}


def show(forecast: Forecast, source: Path, limits: Limits, console: Console, *, skips_empty: bool = False) -> None:
    """Print the numbers, each with what it means."""
    title = f"{source} with {forecast.model} at {forecast.base_url}"
    console.print(printable(title), highlight=False, markup=False, soft_wrap=True)
    console.print()
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    for row in [*_documents(forecast, skips_empty=skips_empty), *_demand(forecast, limits)]:
        table.add_row(*row)
    console.print(table, highlight=False, markup=False)


def _documents(forecast: Forecast, *, skips_empty: bool) -> Iterator[tuple[str, str, str]]:
    yield "documents", f"{forecast.documents:,}", ""
    if forecast.too_long:
        inputs = f"{forecast.long_chunks:,} inputs"
        fates = {"split": f"split into {inputs}", "truncate": "only the beginning is sent", "error": "fail"}
        yield "  too long", f"{forecast.too_long:,}", fates[forecast.long_input]
    if forecast.duplicates:
        about = "" if forecast.tokens is not None else "about "
        yield "  duplicates", f"{forecast.duplicates:,}", f"not sent: {about}{forecast.saved_tokens:,} tokens less"
    if forecast.empty:
        yield "  empty", f"{forecast.empty:,}", "skipped" if skips_empty else "fail"
    if forecast.invalid:
        yield "  invalid", f"{forecast.invalid:,}", "fail"
    if forecast.bad_rows:
        yield "bad rows", f"{forecast.bad_rows:,}", "could not be read"


def _demand(forecast: Forecast, limits: Limits) -> Iterator[tuple[str, str, str]]:
    yield "inputs", f"{forecast.inputs:,}", ""
    yield "requests", f"{forecast.requests:,}", ""
    if forecast.tokens is not None:
        yield "tokens", f"{forecast.tokens:,}", f"counted with {forecast.tokenizer}"
    else:
        yield (
            "tokens",
            f"≈{forecast.estimated_tokens:,}",
            f"by 4 bytes a token, at most {forecast.max_tokens:,}; the tokenizer is not known",
        )
    if forecast.minutes is None:
        yield "time", "–", "no rate is set: --max-tokens-per-minute, --max-requests-per-minute"
    else:
        rate = limits.max_tokens_per_minute if forecast.bound_by == "tokens" else limits.max_requests_per_minute
        yield "time", duration(forecast.minutes), f"at {rate:,.0f} {forecast.bound_by} a minute"
    yield _price(forecast)


def _price(forecast: Forecast) -> tuple[str, str, str]:
    price, cost, most = forecast.price, forecast.cost, forecast.max_cost
    if price is None or cost is None or most is None:
        return "price", "–", "not known here: --price"
    words = f"at ${price.usd_per_million:,.12g} for a million tokens"
    if price.as_of is not None:
        words += f", as of {price.as_of}"
    if forecast.tokens is not None:
        return "price", dollars(cost), words
    return "price", f"≈{dollars(cost)}", f"at most {dollars(most)}, {words}"


def duration(minutes: float) -> str:
    """*minutes* in words, rounded up: nothing is done sooner."""
    seconds = math.ceil(60 * minutes)
    if seconds < 100:
        return f"{seconds} s"
    if minutes < 100:
        return f"{math.ceil(minutes)} min"
    hours, rest = divmod(math.ceil(minutes), 60)
    return f"{hours:,} h {rest} min"


def dollars(amount: float) -> str:
    """*amount* to the cent, or with two digits that say something."""
    if amount == 0 or amount >= 0.1:
        return f"${amount:,.2f}"
    return f"${amount:.{1 - math.floor(math.log10(amount))}f}"
