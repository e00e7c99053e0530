"""Jobs whose destination is a table of PostgreSQL with pgvector."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from embedbatch import ConfigurationError, DestinationError, jobs
from embedbatch.testing import ScriptedServer

from ..behaviour.corpora import write_jsonl
from ..crash.corpus import refusing_server
from .cluster import PASSWORD
from .tables import DIMENSIONS, assert_rows, corpus, embed, in_postgres

pytestmark = pytest.mark.anyio


def execute(dsn: str, *statements: str) -> list[tuple[Any, ...]]:
    """What the last statement gives."""
    import psycopg

    with psycopg.connect(dsn) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def files_in(folder: Path) -> list[Path]:
    """All files below *folder*."""
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_every_document_is_a_row(dsn: str, tmp_path: Path) -> None:
    """The table is made, with every row, vector, token count and text, and null for what has failed."""
    source, texts = corpus(tmp_path)
    server = refusing_server(dimensions=DIMENSIONS)

    summary = await embed(source, f"{dsn}&table=docs", server, keep_text=True)

    stored = in_postgres(dsn)
    assert_rows(stored, texts, server)
    assert [each.id for each in stored] == [f"d{n}" for n in range(len(texts))]
    assert [each.others["text"] for each in stored] == texts
    assert {each.run for each in stored} == {summary.run}
    assert all((each.others["tokens"] is None) == (each.vector is None) for each in stored)
    assert (summary.failures, summary.failures_file) == (3, tmp_path / "docs.failures.jsonl")
    assert (tmp_path / "docs.journal").is_dir()
    kinds = execute(
        dsn,
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'docs'::regclass "
        "AND attnum > 0 ORDER BY attnum",
    )
    assert [kind for (kind,) in kinds] == ["uuid", "bigint", "text", f"vector({DIMENSIONS})", "bigint", "text"]


async def test_a_query_finds_its_neighbours(dsn: str, tmp_path: Path) -> None:
    """The nearest row to the vector of a text is that of the text, and the order is that of the cosine."""
    source, texts = corpus(tmp_path)
    server = refusing_server(dimensions=DIMENSIONS)
    await embed(source, f"{dsn}&table=docs", server)
    query = server.vector_of("text 42")

    found = execute(dsn, f"SELECT id FROM docs ORDER BY embedding <=> '{query.tolist()}' LIMIT 4")

    cosines = {
        f"d{n}": float(server.vector_of(text) @ query) for n, text in enumerate(texts) if text and "refuse" not in text
    }
    assert found[0] == ("d42",)
    assert [id for (id,) in found] == sorted(cosines, key=lambda id: -cosines[id])[:4]


async def test_other_columns_have_their_types(dsn: str, tmp_path: Path) -> None:
    """Numbers, truth and texts keep their type, anything else is jsonb, and NUL becomes U+FFFD."""
    rows = [
        {
            "id": 1,
            "text": "a\0b",
            "n": 2**60,
            "x": 0.5,
            "ok": True,
            "t": "naïve 🌊\0",
            "j": {"a\0": ["\0", "\\u0000"]},
            "l": ["p", "q"],
            'Odd "name': "v",
        },
        {"id": 2, "text": "c", "n": None, "x": float(3), "ok": None, "t": None, "j": None, "l": None},
    ]
    source = write_jsonl(tmp_path / "c.jsonl", rows)

    await embed(source, f"{dsn}&table=docs", ScriptedServer(dimensions=4), keep_text=True, columns="all", dimensions=4)

    first, second = in_postgres(dsn)
    assert (first.id, second.id) == (1, 2)
    assert dict(first.others) == {
        "tokens": first.others["tokens"], "text": "a\ufffdb", "n": 2**60, "x": 0.5, "ok": True, "t": "naïve 🌊\ufffd",
        "j": {"a\ufffd": ["\ufffd", "\\u0000"]}, "l": ["p", "q"], 'Odd "name': "v",
    }  # fmt: skip
    assert [second.others[name] for name in ("n", "x", "ok", "t", "j", "l")] == [None, 3.0, None, None, None, None]


async def test_columns_of_tables_in_memory_have_their_types(dsn: str) -> None:
    """What Arrow has a type for, PostgreSQL has one for too."""
    import datetime
    from decimal import Decimal

    import pyarrow as pa

    moment = datetime.datetime(2024, 5, 1, 12, 30, 1, 5, tzinfo=datetime.UTC)
    columns = {
        "id": pa.array([1, 2]),
        "text": ["one", "two"],
        "day": pa.array([datetime.date(1969, 7, 20), None]),
        "at": pa.array([moment, None], pa.timestamp("us", "UTC")),
        "local": pa.array([moment.replace(tzinfo=None), None], pa.timestamp("us")),
        "price": pa.array([Decimal("12.50"), None], pa.decimal128(8, 2)),
        "big": pa.array([2**64 - 1, None], pa.uint64()),
        "raw": pa.array([b"\0\xff", None], pa.binary()),
        "small": pa.array([1.5, None], pa.float32()),
        "tiny": pa.array([-3, None], pa.int8()),
        "word": pa.array(["x", None]).dictionary_encode(),
        "tags": pa.array([["a"], None]),
        "what": pa.array([{"a": 1}, None]),
        "none": pa.nulls(2),
    }
    await embed(pa.table(columns), f"{dsn}&table=docs", ScriptedServer(dimensions=4), columns="all", dimensions=4)

    first, second = in_postgres(dsn)
    assert [first.others[name] for name in list(columns)[2:]] == [
        datetime.date(1969, 7, 20), moment, moment.replace(tzinfo=None), Decimal("12.50"), 2**64 - 1, b"\0\xff", 1.5,
        -3, "x", ["a"], {"a": 1}, None,
    ]  # fmt: skip
    assert {second.others[name] for name in list(columns)[2:]} == {None}


async def test_float16_is_halfvec(dsn: str, tmp_path: Path) -> None:
    """With dtype float16 the numbers are those of float16."""
    source = write_jsonl(tmp_path / "c.jsonl", [{"id": 1, "text": "one"}])
    server = ScriptedServer(dimensions=4)

    await embed(source, f"{dsn}&table=docs", server, dtype="float16", dimensions=4)

    ((kind, sent),) = execute(dsn, "SELECT pg_typeof(embedding)::text, halfvec_send(embedding) FROM docs")
    assert kind == "halfvec"
    np.testing.assert_array_equal(np.frombuffer(sent, ">f2", offset=4), server.vector_of("one").astype(np.float16))


async def test_duplicate_ids_keep_every_row(dsn: str, tmp_path: Path) -> None:
    """Rows are told apart by run and position."""
    rows = [{"id": "same", "text": f"text {n}"} for n in range(40)]
    source = write_jsonl(tmp_path / "c.jsonl", rows)
    server = ScriptedServer(dimensions=DIMENSIONS)

    await embed(source, f"{dsn}&table=docs", server)

    assert_rows(in_postgres(dsn), [row["text"] for row in rows], server)


async def test_with_a_key_the_last_row_that_has_a_vector_wins(dsn: str, tmp_path: Path) -> None:
    """Within a part, between parts and between runs; rows of other ids stay as they are."""
    texts = [f"text {n}" for n in range(40)]
    texts[38] = "refuse this"  # id 8
    source = write_jsonl(tmp_path / "c.jsonl", ({"id": n % 10, "text": text} for n, text in enumerate(texts)))
    server = refusing_server(dimensions=DIMENSIONS)
    first = await embed(source, f"{dsn}&table=docs&key=id", server)
    assert [(each.id, each.row) for each in in_postgres(dsn)] == [
        (8, 28),
        *((n % 10, n) for n in range(30, 40) if n != 38),
    ]

    other = write_jsonl(
        tmp_path / "d.jsonl",
        [
            {"id": 3, "text": "refuse me"},
            {"id": 4, "text": "new"},
            {"id": 4, "text": "newer"},
            {"id": 99, "text": "more"},
        ],
    )
    destination = jobs.Postgres(dsn, table="docs", key="id", journal=tmp_path / "other.journal")
    second = await embed(other, destination, server)

    stored = {each.id: each for each in in_postgres(dsn)}
    assert sorted(stored) == [*range(10), 99]
    assert (stored[3].run, stored[3].row) == (first.run, 33)
    assert (stored[4].run, stored[4].row) == (second.run, 2)
    np.testing.assert_array_equal(stored[4].vector, server.vector_of("newer"))


async def test_rows_of_other_runs_and_other_people_stay(dsn: str, tmp_path: Path) -> None:
    """Two jobs into one table do not know of each other; an earlier run of the same command has its own rows."""
    source, texts = corpus(tmp_path)
    server = refusing_server(dimensions=DIMENSIONS)
    first = await embed(source, f"{dsn}&table=docs", server)
    again = await embed(source, f"{dsn}&table=docs", server)
    fresh = await embed(source, f"{dsn}&table=docs", server, fresh=True)

    assert again.run == first.run != fresh.run
    stored = in_postgres(dsn)
    for run in (first.run, fresh.run):
        assert_rows([each for each in stored if each.run == run], texts, server)
    assert len(stored) == 2 * len(texts)


async def test_a_table_that_is_another_one_is_refused_before_anything_is_sent(dsn: str, tmp_path: Path) -> None:
    """Other types, other dimensions, no room for a column, a value that is needed: each is named."""
    source, _ = corpus(tmp_path)
    server = refusing_server(dimensions=DIMENSIONS)
    execute(
        dsn,
        "CREATE EXTENSION vector",
        "CREATE TABLE docs (run uuid, row bigint, id integer, embedding vector(5), tokens bigint, mine text NOT NULL)",
    )

    with pytest.raises(ConfigurationError) as raised:
        await embed(source, f"{dsn}&table=docs", server, keep_text=True)

    for words in (
        "column id is integer, and text is needed",
        "column embedding is vector(5), and vector(8) is needed",
        "column text is missing",
        "column mine needs a value",
    ):
        assert words in str(raised.value)
    assert not server.received
    assert not (tmp_path / "docs.journal").exists()


async def test_a_table_that_is_there_may_have_more(dsn: str, tmp_path: Path) -> None:
    """In a schema, with an identity, a default, an index and a vector of any size: it is used as it is."""
    source, texts = corpus(tmp_path)
    server = refusing_server(dimensions=DIMENSIONS)
    execute(
        dsn,
        'CREATE SCHEMA "My s"',
        'CREATE EXTENSION vector SCHEMA "My s"',
        'CREATE TABLE "My s"."T" ('
        "serial bigint GENERATED ALWAYS AS IDENTITY, made timestamptz NOT NULL DEFAULT now(), tokens bigint, run uuid, "
        'row bigint, id text, embedding "My s".vector(8), note text)',
        'CREATE INDEX ON "My s"."T" USING hnsw (embedding "My s".vector_cosine_ops)',
    )

    await embed(source, jobs.Postgres(dsn, table="My s.T"), server, dimensions=None)

    assert execute(dsn, 'SELECT count(*), count(DISTINCT row), count(embedding) FROM "My s"."T"') == [(50, 50, 47)]
    assert len(server.received) > 0 and len(texts) == 50


async def test_names_are_names(dsn: str, tmp_path: Path) -> None:
    """Whatever is in them, they are quoted; nothing of them is a part of a statement."""
    source = write_jsonl(tmp_path / "c.jsonl", [{"id": 1, "text": "one", 'a"%s {} ;--': 5}])
    name = 'docs"; DROP TABLE x; -- %s {}'
    execute(dsn, "CREATE TABLE x ()")

    await embed(source, jobs.Postgres(dsn, table=name), ScriptedServer(dimensions=DIMENSIONS), columns="all")

    assert execute(dsn, "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1") == [(name,), ("x",)]


async def test_vectors_of_another_size_than_the_table_has_stop_the_run(dsn: str, tmp_path: Path) -> None:
    """Where nobody says the size before the first reply, that reply is the last."""
    source, _ = corpus(tmp_path)
    execute(
        dsn,
        "CREATE EXTENSION vector",
        "CREATE TABLE docs (run uuid, row bigint, id text, embedding vector(5), tokens bigint)",
    )

    with pytest.raises(Exception, match="vectors of 5 numbers, and the endpoint has sent 8"):
        await embed(source, f"{dsn}&table=docs", refusing_server(dimensions=8), dimensions=None)

    assert execute(dsn, "SELECT count(*) FROM docs") == [(0,)]


async def test_without_a_known_size_the_table_is_made_with_the_first_part(dsn: str, tmp_path: Path) -> None:
    """Its size is that of the first reply."""
    source, texts = corpus(tmp_path)
    server = refusing_server(dimensions=DIMENSIONS)

    await embed(source, f"{dsn}&table=docs", server, dimensions=None)

    assert_rows(in_postgres(dsn), texts, server)


async def test_nothing_embedded_and_no_size_is_said(dsn: str, tmp_path: Path) -> None:
    """No table can be made of failures alone; an empty source needs none."""
    source = write_jsonl(tmp_path / "c.jsonl", [{"id": 1, "text": ""}, {"id": 2, "text": " "}])
    with pytest.raises(DestinationError, match="no document was embedded"):
        await embed(source, f"{dsn}&table=docs", refusing_server(dimensions=8), dimensions=None)
    source.write_text("")
    for _ in range(2):
        summary = await embed(source, f"{dsn}&table=none", refusing_server(dimensions=8), dimensions=None)
        assert summary.documents == 0


async def test_a_user_who_may_not_create_the_extension_is_told(dsn: str, tmp_path: Path) -> None:
    """Before anything is sent, in words that say who could."""
    source, _ = corpus(tmp_path)
    server = refusing_server(dimensions=DIMENSIONS)
    execute(dsn, "DROP ROLE IF EXISTS bob", f"CREATE ROLE bob LOGIN PASSWORD '{PASSWORD}'")
    mine = dsn.replace("alice", "bob")

    with pytest.raises(ConfigurationError, match="extension vector is missing, and bob may not create it"):
        await embed(source, f"{mine}&table=docs", server)
    execute(dsn, "CREATE EXTENSION vector")
    with pytest.raises(ConfigurationError, match="permission denied for schema public"):
        await embed(source, f"{mine}&table=docs", server)
    execute(dsn, "CREATE TABLE docs (run uuid, row bigint, id text, embedding vector(8), tokens bigint)")
    with pytest.raises(ConfigurationError, match="permission denied for table docs"):
        await embed(source, f"{mine}&table=docs", server)

    assert not server.received


async def test_no_password_is_shown_anywhere(dsn: str, tmp_path: Path) -> None:
    """Not in messages, reprs, summaries, reports, nor in any file that a job leaves."""
    source, _ = corpus(tmp_path)
    server = refusing_server(dimensions=DIMENSIONS)
    (tmp_path / "passwords").unlink()
    url = dsn.replace("alice@", f"alice:{quote(PASSWORD, safe='')}@") + "&table=docs"
    wrong = dsn.replace("alice@", "alice:wrong%20secret@") + "&table=docs"
    said = []
    for bad in (wrong, wrong.replace("secret", "%zz"), wrong.replace("table=", "tabel="), Path(wrong), wrong + ".a.b"):
        with pytest.raises((ConfigurationError, DestinationError)) as raised:
            await embed(source, bad, server)
        said.append(f"{raised.value!r} {raised.value} {raised.value.__cause__!r}")
    summary = await embed(source, url, server)
    jobs.write_report("r.html", jobs.Timeline(began_at=0), source=source, destination=url, model="m", endpoint="e")
    said += [repr(summary), repr(jobs.Postgres(url.split("&")[0], table="docs")), str(jobs.Postgres.from_url(url))]

    files = b"".join(path.read_bytes() for path in files_in(tmp_path))
    for secret in (PASSWORD, quote(PASSWORD, safe=""), json.dumps(PASSWORD)[1:-1], "wrong%20", "wrong sec"):
        assert secret.encode() not in files
        assert not [words for words in said if secret in words]


@pytest.mark.parametrize("password", ["gehe@im", "1234/geheim", "gehe%zzim", "gehe?im", "gehe#im"])
async def test_a_password_that_is_not_escaped_is_not_shown(password: str) -> None:
    """Whatever libpq takes it for."""
    url = f"postgresql://alice:{password}@127.0.0.1:1/db?table=docs"

    with pytest.raises((ConfigurationError, DestinationError)) as raised:
        jobs.Postgres.from_url(url).check(dtype="float32", columns=())

    assert not [piece for piece in ("gehe", "im@", "1234") if piece in str(raised.value)]


async def test_a_journal_has_a_folder_of_its_own(dsn: str, tmp_path: Path) -> None:
    """A folder with something else in it is left alone, and one that cannot be made is named."""
    source, _ = corpus(tmp_path)
    server = refusing_server(dimensions=DIMENSIONS)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")

    for journal, words in (("mine", "there is something else"), ("no/where", "there is no directory")):
        with pytest.raises(ConfigurationError, match=words):
            await embed(source, jobs.Postgres(dsn, table="docs", journal=tmp_path / journal), server)
    await embed(source, jobs.Postgres(dsn, table="docs", journal=tmp_path / "elsewhere"), server)

    assert (tmp_path / "mine" / "thesis.txt").read_text() == "all of it"
    assert (tmp_path / "elsewhere" / "ledger.sqlite").exists()
    assert (tmp_path / "elsewhere.failures.jsonl").exists()


async def test_a_table_cannot_be_searched(dsn: str) -> None:
    """It says what to do instead."""
    with pytest.raises(ConfigurationError, match="embedding <=>"):
        jobs.search(f"{dsn}&table=docs", [1.0])
    with pytest.raises(ConfigurationError, match="embedding <=>"):
        jobs.read_origin(jobs.Postgres(dsn, table="docs"))  # type: ignore[arg-type]


async def test_a_table_that_was_dropped_is_missed(dsn: str, tmp_path: Path) -> None:
    """A job that is finished is not done again, unless what it made is gone."""
    source, _ = corpus(tmp_path)
    server = refusing_server(dimensions=DIMENSIONS)
    await embed(source, f"{dsn}&table=docs", server)
    execute(dsn, "DROP TABLE docs")

    with pytest.raises(ConfigurationError, match="is gone, which this job had made"):
        await embed(source, f"{dsn}&table=docs", server)


async def test_another_database_is_another_job(dsn: str, tmp_path: Path) -> None:
    """The journal in the working directory is that of one table, and says so."""
    source, _ = corpus(tmp_path)
    server = refusing_server(dimensions=DIMENSIONS)
    await embed(source, f"{dsn}&table=docs", server)
    elsewhere = dsn.replace("/test", "/postgres?").partition("?")[0] + "?" + dsn.partition("?")[2]

    with pytest.raises(ConfigurationError, match="is of another job: destination was"):
        await embed(source, f"{elsewhere}&table=docs", server)
