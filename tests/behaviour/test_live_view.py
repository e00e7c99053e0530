"""What one sees of a job while it runs, in virtual time."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from random import Random
from typing import Any

import anyio
import pytest
from rich.console import Console

from embedbatch import Embedder, Embedding, Limits
from embedbatch.cli.live import View, draw, line, sparkline
from embedbatch.cli.standing import RECENT, STRETCH, Standing
from embedbatch.errors import ConnectionFailedError
from embedbatch.events import AttemptFailed, BatchAnswered, EndpointAway, EndpointBack, EndpointPaused
from embedbatch.jobs import Progress
from embedbatch.stats import Capacity
from embedbatch.testing import Latency, Outage, ProviderSimulator, Quota

pytestmark = pytest.mark.anyio

DOCUMENTS, BYTES = 2_400, 1_000
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ERROR = ConnectionFailedError("no connection to test")


def provider(**options: Any) -> ProviderSimulator:
    """Grants 10,000 tokens a second, each a quarter of a byte: the job takes a minute."""
    quota = Quota(tokens_per_minute=600_000)
    return ProviderSimulator(quota=quota, latency=Latency(sigma=0.0), usage_tokens_per_byte=0.25, **options)


async def work(view: View, server: ProviderSimulator, documents: int = DOCUMENTS) -> None:
    """A job of texts of 1,000 bytes, with what jobs.run tells of it."""
    limits = Limits(max_tokens_per_minute=600_000)
    async with Embedder(
        "m", base_url="http://test/v1", transport=server, limits=limits, rng=Random(7), observe=view.observe
    ) as embedder:
        view.watch(lambda: embedder.stats().capacity)
        done = failed = 0
        texts = (f"{number:{BYTES}}" for number in range(documents))
        async with embedder.stream(texts, on_outage="wait") as results:
            async for result in results:
                done += 1
                failed += not isinstance(result, Embedding)
                view.progress(progress(done, documents, failed, results.usage.total_tokens))


def progress(done: int, total: int, failures: int = 0, tokens: int | None = None) -> Progress:
    return Progress(
        documents=done,
        total_documents=total,
        bytes=BYTES * done,
        total_bytes=BYTES * total,
        failures=failures,
        tokens=tokens,
    )


def pipe() -> Console:
    """Where there is no terminal."""
    return Console(file=io.StringIO(), force_terminal=False, width=80)


def terminal(width: int = 100) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, _environ={})


def written(console: Console) -> list[str]:
    """The lines that were written, without what moves a cursor."""
    assert isinstance(console.file, io.StringIO)
    return [text.rstrip() for text in ESCAPES.sub("", console.file.getvalue()).replace("\r", "\n").splitlines()]


def shown(standing: Standing, width: int = 100) -> dict[str, str]:
    """What a terminal shows: the value of each label."""
    console = Console(file=io.StringIO(), width=width)
    console.print(draw(standing, "title", width))
    rows = written(console)
    assert all(len(row) <= width for row in rows)
    return {row[:9].strip(): row[11:] for row in rows[2:]}


def capacity(**changes: Any) -> Capacity:
    usual = {
        "endpoint": "e",
        "in_flight": 3,
        "places": 8,
        "waiting": 0,
        "requests_per_second": math.inf,
        "tokens_per_second": math.inf,
        "away_seconds": 0.0,
    }
    return Capacity(**{**usual, **changes})


def answered(tokens: int) -> BatchAnswered:
    return BatchAnswered("e", 1, 0, 4 * tokens, 0.0, 0.5, 0.5, tokens, tokens)


async def test_without_a_terminal_there_is_a_line_every_interval() -> None:
    """A job of a minute, with a line every ten seconds: how far, how fast, what it costs, how long it will take."""
    console = pipe()

    async with View(console=console, total_tokens=600_000, price=0.02) as view:
        await work(view, provider())

    lines = written(console)
    assert [text.partition(":")[0] for text in lines] == ["10 s", "20 s", "30 s", "40 s", "50 s", "1 min"][: len(lines)]
    assert len(lines) >= 5
    form = (
        r"(\d+) s: ([\d,]+) of 2,400 documents \((\d+) %\) · ([\d,]+) of 10,000 tokens/s · \d+ of \d+ in flight"
        r" · \$(\d\.\d{4}) of about \$0\.0120 · about (\d+) s left"
    )
    for text in lines[:5]:
        found = re.fullmatch(form, text)
        assert found, text
        seconds, documents, part, speed, cost, left = (float(number.replace(",", "")) for number in found.groups())
        assert documents == pytest.approx(40 * seconds, rel=0.15)
        assert part == pytest.approx(100 * documents / DOCUMENTS, abs=3)
        assert speed == pytest.approx(10_000, rel=0.1)
        assert cost == pytest.approx(0.012 * seconds / 60, rel=0.15)
        assert left == pytest.approx(60 - seconds, abs=6)


async def test_a_short_job_says_nothing_where_there_is_no_terminal() -> None:
    """Nothing is printed in less than an interval."""
    console = pipe()

    async with View(console=console) as view:
        await work(view, provider(), documents=40)

    assert written(console) == []
    assert view.timeline.total.documents == 40
    assert view.last_progress is not None and view.last_progress.documents == 40


async def test_a_terminal_shows_rows_that_are_gone_in_the_end() -> None:
    """It is drawn anew four times a second, and leaves nothing behind."""
    console = terminal()

    async with View(console=console, title="corpus.jsonl → v.parquet") as view:
        await work(view, provider(), documents=800)

    lines = written(console)
    assert isinstance(console.file, io.StringIO)
    assert lines.count("corpus.jsonl → v.parquet") == pytest.approx(4 * view.timeline.seconds, rel=0.05)
    assert any(text.startswith("waits for  the quota") for text in lines)
    assert console.file.getvalue().endswith("\x1b[1A\x1b[2K"), "the last thing is to clear the uppermost line"
    assert console.file.getvalue().count("\x1b[?25l") == console.file.getvalue().count("\x1b[?25h") == 1


@pytest.mark.parametrize("make", [pipe, terminal])
async def test_an_outage_is_told_at_once_and_when_it_is_over(make: Callable[[], Console]) -> None:
    """On a terminal too, where these lines stay; while it lasts, that is what the job waits for."""
    console = make()

    async with View(console=console, refresh=1.0) as view:
        await work(view, provider(outages=[Outage(start=15, end=50, kind="refused")]))

    lines = written(console)
    told = [text for text in lines if text.startswith("openai-compatible")]
    assert len(told) == 2
    assert re.fullmatch(r"\S+ is away: no connection to test: .*[^.]\. It is tried again every 10 s at most\.", told[0])
    assert re.fullmatch(r"\S+ is back after \d+ s\.", told[1])
    between = lines[lines.index(told[0]) : lines.index(told[1])]
    assert any("openai-compatible, which is away for 2" in text for text in between)
    assert any(text.endswith("left once it is back") or "left once it is back ·" in text for text in between)
    assert view.timeline.total.away == pytest.approx(40, abs=6)


async def test_what_the_block_raises_comes_out_as_it_is() -> None:
    """No group around it, and the terminal is left as it was."""
    console = terminal()

    with pytest.raises(KeyError, match="why"):
        async with View(console=console):
            await anyio.sleep(1)
            raise KeyError("why")

    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().count("\x1b[?25l") == console.file.getvalue().count("\x1b[?25h") == 1


async def test_nothing_is_looked_at_after_the_block() -> None:
    """When the view is left, nobody asks the embedder again."""
    asked = []

    async with View(console=pipe()) as view:
        view.watch(lambda: asked.append(1) or ())  # type: ignore[func-returns-value]
        await anyio.sleep(2.6)
    looked = len(asked)
    await anyio.sleep(10)

    assert looked == len(asked) == 10


# how it stands ----------------------------------------------------------------------------------------------------


async def test_the_time_left_is_told_in_tokens_not_in_documents() -> None:
    """Half of the documents hold a tenth of the text: after them, nine times as much is to come."""
    by_bytes = Standing(0.0)
    by_tokens = Standing(0.0, total_tokens=1_000)
    for now in range(11):
        far = Progress(
            documents=5 * now, total_documents=100, bytes=10 * now, total_bytes=1_000, failures=0, tokens=20 * now
        )
        by_bytes.move(far, float(now))
        by_tokens.move(far, float(now))

    assert by_bytes.part == pytest.approx(0.1)
    assert by_bytes.seconds_left == pytest.approx(90)
    assert by_tokens.part == pytest.approx(0.2)
    assert by_tokens.seconds_left == pytest.approx(40)


async def test_the_time_left_of_a_job_that_goes_on_rests_on_this_run() -> None:
    """What earlier runs did says nothing about the speed: 500 of 1,000 were there, 10 a second are added."""
    standing = Standing(0.0)
    standing.move(progress(500, 1_000), 0.0)
    assert standing.seconds_left is None
    standing.move(progress(540, 1_000), 4.0)

    assert standing.seconds_left == pytest.approx(46)


async def test_pauses_and_outages_do_not_slow_the_forecast() -> None:
    """It counts seconds in which something could go, and what is left of a pause."""
    standing = Standing(0.0)
    standing.move(progress(0, 100), 0.0)
    standing.move(progress(50, 100), 10.0)
    standing.see(EndpointPaused("e", 20.0), 10.0)
    standing.sample([capacity()], 15.0)

    assert standing.seconds_left == pytest.approx(10 + 15)
    assert standing.trouble == "e, which asked for a pause: 15 s more"
    standing.see(EndpointAway("e", ERROR), 40.0)
    standing.sample([capacity(away_seconds=30.0)], 70.0)
    assert standing.trouble == "e, which is away for 30 s: no connection to test"
    assert standing.limits == (math.inf, math.inf)
    standing.see(EndpointBack("e", 30.0), 70.0)
    assert standing.trouble is None
    assert standing.seconds_left == pytest.approx(10, rel=0.5)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (capacity(in_flight=3, waiting=1), "the quota"),
        (capacity(in_flight=8, waiting=1), "replies: every place is taken"),
        (capacity(in_flight=3), "replies"),
        (capacity(in_flight=0), "the source"),
        (capacity(in_flight=0, waiting=2), "the quota"),
    ],
)
async def test_it_says_what_it_waits_for(now: Capacity, expected: str) -> None:
    """Requests that wait beside free places wait for the quota; without any, nothing was read yet."""
    standing = Standing(0.0)
    standing.sample([now], 1.0)

    assert standing.waits_for == expected
    standing.move(progress(5, 5), 2.0)
    assert standing.waits_for is None


async def test_speed_is_that_of_the_last_seconds() -> None:
    """A hundred tokens a second for a minute, then none: after a dozen seconds the speed is 0, and the curve tells."""
    standing = Standing(0.0)
    for now in range(1, 61):
        standing.see(answered(100), float(now))
    assert standing.speed == pytest.approx(100, rel=0.15)
    standing.sample([capacity()], 75.0)

    assert standing.speed == 0
    assert standing.recent.latencies.count == 0
    assert standing.curve[:3] == [pytest.approx(100, rel=0.4)] * 3
    assert standing.curve[-4:] == [0.0] * 4
    standing.sample([capacity()], 1_000.0)
    assert standing.curve == [0.0] * (RECENT - 1)
    assert STRETCH * RECENT == 120, "docs say two minutes"


async def test_every_row_says_its_part() -> None:
    """Documents, speed against the limit, requests, latencies, faults by kind, cost, time, and what it waits for."""
    standing = Standing(0.0, total_tokens=10_000, price=10.0)
    for now in range(1, 6):
        standing.see(answered(100), float(now))
    standing.see(AttemptFailed("e", 1, 1, 0.1, "Server", ERROR, False), 5.0)
    standing.see(AttemptFailed("e", 1, 1, 0.1, "RateLimited", ERROR, True), 5.0)
    standing.sample([capacity(waiting=1, tokens_per_second=200.0)], 5.0)
    standing.move(progress(0, 40), 5.0)
    standing.move(progress(10, 40, failures=2, tokens=1_000), 10.0)

    assert shown(standing) == {
        "documents": "10 of 40 · 2 failed",
        "speed": "50 of 200 tokens/s          ▃▄",
        "requests": "3 of 8 in flight · 1 waiting · 5 answered",
        "latency": "p50 489 ms · p90 500 ms · p99 500 ms",
        "faults": "1 × 429 · 1 × 5xx · 1 tried again",
        "cost": "$0.0100 of about $0.1000",
        "time": "10 s gone · about 45 s left",
        "waits for": "the quota",
    }
    assert line(standing) == (
        "10 s: 10 of 40 documents (10 %) · 50 of 200 tokens/s · 3 of 8 in flight · 1 × 429 · 1 × 5xx · 1 tried again"
        " · 2 failed · $0.0100 of about $0.1000 · about 45 s left"
    )
    assert shown(standing, 40)["time"] == "10 s gone · about 45 s left"


async def test_before_anything_happened_it_reads_the_source() -> None:
    """Nothing is known yet, and nothing is made up."""
    standing = Standing(0.0)

    assert shown(standing) == {
        "documents": "reading the source",
        "requests": "0 answered",
        "latency": "–",
        "faults": "none",
        "time": "0 s gone",
        "waits for": "",
    }
    assert line(standing) == "0 s: reading the source"


async def test_what_a_server_says_cannot_move_the_cursor() -> None:
    """Control characters and line breaks in an error are spaces; long ones are cut."""
    console = pipe()
    async with View(console=console) as view:
        view.observe(EndpointAway("e", ConnectionFailedError("bad\x1b[2J\nnews [bold]" + "x" * 500)))

    (told,) = written(console)
    assert told.startswith("e is away: bad [2J news [bold]xxx")
    assert len(told) < 200


async def test_a_sparkline_is_full_at_the_limit() -> None:
    """Or at its largest value, where there is none; what is 0 is empty."""
    assert sparkline([0, 1, 50, 100, 120], 100) == " ▁▄██"
    assert sparkline([0, 1, 2]) == " ▄█"
    assert sparkline([0, 0]) == ""
    assert sparkline([]) == ""
