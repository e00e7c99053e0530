"""What a sweep found, in the terminal."""

from __future__ import annotations

import math

from rich import box
from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from ..sweep import Measurement, Point, Reason, Step, Sweep, Verdict, is_bound
from .shown import shortened

_KNEE, _BEST = "◆", "▲"
_WIDTH = 82  # of the columns that are always there, with tokens
_SHORTEST_BAR, _LONGEST_BAR = 8, 40
_LEVELS = " ▁▂▃▄▅▆▇█"
_BAR = " ▏▎▍▌▋▊▉█"
# From dark to light, so that the best stands out on a dark terminal and on a light one.
_COLOURS = ("#31446b", "#21618d", "#1f7f8c", "#21a685", "#6ccd5a", "#d8e219")
_SHORT = {
    Reason.FLAT: "flat",
    Reason.LIMITED: "·",
    Reason.SIZE: "too large",
    Reason.BUDGET: "budget",
    Reason.ENDED: "–",
}
_LONGEST = 160  # characters of a server's words


def describe_step(step: Step, sweep: Sweep) -> str:
    """One line about what is measured now."""
    spent, most = sweep.ledger, sweep.at_most
    parts = (
        f"{step.point}",
        f"{step.planned:,} more points",
        f"{spent.requests:,} of {most.max_requests:,} requests",
        f"{spent.tokens:,} of {most.max_tokens:,} tokens",
    )
    return " · ".join(parts)


def show(sweep: Sweep, console: Console) -> None:
    """Print all of it: the points, the map of throughput, the knee, the settings."""
    if not sweep.measured:
        for line in ["Nothing was measured.", *_endings(sweep)]:
            console.print(line, highlight=False, markup=False)
        return
    verdict = sweep.verdict()
    console.print()
    console.print(_points(sweep, verdict, console.width))
    console.print("inputs/s, by inputs in a request (down) and requests in flight (across)")
    console.print(_map(sweep, verdict))
    console.print(_legend(sweep), style="dim")
    console.print()
    _show_verdict(sweep, verdict, console)


def _points(sweep: Sweep, verdict: Verdict | None, width: int) -> Table:
    """A row for each point. A narrow terminal has no room for bars, and for tokens beside inputs."""
    failed = any(each.refusals or each.errors or each.is_size_refused for each in sweep.measured.values())
    room = min(_LONGEST_BAR, width - (_WIDTH + 10 if failed else _WIDTH))
    is_wide = room >= _SHORTEST_BAR
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, collapse_padding=True)
    rates = ("inputs/s", "tokens/s") if is_wide else ("inputs/s",)
    for heading in ("batch", "in\nflight", "on the\nwire", "replies", *rates, "p50", "p90", "p99"):
        table.add_column(heading, justify="right", no_wrap=True)
    if failed:
        table.add_column("failed", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    best = max(each.inputs_per_second for each in sweep.measured.values())
    last = None
    for point, each in sorted(sweep.measured.items()):
        if last not in (None, point.batch_inputs):
            table.add_section()
        cells = [f"{point.batch_inputs:,}" if point.batch_inputs != last else "", f"{point.in_flight:,}"]
        cells += _numbers(each, with_tokens=is_wide)
        if failed:
            cells.append(_failed(each))
        bar = _bar(each.inputs_per_second / best, room) + " " if is_wide and best else ""
        mark = _mark(each, verdict)
        table.add_row(*cells, bar + mark, style=Style(bold=True) if mark else None)
        last = point.batch_inputs
    return table


def _numbers(each: Measurement, *, with_tokens: bool) -> list[str]:
    rates = [each.inputs_per_second, each.tokens_per_second] if with_tokens else [each.inputs_per_second]
    return [
        f"{each.in_flight:.1f}" if each.requests else "–",
        f"{each.requests:,}",
        *(_rate(rate) if rate else "–" for rate in rates),
        *(_seconds(seconds) for seconds in (each.p50, each.p90, each.p99)),
    ]


def _failed(each: Measurement) -> str:
    parts = []
    if each.refusals:
        parts.append(f"{each.refusals} ✕")
    if each.errors:
        parts.append(f"{each.errors} !")
    if each.is_size_refused:
        parts.append("too large")
    return " ".join(parts)


def _mark(each: Measurement, verdict: Verdict | None) -> str:
    if verdict is None:
        return ""
    return _KNEE if each is verdict.knee else _BEST if each is verdict.best else ""


def _bar(share: float, room: int) -> str:
    eighths = round(share * room * 8)
    full, rest = divmod(eighths, 8)
    return "█" * full + (_BAR[rest] if rest else "")


def _map(sweep: Sweep, verdict: Verdict | None) -> Table:
    """Throughput by batch size and requests in flight: as numbers, as heights, and in colours."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("", justify="right", no_wrap=True)
    for in_flight in sweep.grid.in_flight:
        table.add_column(f"{in_flight:,}", justify="right", no_wrap=True, min_width=8)
    best = max(each.inputs_per_second for each in sweep.measured.values())
    for batch_inputs in sweep.grid.batch_inputs:
        row = [Point(batch_inputs, in_flight) for in_flight in sweep.grid.in_flight]
        table.add_row(f"{batch_inputs:,}", *(_cell(sweep, point, verdict, best) for point in row))
    return table


def _cell(sweep: Sweep, point: Point, verdict: Verdict | None, best: float) -> Text:
    each = sweep.measured.get(point)
    if each is None:
        return Text(_SHORT[sweep.not_measured[point]], style="dim")
    if not each.is_good:
        return Text("too large" if each.is_size_refused else "refused" if each.refusals else "failed", style="red")
    share = each.inputs_per_second / best if best else 0.0
    height = _LEVELS[max(1, math.ceil(share * 8))]
    colour = _COLOURS[min(len(_COLOURS) - 1, int(share * len(_COLOURS)))]
    text = Text(f"{_mark(each, verdict)}{_rate(each.inputs_per_second)} ")
    return text.append(height, style=Style(color=colour, bold=True))


def _legend(sweep: Sweep) -> str:
    words = [f"{_KNEE} the knee, {_BEST} the best"]
    seen = set(sweep.not_measured.values())
    words += [f"{_SHORT[reason]}: {reason.value}" for reason in Reason if reason in seen]
    measured = sweep.measured.values()
    if any(each.refusals for each in measured):
        words.append("✕: too much at once, or too fast")
    if any(each.errors for each in measured):
        words.append("!: failed for another reason")
    return "; ".join(words)


def _show_verdict(sweep: Sweep, verdict: Verdict | None, console: Console) -> None:
    for line in _endings(sweep):
        console.print(line, highlight=False, markup=False)
    spent = f"{sweep.ledger.requests:,} requests and {sweep.ledger.tokens:,} tokens were sent."
    if verdict is None:
        console.print(f"No point worked, so there is nothing to recommend. {spent}", highlight=False)
        return
    for note in verdict.notes:
        console.print(note, highlight=False, markup=False)
    console.print(spent, highlight=False)
    console.print()
    best, knee = verdict.best, verdict.knee
    if best is knee:
        console.print(f"best and knee  {_sentence(best)}", highlight=False)
    else:
        console.print(f"best  {_sentence(best)}", highlight=False)
        share = knee.inputs_per_second / best.inputs_per_second
        worth = "enough for the quota" if is_bound(best, sweep.quota) else f"{share:.0%} of the best"
        console.print(f"knee  {_sentence(knee)}; {worth}", highlight=False)
    console.print()
    batch, places = verdict.limits.max_batch_inputs, verdict.limits.max_concurrent_requests
    flags = f"--max-batch-inputs {batch} --max-concurrent-requests {places}"
    for line in (f"Limits(max_batch_inputs={batch}, max_concurrent_requests={places})", f"embedbatch run … {flags}"):
        console.print(line, highlight=False, soft_wrap=True)  # to be copied


def _sentence(each: Measurement) -> str:
    return (
        f"{each.point}: {_rate(each.inputs_per_second)} inputs/s, latency {_seconds(each.p50)} median, "
        f"{_seconds(each.p99)} p99"
    )


def _endings(sweep: Sweep) -> list[str]:
    lines = []
    for each in sweep.measured.values():
        if not each.is_good:
            larger = "no larger batch" if each.is_size_refused else "nothing with as many in both"
            lines.append(f"{each.point} failed, and {larger} was tried: {shortened(each.reason or '', _LONGEST)}")
    if sweep.ended:
        lines.append(f"The sweep ended early: {shortened(sweep.ended, _LONGEST)}")
    if sweep.over_budget and not sweep.ended:
        enough = sweep.enough()
        pairs = (
            ("--max-requests", enough.max_requests, sweep.budget.max_requests),
            ("--max-tokens", enough.max_tokens, sweep.budget.max_tokens),
        )
        flags = " ".join(f"{flag} {_round_up(more)}" for flag, more, given in pairs if more > given)
        number = len(sweep.over_budget)
        lines.append(f"{number:,} points were left out for the budget; {flags or 'a larger one'} is enough for them.")
    return lines


def _round_up(number: int) -> int:
    """To two digits."""
    unit = int(10 ** max(0, len(str(number)) - 2))
    return -(-number // unit) * unit


def _rate(value: float) -> str:
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def _seconds(value: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{value * 1_000:.0f} ms" if value < 1 else f"{value:.1f} s"
