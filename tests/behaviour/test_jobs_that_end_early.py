"""Jobs that cannot be read, are stopped, cancelled or watched: nothing half-written is left."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest

from embedbatch import (
    ConfigurationError,
    Limits,
    RunStoppedError,
    SourceError,
    SpendLimitError,
    jobs,
)
from embedbatch.testing import Scripted, ScriptedServer

from .conftest import MakeEmbedder
from .corpora import DESTINATIONS, contents, names, read, write_jsonl

# Files are written in threads, during which virtual time would jump: these run on both loops in real time.
pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("both_backends")]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("c.jsonl", b'{"text": "a"}\n' * 500 + b"{]\n", "line 501: invalid JSON"),
        ("c.jsonl", b'{"text": "a"}\n' * 500 + b"[]\n", "line 501: expected a JSON object"),
        ("c.txt", b"a\n" * 500 + b"\xff\n", "line 501: invalid UTF-8"),
        ("c.jsonl", b'{"body": "a", "title": "b"}\n', "the columns are 'body', 'title'"),
    ],
)
async def test_an_unreadable_row_is_found_before_anything_is_sent(
    tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder, name: str, data: bytes, reason: str
) -> None:
    """The last row of a file is looked at before the first is paid for, and nothing is written."""
    (tmp_path / name).write_bytes(data)

    async with make_embedder() as embedder:
        with pytest.raises(SourceError, match=reason):
            await jobs.run(tmp_path / name, tmp_path / "v.npy", embedder)

    assert server.received == []
    assert names(tmp_path) == {name}


@DESTINATIONS
async def test_a_run_that_stops_leaves_the_earlier_result(
    tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder, destination: str
) -> None:
    """max_spend_tokens is reached in the middle: the files of the run before are untouched, no others are there."""
    source = tmp_path / "c.txt"
    source.write_text("a\n\n")
    target = tmp_path / destination
    async with make_embedder(limits=Limits(max_batch_inputs=10)) as embedder:
        await jobs.run(source, target, embedder)
        source.write_text("".join(f"some words {n}\n" for n in range(1_000)))
        before = contents(tmp_path)

        with pytest.raises(SpendLimitError) as caught:
            await jobs.run(source, target, embedder, fresh=True, max_spend_tokens=2_000)

    assert 20 < len(server.received) < 100
    (note,) = caught.value.__notes__
    assert note.endswith(
        f"of 1,000 documents are done, and kept in {target}.journal. The same call goes on from there."
    )
    assert contents(tmp_path) == before


async def test_a_wrong_key_stops_the_run(tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """What concerns everything ends the run; nothing is written."""
    server.reply_when(lambda request: Scripted(status=401, body={"error": {"message": "wrong key"}}))
    (tmp_path / "c.txt").write_text("a\nb\n")

    async with make_embedder() as embedder:
        with pytest.raises(RunStoppedError, match="wrong key"):
            await jobs.run(tmp_path / "c.txt", tmp_path / "v.parquet", embedder)

    assert names(tmp_path) == {"c.txt"}


@DESTINATIONS
async def test_a_source_that_breaks_later_leaves_nothing(
    tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder, destination: str
) -> None:
    """A file that is spoilt between its two readings is named; nothing is sent, and nothing is left."""
    source = write_jsonl(tmp_path / "c.jsonl", [{"text": f"text {n}"} for n in range(100)])

    def spoil(progress: jobs.Progress) -> None:
        if progress.documents == 0:
            source.write_text('{"text": "a"}\n{"text": ')

    async with make_embedder() as embedder:
        with pytest.raises(SourceError, match="was written to while it was read"):
            await jobs.run(source, tmp_path / destination, embedder, progress=spoil)

    assert names(tmp_path) == {"c.jsonl"}


@DESTINATIONS
async def test_a_cancelled_job_leaves_its_journal(
    tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder, destination: str
) -> None:
    """Cancelled while the server is silent: there is no result, and what came before is kept."""
    hangs = anyio.Event()

    def reply(request: Any) -> Scripted | None:
        if request.number <= 3:
            return None
        hangs.set()
        return Scripted(after=60)

    server.reply_when(reply)
    (tmp_path / "c.txt").write_text("".join(f"text {n}\n" for n in range(100)))

    async def cancel() -> None:
        await hangs.wait()
        await anyio.sleep(0.1)
        scope.cancel()

    async with make_embedder(limits=Limits(max_batch_inputs=4)) as embedder, anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            tasks.start_soon(cancel)
            await jobs.run(tmp_path / "c.txt", tmp_path / destination, embedder)

    assert scope.cancelled_caught
    assert names(tmp_path) == {"c.txt", f"{destination}.journal"}
    assert server.in_flight == 0


async def test_a_new_result_takes_the_old_failures_away(
    tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """The failures file belongs to the result beside it: without failures, that of an earlier run goes."""
    source, target = tmp_path / "c.txt", tmp_path / "v.parquet"
    async with make_embedder() as embedder:
        source.write_text("a\n\n")
        await jobs.run(source, target, embedder)
        before = names(tmp_path)
        source.write_text("a\nb\n")
        await jobs.run(source, target, embedder, fresh=True)

    assert before == {"c.txt", "v.parquet", "v.parquet.failures.jsonl", "v.parquet.journal"}
    assert names(tmp_path) == {"c.txt", "v.parquet", "v.parquet.journal"}


async def test_progress_counts_documents_bytes_and_failures(tmp_path: Path, make_embedder: MakeEmbedder) -> None:
    """The first report has the totals, the last one everything; counts never fall."""
    source = tmp_path / "c.txt"
    source.write_text("some text\n" * 999 + "\n")
    reports: list[jobs.Progress] = []

    async with make_embedder() as embedder:
        summary = await jobs.run(source, tmp_path / "v.npy", embedder, progress=reports.append)

    first, last = reports[0], reports[-1]
    assert (first.documents, first.total_documents, first.bytes, first.total_bytes) == (0, 1_000, 0, 9_991)
    assert (last.documents, last.bytes, last.failures) == (1_000, 9_991, 1)
    assert last.tokens == summary.usage.total_tokens
    assert [report.documents for report in reports] == sorted(report.documents for report in reports)
    assert summary.seconds > 0


async def test_chunks_do_not_fit_a_file(tmp_path: Path, make_embedder: MakeEmbedder) -> None:
    """A file has one row for a document, so an embedder that gives several is refused."""
    (tmp_path / "c.txt").write_text("a\n")

    async with make_embedder(long_input="chunks") as embedder:
        with pytest.raises(ConfigurationError, match="one row per document"):
            await jobs.run(tmp_path / "c.txt", tmp_path / "v.npy", embedder)

    assert names(tmp_path) == {"c.txt"}


@pytest.mark.slow
@pytest.mark.parametrize("both_backends", ["asyncio"])
async def test_a_job_cancelled_by_asyncio_itself_can_go_on(
    tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """task.cancel() does not wait for threads as anyio does: at whatever moment it comes, the next run completes it."""
    texts = [f"text {n}" for n in range(2_000)]
    (tmp_path / "c.txt").write_text("\n".join(texts))

    for moment in range(20):
        async with make_embedder() as embedder:
            job = asyncio.create_task(jobs.run(tmp_path / "c.txt", tmp_path / "v.parquet", embedder))
            await asyncio.sleep(0.01 * moment)
            job.cancel()
            await asyncio.gather(job, return_exceptions=True)
            await jobs.run(tmp_path / "c.txt", tmp_path / "v.parquet", embedder)

        np.testing.assert_array_equal(read(tmp_path / "v.parquet")[1], [server.vector_of(text) for text in texts])
        (tmp_path / "v.parquet").unlink()
        shutil.rmtree(tmp_path / "v.parquet.journal")


@pytest.mark.parametrize("both_backends", ["asyncio"])
async def test_a_script_can_wait_for_a_job(tmp_path: Path) -> None:
    """run_blocking does the same without async code, also where a loop is running, as in a notebook."""
    (tmp_path / "c.txt").write_text("compress data\nparse text\n")

    summary = jobs.run_blocking(tmp_path / "c.txt", tmp_path / "v.npy", "local", count_tokens=True)

    assert (summary.documents, summary.dimensions) == (2, 256)
    assert jobs.read_origin(tmp_path / "v.npy").base_url is None
    assert np.load(tmp_path / "v.npy").shape == (2, 256)
