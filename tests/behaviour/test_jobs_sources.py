"""Every kind of source into every kind of destination: ids, order, texts, other columns and bits."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from embedbatch import ConfigurationError, Limits, SourceError, SpendLimitError, jobs
from embedbatch.testing import ScriptedServer

from .conftest import MakeEmbedder
from .corpora import KINDS_OF_DESTINATIONS, columns_of, failures_of, mixed_texts, names, read

# Files are written in threads, during which virtual time would jump: these run on both loops in real time.
pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("both_backends")]

TEXTS = mixed_texts(120)
IDS = [f"d{n}" for n in range(len(TEXTS))]
COLUMNS = {"id_column": "key", "text_column": "body"}
EXTRA: dict[str, list[Any]] = {
    "title": [f'Ärger №{n}, "{n}"\n' for n in range(len(TEXTS))],
    "year": [1900 + n for n in range(len(TEXTS))],
    "share": [n / 7 for n in range(len(TEXTS))],
}
ALL = {"key": IDS, "body": TEXTS, **EXTRA}


def jsonl() -> bytes:
    rows = [dict(zip(ALL, values, strict=True)) for values in zip(*ALL.values(), strict=True)]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def delimited(delimiter: str) -> bytes:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerows([ALL, *zip(*ALL.values(), strict=True)])
    return file.getvalue().encode()


def table() -> pa.Table:
    return pa.table(ALL)


def write(folder: Path, kind: str) -> Any:
    """A source of that *kind*."""
    path = folder / f"corpus.{kind}"
    match kind:
        case "jsonl.gz":
            path.write_bytes(gzip.compress(jsonl()))
        case "jsonl.zst":
            path.write_bytes(zstandard.compress(jsonl()))
        case "csv":
            path.write_bytes(delimited(","))
        case "tsv":
            path.write_bytes(delimited("\t"))
        case "parquet":
            pq.write_table(table(), path, row_group_size=50)
        case "folder":
            path.mkdir()
            lines = jsonl().splitlines(keepends=True)
            for number, first in enumerate(range(0, len(lines), 50)):
                (path / f"part-{number}.jsonl").write_bytes(b"".join(lines[first : first + 50]))
        case "table":
            return table()
        case _:
            path.write_bytes(jsonl())
    return path


KINDS = ["jsonl", "jsonl.gz", "jsonl.zst", "csv", "tsv", "parquet", "folder", "table"]


@pytest.mark.parametrize("destination", [*KINDS_OF_DESTINATIONS, "vectors.jsonl", "vectors.jsonl.zst"])
@pytest.mark.parametrize("kind", KINDS)
async def test_each_source_gives_the_same_and_goes_on(
    tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder, kind: str, destination: str
) -> None:
    """Stopped in the middle and gone on with: all that belongs to a row is right, and each text was sent once."""
    source, target = write(tmp_path, kind), tmp_path / destination
    options: dict[str, Any] = {**COLUMNS, "keep_text": True, "columns": "all", "part_rows": 32}
    limits = Limits(max_batch_inputs=8, max_concurrent_requests=4)

    async with make_embedder(limits=limits, max_input_tokens=100_000) as embedder:
        with pytest.raises(SpendLimitError):
            await jobs.run(source, target, embedder, max_spend_tokens=40_000, **options)
        summary = await jobs.run(source, target, embedder, **options)

    ids, vectors, _ = read(target)
    texts = [match.text for match in sorted(jobs.search(target, [1.0] * 8, len(TEXTS)), key=lambda match: match.row)]
    assert ids == IDS
    assert texts == TEXTS
    texts_only = kind in ("csv", "tsv")
    assert columns_of(target, EXTRA) == {
        name: list(map(str, values)) if texts_only else values for name, values in EXTRA.items()
    }
    np.testing.assert_array_equal(vectors, [server.vector_of(text) for text in TEXTS])
    assert sorted(text for request in server.received for text in request.inputs) == sorted(TEXTS)
    assert summary.runs == 2


async def test_bad_rows_are_named_or_passed_over(tmp_path: Path, make_embedder: MakeEmbedder) -> None:
    """By default the first ends the run, with its line; else they get no row, and are listed with line and reason."""
    source, target = tmp_path / "c.jsonl", tmp_path / "v.npy"
    source.write_bytes(b'{"text": "a"}\n{"text": \n[]\n{"text": "b"}\n{"text": ""}\n')

    async with make_embedder() as embedder:
        with pytest.raises(SourceError, match="line 2: invalid JSON"):
            await jobs.run(source, target, embedder)
        summary = await jobs.run(source, target, embedder, skip_bad_rows=True)
        again = await jobs.run(source, target, embedder, skip_bad_rows=True)

    assert (summary.documents, summary.embedded, summary.failures, summary.bad_rows) == (3, 2, 1, 2)
    assert again == summary
    listed = [(each["line"], each["error"]) for each in failures_of(target)]
    assert listed == [(2, "SourceError"), (3, "SourceError"), (5, "EmptyInputError")]


async def test_a_failure_names_its_file(tmp_path: Path, make_embedder: MakeEmbedder) -> None:
    """Where a source has several files, a line number alone says nothing."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "1.txt").write_text("a\nb\n")
    (folder / "2.txt").write_text("c\n\n")

    async with make_embedder() as embedder:
        await jobs.run(folder, tmp_path / "v.npy", embedder)

    (failure,) = failures_of(tmp_path / "v.npy")
    assert (failure["id"], failure["line"]) == (3, 2)
    assert failure["file"].endswith("2.txt")


async def test_what_is_no_source_is_refused(tmp_path: Path, make_embedder: MakeEmbedder) -> None:
    """Neither a path nor a table: nothing is begun."""
    async with make_embedder() as embedder:
        with pytest.raises(ConfigurationError):
            await jobs.run(3, tmp_path / "v.npy", embedder)
        with pytest.raises(ConfigurationError, match="txt"):
            await jobs.run(tmp_path / "c.docx", tmp_path / "v.npy", embedder)

    assert names(tmp_path) == set()
