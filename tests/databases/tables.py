"""What the tests of databases share: a corpus, tables that are read without embedbatch, and what must be in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedbatch import jobs
from embedbatch.testing import ScriptedServer

from ..behaviour.corpora import write_jsonl
from ..crash.corpus import REFUSED, make_embedder

DIMENSIONS = 8


@dataclass(frozen=True)
class Stored:
    """A row of a table. *vector* is float32, shape (dimensions,), ``None`` where there is none."""

    run: str
    row: int
    id: Any
    vector: np.ndarray[Any, Any] | None
    others: Mapping[str, Any]


def in_postgres(dsn: str, table: str = "docs") -> list[Stored]:
    """The rows of a table, in order of run and row."""
    import psycopg

    with psycopg.connect(dsn) as connection:
        cursor = connection.execute(f'SELECT *, vector_send(embedding) AS sent FROM {table} ORDER BY run, "row"')
        assert cursor.description is not None
        names = [column.name for column in cursor.description]
        return [_stored(dict(zip(names, values, strict=True))) for values in cursor]


def _stored(values: dict[str, Any]) -> Stored:
    sent = values.pop("sent")
    values.pop("embedding")
    vector = None if sent is None else np.frombuffer(sent, ">f4", offset=4).astype(np.float32)
    return Stored(str(values.pop("run")), values.pop("row"), values.pop("id"), vector, values)


def in_lance(folder: Path, table: str = "docs") -> list[Stored]:
    """The same of LanceDB."""
    import lancedb

    rows = lancedb.connect(folder).open_table(table).to_arrow().to_pylist()
    stored = []
    for values in rows:
        numbers = values.pop("embedding")
        vector = None if numbers is None else np.array(numbers, np.float32)
        stored.append(Stored(values.pop("run"), values.pop("row"), values.pop("id"), vector, values))
    return sorted(stored, key=lambda each: (each.run, each.row))


def vector_of(server: ScriptedServer, text: str | None) -> np.ndarray[Any, Any] | None:
    """The vector that a text must have, if any."""
    return None if not text or not text.strip() or REFUSED in text else server.vector_of(text)


def assert_rows(stored: list[Stored], texts: list[str | None], server: ScriptedServer) -> None:
    """No row twice, none missing, each with the vector of its text, bit by bit, or none."""
    assert [each.row for each in stored] == list(range(len(texts)))
    for each, text in zip(stored, texts, strict=True):
        expected = vector_of(server, text)
        if expected is None:
            assert each.vector is None, (each.row, text)
        else:
            assert each.vector is not None, (each.row, text)
            assert each.vector.tobytes() == expected.tobytes(), (each.row, text)


async def embed(
    source: Any, destination: Any, server: ScriptedServer, *, dimensions: int | None = DIMENSIONS, **options: Any
) -> jobs.Summary:
    """A job with small parts."""
    async with make_embedder(server, dimensions=dimensions) as embedder:
        return await jobs.run(source, destination, embedder, **{"id_column": "id", "part_rows": 16, **options})


def corpus(folder: Path, count: int = 50) -> tuple[Path, list[str | None]]:
    """Documents, one of which comes twice, one that is refused, and some without a text."""
    texts: list[str | None] = [f"text {number}" for number in range(count)]
    texts[3], texts[20], texts[30], texts[31] = "refuse it", "text 7", "", None
    path = write_jsonl(folder / "c.jsonl", ({"id": f"d{n}", "text": text} for n, text in enumerate(texts)))
    return path, texts
