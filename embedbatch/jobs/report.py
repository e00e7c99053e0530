"""What a job was like, as a page: one file that needs no network, no script and no other file."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..endpoints import public_url
from ..version import VERSION
from .charts import Bars, Chart, Line, draw
from .markup import Markup, join, tag, text
from .report_style import STYLE
from .sinks import Destination, FileName, destination_of
from .timeline import Bin, Slice, Timeline
from .wording import cost, duration, fault, faults, money, rate

if TYPE_CHECKING:
    from .runner import Summary
    from .task import Progress

MAX_SLICES = 160  # of a chart
MAX_FAILURES = 100
MAX_KINDS = 4  # of faults with a colour of their own; the others share one

_FEWEST_SLICES = 24
_REPLIES = 4  # in a slice, at least, as far as there are enough slices
_NEAR = 0.3  # of the limit of requests: below that it is the tokens that matter
_FAR = 5  # times below the limit of tokens, a line for it would leave no room for the others
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # nothing is loaded, whatever a document is called


def write_report(
    path: FileName,
    timeline: Timeline,
    *,
    source: FileName,
    destination: FileName | Destination,
    model: str,
    endpoint: str,
    summary: Summary | None = None,
    progress: Progress | None = None,
    stopped: str | None = None,
    failures: Iterable[Mapping[str, Any]] | None = None,
    max_failures: int = MAX_FAILURES,
    price: float | None = None,
    began: datetime | None = None,
) -> None:
    """
    Write a page about a job: what came of it, charts of its last run, and its first failures. It appears complete.

    *summary* is what the job returned. Without one it has *stopped*, and *progress* says how far it came. *failures*
    are rows of a failures file, by default of the summary's; *max_failures* of them are shown. *price* is in dollars
    per million tokens. *began* is when the run did.
    """
    if failures is None:
        failures = read_failures(summary.failures_file) if summary and summary.failures_file else ()
    documents = summary or progress
    target = destination_of(destination)  # whose URL may have a password
    page = _page(
        f"{Path(source).name} → {target.name}",
        _header(source, target, model, endpoint, began, stopped, summary),
        _numbers(timeline, summary, progress, price),
        _charts(timeline, runs=summary.runs if summary else 1),
        _failures(list(islice(failures, max_failures)), documents.failures if documents else 0),
    )
    unfinished = Path(f"{os.fspath(path)}.unfinished")
    unfinished.write_text(page, encoding="utf-8")
    os.replace(unfinished, path)


def read_failures(path: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a failures file."""
    with path.open("rb") as file:
        for line in file:
            yield msgspec.json.decode(line, type=dict[str, Any])


def _page(title: str, *parts: Markup) -> str:
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", STYLE),
    )
    footer = tag("footer", f"Written by embedbatch {VERSION}.")
    body = tag("body", tag("main", *parts), footer)
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


# the numbers ------------------------------------------------------------------------------------------------------


def _header(
    source: FileName,
    destination: Destination,
    model: str,
    endpoint: str,
    began: datetime | None,
    stopped: str | None,
    summary: Summary | None,
) -> Markup:
    if stopped is not None or summary is None:
        state, words = "bad", join("Stopped early. ", tag("bdi", stopped) if stopped else None)
    elif summary.failures:
        state, words = "fair", text(f"Complete; {_count(summary.failures, 'document')} failed.")
    else:
        state, words = "good", text("Complete.")
    facts = [
        ("Model", model),
        ("Endpoint", _without_secrets(endpoint)),
        ("Source", source),
        ("Destination", str(destination)),
        ("Began", began.strftime("%Y-%m-%d %H:%M:%S %Z").strip() if began else None),
    ]
    return tag(
        "header",
        tag("h1", tag("bdi", Path(source).name), " → ", tag("bdi", destination.name)),
        tag("p", words, class_=f"state {state}"),
        tag("dl", *(_fact(name, value) for name, value in facts if value), class_="facts"),
    )


def _fact(name: str, value: object) -> Markup:
    return tag("div", tag("dt", name), tag("dd", tag("bdi", value)))


def _numbers(timeline: Timeline, summary: Summary | None, progress: Progress | None, price: float | None) -> Markup:
    total = timeline.total
    tokens = summary.usage.total_tokens if summary else progress.tokens if progress else None
    tokens = total.tokens or None if tokens is None else tokens
    spent = cost(tokens, price)
    cards: list[tuple[str, object]] = []
    if summary:
        cards += [("Documents", summary.documents), ("Embedded", summary.embedded), ("Failed", summary.failures)]
        cards += [("Duplicates", summary.duplicates), ("Skipped", summary.skipped or None)]
    elif progress:
        cards += [("Documents", progress.total_documents), ("Done", progress.documents), ("Failed", progress.failures)]
    else:
        cards += [("Documents", total.documents), ("Failed", total.failures)]
    cards += [
        ("Tokens", tokens),
        ("Cost", None if spent is None else money(spent)),
        ("Time", duration(summary.seconds if summary else timeline.seconds)),
        ("Requests", summary.usage.requests if summary else total.sent),
        ("Dimensions", summary.dimensions if summary else None),
        ("Runs", summary.runs if summary and summary.runs > 1 else None),
    ]
    shown = [
        tag("div", tag("dt", name), tag("dd", f"{value:,}" if isinstance(value, int) else value))
        for name, value in cards
        if value is not None
    ]
    return tag("dl", *shown, class_="numbers")


def _without_secrets(endpoint: str) -> str:
    """What may be shown of *endpoint*, a name or a URL."""
    try:
        return public_url(endpoint)
    except ValueError:  # it is no URL, and may hold anything
        return ""


# the charts -------------------------------------------------------------------------------------------------------


def _charts(timeline: Timeline, *, runs: int) -> Markup:
    if timeline.is_empty:
        return tag("p", "In the last run nothing was sent.", class_="note")
    slices = timeline.slices(min(MAX_SLICES, max(_FEWEST_SLICES, timeline.total.replies // _REPLIES)))
    charts = [_throughput(slices, timeline), _in_flight(slices), _latency(slices, timeline.total)]
    charts.insert(1, _requests(slices))
    charts.append(_faults(slices, timeline.total))
    figures = [draw(chart, slices, f"chart-{number}") for number, chart in enumerate(charts) if chart is not None]
    whose = "The charts show the last run; the numbers above are of all of them." if runs > 1 else None
    total = timeline.total
    told = [_count(total.retries, "attempt") + " tried again"] if total.retries else []
    if total.paused >= 0.5:
        told.append(f"paused for {duration(total.paused)}")
    if total.away >= 0.5:
        told.append(f"endpoint away for {duration(total.away)}")
    notes = [
        tag("p", note, class_="note") for note in (whose, ", ".join(told).capitalize() + "." if told else None) if note
    ]
    return join(*notes, *figures)


def _throughput(slices: Sequence[Slice], timeline: Timeline) -> Chart:
    """Tokens per second against the limit; documents, where the endpoint counts no tokens."""
    total = timeline.total
    if not total.tokens:
        documents = [each.counts.documents / each.seconds for each in slices]
        mean = rate(total.documents / _seconds(timeline))
        summary = f"{mean} documents a second on average, {rate(max(documents))} at most."
        return Chart(
            title="Throughput",
            unit="documents/s",
            summary=summary,
            lines=[Line("documents/s", "blue", documents, "area")],
        )
    tokens = [each.counts.tokens / each.seconds for each in slices]
    lines = [Line("tokens/s", "blue", tokens, "area")]
    summary = f"{rate(total.tokens / _seconds(timeline))} tokens a second on average, {rate(max(tokens))} at most."
    limit = total.tokens_limit.mean
    unit = "tokens/s"
    if limit is not None:
        summary += f" The limit was {rate(limit)} on average."
        if max(tokens) < limit / _FAR:
            unit += f", far below the limit of {rate(limit)}"
        else:
            lines.append(Line("limit", "plain", [each.counts.tokens_limit.mean for each in slices], "dashed"))
    return Chart(title="Throughput", unit=unit, summary=summary, lines=lines)


def _requests(slices: Sequence[Slice]) -> Chart | None:
    """Requests per second against their limit, if there is one and they come near it."""
    limits = [each.counts.requests_limit.mean for each in slices]
    sent = [each.counts.sent / each.seconds for each in slices]
    if max(sent) < _NEAR * min((limit for limit in limits if limit is not None), default=math.inf):
        return None
    return Chart(
        title="Requests sent",
        unit="requests/s",
        summary=f"{rate(max(sent))} requests a second at most.",
        lines=[Line("requests/s", "blue", sent, "area"), Line("limit", "plain", limits, "dashed")],
    )


def _in_flight(slices: Sequence[Slice]) -> Chart:
    mean = [each.counts.busy / each.seconds for each in slices]
    most = [float(each.counts.in_flight) for each in slices]
    places = [float(each.counts.places) if each.counts.places else None for each in slices]
    lines = [Line("on average", "blue", mean, "area")]
    if any(most):
        lines.append(Line("at most", "violet", [max(pair) for pair in zip(most, mean, strict=True)]))
    if any(places):
        lines.append(Line("places", "plain", places, "dashed"))
    return Chart(
        title="In flight",
        unit="requests",
        summary=f"Up to {rate(max([*mean, *most]))} requests in flight at once.",
        lines=lines,
        whole=True,
    )


def _latency(slices: Sequence[Slice], total: Bin) -> Chart | None:
    if not total.latencies.count:
        return None
    shares = {"p50": ("blue", 0.5), "p90": ("violet", 0.9), "p99": ("orange", 0.99)}
    lines = [
        Line(name, colour, [each.counts.latencies.percentile(part) for each in slices])
        for name, (colour, part) in shares.items()
    ]
    told = (f"{name} {duration(total.latencies.percentile(part) or 0.0)}" for name, (_, part) in shares.items())
    return Chart(
        title="Latency",
        unit="of good replies, logarithmic",
        summary=f"Over all: {', '.join(told)}.",
        lines=lines,
        write=_tick,
        tell=duration,
        scale="log",
    )


def _tick(seconds: float) -> str:
    return f"{1_000 * seconds:,.3g} ms" if seconds < 0.9995 else f"{seconds:,.6g} s"


def _faults(slices: Sequence[Slice], total: Bin) -> Chart | None:
    if not total.faults:
        return None
    kinds = total.kinds
    own = kinds if len(kinds) <= MAX_KINDS else kinds[: MAX_KINDS - 1]
    groups = [(fault(kind), [kind]) for kind in own]
    if len(own) < len(kinds):
        groups.append(("others", kinds[len(own) :]))
    bars = [
        Bars(name, colour, [float(sum(each.counts.faults[kind] for kind in members)) for each in slices])
        for (name, members), colour in zip(groups, ("orange", "red", "violet", "green"), strict=False)
    ]
    return Chart(
        title="Faults",
        unit=f"attempts, in each {duration(slices[0].seconds)}",
        summary=f"Attempts that failed: {', '.join(faults(total))}.",
        bars=bars,
        write="{:,.0f}".format,
        tell="{:,.0f}".format,
        whole=True,
    )


def _seconds(timeline: Timeline) -> float:
    return max(timeline.seconds, timeline.width)


# the failures -----------------------------------------------------------------------------------------------------


def _failures(rows: Sequence[Mapping[str, Any]], count: int) -> Markup:
    if not rows:
        return join()
    columns = {"id": "Document", "line": "Line", "error": "Error", "reason": "Reason", "attempts": "Attempts"}
    head = tag("tr", *(tag("th", name, scope="col") for name in columns.values()))
    body = (
        tag(
            "tr",
            *(tag("td", tag("bdi", row.get(key, "")), data_label=name, class_=key) for key, name in columns.items()),
        )
        for row in rows
    )
    which = f"The first {len(rows):,} of {count:,}." if len(rows) < count else None
    return tag(
        "section",
        tag("h2", "Failures"),
        tag("p", which, class_="note") if which else None,
        tag("table", tag("thead", head), tag("tbody", *body)),
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
