"""What one sees of a job while it runs: a view in the terminal, or a line from time to time where there is none."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from types import TracebackType

import anyio
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .. import jobs
from ..events import EndpointAway, EndpointBack, Event
from ..jobs.timeline import Timeline
from ..jobs.wording import clock, duration, faults, money, rate, share
from ..stats import Capacity
from ..tasks import task_group
from .shown import shortened
from .standing import Standing

REFRESH = 0.25  # seconds
INTERVAL = 10.0  # seconds between two lines where there is no terminal

_SAMPLE_AFTER = 0.05  # seconds: a look at what endpoints grant costs more than an event
_WIDEST, _LABEL, _SPEED = 100, 9, 28  # columns: all of it, the labels, and a speed beside its curve
_LEVELS = "▁▂▃▄▅▆▇█"


class View:
    """
    Shows how a job stands, on *console* (stderr, unless it is given), from entering to leaving the block.

        async with View(title="corpus.jsonl") as view, Embedder(model, observe=view.observe) as embedder:
            view.watch(lambda: embedder.stats().capacity)
            await jobs.run(source, destination, embedder, progress=view.progress)

    On a terminal it is drawn anew every *refresh* seconds, and gone in the end; elsewhere there is a line every
    *interval* seconds. *total_tokens* is what the job will take, if that is known; *price* is in dollars per million
    tokens. *clock* is read inside the event loop.
    """

    def __init__(
        self,
        *,
        title: str = "",
        total_tokens: int | None = None,
        price: float | None = None,
        console: Console | None = None,
        clock: Callable[[], float] = anyio.current_time,
        refresh: float = REFRESH,
        interval: float = INTERVAL,
    ) -> None:
        self.console = console or Console(stderr=True)
        self._title = title
        self._begin = partial(Standing, total_tokens=total_tokens, price=price)
        self._clock = clock
        self._refresh = refresh
        self._interval = interval
        self._capacity: Callable[[], Sequence[Capacity]] = tuple
        self._sampled_at = -math.inf
        self._standing: Standing | None = None
        self._block: AbstractAsyncContextManager[None] | None = None

    @property
    def timeline(self) -> Timeline:
        """The course of the job so far, for a report."""
        return self._now().timeline

    @property
    def last_progress(self) -> jobs.Progress | None:
        """How far it came."""
        return self._now().progress

    def observe(self, event: Event) -> None:
        """Take in an event; say at once when an endpoint goes away, and that it is back."""
        standing = self._now()
        now = self._clock()
        standing.see(event, now)
        if now >= self._sampled_at + _SAMPLE_AFTER:
            self._sample(now)
        match event:
            case EndpointAway():
                error = shortened(str(event.error)).rstrip(".")
                self._say(f"{event.endpoint} is away: {error}. It is tried again every 10 s at most.")
            case EndpointBack():
                self._say(f"{event.endpoint} is back after {duration(event.seconds)}.")

    def progress(self, progress: jobs.Progress) -> None:
        """Take in how far the job is."""
        self._now().move(progress, self._clock())

    def watch(self, capacity: Callable[[], Sequence[Capacity]]) -> None:
        """From now on ask *capacity* what the endpoints grant."""
        self._capacity = capacity

    async def __aenter__(self) -> View:
        self._now()
        self._block = self._show()
        await self._block.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        assert self._block is not None
        return await self._block.__aexit__(kind, error, traceback)

    @asynccontextmanager
    async def _show(self) -> AsyncIterator[None]:
        # Without a thread: what is shown is changed in the event loop only.
        live = Live(
            get_renderable=self.render,
            console=self.console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
        )
        is_drawn = self.console.is_terminal
        async with task_group() as tasks:
            with live if is_drawn else nullcontext():
                if is_drawn:
                    tasks.start_soon(self._tick, self._refresh, live.refresh)
                else:
                    tasks.start_soon(self._tick, self._interval, self._say_line)
                try:
                    yield
                finally:
                    tasks.cancel_scope.cancel()

    async def _tick(self, every: float, act: Callable[[], object]) -> None:
        """Look at what endpoints grant again and again, and *act* from time to time."""
        acted_at = self._clock()
        while True:
            await anyio.sleep(min(every, self._refresh))
            now = self._clock()
            self._sample(now)
            if now >= acted_at + every - 1e-9:
                acted_at = now
                act()

    def _now(self) -> Standing:
        if self._standing is None:
            self._standing = self._begin(self._clock())
        return self._standing

    def _sample(self, now: float) -> None:
        self._sampled_at = now
        self._now().sample(self._capacity(), now)

    def _say(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _say_line(self) -> None:
        self._say(line(self._now()))

    def render(self) -> RenderableType:
        """What a terminal shows now."""
        return draw(self._now(), self._title, self.console.width)


# in a line --------------------------------------------------------------------------------------------------------


def line(standing: Standing) -> str:
    """How a job stands, in one line of plain text."""
    facts = [clock(standing.seconds) + ": " + _documents(standing)]
    part = standing.part
    if part is not None:
        facts[0] += f" ({share(part)})"
    facts.append(_speed(standing))
    facts.append(_in_flight(standing))
    facts.append(_faults(standing))
    if standing.progress is not None and standing.progress.failures:
        facts.append(f"{standing.progress.failures:,} failed")
    facts.append(_money(standing))
    facts.append(_left(standing))
    facts.append(f"waits for {standing.trouble}" if standing.trouble else "")
    return " · ".join(filter(None, facts))


def _documents(standing: Standing) -> str:
    progress = standing.progress
    if progress is None:
        return "reading the source"
    return f"{progress.documents:,} of {progress.total_documents:,} documents"


def _speed(standing: Standing) -> str:
    limit = standing.limits[0]
    if not standing.timeline.total.tokens:
        return ""
    return (
        f"{rate(standing.speed)} tokens/s" if limit == math.inf else f"{rate(standing.speed)} of {rate(limit)} tokens/s"
    )


def _in_flight(standing: Standing) -> str:
    if not standing.capacity:
        return ""
    in_flight = sum(each.in_flight for each in standing.capacity)
    return f"{in_flight} of {sum(each.places for each in standing.capacity)} in flight"


def _faults(standing: Standing) -> str:
    total = standing.timeline.total
    words = faults(total)
    if total.retries:
        words.append(f"{total.retries:,} tried again")
    return " · ".join(words)


def _money(standing: Standing) -> str:
    spent, whole = standing.costs
    if spent is None:
        return ""
    return money(spent) if whole is None else f"{money(spent)} of about {money(whole)}"


def _left(standing: Standing) -> str:
    left = standing.seconds_left
    if left is None or standing.part == 1.0:
        return ""
    return f"about {clock(max(1, left))} left" + (" once it is back" if standing.timeline.away else "")


# on a terminal ----------------------------------------------------------------------------------------------------


def draw(standing: Standing, title: str, width: int) -> RenderableType:
    """How a job stands, as rows of labels and values below a bar, on a terminal of *width* columns."""
    width = min(width, _WIDEST)
    rows = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    rows.width = width
    rows.add_column(style="dim", no_wrap=True, width=_LABEL)
    rows.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for label, value in _rows(standing, curve=width - _LABEL - 2 - _SPEED):
        rows.add_row(label, value)
    part = standing.part
    bar = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    bar.width = width
    bar.add_column(ratio=1)
    bar.add_column(no_wrap=True, justify="right", width=6)
    done = ProgressBar(total=1.0, completed=part or 0.0, complete_style="cyan", finished_style="cyan")
    bar.add_row(done, "" if part is None else share(part))
    return Group(Text(shortened(title), style="bold", no_wrap=True, overflow="ellipsis"), bar, rows)


def _rows(standing: Standing, *, curve: int) -> list[tuple[str, Text]]:
    documents = Text(_documents(standing).removesuffix(" documents"))
    if standing.progress is not None and standing.progress.failures:
        documents.append(f" · {standing.progress.failures:,} failed", style="red")
    rows = [("documents", documents)]
    if standing.timeline.total.tokens:
        speed = Text(f"{_speed(standing):<{_SPEED}}")  # the curve stays where it is
        speed.append(sparkline(standing.curve[-curve:] if curve > 0 else [], standing.limits[0]), style="cyan")
        rows.append(("speed", speed))
    rows.append(("requests", Text(_requests(standing))))
    rows.append(("latency", Text(_latency(standing))))
    failed = _faults(standing)
    rows.append(("faults", Text(failed or "none", style="yellow" if failed else "")))
    if standing.costs[0] is not None:
        rows.append(("cost", Text(_money(standing))))
    gone = f"{clock(standing.seconds)} gone"
    rows.append(("time", Text(" · ".join(filter(None, (gone, _left(standing)))))))
    trouble = standing.trouble
    rows.append(("waits for", Text(trouble, style="bold yellow") if trouble else Text(standing.waits_for or "")))
    return rows


def _requests(standing: Standing) -> str:
    """In flight, and how many are answered per second, of how many that may be sent."""
    facts = [_in_flight(standing)]
    waiting = sum(each.waiting for each in standing.capacity)
    if waiting:
        facts.append(f"{waiting:,} waiting")
    facts.append(f"{standing.timeline.total.replies:,} answered")
    return " · ".join(filter(None, facts))


def _latency(standing: Standing) -> str:
    latencies = standing.recent.latencies
    if not latencies.count:
        return "–"
    return " · ".join(f"{name} {duration(latencies.percentile(part) or 0)}" for name, part in _PERCENTILES)


_PERCENTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))


def sparkline(values: Sequence[float], limit: float = math.inf) -> str:
    """*values* as a curve of one line. It is full at the *limit*, or else at the largest of them."""
    most = max(values, default=0.0) if limit == math.inf else limit
    if most <= 0:
        return ""
    return "".join(_LEVELS[min(7, math.ceil(8 * value / most) - 1)] if value > 0 else " " for value in values)
