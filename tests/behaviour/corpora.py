"""What the tests of jobs share."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import zstandard

from embedbatch.testing import ScriptedServer

KINDS_OF_DESTINATIONS = ["vectors.parquet", "vectors.npy", "vectors", "vectors.jsonl.gz"]
DESTINATIONS = pytest.mark.parametrize("destination", KINDS_OF_DESTINATIONS)

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
    if ".jsonl" in path.suffixes:
        rows = json_rows(path)
        dimensions = json.loads(Path(f"{path}.meta.json").read_text())["dimensions"] or 0
        vectors = np.array([row["embedding"] or [np.nan] * dimensions for row in rows], np.float32)
        return [row["id"] for row in rows], vectors.reshape(len(rows), dimensions), [row["tokens"] for row in rows]
    if path.suffix == ".npy":
        entries = list(map(json.loads, Path(f"{path}.ids.jsonl").read_text().splitlines()))
        return [entry["id"] for entry in entries], np.load(path), [entry["tokens"] for entry in entries]
    table = pq.read_table(path)
    dimensions = table.schema.field("vector").type.list_size
    lists = [row or [np.nan] * dimensions for row in table.column("vector").to_pylist()]
    return table.column("id").to_pylist(), np.array(lists, np.float32), table.column("tokens").to_pylist()


def json_rows(path: Path) -> list[dict[str, Any]]:
    """The objects in the lines of *path*, unpacked where it is packed."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    elif path.suffix == ".zst":
        data = zstandard.ZstdDecompressor().decompressobj().decompress(data)  # of the first frame, as pandas reads it
    return list(map(json.loads, data.splitlines()))


def columns_of(path: Path, names: Iterable[str]) -> dict[str, list[Any]]:
    """Columns of a destination, read without embedbatch."""
    if path.suffix in ("", ".parquet"):
        table = pq.read_table(path)
        return {name: table.column(name).to_pylist() for name in names}
    rows = json_rows(Path(f"{path}.ids.jsonl") if path.suffix == ".npy" else path)
    return {name: [row[name] for row in rows] for name in names}


def contents(folder: Path) -> dict[str, bytes]:
    """What is in the files in *folder* and its folders, but for journals, by name."""
    files = [path for path in folder.rglob("*") if path.is_file() and ".journal" not in str(path.parent)]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def failures_of(path: Path) -> list[dict[str, Any]]:
    """What the failures file of a destination lists."""
    return list(map(json.loads, Path(f"{path}.failures.jsonl").read_text().splitlines()))


def names(folder: Path) -> set[str]:
    """What is in *folder*."""
    return {path.name for path in folder.iterdir()}


def corpus(folder: Path, texts: list[str]) -> Path:
    """A source of *texts*, with ids."""
    folder.mkdir(exist_ok=True)
    return write_jsonl(folder / "c.jsonl", ({"id": f"d{n}", "text": text} for n, text in enumerate(texts)))


def sent(server: ScriptedServer) -> list[str]:
    """Every text that was sent, as often as it was."""
    return [text for request in server.received for text in request.inputs]
