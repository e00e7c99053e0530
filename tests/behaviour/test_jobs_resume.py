"""A job that was interrupted goes on where it was: nothing is lost, nothing is paid twice, nothing is mixed."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest

from embedbatch import (
    ConfigurationError,
    DimensionsError,
    JournalError,
    Limits,
    RunStoppedError,
    SpendLimitError,
    jobs,
)
from embedbatch.plan.tokens import ByteBound
from embedbatch.testing import Scripted, ScriptedServer

from .conftest import MakeEmbedder
from .corpora import DESTINATIONS, contents, corpus, mixed_texts, names, sent

# Files are written in threads, during which virtual time would jump: these run on both loops in real time.
pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("both_backends")]

NO_CREDIT: dict[str, Any] = {"status": 429, "body": {"error": {"message": "no", "code": "insufficient_quota"}}}
SMALL = Limits(max_batch_inputs=8, max_concurrent_requests=4)


def after(server: ScriptedServer, requests: int, **fault: Any) -> None:
    """Let *server* answer that many more *requests*, and then with the *fault*."""
    last = len(server.received) + requests
    server.reply_when(lambda request: Scripted(**fault) if len(server.received) > last else Scripted())


async def undisturbed(folder: Path, texts: list[str], make_embedder: MakeEmbedder, name: str, **options: Any) -> Any:
    """The files that a run makes to which nothing happens."""
    source = corpus(folder, texts)
    async with make_embedder(transport=ScriptedServer(), limits=SMALL, max_input_tokens=100_000) as embedder:
        await jobs.run(source, folder / name, embedder, **options)
    return contents(folder)


@DESTINATIONS
async def test_a_run_goes_on_where_it_stopped(
    tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder, destination: str
) -> None:
    """Stopped again and again by its budget, it sends each text once, and ends with the bytes of a run in one go."""
    texts = mixed_texts(300)
    options: dict[str, Any] = {"id_column": "id", "keep_text": True, "part_rows": 64}
    expected = await undisturbed(tmp_path / "whole", texts, make_embedder, destination, **options)
    folder = tmp_path / "again"
    source, target, runs = corpus(folder, texts), folder / destination, 0

    async with make_embedder(limits=SMALL, max_input_tokens=100_000) as embedder:
        while not target.exists():
            runs += 1
            try:
                summary = await jobs.run(source, target, embedder, max_spend_tokens=60_000, **options)
            except SpendLimitError:
                assert not target.exists()

    assert runs > 2
    assert sorted(sent(server)) == sorted(texts)
    assert contents(folder) == expected
    assert (summary.runs, summary.embedded) == (runs, 300)
    assert summary.usage.requests == len(server.received)


@DESTINATIONS
async def test_a_finished_job_sends_nothing(
    tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder, destination: str
) -> None:
    """The same call again gives the same summary, and touches no file."""
    source, target = corpus(tmp_path, ["a", "b", ""]), tmp_path / destination
    async with make_embedder() as embedder:
        first = await jobs.run(source, target, embedder)
        before = contents(tmp_path)
        server.received.clear()
        again = await jobs.run(source, target, embedder)

    assert server.received == []
    assert again == first
    assert contents(tmp_path) == before


async def test_cancelled_at_any_request_it_goes_on(
    tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """Cancelled when a request hangs: no more is sent twice than was in flight."""
    texts = [f"text {n}" for n in range(200)]
    source, target = corpus(tmp_path, texts), tmp_path / "v.npy"
    cancelled = 0
    for _ in range(6):
        after(server, 5, after=60)
        async with make_embedder(limits=SMALL) as embedder:
            with anyio.move_on_after(0.3) as scope:
                await jobs.run(source, target, embedder, part_rows=50)
            cancelled += scope.cancelled_caught
    server.reply_when(lambda request: Scripted())
    async with make_embedder(limits=SMALL) as embedder:
        await jobs.run(source, target, embedder, part_rows=50)

    assert cancelled >= 4
    assert set(sent(server)) == set(texts)
    assert len(sent(server)) <= 200 + cancelled * 4 * 8
    np.testing.assert_array_equal(np.load(target), [server.vector_of(text) for text in texts])


async def test_documents_of_several_chunks_go_on(
    tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """Chunks that were answered are not sent again, and their mean has the same bits."""
    texts = [f"{n} " + "words of a long document " * 30 for n in range(20)]
    options: dict[str, Any] = {"part_rows": 6}
    short: dict[str, Any] = {
        "limits": Limits(max_batch_inputs=3, max_concurrent_requests=1),
        "max_input_tokens": 100,
        "tokenizer": ByteBound(),
    }
    async with make_embedder(**short) as embedder:
        await jobs.run(corpus(tmp_path / "whole", texts), tmp_path / "whole" / "v.npy", embedder, **options)
    in_one_go = sent(server)
    server.received.clear()

    source, target = corpus(tmp_path, texts), tmp_path / "v.npy"
    while not target.exists():
        async with make_embedder(**short) as embedder:
            with contextlib.suppress(SpendLimitError):
                await jobs.run(source, target, embedder, max_spend_tokens=3_000, **options)

    assert sorted(sent(server)) == sorted(in_one_go)
    np.testing.assert_array_equal(np.load(target), np.load(tmp_path / "whole" / "v.npy"))


async def test_another_job_is_refused(tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """Another model, another column or another source: nothing is sent, and the error says what was and what is."""
    source, target = corpus(tmp_path, ["a", "b"]), tmp_path / "v.npy"
    async with make_embedder() as embedder:
        await jobs.run(source, target, embedder)
    server.received.clear()
    before = contents(tmp_path)

    async with make_embedder("other-model", max_input_tokens=7) as embedder:
        with pytest.raises(ConfigurationError) as caught:
            await jobs.run(source, target, embedder, id_column="id")
    assert "model was 'test-model' and is 'other-model'" in str(caught.value)
    assert "max_input_tokens was 8191 and is 7" in str(caught.value) or "max_input_tokens was" in str(caught.value)
    assert "id_column was None and is 'id'" in str(caught.value)

    async with make_embedder() as embedder:
        corpus(tmp_path, ["a", "b", "c"])
        with pytest.raises(ConfigurationError, match="has grown since this job began"):
            await jobs.run(source, target, embedder)
        corpus(tmp_path, ["x", "b"])
        with pytest.raises(ConfigurationError, match="is not what it was since this job began"):
            await jobs.run(source, target, embedder)
        corpus(tmp_path, ["a", "b"])  # written anew, with the same bytes
        await jobs.run(source, target, embedder)

    assert server.received == []
    assert contents(tmp_path) == before


async def test_fresh_starts_over(tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """What another model had made is replaced, when all is there."""
    source, target = corpus(tmp_path, ["a", "b"]), tmp_path / "v.npy"
    async with make_embedder() as embedder:
        await jobs.run(source, target, embedder)
    async with make_embedder("other-model") as embedder:
        await jobs.run(source, target, embedder, fresh=True)

    assert sent(server) == ["a", "b", "a", "b"]
    assert jobs.read_origin(target).model == "other-model"


async def test_two_runs_do_not_share_a_destination(
    tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """While one is at it the second is refused, and the first does not notice."""
    source, target = corpus(tmp_path, ["a", "b"]), tmp_path / "v.npy"
    refused: list[str] = []
    server.reply_when(lambda request: Scripted(after=0.2))

    async def second() -> None:
        await anyio.sleep(0.1)
        async with make_embedder() as embedder:
            with pytest.raises(ConfigurationError, match="another run is writing") as caught:
                await jobs.run(source, target, embedder)
        refused.append(str(caught.value))

    async with make_embedder() as embedder, anyio.create_task_group() as tasks:
        tasks.start_soon(second)
        await jobs.run(source, target, embedder)

    assert len(refused) == 1
    assert len(np.load(target)) == 2


async def test_a_damaged_segment_costs_only_what_was_damaged(
    tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """One bit of one row is wrong: the rows that were written with it are asked for again, the others are not."""
    texts = [f"text {n}" for n in range(100)]
    source, target = corpus(tmp_path, texts), tmp_path / "v.npy"
    after(server, 8, **NO_CREDIT)
    async with make_embedder(limits=Limits(max_batch_inputs=8, max_concurrent_requests=1)) as embedder:
        with pytest.raises(RunStoppedError):
            await jobs.run(source, target, embedder)
    segment = tmp_path / "v.npy.journal" / "vectors.npy"
    data = bytearray(segment.read_bytes())
    data[128 + 9 * 8 * 4] ^= 1
    segment.write_bytes(data)
    server.reply_when(lambda request: Scripted())
    server.received.clear()
    async with make_embedder(limits=SMALL) as embedder:
        await jobs.run(source, target, embedder)

    assert set(texts[8:16]) <= set(sent(server))
    assert not set(texts[:8] + texts[16:60]) & set(sent(server))
    np.testing.assert_array_equal(np.load(target), [server.vector_of(text) for text in texts])


@pytest.mark.parametrize("damage", ["changed", "gone"])
@pytest.mark.parametrize(
    ("destination", "part"),
    [
        ("v.npy", "ids-000001.jsonl"),
        ("v.parquet", "part-000001.arrow"),
        ("v", "result/part-000001.parquet"),
        ("v.jsonl.gz", "part-000001.jsonl"),
        ("v.jsonl.zst", "part-000001.jsonl"),
    ],
)
async def test_a_damaged_part_is_made_again(
    tmp_path: Path, make_embedder: MakeEmbedder, destination: str, part: str, damage: str
) -> None:
    """Something has happened to it between two runs: it is told, no result is made of it, and the next run is right."""
    texts = [f"text {n}" for n in range(60)]
    options: dict[str, Any] = {"id_column": "id", "part_rows": 8}
    expected = await undisturbed(tmp_path / "whole", texts, make_embedder, destination, **options)
    folder = tmp_path / "again"
    source, target = corpus(folder, texts), folder / destination
    path = folder / f"{destination}.journal" / part
    async with make_embedder(limits=Limits(max_batch_inputs=8, max_concurrent_requests=1)) as embedder:
        while not path.exists():
            with pytest.raises(SpendLimitError):
                await jobs.run(source, target, embedder, max_spend_tokens=15, **options)
        if damage == "changed":
            data = path.read_bytes()
            path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
        else:
            path.unlink()

        with pytest.raises(JournalError, match="1 parts of the result are damaged"):
            await jobs.run(source, target, embedder, **options)
        assert not target.exists()
        await jobs.run(source, target, embedder, **options)

    assert contents(folder) == expected


async def test_a_damaged_ledger_is_named(tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """It is not used, and nothing is sent; what lies around stays."""
    source, target = corpus(tmp_path, ["a", "b"]), tmp_path / "v.npy"
    async with make_embedder() as embedder:
        await jobs.run(source, target, embedder)
        ledger = tmp_path / "v.npy.journal" / "ledger.sqlite"
        ledger.write_bytes(b"garbage" * 1_000)
        with pytest.raises(JournalError, match=r"ledger\.sqlite: file is not a database"):
            await jobs.run(source, target, embedder)

    assert sent(server) == ["a", "b"]
    assert len(np.load(target)) == 2


async def test_a_ledger_of_another_version_is_named(tmp_path: Path, make_embedder: MakeEmbedder) -> None:
    """A format that is not known is not guessed at."""
    source, target = corpus(tmp_path, ["a"]), tmp_path / "v.npy"
    async with make_embedder() as embedder:
        await jobs.run(source, target, embedder)
        with sqlite3.connect(tmp_path / "v.npy.journal" / "ledger.sqlite") as ledger:
            ledger.execute("PRAGMA user_version = 99")
        ledger.close()
        with pytest.raises(JournalError, match="another version of embedbatch"):
            await jobs.run(source, target, embedder)


async def test_vectors_of_another_size_are_not_mixed(tmp_path: Path, make_embedder: MakeEmbedder) -> None:
    """The provider changes the model behind the name: the run stops before one of its vectors is kept."""
    texts = [f"text {n}" for n in range(40)]
    source, target = corpus(tmp_path, texts), tmp_path / "v.npy"
    server = ScriptedServer()
    after(server, 3, **NO_CREDIT)
    async with make_embedder(transport=server, limits=SMALL) as embedder:
        with pytest.raises(RunStoppedError):
            await jobs.run(source, target, embedder)

    async with make_embedder(transport=ScriptedServer(dimensions=16), limits=SMALL) as embedder:
        with pytest.raises(DimensionsError, match="this job has vectors of 8 numbers, and the endpoint has sent 16"):
            await jobs.run(source, target, embedder)

    async with make_embedder(transport=ScriptedServer(), limits=SMALL) as embedder:
        await jobs.run(source, target, embedder)
    np.testing.assert_array_equal(np.load(target), [server.vector_of(text) for text in texts])


async def test_a_run_can_be_stopped(tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """Nothing more is sent once *stop* is set; what is in flight is waited for and kept."""
    texts = [f"text {n}" for n in range(100)]
    source, target = corpus(tmp_path, texts), tmp_path / "v.npy"
    stop = anyio.Event()

    def reply(request: Any) -> Scripted:
        if request.number == 6:
            stop.set()
        return Scripted(after=0.02)

    server.reply_when(reply)
    async with make_embedder(limits=SMALL) as embedder:
        with pytest.raises(RunStoppedError, match="the run was stopped") as caught:
            await jobs.run(source, target, embedder, stop=stop)
        done = len(sent(server))
        assert f"{done} of 100 documents are done" in caught.value.__notes__[0]
        assert done < 100
        await jobs.run(source, target, embedder)

    assert sorted(sent(server)) == sorted(texts)


async def test_what_cannot_be_embedded_is_not_asked_for_again(
    tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """A refused document is remembered when the job goes on; one whose attempts failed is tried again."""
    texts = ["a", "poison", "b", "c", "d", "e"]
    source, target = corpus(tmp_path, texts), tmp_path / "v.npy"

    def reply(request: Any) -> Scripted | None:
        if "poison" in request.inputs:
            return Scripted(status=400)
        return Scripted(**NO_CREDIT) if request.number >= 5 else None

    server.reply_when(reply)
    one = Limits(max_batch_inputs=1, max_concurrent_requests=1)
    async with make_embedder(limits=one) as embedder:
        with pytest.raises(RunStoppedError):
            await jobs.run(source, target, embedder)
    server.reply_when(lambda request: Scripted())
    async with make_embedder(limits=one) as embedder:
        summary = await jobs.run(source, target, embedder)

    assert sent(server).count("poison") == 1
    assert (summary.embedded, summary.failures) == (5, 1)
    assert names(tmp_path) >= {"v.npy", "v.npy.failures.jsonl"}
