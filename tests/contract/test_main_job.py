"""
The main job on real input: 20,000 documents against a server that answers late and in any order.

The documents are of 10 bytes to 200 kB, in seven scripts; the server, in a process of its own, shuffles the items of
every reply, takes up to 30 ms for it, refuses a request now and then, and derives each vector from its text. So every
vector can be held against the very text that it should belong to.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import anyio
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest

from embedbatch import Cut, Document, DocumentCut, Embedder, Embedding, Event, Retries, jobs
from embedbatch.plan.tokens import cl100k_base
from embedbatch.testing.server import vector_of

from .corpus import in_one_line, make_corpus
from .loopback import ROOT, serve_in_a_process

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

Vectors = npt.NDArray[np.float32]

MODEL = "text-embedding-3-small"
DIMENSIONS = 32
LIMIT = 8_192  # tokens
SEED = 2


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server that refuses one request in ten at first."""
    with serve_in_a_process(seed=SEED, refuse=0.1) as base_url:
        yield base_url


@pytest.fixture(scope="module")
def corpus() -> list[str]:
    """The documents."""
    return make_corpus(SEED)


@functools.cache
def count(text: str) -> int:
    """The tokens of *text*."""
    return cl100k_base().count(text)


def sent_parts(texts: list[str], cuts: Iterable[Cut]) -> list[str]:
    """What of each text was sent: the part that its cut names, or all of it."""
    ends = {cut.position: cut.spans[0][1] for cut in cuts}
    return [text[: ends.get(position)] for position, text in enumerate(texts)]


class Watch:
    """Notes the documents that were cut."""

    def __init__(self) -> None:
        self.cuts: list[Cut] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, DocumentCut):
            self.cuts.append(event.cut)


def connect(server: str, **options: Any) -> Embedder:
    """An embedder that cuts off what is too long, does not wait long, and has seeded dice."""
    defaults = {"long_input": "truncate", "retries": Retries(initial_wait=0.01), "rng": Random(SEED)}
    return Embedder(MODEL, base_url=server, dimensions=DIMENSIONS, **{**defaults, **options})


def assert_each_has_its_own(vectors: Vectors, sent: list[str]) -> None:
    """Assert that every row is, bit by bit, the vector of its text."""
    expected = np.stack([vector_of(text, DIMENSIONS) for text in sent])
    assert vectors.shape == expected.shape
    wrong = np.flatnonzero((vectors != expected).any(axis=1))
    assert not wrong.size, f"{wrong.size:,} rows are not their text's, the first of them {wrong[:5].tolist()}"


def assert_cut_where_they_must_be(cuts: Iterable[Cut], texts: list[str]) -> None:
    """Assert that what is above the limit was cut, and nothing else, and that what was sent is nearly the limit."""
    sizes = enumerate(map(len, map(str.encode, texts)))
    assert {cut.position for cut in cuts} == {at for at, size in sizes if size > LIMIT and count(texts[at]) > LIMIT}
    for cut in cuts:
        ((start, end),) = cut.spans
        assert start == 0
        assert LIMIT * 6 / 7 < count(texts[cut.position][:end]) <= LIMIT


async def test_embed_gives_every_text_its_vector(both_backends: str, server: str, corpus: list[str]) -> None:
    """All 20,000 in one call; exactly those above 8,192 tokens are cut, near the limit; refusals cost nothing."""
    async with connect(server) as embedder:
        embeddings = await embedder.embed(corpus)
        faults = embedder.stats().faults

    assert_cut_where_they_must_be(embeddings.cut, corpus)
    assert_each_has_its_own(embeddings.vectors, sent_parts(corpus, embeddings.cut))
    assert faults
    assert faults.keys() <= {"RateLimited", "Server"}


@pytest.mark.parametrize(
    ("anyio_backend", "source"),
    [("asyncio", "list"), ("trio", "generator"), ("asyncio", "async generator"), ("trio", "async generator")],
)
async def test_a_stream_gives_every_text_its_vector(source: str, server: str, corpus: list[str]) -> None:
    """From whatever can be iterated over, in order."""
    watch = Watch()

    async def read() -> AsyncIterator[str]:
        for text in corpus:
            yield text

    documents: Any = {"list": corpus, "generator": iter(corpus), "async generator": read()}[source]
    async with connect(server, observe=watch) as embedder, embedder.stream(documents) as results:
        gathered = [result async for result in results if isinstance(result, Embedding)]

    assert [result.position for result in gathered] == list(range(len(corpus)))
    assert_each_has_its_own(np.stack([result.vector for result in gathered]), sent_parts(corpus, watch.cuts))


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_split_document_has_the_mean_of_its_parts(server: str, corpus: list[str]) -> None:
    """
    Σ tokensᵢ·vᵢ over the parts, scaled to length 1; the parts are within the limit and joined are the document.

    Every document above 6,000 bytes, which are those of up to 200 kB, among 200 others.
    """
    texts = [text for text in corpus if len(text.encode()) > 6_000] + corpus[:200]

    async with connect(server, long_input="split") as embedder:
        embeddings = await embedder.embed(texts)

    expected = np.stack([vector_of(text, DIMENSIONS) for text in texts])
    for cut in embeddings.cut:
        parts = [texts[cut.position][start:end] for start, end in cut.spans]
        tokens = [count(part) for part in parts]
        assert "".join(parts) == texts[cut.position]
        assert max(tokens) <= LIMIT
        total = sum(n * vector_of(part, DIMENSIONS).astype(float) for n, part in zip(tokens, parts, strict=True))
        expected[cut.position] = total / np.linalg.norm(total)
    assert len(embeddings.cut) > 50
    np.testing.assert_allclose(embeddings.vectors, expected, rtol=1e-5, atol=1e-7)


# From files into files


def write_source(path: Path, texts: list[str]) -> dict[str, Any]:
    """Write *texts* as *path*'s suffix says; return what a job has to be told about it."""
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".txt":
            file.writelines(f"{text}\n" for text in texts)
            return {}
        for number, text in enumerate(texts):
            escaped = number % 2 == 0  # half of them as \u escapes
            file.write(json.dumps({"name": f"document {number}", "body": text}, ensure_ascii=escaped) + "\n")
    return {"text_column": "body", "id_column": "name"}


def expected_ids(source: Path, count: int) -> list[int | str]:
    """The ids that *write_source* has given."""
    return [number if source.suffix == ".txt" else f"document {number}" for number in range(count)]


def read_destination(path: Path) -> tuple[list[int | str], Vectors, list[int | None]]:
    """Ids, vectors and token counts, read without the help of embedbatch."""
    if path.suffix == ".npy":
        lines = path.with_name(path.name + ".ids.jsonl").read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        return [record["id"] for record in records], np.load(path), [record["tokens"] for record in records]
    table = pq.read_table(path)
    vectors = table.column("vector").combine_chunks()
    return (
        table.column("id").to_pylist(),
        vectors.flatten().to_numpy().reshape(-1, vectors.type.list_size),
        table.column("tokens").to_pylist(),
    )


def texts_for(source: Path, corpus: list[str]) -> list[str]:
    """The documents as *source* can hold them."""
    return [in_one_line(text) for text in corpus] if source.suffix == ".txt" else corpus


def assert_counted(tokens: list[int | None], sent: list[str], *, everywhere: bool) -> None:
    """Assert that counts are the tokenizer's: *everywhere*, or where the bytes alone do not prove that a text fits."""
    counted = {position for position, number in enumerate(tokens) if number is not None}
    long = {position for position, text in enumerate(sent) if len(text.encode()) > LIMIT}
    assert counted == set(range(len(sent))) if everywhere else counted >= long
    sample = [*long, *Random(SEED).sample(sorted(counted), 50)]
    assert [tokens[position] for position in sample] == [count(sent[position]) for position in sample]


def written_by(source: str, destination: str) -> set[str]:
    """The files of a job in which nothing failed."""
    beside = [".ids.jsonl", ".meta.json", ".journal"] if destination.endswith(".npy") else [".journal"]
    return {source, destination, *(destination + suffix for suffix in beside)}


def files_in(directory: Path) -> set[str]:
    """The names of all files, hidden ones too."""
    return {path.name for path in directory.iterdir()}


@pytest.mark.parametrize(
    ("anyio_backend", "source", "destination"),
    [
        ("asyncio", "corpus.jsonl", "vectors.parquet"),
        ("trio", "corpus.jsonl", "vectors.npy"),
        ("trio", "corpus.txt", "vectors.parquet"),
        ("asyncio", "corpus.txt", "vectors.npy"),
    ],
)
async def test_a_job_gives_every_document_its_vector(
    source: str, destination: str, server: str, corpus: list[str], tmp_path: Path
) -> None:
    """From every kind of file into every other: ids, vectors and counts in their own rows, and no other file."""
    texts = texts_for(tmp_path / source, corpus)
    columns = write_source(tmp_path / source, texts)
    watch = Watch()

    async with connect(server, observe=watch) as embedder:
        summary = await jobs.run(tmp_path / source, tmp_path / destination, embedder, **columns)

    ids, vectors, tokens = read_destination(tmp_path / destination)
    sent = sent_parts(texts, watch.cuts)
    assert (summary.documents, summary.embedded, summary.failures) == (len(texts), len(texts), 0)
    assert ids == expected_ids(tmp_path / source, len(texts))
    assert_each_has_its_own(vectors, sent)
    assert_counted(tokens, sent, everywhere=False)
    assert files_in(tmp_path) == written_by(source, destination)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("source", ["corpus.jsonl", "corpus.txt"])
@pytest.mark.parametrize("destination", ["vectors.parquet", "vectors.npy"])
async def test_the_command_gives_every_document_its_vector(
    source: str, destination: str, server: str, corpus: list[str], tmp_path: Path
) -> None:
    """`embedbatch run`, in a process of its own: the same rows, the tokens of each, exit status 0, and no warning."""
    texts = texts_for(tmp_path / source, corpus)
    columns = write_source(tmp_path / source, texts)
    command = [sys.executable, "-W", "error", "-m", "embedbatch", "run", source, f"--output={destination}"]
    command += [f"--base-url={server}", f"--model={MODEL}", f"--dimensions={DIMENSIONS}", "--long-input=truncate"]
    command += [f"--{name.replace('_', '-')}={value}" for name, value in columns.items()]

    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = await anyio.run_process(command, cwd=tmp_path, env=environment, check=False)

    assert done.returncode == 0
    assert b"arning" not in done.stderr  # a line every ten seconds is all that may be there
    assert b"20,000 documents embedded" in done.stdout
    ids, vectors, tokens = read_destination(tmp_path / destination)
    sent = sent_parts(texts, await cuts_of(texts, server))
    assert ids == expected_ids(tmp_path / source, len(texts))
    assert_each_has_its_own(vectors, sent)
    assert_counted(tokens, sent, everywhere=True)
    assert files_in(tmp_path) == written_by(source, destination)


async def cuts_of(texts: list[str], server: str) -> list[Cut]:
    """Where the library cuts *texts*."""
    watch = Watch()
    long = [Document(text, id=position) for position, text in enumerate(texts) if len(text.encode()) > LIMIT]
    async with connect(server, observe=watch) as embedder:
        await embedder.embed(long)
    return [replace(cut, position=int(cut.id)) for cut in watch.cuts]
