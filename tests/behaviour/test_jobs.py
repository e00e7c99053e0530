"""A corpus file in, a file of vectors out: every row, every id, every failure."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from embedbatch import ConfigurationError, Embedder, Endpoint, Limits, Retries, SourceError, jobs
from embedbatch.testing import Scripted, ScriptedServer

from .conftest import MakeEmbedder
from .corpora import DESTINATIONS, corpus, failures_of, mixed_texts, names, read, write_jsonl

# Files are written in threads, during which virtual time would jump: these run on both loops in real time.
pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("both_backends")]


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
    """A document that was tried three times, while others succeeded, says so."""
    server.reply_when(lambda request: Scripted(status=500) if request.inputs == ["b"] else Scripted(after=0.005))
    rows = [{"text": text} for text in ["a", "b", *(f"text {n}" for n in range(50))]]
    source, target = write_jsonl(tmp_path / "c.jsonl", rows), tmp_path / "v.npy"

    retries = Retries(max_attempts=3, initial_wait=0.05)
    async with make_embedder(limits=Limits(max_batch_inputs=1), retries=retries) as embedder:
        await jobs.run(source, target, embedder)

    (failure,) = failures_of(target)
    assert (failure["id"], failure["error"], failure["attempts"]) == (1, "ServerError", 3)
    assert sum(request.inputs == ["b"] for request in server.received) == 3


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


async def test_the_name_of_a_model_is_no_embedder(tmp_path: Path) -> None:
    """It is for `run_blocking()`, and the error says so."""
    with pytest.raises(ConfigurationError, match=r"expected an Embedder, got 'local'; run_blocking\(\) takes"):
        await jobs.run(corpus(tmp_path, ["a"]), tmp_path / "v.npy", "local")  # type: ignore[arg-type]


async def test_results_of_several_jobs_in_one_folder_are_not_searched(
    tmp_path: Path, make_embedder: MakeEmbedder
) -> None:
    """Their vectors are of different models, and cannot be compared with one query."""
    for model in ("one", "other"):
        async with make_embedder(model=model) as embedder:
            await jobs.run(corpus(tmp_path / model, ["a"]), tmp_path / f"{model}.parquet", embedder)
    folder = tmp_path / "folder"
    folder.mkdir()
    for model in ("one", "other"):
        (tmp_path / f"{model}.parquet").rename(folder / f"{model}.parquet")

    with pytest.raises(SourceError, match="not the result of one job"):
        jobs.search(folder, [1.0, 0.0])


async def test_a_newer_version_may_have_gone_on_with_a_job(tmp_path: Path, make_embedder: MakeEmbedder) -> None:
    """The files of one folder tell different versions: they belong together all the same."""
    async with make_embedder() as embedder:
        await jobs.run(corpus(tmp_path, ["a", "b"]), tmp_path / "v", embedder, part_rows=1)
    last = max((tmp_path / "v").glob("*.parquet"))
    table = pq.read_table(last)
    metadata = {key: re.sub(rb'("version":")[^"]*', rb"\g<1>99", value) for key, value in table.schema.metadata.items()}
    pq.write_table(table.replace_schema_metadata(metadata), last)

    assert b'"version":"99"' in pq.read_schema(last).metadata[b"embedbatch"]
    assert len(jobs.search(tmp_path / "v", np.ones(read(tmp_path / "v")[1].shape[1]))) == 2
