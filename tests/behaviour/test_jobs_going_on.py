"""A finished job goes on from its own result: what failed is asked again, and what the source has more is embedded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from embedbatch import ConfigurationError, JournalError, Limits, RunStoppedError, Usage, jobs
from embedbatch.testing import Received, Scripted, ScriptedServer

from .conftest import MakeEmbedder
from .corpora import contents, corpus, failures_of, mixed_texts, names, sent

# Files are written in threads, during which virtual time would jump: these run on both loops in real time.
pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("both_backends")]

DESTINATIONS = pytest.mark.parametrize("destination", ["v.parquet", "v.npy", "v", "v.jsonl", "v.jsonl.gz"])
SMALL = Limits(max_batch_inputs=8, max_concurrent_requests=2)
OPTIONS: dict[str, Any] = {"id_column": "id", "keep_text": True, "part_rows": 32}
REFUSED = ["poison 3", "poison 40", "poison 99"]
TEXTS = [text for n in range(100) for text in ([f"poison {n}"] if f"poison {n}" in REFUSED else [f"text {n % 60}"])]


def refuse(server: ScriptedServer, *refused: str) -> None:
    """Let *server* refuse requests with one of these texts, and forget what it was sent."""
    server.reply_when(lambda request: Scripted(status=400 if set(request.inputs) & set(refused) else 200))
    server.received.clear()


def stop_after(server: ScriptedServer, requests: int) -> list[str]:
    """Let *server* answer that many more, and then say that the account is empty; return what it answers."""
    last = len(server.received) + requests
    answered: list[str] = []

    def reply(request: Received) -> Scripted:
        if len(server.received) > last:
            return Scripted(status=429, body={"error": {"message": "no", "code": "insufficient_quota"}})
        answered.extend(request.inputs)  # type: ignore[arg-type]
        return Scripted()

    server.reply_when(reply)
    return answered


async def whole(folder: Path, texts: list[str], make_embedder: MakeEmbedder, name: str) -> dict[str, bytes]:
    """The files of a run to which nothing happens."""
    source = corpus(folder, texts)
    async with make_embedder(transport=ScriptedServer(), limits=SMALL, max_input_tokens=100_000) as embedder:
        await jobs.run(source, folder / name, embedder, **OPTIONS)
    return contents(folder)


@DESTINATIONS
async def test_what_failed_is_asked_again(
    tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder, destination: str
) -> None:
    """Only that is sent, and the result has the bytes of a run in which nothing failed."""
    texts = [*TEXTS, "poison 40"]
    expected = await whole(tmp_path / "whole", texts, make_embedder, destination)
    source, target = corpus(tmp_path / "again", texts), tmp_path / "again" / destination
    async with make_embedder(limits=SMALL) as embedder:
        refuse(server, *REFUSED)
        first = await jobs.run(source, target, embedder, **OPTIONS)
        refuse(server)
        unasked = await jobs.run(source, target, embedder, **OPTIONS)
        assert sent(server) == []
        again = await jobs.run(source, target, embedder, retry_failed=True, **OPTIONS)
        asked = sent(server)
        last = await jobs.run(source, target, embedder, retry_failed=True, **OPTIONS)

    assert sorted(asked) == sorted(REFUSED)
    assert sent(server) == asked
    assert contents(tmp_path / "again") == expected
    assert (first.failures, unasked.failures, again.failures, last.failures) == (4, 4, 0, 0)
    assert (first.embedded, again.embedded, again.runs) == (97, 101, 2)


async def test_what_fails_again_is_listed_again(
    tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """Of three that failed one is still refused, and empty texts are refused by us: both keep their place."""
    texts = ["", *TEXTS]
    source, target = corpus(tmp_path, texts), tmp_path / "v.parquet"
    async with make_embedder(limits=SMALL) as embedder:
        refuse(server, *REFUSED)
        await jobs.run(source, target, embedder, **OPTIONS)
        refuse(server, "poison 40")
        told: list[jobs.Progress] = []
        summary = await jobs.run(source, target, embedder, retry_failed=True, progress=told.append, **OPTIONS)

    assert [each["id"] for each in failures_of(target)] == ["d0", "d41"]
    assert (summary.failures, summary.embedded) == (2, 99)
    assert (told[-1].documents, told[-1].failures) == (101, 2)


@DESTINATIONS
async def test_what_is_new_is_embedded(
    tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder, destination: str
) -> None:
    """A source that grew twice: only new texts are sent, and the result is that of a job with all of them."""
    texts = [*mixed_texts(70), *TEXTS]
    expected = await whole(tmp_path / "whole", texts, make_embedder, destination)
    folder = tmp_path / "again"
    target = folder / destination
    told: list[str] = []
    async with make_embedder(limits=SMALL, max_input_tokens=100_000) as embedder:
        for count in (50, 110, len(texts)):
            source = corpus(folder, texts[:count])
            server.received.clear()
            summary = await jobs.run(source, target, embedder, extend=True, **OPTIONS)
            told += sent(server)

    assert sorted(told) == sorted(set(texts))
    assert contents(folder) == expected
    assert (summary.documents, summary.embedded, summary.runs) == (170, 170, 3)


@DESTINATIONS
async def test_going_on_may_be_interrupted_as_well(
    tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder, destination: str
) -> None:
    """Stopped after every other request, with the result before in its place, it sends each text once."""
    texts = [*TEXTS, *(f"more {n}" for n in range(100))]
    expected = await whole(tmp_path / "whole", texts, make_embedder, destination)
    folder = tmp_path / "again"
    target, runs = folder / destination, 0
    answered: list[list[str]] = []
    async with make_embedder(limits=SMALL) as embedder:
        refuse(server, *REFUSED)
        await jobs.run(corpus(folder, TEXTS), target, embedder, **OPTIONS)
        server.received.clear()
        before = {name: data for name, data in contents(folder).items() if name != "c.jsonl"}
        source = corpus(folder, texts)
        options = {**OPTIONS, "extend": True, "retry_failed": True}
        while True:
            runs += 1
            answered.append(stop_after(server, 2))
            try:
                summary = await jobs.run(source, target, embedder, **options)
                break
            except RunStoppedError:
                now = contents(folder)
                assert {name: now[name] for name in before} == before
            options = OPTIONS  # what was asked for once is kept in mind

    assert runs > 3
    assert sorted(text for run in answered for text in run) == sorted([*REFUSED, *texts[100:]])
    assert contents(folder) == expected
    assert summary.failures == 0


async def test_an_unfinished_job_asks_again_in_the_parts_that_it_does(
    tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """What failed for good in a part that is not complete is asked again, if it is said."""
    texts = [f"text {n}" for n in range(64)]
    source, target = corpus(tmp_path, texts), tmp_path / "v.npy"
    alone = Limits(max_batch_inputs=1, max_concurrent_requests=1)
    no_credit = Scripted(status=429, body={"error": {"message": "no", "code": "insufficient_quota"}})
    server.reply_when(
        lambda request: (
            Scripted(status=400) if "text 9" in request.inputs else no_credit if "text 30" in request.inputs else None
        )
    )
    async with make_embedder(limits=alone) as embedder:
        with pytest.raises(RunStoppedError):
            await jobs.run(source, target, embedder, **OPTIONS)
        refuse(server)
        summary = await jobs.run(source, target, embedder, retry_failed=True, **OPTIONS)

    assert sorted(sent(server)) == sorted(["text 9", *texts[30:]])
    assert (summary.failures, summary.embedded) == (0, 64)


async def test_a_grown_source_is_refused_unless_it_is_said(
    tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """The refusal says what to do; a job that is not finished cannot be extended; nothing is sent."""
    target = tmp_path / "v.npy"
    async with make_embedder(limits=SMALL) as embedder:
        finished = await jobs.run(corpus(tmp_path, TEXTS[:40]), target, embedder, **OPTIONS)
        server.received.clear()
        source = corpus(tmp_path, TEXTS)
        with pytest.raises(ConfigurationError, match=r"has grown .* For what is new: --extend"):
            await jobs.run(source, target, embedder, **OPTIONS)
        answered = stop_after(server, 1)
        with pytest.raises(RunStoppedError):
            await jobs.run(source, target, embedder, extend=True, **OPTIONS)
        source = corpus(tmp_path, [*TEXTS, "more"])
        with pytest.raises(ConfigurationError, match="not finished: finish it with the source as it was, its first "):
            await jobs.run(source, target, embedder, extend=True, **OPTIONS)
        source = corpus(tmp_path, ["another", *TEXTS[1:]])
        with pytest.raises(ConfigurationError, match="is not what it was"):
            await jobs.run(source, target, embedder, extend=True, **OPTIONS)

    assert finished.usage != Usage()
    assert 0 < len(answered) <= 8


async def test_a_job_that_goes_on_and_fails_at_once_is_not_forgotten(
    tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """Its result is its own work: the journal stays, though it holds no vector."""
    source, target = corpus(tmp_path, TEXTS), tmp_path / "v.npy"
    async with make_embedder(limits=SMALL) as embedder:
        refuse(server, *REFUSED)
        await jobs.run(source, target, embedder, **OPTIONS)
        stop_after(server, 0)
        with pytest.raises(RunStoppedError):
            await jobs.run(source, target, embedder, retry_failed=True, **OPTIONS)
        assert "v.npy.journal" in names(tmp_path)
        refuse(server)
        await jobs.run(source, target, embedder, **OPTIONS)

    assert sorted(sent(server)) == sorted(REFUSED)


@pytest.mark.parametrize("destination", ["v.parquet", "v.npy", "v.jsonl"])
async def test_a_result_that_was_exchanged_is_not_taken_for_its_own(
    tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder, destination: str
) -> None:
    """Another result stands in its place, with fewer rows: nothing of it is used."""
    source, target = corpus(tmp_path, TEXTS), tmp_path / destination
    async with make_embedder(limits=SMALL) as embedder:
        refuse(server, *REFUSED)
        await jobs.run(source, target, embedder, **OPTIONS)
        refuse(server)
        other = tmp_path / "other"
        await jobs.run(corpus(other, TEXTS[4:20]), other / destination, embedder, **OPTIONS)
        for path in other.glob(f"{destination}*"):
            if path.is_file():
                path.replace(tmp_path / path.name)
        with pytest.raises(JournalError, match="has fewer rows than this job gave it"):
            await jobs.run(source, target, embedder, retry_failed=True, **OPTIONS)
