"""Equal documents, and those of an earlier run, are not sent again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedbatch import Limits, RunStoppedError, jobs
from embedbatch.cache import Cache
from embedbatch.testing import Received, Scripted, ScriptedServer

from .conftest import MakeEmbedder
from .corpora import DESTINATIONS, corpus, failures_of, read, sent

# Files are written in threads, during which virtual time would jump: these run on both loops in real time.
pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("both_backends")]

SMALL = Limits(max_batch_inputs=8, max_concurrent_requests=4)


@DESTINATIONS
async def test_equal_documents_are_sent_once(
    tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder, destination: str
) -> None:
    """Of 300 documents two thirds are repetitions, near and far: each text is sent once, each row has its vector."""
    texts = [f"text {n % 100}" for n in range(300)]
    source, target = corpus(tmp_path, texts), tmp_path / destination

    async with make_embedder(limits=SMALL, count_tokens=True) as embedder:
        summary = await jobs.run(source, target, embedder, id_column="id", part_rows=40)

    ids, vectors, tokens = read(target)
    assert sorted(sent(server)) == sorted(set(texts))
    assert ids == [f"d{n}" for n in range(300)]
    np.testing.assert_array_equal(vectors, [server.vector_of(text) for text in texts])
    assert tokens[:100] == tokens[100:200] == tokens[200:]
    assert (summary.embedded, summary.duplicates) == (300, 200)


async def test_duplicates_of_a_failure_fail(
    tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """What is refused is refused once, and every document with that text is listed with its own id and line."""
    server.reply_when(lambda request: Scripted(status=400) if "poison" in request.inputs else None)
    texts = ["a", "poison", "b", "poison", "", "c", "poison", ""]
    source, target = corpus(tmp_path, texts), tmp_path / "v.parquet"

    async with make_embedder(limits=Limits(max_batch_inputs=1)) as embedder:
        summary = await jobs.run(source, target, embedder, id_column="id", part_rows=2)

    assert sent(server).count("poison") == 1
    listed = [(each["id"], each["line"], each["error"]) for each in failures_of(target)]
    refused, empty = "RequestRefusedError", "EmptyInputError"
    assert listed == [("d1", 2, refused), ("d3", 4, refused), ("d4", 5, empty), ("d6", 7, refused), ("d7", 8, empty)]
    assert (summary.embedded, summary.failures) == (3, 5)
    np.testing.assert_array_equal(np.isnan(read(target)[1]).any(axis=1), [text in ("poison", "") for text in texts])


async def test_without_dedupe_each_document_is_sent(
    tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """dedupe=False sends equal documents as often as they come."""
    async with make_embedder() as embedder:
        summary = await jobs.run(corpus(tmp_path, ["a", "a", "b"]), tmp_path / "v.npy", embedder, dedupe=False)

    assert sent(server) == ["a", "a", "b"]
    assert summary.duplicates == 0


async def test_a_cache_sends_only_what_is_new(
    tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """A second job with most of the same texts sends the others; a third with none new sends nothing."""
    first, second = [f"text {n}" for n in range(100)], [f"text {n}" for n in range(20, 130)]
    results: list[Any] = []
    with Cache(tmp_path / "cache") as cache:
        for name, texts in (("1", first), ("2", second), ("3", second)):
            async with make_embedder(limits=SMALL, cache=cache) as embedder:
                summary = await jobs.run(corpus(tmp_path / name, texts), tmp_path / name / "v.npy", embedder)
            results.append((np.load(tmp_path / name / "v.npy"), summary.usage.requests))
        sent_texts = sent(server)

    assert sorted(sent_texts) == sorted(set(first + second))
    assert results[2][1] == 0
    np.testing.assert_array_equal(results[1][0], [server.vector_of(text) for text in second])
    np.testing.assert_array_equal(results[1][0], results[2][0])


async def test_what_a_server_taught_is_known_to_the_next_run(tmp_path: Path, make_embedder: MakeEmbedder) -> None:
    """No base64 and at most four inputs: refusals teach it once, and a run that goes on begins with it."""
    server = ScriptedServer()
    no_credit = Scripted(status=429, body={"error": {"message": "no", "code": "insufficient_quota"}})
    may_stop = True

    def reply(request: Received) -> Scripted:
        if may_stop and len(server.received) > 30:
            return no_credit
        if request.body.get("encoding_format") == "base64":
            return Scripted(status=400, body={"error": {"message": "encoding_format base64 is not supported"}})
        return Scripted(status=400 if len(request.inputs) > 4 else 200)

    server.reply_when(reply)
    source, target = corpus(tmp_path, [f"text {n}" for n in range(200)]), tmp_path / "v.npy"
    options: dict[str, Any] = {"transport": server, "limits": Limits(max_batch_inputs=16, max_concurrent_requests=2)}
    async with make_embedder(**options) as embedder:
        with pytest.raises(RunStoppedError):
            await jobs.run(source, target, embedder)
    may_stop = False
    learned = [request for request in server.received if len(request.inputs) > 4]
    server.received.clear()
    async with make_embedder(**options) as embedder:
        await jobs.run(source, target, embedder)

    assert learned
    assert not [request for request in server.received if len(request.inputs) > 4]
    assert not [request for request in server.received if request.body.get("encoding_format") == "base64"]
    np.testing.assert_array_equal(np.load(target), [server.vector_of(f"text {n}") for n in range(200)])
