"""What the crash tests share: a corpus with everything that can happen to a document, and what must become of it."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np

from embedbatch import Embedder, Limits, Retries
from embedbatch.plan.tokens import ByteBound
from embedbatch.testing import Received, Scripted, ScriptedServer

from ..behaviour.corpora import read, write_jsonl

REFUSED = "refuse"  # a text with this word gets a 400
MAX_INPUT_TOKENS = 40  # which are bytes here: what is longer is split
SUFFIXES = ("", ".ids.jsonl", ".meta.json", ".failures.jsonl")  # of the files of a result


@dataclass(frozen=True)
class Corpus:
    """A source file, and the text of each of its documents."""

    path: Path
    texts: list[str]


def make_corpus(path: Path, documents: int, *, refused: int = 2, seed: int = 1) -> Corpus:
    """Some 10 % duplicates of earlier texts, some blank ones, some that are split; *refused* ones, which come twice."""
    rng = Random(seed)
    texts: list[str] = []
    bad = sorted(rng.sample(range(documents // 10, documents // 2), refused))
    for number in range(documents):
        dice = rng.random()
        if number in bad or number - documents // 3 in bad:
            texts.append(f"{REFUSED} {bad.index(number if number in bad else number - documents // 3)}")
        elif dice < 0.10 and texts:
            texts.append(rng.choice(texts))
        elif dice < 0.13:
            texts.append(" " * rng.randrange(3))
        elif dice < 0.18:
            # Without a boundary between words it is cut where a chunk is full, so no two are the same.
            width, chunks = MAX_INPUT_TOKENS - 1, range(rng.randrange(2, 5))
            texts.append("".join(f"long{number:05}x{chunk}".ljust(width, "y") for chunk in chunks))
        else:
            texts.append(f"text {number}")
    write_jsonl(path, ({"id": f"id-{number}", "text": text} for number, text in enumerate(texts)))
    return Corpus(path, texts)


def refuse(request: Received) -> Scripted | None:
    """A 400 for a request with a text that is not welcome."""
    if any(REFUSED in str(text) for text in request.inputs):
        return Scripted(status=400, body={"error": {"message": "not this one", "type": "invalid_request_error"}})
    return None


def refusing_server(**options: Any) -> ScriptedServer:
    """A server in memory that refuses what is not welcome."""
    server = ScriptedServer(**options)
    server.reply_when(refuse)
    return server


def make_embedder(server: ScriptedServer | None, **options: Any) -> Embedder:
    """An embedder that splits, sends small batches, and does not wait long; to *server*, or to the ``base_url``."""
    defaults: dict[str, Any] = {
        "base_url": "http://test/v1",
        "max_input_tokens": MAX_INPUT_TOKENS,
        "long_input": "split",
        "tokenizer": ByteBound(),
        "count_tokens": True,
        "limits": Limits(max_batch_inputs=8, max_concurrent_requests=4),
        "retries": Retries(initial_wait=0.001),
        "rng": Random(7),
    }
    transport = {} if server is None else {"transport": server}
    return Embedder("test-model", **{**defaults, **transport, **options})


def result_of(destination: Path) -> dict[str, bytes]:
    """
    The bytes of each file of a result that is there, by suffix.

    Without the attempts of failures: in how many requests a document was refused depends on what it was packed with.
    """
    paths = {suffix: Path(f"{destination}{suffix}") for suffix in SUFFIXES}
    if destination.is_dir():
        paths |= {f"/{path.name}": path for path in destination.iterdir()}
    files = {suffix: path.read_bytes() for suffix, path in paths.items() if path.is_file()}
    return {suffix: re.sub(rb'"attempts":\d+', b"", data) for suffix, data in files.items()}


def assert_right(destination: Path, corpus: Corpus, server: ScriptedServer) -> None:
    """Every document that is one chunk and not refused has the vector of its text, bit by bit; the others none."""
    ids, vectors, _ = read(destination)
    assert ids == [f"id-{number}" for number in range(len(corpus.texts))]
    for row, text in enumerate(corpus.texts):
        if not text.strip() or REFUSED in text:
            assert np.isnan(vectors[row]).all(), (row, text)
        elif len(text) <= MAX_INPUT_TOKENS:
            np.testing.assert_array_equal(vectors[row], server.vector_of(text), f"row {row}, {text!r}")
        else:
            assert np.isfinite(vectors[row]).all(), (row, text)


def fact(folder: Path, name: str) -> Any:
    """A fact in the ledger of the journal in *folder*, which nobody has open; ``None`` if it is not known."""
    rows = ask(folder, f"SELECT value FROM facts WHERE name = '{name}'")
    return msgspec.json.decode(rows[0][0]) if rows else None


def ask(folder: Path, query: str) -> list[tuple[Any, ...]]:
    """What the ledger in *folder* answers; nothing if there is none. The ledger is not touched: a copy is asked."""
    ledger, wal = folder / "ledger.sqlite", folder / "ledger.sqlite-wal"
    if not ledger.exists():
        return []
    copy = folder.with_name(f"{folder.name}.copy")
    copy.write_bytes(ledger.read_bytes())
    Path(f"{copy}-wal").write_bytes(wal.read_bytes() if wal.exists() else b"")
    file = sqlite3.connect(copy)
    try:
        return file.execute(query).fetchall()
    except sqlite3.OperationalError:
        return []  # it was not begun yet
    finally:
        file.close()
        remove(copy, Path(f"{copy}-wal"), Path(f"{copy}-shm"))


def remove(*paths: Path) -> None:
    """Remove files that may be there."""
    for path in paths:
        path.unlink(missing_ok=True)


def names(paths: Iterable[Path]) -> set[str]:
    """The names of files."""
    return {path.name for path in paths}
