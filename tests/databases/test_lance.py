"""Jobs whose destination is a table of LanceDB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedbatch import ConfigurationError, DestinationError, SourceError, jobs
from embedbatch.testing import ScriptedServer

from ..behaviour.corpora import write_jsonl
from ..crash.corpus import refusing_server
from .tables import DIMENSIONS, assert_rows, corpus, embed, in_lance

pytestmark = pytest.mark.anyio


async def test_every_document_is_a_row(tmp_path: Path) -> None:
    """The table is made, with every row, vector, token count and text, and null for what has failed."""
    source, texts = corpus(tmp_path)
    server = refusing_server(dimensions=DIMENSIONS)

    summary = await embed(source, f"lancedb://{tmp_path}/a/b?table=docs", server, keep_text=True)

    stored = in_lance(tmp_path / "a" / "b")
    assert_rows(stored, texts, server)
    assert [each.id for each in stored] == [f"d{n}" for n in range(len(texts))]
    assert [each.others["text"] for each in stored] == texts
    assert {each.run for each in stored} == {summary.run}
    assert all((each.others["tokens"] is None) == (each.vector is None) for each in stored)


async def test_a_query_finds_its_neighbours(tmp_path: Path) -> None:
    """The nearest row to the vector of a text is that of the text."""
    import lancedb

    source, _ = corpus(tmp_path)
    server = refusing_server(dimensions=DIMENSIONS)
    await embed(source, jobs.LanceTable(tmp_path / "db", table="docs"), server)

    table = lancedb.connect(tmp_path / "db").open_table("docs")
    found = table.search(server.vector_of("text 42")).distance_type("cosine").limit(1).to_list()

    assert [each["id"] for each in found] == ["d42"]


async def test_other_columns_and_every_character_arrive(tmp_path: Path) -> None:
    """Also NUL, for which there is room here; what is no plain type is JSON in a text."""
    rows = [
        {"id": 1, "text": "a\0b 🌊", "n": 2**60, "x": 0.5, "ok": True, "j": {"a": [1]}, "l": ["p"], "none": None},
        {"id": 2, "text": "c", "n": None, "x": None, "ok": None, "j": None, "l": None, "none": None},
    ]
    source = write_jsonl(tmp_path / "c.jsonl", rows)

    destination = jobs.LanceTable(tmp_path / "db", table="docs")
    await embed(source, destination, ScriptedServer(dimensions=4), keep_text=True, columns="all", dimensions=4)

    first, second = in_lance(tmp_path / "db")
    expected = {"text": "a\0b 🌊", "n": 2**60, "x": 0.5, "ok": True, "j": '{"a":[1]}', "l": ["p"], "none": None}
    assert {name: first.others[name] for name in expected} == expected
    assert [second.others[name] for name in ("n", "x", "ok", "j", "l")] == [None] * 5


async def test_a_part_is_a_version(tmp_path: Path) -> None:
    """Readers can go back to what there was before it."""
    import lancedb

    source, texts = corpus(tmp_path)
    await embed(source, f"lancedb://{tmp_path}/db?table=docs", refusing_server(dimensions=DIMENSIONS))

    table = lancedb.connect(tmp_path / "db").open_table("docs")
    rows = []
    for version in table.list_versions():
        table.checkout(version["version"])
        rows.append(table.count_rows())

    assert rows == [0, 16, 32, 48, len(texts)]


async def test_float16_is_kept(tmp_path: Path) -> None:
    """With dtype float16 the numbers are those of float16."""
    source = write_jsonl(tmp_path / "c.jsonl", [{"id": 1, "text": "one"}])
    server = ScriptedServer(dimensions=4)

    await embed(source, jobs.LanceTable(tmp_path / "db", table="docs"), server, dtype="float16", dimensions=4)

    (stored,) = in_lance(tmp_path / "db")
    np.testing.assert_array_equal(stored.vector, server.vector_of("one").astype(np.float16))


async def test_duplicate_ids_keep_every_row(tmp_path: Path) -> None:
    """Rows are told apart by run and position, and those of other runs stay."""
    rows = [{"id": "same", "text": f"text {n}"} for n in range(40)]
    source = write_jsonl(tmp_path / "c.jsonl", rows)
    server = ScriptedServer(dimensions=DIMENSIONS)
    destination = jobs.LanceTable(tmp_path / "db", table="docs")

    runs = [(await embed(source, destination, server, fresh=True)).run for _ in range(2)]

    stored = in_lance(tmp_path / "db")
    assert len(set(runs)) == 2
    for run in runs:
        assert_rows([each for each in stored if each.run == run], [row["text"] for row in rows], server)


async def test_with_a_key_the_last_row_that_has_a_vector_wins(tmp_path: Path) -> None:
    """Within a part, between parts and between runs; rows of other ids stay as they are."""
    texts = [f"text {n}" for n in range(40)]
    texts[38] = "refuse this"  # id 8
    source = write_jsonl(tmp_path / "c.jsonl", ({"id": n % 10, "text": text} for n, text in enumerate(texts)))
    server = refusing_server(dimensions=DIMENSIONS)
    url = f"lancedb://{tmp_path}/db?table=docs&key=id"
    first = await embed(source, url, server)
    rows = {each.id: each.row for each in in_lance(tmp_path / "db")}
    assert rows == {n % 10: 28 if n == 38 else n for n in range(30, 40)}

    new = [(3, "refuse me"), (4, "new"), (4, "newer"), (99, "more")]
    other = write_jsonl(tmp_path / "d.jsonl", ({"id": id, "text": text} for id, text in new))
    destination = jobs.LanceTable(tmp_path / "db", table="docs", key="id", journal=tmp_path / "other")
    second = await embed(other, destination, server)

    stored = {each.id: each for each in in_lance(tmp_path / "db")}
    assert sorted(stored) == [*range(10), 99]
    assert (stored[3].run, stored[3].row) == (first.run, 33)
    assert (stored[4].run, stored[4].row) == (second.run, 2)


@pytest.mark.parametrize("key", ["", "&key=id"])
async def test_another_table_is_refused_before_anything_is_sent(tmp_path: Path, key: str) -> None:
    """With the differences."""
    import lancedb
    import pyarrow as pa

    source, _ = corpus(tmp_path)
    server = refusing_server(dimensions=DIMENSIONS)
    fields: list[Any] = [("id", pa.int64()), ("embedding", pa.list_(pa.float32(), 5)), ("mine", pa.string())]
    lancedb.connect(tmp_path / "db").create_table("docs", schema=pa.schema(fields))

    with pytest.raises(ConfigurationError) as raised:
        await embed(source, f"lancedb://{tmp_path}/db?table=docs{key}", server)

    for words in ("column run is missing", "column id is int64, and string is needed", "column mine is there too"):
        assert words in str(raised.value)
    assert not server.received


async def test_a_column_that_lance_cannot_have_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    """A name with a dot, for one."""
    source = write_jsonl(tmp_path / "c.jsonl", [{"id": 1, "text": "one", "a.b": 2}])
    server = ScriptedServer(dimensions=4)

    with pytest.raises(ConfigurationError, match=r"the table cannot be made: .* a\.b"):
        await embed(source, f"lancedb://{tmp_path}/db?table=docs", server, columns="all")

    assert not server.received and not (tmp_path / "db" / "docs.lance").exists()


async def test_sizes_that_nobody_said(tmp_path: Path) -> None:
    """The first reply says it, or the table that is there does; failures alone make none."""
    source, texts = corpus(tmp_path)
    server = refusing_server(dimensions=DIMENSIONS)
    await embed(source, f"lancedb://{tmp_path}/db?table=docs", server, dimensions=None)
    assert_rows(in_lance(tmp_path / "db"), texts, server)

    other = jobs.LanceTable(tmp_path / "db", table="docs", journal=tmp_path / "other")
    with pytest.raises(Exception, match="vectors of 8 numbers, and the endpoint has sent 5"):
        await embed(source, other, ScriptedServer(dimensions=5), dimensions=None)
    blank = write_jsonl(tmp_path / "b.jsonl", [{"id": 1, "text": ""}])
    with pytest.raises(DestinationError, match="no document was embedded"):
        await embed(blank, f"lancedb://{tmp_path}/db?table=blank", server, dimensions=None)


async def test_an_error_of_the_source_is_that_error(tmp_path: Path) -> None:
    """What is raised while a part is read comes through Arrow and LanceDB as it was."""
    source, _ = corpus(tmp_path)
    server = refusing_server(dimensions=DIMENSIONS)

    def spoil(progress: jobs.Progress) -> None:
        if progress.documents:
            source.write_text('{"id": "d0", "text": "another"}\n')

    with pytest.raises(SourceError, match=r"c\.jsonl"):
        await embed(source, f"lancedb://{tmp_path}/db?table=docs", server, progress=spoil)
