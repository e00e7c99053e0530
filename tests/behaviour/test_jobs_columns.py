"""Other columns of a source in a result, and results in float16."""

from __future__ import annotations

import decimal
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedbatch import ConfigurationError, Limits, SourceError, SpendLimitError, jobs
from embedbatch.plan.tokens import ByteBound
from embedbatch.testing import Received, ScriptedServer

from .conftest import MakeEmbedder
from .corpora import DESTINATIONS, columns_of, failures_of, names, read, sent, write_jsonl

# Files are written in threads, during which virtual time would jump: these run on both loops in real time.
pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("both_backends")]

TYPED = pa.table(
    {
        "text": [f"text {n}" for n in range(6)],
        "small": pa.array([1, None, 3, 4, 5, 6], pa.int8()),
        "large": pa.array([2**64 - 1, 0, 1, None, 2, 3], pa.uint64()),
        "half": pa.array([0.5] * 6, pa.float32()).cast(pa.float16()),
        "flag": [True, None, False, True, True, False],
        "price": pa.array([decimal.Decimal("1.10"), None] * 3, pa.decimal128(12, 2)),
        "day": [date(2026, 11, 22), None] * 3,
        "at": pa.array([datetime(2026, 11, 22, 1, 2, 3, tzinfo=UTC), None] * 3, pa.timestamp("us", "Europe/Berlin")),
        "took": pa.array([timedelta(hours=1), None] * 3, pa.duration("ms")),
        "raw": pa.array([b"\xff", None] * 3),
        "tags": pa.array([["a", None], [], None] * 2),
        "pair": pa.array([[1.0, 2.0], None] * 3, pa.list_(pa.float32(), 2)),
        "place": pa.array([{"x": 1, "y": "a"}, None] * 3),
        "notes": pa.array([[("k", 1)], None] * 3, pa.map_(pa.string(), pa.int64())),
        "nothing": pa.nulls(6),
    }
)


async def test_types_of_arrow_are_kept(tmp_path: Path, make_embedder: MakeEmbedder) -> None:
    """Of a table and of a Parquet file, in all parts; texts are large strings, and a dictionary is its values."""
    names = [name for name in TYPED.column_names if name != "text"]
    source = TYPED.append_column("kind", pa.array(["x", "y", None] * 2).dictionary_encode())
    pq.write_table(source, tmp_path / "c.parquet", row_group_size=4)

    async with make_embedder() as embedder:
        await jobs.run(source, tmp_path / "table.parquet", embedder, columns="all", part_rows=4)
        await jobs.run(tmp_path / "c.parquet", tmp_path / "file", embedder, columns="all", part_rows=4)

    for found in (pq.read_table(tmp_path / "table.parquet"), pq.read_table(tmp_path / "file")):
        assert found.column_names == ["id", "vector", "tokens", *names, "kind"]
        assert found.select(names).equals(TYPED.select(names))
        assert found.column("kind").type == pa.large_string()
        assert found.column("kind").to_pylist() == ["x", "y", None] * 2
    assert len({pq.read_schema(part) for part in (tmp_path / "file").iterdir()}) == 1


async def test_values_of_json_get_types_that_hold_all_of_them(tmp_path: Path, make_embedder: MakeEmbedder) -> None:
    """Also where the first of a kind comes late; what Parquet has no column for is JSON. Others have it as it is."""
    rows: list[dict[str, Any]] = [{"text": f"text {n}", "n": n, "f": n, "mixed": n, "tags": []} for n in range(40)]
    rows[39] |= {"n": None, "f": 0.5, "mixed": {"a": [1, None]}, "tags": ["x"], "late": "y\ud800"}
    source = write_jsonl(tmp_path / "c.jsonl", rows)

    async with make_embedder() as embedder:
        for name in ("v.parquet", "v.npy", "v.jsonl"):
            await jobs.run(source, tmp_path / name, embedder, columns="all", part_rows=16)

    table = pq.read_table(tmp_path / "v.parquet")
    assert table.column_names == ["id", "vector", "tokens", "n", "f", "mixed", "tags", "late"]
    types = [pa.int64(), pa.float64(), pa.large_string(), pa.list_(pa.large_string()), pa.large_string()]
    assert table.schema.types[3:] == types
    assert table.column("mixed").to_pylist()[38:] == ["38", '{"a":[1,null]}']
    expected = {name: [row.get(name) for row in rows] for name in ("n", "f", "mixed", "tags", "late")}
    expected["late"][39] = "y\ufffd"
    for name in ("v.npy", "v.jsonl"):
        assert columns_of(tmp_path / name, expected) == expected
    expected["mixed"] = [json.dumps(value, separators=(",", ":")) for value in expected["mixed"]]
    assert columns_of(tmp_path / "v.parquet", expected) == expected


async def test_files_of_several_types_get_one_that_holds_all(tmp_path: Path, make_embedder: MakeEmbedder) -> None:
    """int32 and float64 are float64, a column that a file has not is null there; a text and an integer are refused."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    pq.write_table(pa.table({"text": ["a"], "n": pa.array([1], pa.int32())}), folder / "1.parquet")
    pq.write_table(pa.table({"text": ["b"], "n": [0.5], "more": ["x"]}), folder / "2.parquet")

    async with make_embedder() as embedder:
        await jobs.run(folder, tmp_path / "v.parquet", embedder, columns="all")
        found = pq.read_table(tmp_path / "v.parquet").select(["n", "more"]).to_pydict()
        pq.write_table(pa.table({"text": ["c"], "n": ["x"]}), folder / "3.parquet")
        with pytest.raises(SourceError, match=r"corpus: its files have columns of one name and several types: .*n\b"):
            await jobs.run(folder, tmp_path / "w.parquet", embedder, columns="all")

    assert found == {"n": [1.0, 0.5], "more": [None, "x"]}
    assert not (tmp_path / "w.parquet.journal").exists()


@DESTINATIONS
async def test_equal_documents_have_their_own_columns(
    tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder, destination: str
) -> None:
    """They share a vector and nothing else. Those that failed, and those that are long, have theirs as well."""
    rows = [{"text": text, "n": n} for n, text in enumerate(["a", "b", "a", "", "word " * 500, "a", ""])]
    source = write_jsonl(tmp_path / "c.jsonl", rows)

    async with make_embedder(max_input_tokens=50, tokenizer=ByteBound()) as embedder:
        await jobs.run(source, tmp_path / destination, embedder, columns=["n"], part_rows=2)

    assert columns_of(tmp_path / destination, ["n"]) == {"n": list(range(7))}
    assert np.isnan(read(tmp_path / destination)[1]).all(axis=1).tolist() == [False] * 3 + [True, False, False, True]


@pytest.mark.parametrize(
    ("destination", "columns", "error", "reason"),
    [
        ("v.parquet", ["vector"], ConfigurationError, "'vector' is one of the result's own"),
        ("v.jsonl", ["embedding"], ConfigurationError, "'embedding' is one of the result's own"),
        ("v.npy", ["text"], ConfigurationError, "texts with keep_text"),
        ("v.npy", "all", ConfigurationError, "'id' is one of .* ids come from id_column"),
        ("v.npy", ["title", "title"], ConfigurationError, "'title' is named twice"),
        ("v.npy", "title", ConfigurationError, "columns: expected names of columns or \"all\", got 'title'"),
        ("v.npy", ["titel"], SourceError, "no column 'titel'; the columns are 'id', 'text', 'title', 'embedding'"),
    ],
)
async def test_columns_that_cannot_be_written_are_refused_up_front(
    tmp_path: Path,
    server: ScriptedServer,
    make_embedder: MakeEmbedder,
    destination: str,
    columns: Any,
    error: type[Exception],
    reason: str,
) -> None:
    """Nothing is sent, and nothing is left."""
    source = write_jsonl(tmp_path / "c.jsonl", [{"id": 1, "text": "a", "title": "b", "embedding": [1]}])

    async with make_embedder() as embedder:
        with pytest.raises(error, match=reason):
            await jobs.run(source, tmp_path / destination, embedder, columns=columns)

    assert names(tmp_path) == {"c.jsonl"}
    assert not server.received


async def test_a_type_that_parquet_has_not_is_refused_up_front(
    tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """Where the rows are objects of JSON it is written."""
    table = pa.table({"text": ["a", "b"], "empty": pa.array([{}, None], pa.struct([]))})

    async with make_embedder() as embedder:
        with pytest.raises(ConfigurationError, match="columns: 'empty' cannot be written to Parquet"):
            await jobs.run(table, tmp_path / "v.parquet", embedder, columns="all")
        assert not server.received
        await jobs.run(table, tmp_path / "v.jsonl", embedder, columns="all")

    assert columns_of(tmp_path / "v.jsonl", ["empty"]) == {"empty": [{}, None]}
    assert names(tmp_path) == {"v.jsonl", "v.jsonl.meta.json", "v.jsonl.journal"}


async def test_what_a_result_is_to_hold_belongs_to_a_job(tmp_path: Path, make_embedder: MakeEmbedder) -> None:
    """With other columns or another type it is another job, which is refused."""
    source = write_jsonl(tmp_path / "c.jsonl", [{"text": "a", "title": "b"}])

    async with make_embedder() as embedder:
        await jobs.run(source, tmp_path / "v.npy", embedder, columns=iter(["title"]))  # type: ignore[arg-type]
        assert columns_of(tmp_path / "v.npy", ["title"]) == {"title": ["b"]}
        with pytest.raises(ConfigurationError, match=r"columns was \['title'\] and is \[\]"):
            await jobs.run(source, tmp_path / "v.npy", embedder)
        with pytest.raises(ConfigurationError, match="dtype was 'float32' and is 'float16'"):
            await jobs.run(source, tmp_path / "v.npy", embedder, columns=("title",), dtype="float16")
        await jobs.run(source, tmp_path / "v.npy", embedder, columns=("title",))


async def test_a_source_is_no_destination(tmp_path: Path, make_embedder: MakeEmbedder) -> None:
    """JSON lines can be both, and the texts would be gone."""
    source = write_jsonl(tmp_path / "c.jsonl", [{"text": "a"}])
    (tmp_path / "link.jsonl").symlink_to(source)

    async with make_embedder() as embedder:
        for name in ("c.jsonl", "link.jsonl"):
            with pytest.raises(ConfigurationError, match=f"destination: .*{name} is the source"):
                await jobs.run(source, tmp_path / name, embedder)

    assert names(tmp_path) == {"c.jsonl", "link.jsonl"}


def make_huge(request: Received, body: dict[str, Any]) -> dict[str, Any]:
    """Vectors with a number of 70,000 for texts that say so."""
    for text, entry in zip(request.inputs, body["data"], strict=True):
        if "huge" in str(text):
            entry["embedding"] = [70_000.0, *[1.0] * 7]
    return body


@pytest.mark.parametrize("destination", ["v.parquet", "v.npy", "v"])
async def test_float16_is_within_its_rounding(
    tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder, destination: str
) -> None:
    """And a vector that it has no room for is a failure, with its equals, wherever the job was interrupted."""
    texts = [f"text {n}" for n in range(60)]
    texts[20] = texts[21] = texts[50] = "huge"
    source = write_jsonl(tmp_path / "c.jsonl", [{"id": f"d{n}", "text": text} for n, text in enumerate(texts)])
    target = tmp_path / destination
    options: dict[str, Any] = {"id_column": "id", "dtype": "float16", "part_rows": 16}
    server.edit(make_huge)

    async with make_embedder(limits=Limits(max_batch_inputs=4, max_concurrent_requests=2)) as embedder:
        with pytest.raises(SpendLimitError):
            await jobs.run(source, target, embedder, max_spend_tokens=50, **options)
        summary = await jobs.run(source, target, embedder, **options)

    vectors = read(target)[1]
    expected = np.array([server.vector_of(text) for text in texts]).astype(np.float16).astype(np.float32)
    expected[[20, 21, 50]] = np.nan
    np.testing.assert_array_equal(vectors, expected)
    listed = [(each["id"], each["error"], each["reason"]) for each in failures_of(target)]
    reason = "float16 has no room for its vector"
    assert listed == [(f"d{n}", "VectorRangeError", reason) for n in (20, 21, 50)]
    assert (summary.embedded, summary.failures, summary.runs) == (57, 3, 2)
    assert sorted(sent(server)) == sorted(set(texts))
    assert [match.row for match in jobs.search(target, server.vector_of(texts[7]), 1)] == [7]
