"""A report is one page that loads nothing, whatever the documents are called, and whatever the run was like."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedbatch.errors import RateLimitedError
from embedbatch.events import (
    AttemptFailed,
    BatchAnswered,
    DocumentsEmbedded,
    EndpointAway,
    EndpointBack,
    EndpointPaused,
)
from embedbatch.jobs import Progress, Summary
from embedbatch.jobs.report import MAX_FAILURES, MAX_KINDS, MAX_SLICES, write_report
from embedbatch.jobs.timeline import Timeline
from embedbatch.stats import Capacity
from embedbatch.values import Usage

SVG = "{http://www.w3.org/2000/svg}"
ERROR = RateLimitedError("HTTP 429")
LOADS = {"src", "href", "srcset", "data", "action", "poster", "background", "style"}
HOSTILE = (
    "</td></table><script>alert(1)</script><img src=x onerror=alert(1)>&amp; \"quoted\" 'too' \x00\x1b \ud800 \u202e"
)
SUMMARY = Summary(
    destination=Path("v.parquet"),
    documents=1_000,
    embedded=990,
    failures=7,
    skipped=3,
    duplicates=12,
    bad_rows=0,
    failures_file=None,
    dimensions=1_536,
    usage=Usage(requests=110, total_tokens=2_500_000),
    seconds=252.0,
    runs=1,
)


def busy(seconds: float, requests: int = 400) -> Timeline:
    """A run of so many seconds with requests, a limit, a few faults, a pause and an outage."""
    timeline = Timeline(began_at=0.0)
    for number in range(1, requests + 1):
        now = number * seconds / requests
        timeline.see(BatchAnswered("e", 10, 0, 4_000, 0.0, 0.1, min(0.4, now), 1_000, 1_000), now)
        timeline.see(DocumentsEmbedded(10, 10, 4_000), now)
        if number % 40 == 0:
            timeline.see(AttemptFailed("e", 10, 1, 0.05, "RateLimited", ERROR, True), now)
            timeline.see(EndpointPaused("e", seconds / requests), now)
        timeline.sample([capacity()], now)
    timeline.see(EndpointAway("e", ERROR), seconds)
    timeline.see(EndpointBack("e", seconds / 10), seconds * 1.1)
    return timeline


def capacity() -> Capacity:
    return Capacity(
        endpoint="e",
        in_flight=3,
        places=8,
        waiting=1,
        requests_per_second=5.0,
        tokens_per_second=4_000.0,
        away_seconds=0.0,
    )


def failure(name: object = "d", **changes: Any) -> dict[str, Any]:
    row = {"id": name, "line": 7, "error": "RequestRefusedError", "reason": "HTTP 400", "attempts": 1}
    return {**row, **changes}


def page_of(path: Path, timeline: Timeline, **options: Any) -> ElementTree.Element:
    """The page that is written about a run. It is well-formed, and loads nothing."""
    told = {"source": "corpus.jsonl", "destination": "v.parquet", "model": "m", "endpoint": "https://e/v1"}
    write_report(path / "report.html", timeline, **{**told, **options})
    text = (path / "report.html").read_text(encoding="utf-8")
    page = ElementTree.fromstring(text)
    assert text.startswith("<!DOCTYPE html>")
    assert [each.name for each in path.iterdir()] == ["report.html"]
    for element in page.iter():
        assert element.tag not in {"script", "link", "img", "iframe", "object", "embed", "base", "form", "a"}
        assert not LOADS & element.attrib.keys()
        assert not any(name.startswith("on") for name in element.attrib)
        assert not {"nan", "inf"} & set(" ".join(element.attrib.values()).lower().split())
    (style,) = page.iter("style")
    assert style.text is not None and "url(" not in style.text and "@import" not in style.text
    return page


def words(page: ElementTree.Element, name: str, **attributes: str) -> list[str]:
    """What stands in the elements of this name."""
    found = [each for each in page.iter(name) if attributes.items() <= each.attrib.items()]
    return ["".join(each.itertext()) for each in found]


def numbers(page: ElementTree.Element) -> dict[str, str]:
    """The figures at the top."""
    (figures,) = [each for each in page.iter("dl") if each.attrib["class"] == "numbers"]
    return dict(zip(words(figures, "dt"), words(figures, "dd"), strict=True))


def titles(page: ElementTree.Element) -> list[str]:
    """The charts."""
    return [caption.split()[0] for figure in page.iter("figure") for caption in words(figure, "h2")]


def charts(page: ElementTree.Element) -> Iterator[ElementTree.Element]:
    """The drawings, each with everything in it."""
    return (each for each in page.iter(f"{SVG}svg") if each.attrib.get("role") == "img")


def test_a_page_tells_all_of_a_job(tmp_path: Path) -> None:
    """State, facts, figures, charts and failures; each chart has a title and a summary of its own."""
    page = page_of(
        tmp_path,
        busy(240.0),
        summary=SUMMARY,
        failures=[failure("a"), failure(5)],
        price=0.02,
        began=datetime(2026, 11, 22, 12, tzinfo=UTC),
    )

    assert words(page, "h1") == ["corpus.jsonl → v.parquet"]
    assert words(page, "p")[0] == "Complete; 7 documents failed."
    assert numbers(page) == {
        "Documents": "1,000",
        "Embedded": "990",
        "Failed": "7",
        "Duplicates": "12",
        "Skipped": "3",
        "Tokens": "2,500,000",
        "Cost": "$0.0500",
        "Time": "4 min 12 s",
        "Requests": "110",
        "Dimensions": "1,536",
    }
    assert "2026-11-22 12:00:00 UTC" in words(page, "dd")
    assert titles(page) == ["Throughput", "Requests", "In", "Latency", "Faults"]
    names = [chart.attrib["aria-labelledby"] for chart in charts(page)]
    assert len(set(names)) == len(names) == 5
    assert all(words(chart, f"{SVG}title")[0] and words(chart, f"{SVG}desc")[0] for chart in charts(page))
    assert words(page, "td")[:6] == ["a", "7", "RequestRefusedError", "HTTP 400", "1", "5"]
    assert "The first 2 of 7." in words(page, "p")


def test_a_run_in_which_nothing_was_sent_has_no_charts(tmp_path: Path) -> None:
    """An empty corpus, or a job that was finished already: the figures, and a sentence instead of the charts."""
    none = replace(SUMMARY, documents=0, embedded=0, failures=0, skipped=0, duplicates=0, usage=Usage(), runs=0)

    page = page_of(tmp_path, Timeline(), summary=none)

    assert words(page, "p") == ["Complete.", "In the last run nothing was sent."]
    assert numbers(page)["Documents"] == "0"
    assert "Tokens" not in numbers(page)
    assert not list(charts(page)) and not list(page.iter("table"))


@pytest.mark.parametrize("seconds", [0.0, 0.02, 1.0, 90.0, 86_400.0, 7 * 86_400.0])
def test_a_run_of_any_length_is_drawn(tmp_path: Path, seconds: float) -> None:
    """From a moment to a week: at most so many slices, labels that do not repeat, throughput that is right."""
    page = page_of(tmp_path, busy(seconds), summary=SUMMARY)

    drawn = list(charts(page))
    assert len(drawn) >= 4
    for chart in drawn:
        assert 1 <= len([each for each in chart.iter(f"{SVG}rect") if each.attrib["class"] == "hint"]) <= MAX_SLICES
        labels = [each.text for each in chart.iter(f"{SVG}text") if each.attrib["x"].endswith("%")]
        assert labels[0] == "0" and len(set(labels)) == len(labels) <= 7
    if seconds >= 90.0:
        mean = float(words(drawn[0], f"{SVG}desc")[0].split()[0].replace(",", ""))
        assert mean == pytest.approx(400_000 / (1.1 * seconds), rel=0.06)


def test_hostile_text_is_text(tmp_path: Path) -> None:
    """Markup, quotes, control characters and surrogates in names, ids and reasons: shown, and never obeyed."""
    page = page_of(
        tmp_path,
        busy(30.0),
        source=f"/data/{HOSTILE}",
        destination=HOSTILE,
        model=HOSTILE,
        endpoint=HOSTILE,
        stopped=HOSTILE,
        failures=[failure(HOSTILE, reason=HOSTILE, error=HOSTILE, line=None)],
    )

    shown = HOSTILE.replace("\x00", "\ufffd").replace("\x1b", "\ufffd").replace("\ud800", "\ufffd")
    assert words(page, "td")[0] == words(page, "td")[3] == shown
    assert shown in words(page, "p")[0]
    assert all(cell[0].tag == "bdi" for cell in page.iter("td"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(name=st.text(st.characters()), reason=st.text(st.characters()))
def test_any_text_gives_a_page(tmp_path: Path, name: str, reason: str) -> None:
    """Every string is an id, and a reason to fail."""
    page = page_of(tmp_path, Timeline(), failures=[failure(name, reason=reason)], stopped=reason)

    assert len(words(page, "td")) == 5


def test_a_run_that_stopped_says_why_and_how_far_it_came(tmp_path: Path) -> None:
    """Without a summary there is the last progress, or else what the events told."""
    progress = Progress(documents=400, total_documents=1_000, bytes=1, total_bytes=2, failures=4, tokens=90_000)

    page = page_of(tmp_path, busy(240.0), progress=progress, stopped="no credit left", price=1.0)
    bare = page_of(tmp_path, busy(240.0))

    assert words(page, "p")[0] == "Stopped early. no credit left"
    figures = numbers(page)
    assert (figures["Documents"], figures["Done"], figures["Failed"], figures["Cost"]) == (
        "1,000",
        "400",
        "4",
        "$0.0900",
    )
    assert numbers(bare) == {
        "Documents": "4,000",
        "Failed": "0",
        "Tokens": "400,000",
        "Time": "4 min 24 s",
        "Requests": "410",
    }


def test_failures_are_read_from_their_file_and_not_all_of_them_are_shown(tmp_path: Path) -> None:
    """The first hundred, and how many there are."""
    folder = tmp_path / "page"
    folder.mkdir()
    file = tmp_path / "v.failures.jsonl"
    file.write_text("".join(json.dumps(failure(number)) + "\n" for number in range(250)))

    page = page_of(folder, busy(30.0), summary=replace(SUMMARY, failures=250, failures_file=file))

    assert len(words(page, "tr")) == 1 + MAX_FAILURES
    assert "The first 100 of 250." in words(page, "p")


def test_a_key_in_the_url_of_the_endpoint_is_not_shown(tmp_path: Path) -> None:
    """User, password and query are left out."""
    page = page_of(tmp_path, Timeline(), endpoint="https://user:secret@host:8080/v1?key=secret")

    assert "https://host:8080/v1" in words(page, "dd")
    assert "secret" not in ElementTree.tostring(page, encoding="unicode")


def test_where_no_tokens_are_counted_documents_are(tmp_path: Path) -> None:
    """Throughput is in documents per second for servers that do not tell tokens; there is no chart without data."""
    timeline = Timeline(began_at=0.0)
    for number in range(1, 50):
        timeline.see(BatchAnswered("e", 10, 0, 4_000, 0.0, 0.1, 0.4, None, None), float(number))
        timeline.see(DocumentsEmbedded(10, 10, 4_000), float(number))

    page = page_of(tmp_path, timeline, summary=replace(SUMMARY, usage=Usage(requests=49)))

    assert "Throughput documents/s" in words(page, "h2")
    assert titles(page) == ["Throughput", "In", "Latency"]
    assert "Tokens" not in numbers(page)


def test_many_kinds_of_faults_share_a_colour(tmp_path: Path) -> None:
    """429s are always named; of seven kinds the rarest are together."""
    timeline = busy(60.0)
    for number, kind in enumerate(("Server", "AttemptTimeout", "ConnectionLost", "InvalidReply", "Odd", "Strange")):
        for _ in range(20 - number):
            timeline.see(AttemptFailed("e", 1, 1, 0.1, kind, ERROR, True), 70.0)

    page = page_of(tmp_path, timeline, summary=replace(SUMMARY, runs=3))

    legend = [words(figure, "li") for figure in page.iter("figure")][-1]
    assert legend == ["429", "5xx", "timeout", "others", "paused", "away"]
    assert len(legend) - 2 == MAX_KINDS
    assert any("numbers above are of all of them" in note for note in words(page, "p"))
    assert numbers(page)["Runs"] == "3"


def test_a_limit_that_was_never_near_is_told_and_not_drawn(tmp_path: Path) -> None:
    """Otherwise the line of what went would lie at the bottom."""
    near, far = (page_of(tmp_path, busy(seconds)) for seconds in (120.0, 120_000.0))

    assert words(near, "h2")[0] == "Throughput tokens/s"
    assert words(far, "h2")[0] == "Throughput tokens/s, far below the limit of 4,000"
    assert "limit" in words(near, "li")
    assert "limit" not in words(far, "li")
