"""One measurement, in this process: `python -m benchmarks.speed.worker CASE BASE_URL` prints one line of JSON."""

from __future__ import annotations

import asyncio
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .case import Case, Outcome
from .clients import CLIENTS, make
from .delays import schedule
from .documents import documents
from .measure import Section, children_cpu_seconds
from .vectors import Checker, WrongVectorError, texts

WARM_UP_FROM = 90_000_000  # numbers that no other text has


def ask(base_url: str, method: str, path: str, body: object = None) -> Any:
    """One request to the server's own questions."""
    url = urlsplit(base_url)
    assert url.hostname is not None
    connection = http.client.HTTPConnection(url.hostname, url.port)
    connection.request(method, path, None if body is None else json.dumps(body))
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def version(package: str) -> str:
    """The version that is installed; embedbatch may be on the path only."""
    if package == "embedbatch":
        from embedbatch.version import VERSION

        return VERSION
    return metadata.version(package)


def outcome(case: Case, section: Section, **found: Any) -> Outcome:
    """What a section measured."""
    return Outcome(
        seconds=section.seconds,
        cpu=section.cpu,
        peak=section.peak,
        baseline=section.baseline,
        versions={name: version(name) for name in CLIENTS[case.client].packages},
        **{"server": {}, "extra": {}} | found,
    )


def count_inputs(base_url: str, wanted: int) -> dict[str, Any]:
    """What the server counted. Who sends a text twice, or not at all, has not been measured but caught."""
    counted: dict[str, Any] = ask(base_url, "GET", "/stats")
    if counted["inputs"] != wanted:
        raise WrongVectorError(f"expected {wanted:,} texts to be sent, the server got {counted['inputs']:,}")
    return counted


async def embed(case: Case, base_url: str) -> Outcome:
    """Calls with all texts each; a first one, that is not timed, finds the memory and opens the connections."""
    client = make(case, base_url)
    checker = Checker(case.dimensions)
    sections: list[Section] = []
    for count in [case.warm_up] + [case.texts] * case.repeat:
        start = WARM_UP_FROM if not sections else len(sections) * case.texts
        asked = list(texts(count, start))
        client.prepare(count)
        if len(sections) == 1:
            ask(base_url, "POST", "/reset", {"delays": schedule(case)})
        got: Any = None  # only one result at a time is in memory
        with Section() as section:
            got = await client.embed(asked)
        if CLIENTS[case.client].gives_vectors:
            checker.check(asked, got, start)
        sections.append(section)
    await client.aclose()
    total = Section.total(sections[1:])
    total.baseline = sections[0].baseline  # what a client keeps from one call to the next counts
    vectors = case.texts * case.repeat
    return outcome(case, total, vectors=vectors, server=count_inputs(base_url, vectors))


async def hold(case: Case, base_url: str) -> Outcome:
    """One call, whose result is held in memory."""
    client = make(case, base_url)
    checker = Checker(case.dimensions)
    asked = list(texts(case.texts))
    await client.embed(list(texts(case.warm_up, WARM_UP_FROM)))
    ask(base_url, "POST", "/reset", {})
    with Section() as section:
        got = await client.embed(asked)
    checker.check(asked, got)
    await client.aclose()
    output = 4 * case.texts * case.dimensions
    server = count_inputs(base_url, case.texts)
    return outcome(case, section, vectors=case.texts, output=output, server=server)


async def stream(case: Case, base_url: str) -> Outcome:
    """A stream, of which nothing is kept. Each vector is compared as it comes: only memory is measured here."""
    client: Any = make(case, base_url)
    checker = Checker(case.dimensions)
    await client.embed(list(texts(case.warm_up, WARM_UP_FROM)))
    ask(base_url, "POST", "/reset", {})
    count = 0
    with Section() as section:
        wanted = texts(case.texts)
        async with client.stream(texts(case.texts)) as results:
            async for result in results:
                if not checker.is_right(next(wanted), result.vector):
                    raise WrongVectorError(f"stream(): the vector at {count:,} is not that of its text")
                count += 1
    await client.aclose()
    if count != case.texts:
        raise WrongVectorError(f"stream(): expected {case.texts:,} vectors, got {count:,}")
    return outcome(case, section, vectors=count, server=count_inputs(base_url, count))


async def singles(case: Case, base_url: str) -> Outcome:
    """All texts at once, a call for each."""
    client = make(case, base_url)
    checker = Checker(case.dimensions)
    asked = list(texts(case.texts))
    for text in texts(case.warm_up, WARM_UP_FROM):
        await client.embed_one(text)
    ask(base_url, "POST", "/reset", {})
    waits: list[float] = []

    async def one(text: str) -> Any:
        started_at = time.perf_counter()
        vector = await client.embed_one(text)
        waits.append(time.perf_counter() - started_at)
        return vector

    with Section() as section:
        got = await asyncio.gather(*map(one, asked))
    checker.check(asked, got)
    await client.aclose()
    percentiles = statistics.quantiles(waits, n=100)
    extra = {"p50": percentiles[49], "p99": percentiles[98]}
    return outcome(case, section, vectors=case.texts, server=count_inputs(base_url, case.texts), extra=extra)


async def chunk(case: Case, base_url: str) -> Outcome:
    """Long documents, cut to what a model takes."""
    splitter: Any = make(case, base_url)
    asked = documents(case.texts)
    await splitter.split(asked[-1:])  # loads the vocabulary
    with Section() as section:
        got = await splitter.split(asked)
    splitter.check(asked, got)
    await splitter.aclose()
    extra = {"bytes": sum(len(document.encode()) for document in asked), "chunks": splitter.chunks}
    return outcome(case, section, vectors=case.texts, extra=extra)


async def job(case: Case, base_url: str) -> Outcome:
    """A file of JSON lines, into files on the disk; without a destination the same texts, streamed into nothing."""
    destination = dict(case.settings)["destination"]
    with tempfile.TemporaryDirectory(prefix="embedbatch-bench-") as folder:
        client: Any = make(case, base_url)
        asked = list(texts(case.texts))
        sections: list[Section] = []
        for some in (texts(case.warm_up, WARM_UP_FROM), asked):
            source = write_lines(Path(folder, f"{len(sections)}.jsonl"), some)
            target = Path(folder, f"{len(sections)}-{destination}")
            ask(base_url, "POST", "/reset", {})
            with Section() as section:
                if destination is None:
                    await client.stream_file(source)
                else:
                    await client.write_file(source, target)
            sections.append(section)
        await client.aclose()
        if destination is not None:
            Checker(case.dimensions).check(asked, client.read_file(target))
    return outcome(case, sections[-1], vectors=case.texts, server=count_inputs(base_url, case.texts))


def write_lines(path: Path, some: Iterable[str]) -> Path:
    """A file of JSON lines with these texts."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in some))
    return path


async def start(case: Case, base_url: str) -> Outcome:
    """Processes that run one statement; the first ones, which may compile what they import, are not timed."""
    command = [sys.executable, "-c", dict(case.settings)["statement"]]
    count = case.warm_up + case.repeat
    sections = [await asyncio.to_thread(time_process, command) for _ in range(count)][case.warm_up :]
    typical = Section()
    typical.seconds = statistics.median(section.seconds for section in sections)
    typical.cpu = statistics.median(section.cpu for section in sections)
    return outcome(case, typical)


def time_process(command: Sequence[str]) -> Section:
    section = Section()
    cpu_at, started_at = children_cpu_seconds(), time.perf_counter()
    subprocess.run(command, check=True)
    section.seconds = time.perf_counter() - started_at
    section.cpu = children_cpu_seconds() - cpu_at
    return section


TASKS: dict[str, Callable[[Case, str], Awaitable[Outcome]]] = {
    task.__name__: task for task in (embed, hold, stream, singles, chunk, job, start)
}


def main() -> None:
    case, base_url = Case.from_json(sys.argv[1]), sys.argv[2]
    run: Any = asyncio.run
    if case.client.endswith("uvloop"):
        from uvloop import run
    print(json.dumps(asdict(run(TASKS[case.task](case, base_url)))))


if __name__ == "__main__":
    main()
