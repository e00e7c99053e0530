"""A corpus in a file, vectors out to a file: every vector at its own text, and nothing half-written."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pyarrow.parquet as pq
import pytest

from embedbatch import (
    ConfigurationError,
    Embedder,
    Endpoint,
    Limits,
    Retries,
    RunStoppedError,
    SourceError,
    SpendLimitError,
    jobs,
)
from embedbatch.testing import Scripted, ScriptedServer

from .conftest import MakeEmbedder

# Files are written in threads, during which virtual time would jump: these run on both loops in real time.
pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("both_backends")]

DESTINATIONS = pytest.mark.parametrize("destination", ["vectors.parquet", "vectors.npy"])

PIECES = ["word", "naïve", "北京市", "Привет", "🌊👩‍👧", "if (x < 1) { return; }", "\t", "<|endoftext|>", "नमस्ते"]


def mixed_texts(count: int) -> list[str]:
    """Texts of several scripts, most of them short, some of 20 kB."""
    rng = random.Random(7)
    return [f"{n} " + " ".join(rng.choices(PIECES, k=int(2 ** rng.uniform(0, 11)))) for n in range(count)]


def write_jsonl(path: Path, rows: Iterable[Any]) -> Path:
    """A corpus of *rows*."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path) -> tuple[list[Any], np.ndarray[Any, Any], list[int | None]]:
    """The ids, the vectors (NaN where there is none) and the tokens in a destination, read without embedbatch."""
    if path.suffix == ".npy":
        entries = list(map(json.loads, Path(f"{path}.ids.jsonl").read_text().splitlines()))
        return [entry["id"] for entry in entries], np.load(path), [entry["tokens"] for entry in entries]
    table = pq.read_table(path)
    dimensions = table.schema.field("vector").type.list_size
    rows = [row or [np.nan] * dimensions for row in table.column("vector").to_pylist()]
    return table.column("id").to_pylist(), np.array(rows, np.float32), table.column("tokens").to_pylist()


def contents(folder: Path) -> dict[str, bytes]:
    """What is in the files in *folder*, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def failures_of(path: Path) -> list[dict[str, Any]]:
    """What the failures file of a destination lists."""
    return list(map(json.loads, Path(f"{path}.failures.jsonl").read_text().splitlines()))


def names(folder: Path) -> set[str]:
    """What is in *folder*."""
    return {path.name for path in folder.iterdir()}


@DESTINATIONS
@pytest.mark.parametrize("suffix", [".jsonl", ".txt"])
async def test_every_vector_belongs_to_its_text(
    tmp_path: Path, make_embedder: MakeEmbedder, suffix: str, destination: str
) -> None:
    """1,000 mixed documents from a server that answers out of order: each source to each destination, bit by bit."""
    server = ScriptedServer(latency=lambda request: 0.02 * (request.number * 7 % 5))
    texts = mixed_texts(1_000)
    source = tmp_path / f"corpus{suffix}"
    if suffix == ".txt":
        source.write_text("".join(f"{text}\n" for text in texts))
    else:
        write_jsonl(source, ({"key": f"d{n}", "body": text} for n, text in enumerate(texts)))
    columns: dict[str, Any] = {} if suffix == ".txt" else {"text_column": "body", "id_column": "key"}

    async with make_embedder(
        transport=server, limits=Limits(max_batch_inputs=32), max_input_tokens=100_000
    ) as embedder:
        summary = await jobs.run(source, tmp_path / destination, embedder, **columns)

    ids, vectors, _ = read(tmp_path / destination)
    assert ids == (list(range(1_000)) if suffix == ".txt" else [f"d{n}" for n in range(1_000)])
    np.testing.assert_array_equal(vectors, np.stack([server.vector_of(text) for text in texts]))
    assert (summary.documents, summary.embedded, summary.failures, summary.dimensions) == (1_000, 1_000, 0, 8)
    assert summary.usage.requests == len(server.received)


@DESTINATIONS
async def test_a_failed_document_keeps_its_row(tmp_path: Path, make_embedder: MakeEmbedder, destination: str) -> None:
    """What is no text, blank, or refused by the server is a row without a vector, and a line in the failures file."""
    server = ScriptedServer()
    server.reply_when(
        lambda request: Scripted(status=400, body={"error": {"message": "no"}}) if "poison" in request.inputs else None
    )
    rows = [
        {"text": "a"},
        {"text": None},
        {"text": 3},
        {"text": {}},
        {},
        {"text": " "},
        {"text": "poison"},
        {"text": "z"},
    ]
    source, target = write_jsonl(tmp_path / "c.jsonl", rows), tmp_path / destination

    limits = Limits(max_batch_inputs=1, max_concurrent_requests=1)
    async with make_embedder(transport=server, limits=limits) as embedder:
        summary = await jobs.run(source, target, embedder)

    _, vectors, _ = read(target)
    np.testing.assert_array_equal(np.isnan(vectors).any(axis=1), [False, True, True, True, True, True, True, False])
    np.testing.assert_array_equal(vectors[7], server.vector_of("z"))
    listed = [(entry["id"], entry["line"], entry["error"], entry["attempts"]) for entry in failures_of(target)]
    assert listed == [
        (1, 2, "InvalidInputError", 0),
        (2, 3, "InvalidInputError", 0),
        (3, 4, "InvalidInputError", 0),
        (4, 5, "InvalidInputError", 0),
        (5, 6, "EmptyInputError", 0),
        (6, 7, "RequestRefusedError", 1),
    ]
    assert all(entry["reason"] for entry in failures_of(target))
    assert (summary.embedded, summary.failures, summary.skipped) == (2, 6, 0)
    assert summary.failures_file == Path(f"{target}.failures.jsonl")


async def test_attempts_are_counted(tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """A document that was tried three times says so."""
    server.reply_when(lambda request: Scripted(status=500) if request.inputs == ["b"] else None)
    source, target = write_jsonl(tmp_path / "c.jsonl", [{"text": "a"}, {"text": "b"}]), tmp_path / "v.npy"

    retries = Retries(max_attempts=3, initial_wait=0.001)
    async with make_embedder(limits=Limits(max_batch_inputs=1), retries=retries) as embedder:
        await jobs.run(source, target, embedder)

    assert [(entry["error"], entry["attempts"]) for entry in failures_of(target)] == [("ServerError", 3)]


@DESTINATIONS
async def test_skipped_documents_are_no_failures(tmp_path: Path, make_embedder: MakeEmbedder, destination: str) -> None:
    """With empty="skip" a blank line is a row without a vector, and there is no failures file."""
    (tmp_path / "c.txt").write_text("a\n\nb\n")

    async with make_embedder(empty="skip") as embedder:
        summary = await jobs.run(tmp_path / "c.txt", tmp_path / destination, embedder)

    _, vectors, _ = read(tmp_path / destination)
    assert np.isnan(vectors).any(axis=1).tolist() == [False, True, False]
    assert (summary.embedded, summary.failures, summary.skipped, summary.failures_file) == (2, 0, 1, None)
    assert f"{destination}.failures.jsonl" not in names(tmp_path)


@DESTINATIONS
async def test_duplicate_ids_keep_every_row(
    tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder, destination: str
) -> None:
    """Rows are told apart by their place, not by their id."""
    rows = [{"id": "x", "text": "a"}, {"id": "x", "text": "b"}, {"id": "x", "text": "a"}]
    source = write_jsonl(tmp_path / "c.jsonl", rows)

    async with make_embedder() as embedder:
        await jobs.run(source, tmp_path / destination, embedder, id_column="id")

    ids, vectors, _ = read(tmp_path / destination)
    assert ids == ["x", "x", "x"]
    np.testing.assert_array_equal(vectors, np.stack([server.vector_of(text) for text in ("a", "b", "a")]))


@DESTINATIONS
async def test_tokens_and_texts_are_written_when_asked_for(
    tmp_path: Path, make_embedder: MakeEmbedder, destination: str
) -> None:
    """Exact counts where the embedder counts; the texts as they were sent, which is without lone surrogates."""
    source = write_jsonl(tmp_path / "c.jsonl", [{"text": "hello world"}, {"text": "a\ud800"}, {"text": [15339, 1917]}])
    target = tmp_path / destination

    async with make_embedder("text-embedding-3-small", dimensions=8, count_tokens=True) as embedder:
        await jobs.run(source, target, embedder, keep_text=True)

    _, _, tokens = read(target)
    texts = [match.text for match in sorted(jobs.search(target, [1.0] * 8, 3), key=lambda match: match.row)]
    assert tokens[0] == 2
    assert texts == ["hello world", "a\ufffd", None]


@DESTINATIONS
async def test_a_source_without_documents_is_an_empty_result(
    tmp_path: Path, make_embedder: MakeEmbedder, destination: str
) -> None:
    """An empty file gives a valid file with no rows; nothing is sent."""
    (tmp_path / "c.jsonl").touch()

    async with make_embedder("text-embedding-3-small") as embedder:
        summary = await jobs.run(tmp_path / "c.jsonl", tmp_path / destination, embedder)

    ids, vectors, _ = read(tmp_path / destination)
    assert (len(ids), len(vectors)) == (0, 0)
    assert (summary.documents, summary.dimensions, summary.usage.requests) == (0, 1_536, 0)


@DESTINATIONS
async def test_a_corpus_of_failures_is_a_result_without_vectors(
    tmp_path: Path, make_embedder: MakeEmbedder, destination: str
) -> None:
    """Where no document can be embedded and the size is not known, every row is there, and none has a vector."""
    (tmp_path / "c.txt").write_text("\n\n\n")
    target = tmp_path / destination

    async with make_embedder() as embedder:
        summary = await jobs.run(tmp_path / "c.txt", target, embedder)

    assert len(read(target)[0]) == 3
    assert len(failures_of(target)) == 3
    assert (summary.embedded, summary.dimensions) == (0, None)
    assert jobs.search(target, [1.0]) == []


@DESTINATIONS
async def test_the_origin_is_recorded(tmp_path: Path, server: ScriptedServer, destination: str) -> None:
    """Model, dimensions, endpoint and address are in the file, without the password in the address."""
    (tmp_path / "c.txt").write_text("a\n")
    endpoint = Endpoint(name="gateway", base_url="http://user:secret@test/v1?key=secret")

    async with Embedder("test-model", endpoint=endpoint, transport=server) as embedder:
        await jobs.run(tmp_path / "c.txt", tmp_path / destination, embedder)

    origin = jobs.read_origin(tmp_path / destination)
    assert (origin.model, origin.dimensions, origin.endpoint) == ("test-model", 8, "gateway")
    assert origin.base_url == "http://test/v1"


async def test_the_address_is_recorded_where_it_was_an_argument(tmp_path: Path, make_embedder: MakeEmbedder) -> None:
    """A query has to go to the server that made the vectors, so base_url= is in the file."""
    (tmp_path / "c.txt").write_text("a\n")

    async with make_embedder(base_url="http://test/v1") as embedder:
        await jobs.run(tmp_path / "c.txt", tmp_path / "v.npy", embedder)

    assert jobs.read_origin(tmp_path / "v.npy").base_url == "http://test/v1"


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
        source.write_text("some words\n" * 1_000)
        before = contents(tmp_path)

        with pytest.raises(SpendLimitError) as caught:
            await jobs.run(source, target, embedder, max_spend_tokens=1_000)

    assert 20 < len(server.received) < 100
    assert caught.value.__notes__ == [f"Nothing was written to {target}."]
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
    """A file that is spoilt between its two readings is named, and no file of the result is left."""
    source = write_jsonl(tmp_path / "c.jsonl", [{"text": f"text {n}"} for n in range(100)])

    def spoil(progress: jobs.Progress) -> None:
        if progress.documents == 0:
            source.write_text('{"text": "a"}\n{"text": ')

    async with make_embedder() as embedder:
        with pytest.raises(SourceError, match="line 2: invalid JSON"):
            await jobs.run(source, tmp_path / destination, embedder, progress=spoil)

    assert names(tmp_path) == {"c.jsonl"}


@DESTINATIONS
async def test_a_cancelled_job_leaves_nothing(
    tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder, destination: str
) -> None:
    """Cancelled while the server is silent: the directory is as it was."""
    server.reply_when(lambda request: Scripted(after=60) if request.number > 3 else None)
    (tmp_path / "c.txt").write_text("a\n" * 100)

    async with make_embedder(limits=Limits(max_batch_inputs=4)) as embedder:
        with anyio.move_on_after(0.2) as scope:
            await jobs.run(tmp_path / "c.txt", tmp_path / destination, embedder)

    assert scope.cancelled_caught
    assert names(tmp_path) == {"c.txt"}
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
        await jobs.run(source, target, embedder)

    assert before == {"c.txt", "v.parquet", "v.parquet.failures.jsonl"}
    assert names(tmp_path) == {"c.txt", "v.parquet"}


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
async def test_a_job_cancelled_by_asyncio_itself_leaves_nothing(tmp_path: Path, make_embedder: MakeEmbedder) -> None:
    """task.cancel() does not wait for threads as anyio does: at whatever moment it comes, no draft is left."""
    (tmp_path / "c.txt").write_text("some text\n" * 2_000)

    for moment in range(20):
        async with make_embedder() as embedder:
            job = asyncio.create_task(jobs.run(tmp_path / "c.txt", tmp_path / "v.parquet", embedder))
            await asyncio.sleep(0.01 * moment)
            job.cancel()
            await asyncio.gather(job, return_exceptions=True)

        assert names(tmp_path) - {"v.parquet"} == {"c.txt"}


@pytest.mark.parametrize("both_backends", ["asyncio"])
async def test_a_script_can_wait_for_a_job(tmp_path: Path) -> None:
    """run_blocking does the same without async code, also where a loop is running, as in a notebook."""
    (tmp_path / "c.txt").write_text("compress data\nparse text\n")

    summary = jobs.run_blocking(tmp_path / "c.txt", tmp_path / "v.npy", "local", count_tokens=True)

    assert (summary.documents, summary.dimensions) == (2, 256)
    assert jobs.read_origin(tmp_path / "v.npy").base_url is None
    assert np.load(tmp_path / "v.npy").shape == (2, 256)
