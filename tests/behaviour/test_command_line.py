"""The command line: what run and search print and write, and how they end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from embedbatch import embed

from .commanding import TEXTS, call, names, write_corpus


@pytest.mark.parametrize("destination", ["v.parquet", "v.npy"])
@pytest.mark.parametrize("source", ["corpus.jsonl", "corpus.txt"])
def test_run_embeds_every_document(tmp_path: Path, source: str, destination: str) -> None:
    """Each source to each destination: the vectors of `embed`, status 0, one line, and nothing else on a pipe."""
    write_corpus(tmp_path / source)

    result = call("run", tmp_path / source, "-o", tmp_path / destination, "--model", "local")

    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout.startswith(
        f"4 documents embedded with local into {tmp_path / destination} (256 dimensions, 10 tokens, "
    )
    assert len(result.stdout.splitlines()) == 1
    if destination == "v.npy":
        vectors = np.load(tmp_path / destination)
    else:
        vectors = np.array(pq.read_table(tmp_path / destination).column("vector").to_pylist(), np.float32)
    np.testing.assert_array_equal(vectors, embed(TEXTS, "local").vectors)


def test_the_flags_reach_the_job(tmp_path: Path) -> None:
    """Columns, dimensions and texts are as asked for; tokens are counted unless --no-tokens."""
    source = tmp_path / "corpus.jsonl"
    source.write_text(
        '{"key": "a", "body": "compress data", "text": "x"}\n{"key": "b", "body": "parse", "text": "x"}\n'
    )
    flags = ["--model", "local", "--text-column", "body", "--id-column", "key", "--dimensions", "64", "--keep-text"]

    counted = call("run", source, "-o", tmp_path / "v.parquet", *flags)
    uncounted = call("run", source, "-o", tmp_path / "u.parquet", *flags, "--no-tokens")
    rows = pq.read_table(tmp_path / "v.parquet")

    assert (counted.exit_code, uncounted.exit_code) == (0, 0)
    assert rows.schema.field("vector").type.list_size == 64
    assert rows.drop_columns(["vector"]).to_pylist() == [
        {"id": "a", "tokens": 2, "text": "compress data"},
        {"id": "b", "tokens": 1, "text": "parse"},
    ]
    assert pq.read_table(tmp_path / "u.parquet").column("tokens").to_pylist() == [None, None]


def test_failed_documents_are_listed_and_make_the_status_1(tmp_path: Path) -> None:
    """The summary says how many and where; id, line, reason and attempts are in the file."""
    source = write_corpus(tmp_path / "corpus.jsonl", ["a text", "", None])
    target = tmp_path / "v.parquet"

    result = call("run", source, "-o", target, "--model", "local", "--id-column", "key")

    assert result.exit_code == 1
    assert result.stdout.startswith("1 of 3 documents embedded with local")
    assert result.stdout.endswith(f"; 2 failed: see {target}.failures.jsonl\n")
    listed = list(map(json.loads, Path(f"{target}.failures.jsonl").read_text().splitlines()))
    assert [(entry["id"], entry["line"], entry["error"], entry["attempts"]) for entry in listed] == [
        ("d1", 2, "EmptyInputError", 0),
        ("d2", 3, "InvalidInputError", 0),
    ]


def test_skipped_documents_do_not_change_the_status(tmp_path: Path) -> None:
    """With --empty skip a blank line is no failure."""
    source = write_corpus(tmp_path / "corpus.txt", ["a text", ""])

    result = call("run", source, "-o", tmp_path / "v.npy", "--model", "local", "--empty", "skip")

    assert result.exit_code == 0
    assert result.stdout.endswith("; 1 empty, skipped\n")
    assert "v.npy.failures.jsonl" not in names(tmp_path)


def test_documents_that_were_cut_are_counted(tmp_path: Path) -> None:
    """A document above the model's limit is embedded in parts, and the summary says so."""
    source = write_corpus(tmp_path / "corpus.txt", ["word " * 9_000, "short"])

    result = call("run", source, "-o", tmp_path / "v.npy", "--model", "local")

    assert result.exit_code == 0
    assert result.stdout.endswith("; 1 were longer than the model takes\n")


@pytest.mark.parametrize(
    ("data", "flags", "reason"),
    [
        pytest.param('{"body": 1, "title": 2}\n', [], "the columns are 'body', 'title'", id="no such column"),
        pytest.param('{"text": "a"}\n{"te\n', [], "corpus.jsonl, line 2: invalid JSON", id="unreadable row"),
        pytest.param('{"text": "a"}\n', ["--id-column", "id"], "no column 'id'; the columns are 'text'", id="no id"),
        pytest.param(None, [], "corpus.jsonl: cannot be read: No such file", id="no file"),
        pytest.param("", ["--dimensions", "512"], "local gives at most 256, got 512", id="dimensions"),
        pytest.param("", ["--long-input", "chunks"], "one row for each document: use split", id="chunks"),
        pytest.param("", ["--long-input", "cut"], "long_input: expected one of 'split'", id="long input"),
        pytest.param("", ["--empty", "drop"], "empty: expected one of 'error', 'skip'", id="empty"),
        pytest.param("", ["--max-tokens-per-minute", "0"], "max_tokens_per_minute: expected more than 0", id="limits"),
        pytest.param("", ["-o", "missing/v.npy"], "there is no directory missing", id="destination"),
        pytest.param("", ["-o", "v.csv"], "or a name without a suffix, got 'v.csv'", id="format"),
    ],
)
def test_what_cannot_work_ends_with_one_line_and_status_2(
    tmp_path: Path, data: str | None, flags: list[str], reason: str
) -> None:
    """The line says what is wrong; there is no traceback, and nothing is written."""
    source = tmp_path / "corpus.jsonl"
    if data is not None:
        source.write_text(data)
    before = names(tmp_path)

    result = call("run", source, "-o", tmp_path / "v.npy", "--model", "local", *flags)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("embedbatch: ")
    assert reason in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert names(tmp_path) == before


def test_without_a_key_the_ways_out_are_named(tmp_path: Path) -> None:
    """OPENAI_API_KEY, --base-url and --model local: the default model needs one of the first two."""
    result = call("run", write_corpus(tmp_path / "corpus.txt"), "-o", tmp_path / "v.npy")

    assert result.exit_code == 2
    for way_out in ("OPENAI_API_KEY", "--base-url", "--model local"):
        assert way_out in result.stderr


def test_a_key_is_no_argument() -> None:
    """Arguments are visible to every process of a machine, so there is no flag for the key."""
    result = call("run", "corpus.txt", "-o", "v.npy", "--api-key", "secret")

    assert result.exit_code == 2
    assert "No such option" in result.stderr


def test_a_run_that_stops_early_has_status_3(tmp_path: Path) -> None:
    """--max-spend-tokens is reached: the line says so, and that nothing was written."""
    source = write_corpus(tmp_path / "corpus.txt")

    result = call("run", source, "-o", tmp_path / "v.npy", "--model", "local", "--max-spend-tokens", "1")

    assert result.exit_code == 3
    assert "max_spend_tokens=1" in result.stderr
    assert f"Nothing was written to {tmp_path / 'v.npy'}." in result.stderr
    assert names(tmp_path) == {"corpus.txt"}


@pytest.mark.parametrize("destination", ["v.parquet", "v.npy"])
@pytest.mark.parametrize("dimensions", ["64", "256"])
def test_search_prints_the_nearest_documents(tmp_path: Path, destination: str, dimensions: str) -> None:
    """Rank, cosine, id and the text's first line, best first; the query is embedded as the documents were."""
    texts = ["parse text", "compress data\nwith gzip", "send an email"]
    source, target = write_corpus(tmp_path / "corpus.jsonl", texts), tmp_path / destination
    flags = ["--model", "local", "--id-column", "key", "--keep-text", "--dimensions", dimensions]
    call("run", source, "-o", target, *flags)

    result = call("search", target, "gzip compression", "-k", "2")

    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert len(lines) == 2
    rank, score, id, text = lines[0].split(maxsplit=3)
    assert (rank, id, text) == ("1", "d1", "compress data")
    assert 0.3 < float(score) <= 1
    assert lines[1].split()[0] == "2"


def test_search_prints_nothing_that_a_terminal_obeys(tmp_path: Path) -> None:
    """An escape sequence in a document or an id is shown without its escape."""
    source = tmp_path / "corpus.jsonl"
    source.write_text(json.dumps({"id": "a\x1b[2J", "text": "red \x1b[31malert\x07"}) + "\n")
    call("run", source, "-o", tmp_path / "v.npy", "--model", "local", "--id-column", "id", "--keep-text")

    result = call("search", tmp_path / "v.npy", "alert")

    assert result.stdout.rstrip().endswith("a [2J  red  [31malert")


@pytest.mark.parametrize("destination", ["v.parquet", "v.npy"])
def test_search_says_where_there_is_nothing_to_find(tmp_path: Path, destination: str) -> None:
    """Where every document failed, a query has no answer."""
    source = write_corpus(tmp_path / "corpus.txt", ["", ""])
    call("run", source, "-o", tmp_path / destination, "--model", "local")

    result = call("search", tmp_path / destination, "a query")

    assert (result.exit_code, result.stdout) == (0, "no document in it has a vector\n")


def test_search_in_what_is_no_result_has_status_2(tmp_path: Path) -> None:
    """A file that is not there is named."""
    result = call("search", tmp_path / "v.parquet", "a query")

    assert result.exit_code == 2
    assert "v.parquet: cannot be read" in result.stderr
