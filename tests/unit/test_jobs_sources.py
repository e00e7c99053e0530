"""Corpus files, read row by row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.errors import ConfigurationError, SourceError
from embedbatch.jobs.sources import JsonLines, TextLines, open_source


def contents(path: Path, data: bytes, **columns: Any) -> list[Any]:
    """What the documents of a file with *data* are."""
    path.write_bytes(data)
    return [row.content for row in open_source(path, **{"text_column": "text", "id_column": None, **columns}).rows()]


def refusal(path: Path, data: bytes, **columns: Any) -> SourceError:
    """The error that reading a file with *data* ends with."""
    with pytest.raises(SourceError) as caught:
        contents(path, data, **columns)
    return caught.value


def test_a_text_file_has_a_document_per_line(tmp_path: Path) -> None:
    """Line ends of both kinds, a byte order mark and a missing last line end belong to no document."""
    path = tmp_path / "corpus.txt"

    assert contents(path, b"\xef\xbb\xbfone\r\ntwo \nthr\x00ee") == ["one", "two ", "thr\x00ee"]


def test_a_blank_line_of_a_text_file_is_a_document(tmp_path: Path) -> None:
    """The nth line is the nth document, also where lines are blank."""
    path = tmp_path / "corpus.txt"

    assert contents(path, b"one\n\n \nfour\n") == ["one", "", " ", "four"]
    assert [row.id for row in TextLines(path).rows()] == [0, 1, 2, 3]
    assert [row.line for row in TextLines(path).rows()] == [1, 2, 3, 4]


@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"))))
def test_only_line_ends_part_the_documents_of_a_text_file(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    """Any texts without \\r and \\n come back as they were: form feeds and Unicode's own line ends part nothing."""
    path = tmp_path_factory.mktemp("source") / "corpus.txt"
    texts = [text.removeprefix("\ufeff") for text in texts]

    assert contents(path, "".join(f"{text}\n" for text in texts).encode()) == texts


def test_the_text_column_is_the_document(tmp_path: Path) -> None:
    """Texts and token arrays are handed on; so is what is neither, and null for a row that lacks the column."""
    rows = [{"text": "a"}, {"text": [1, 2]}, {"text": None}, {"text": 3}, {"text": {"a": 1}}, {"body": "b"}]
    data = "\n".join(map(json.dumps, rows)).encode()

    assert contents(tmp_path / "corpus.jsonl", data) == ["a", [1, 2], None, 3, {"a": 1}, None]


def test_blank_lines_of_jsonl_are_passed_over(tmp_path: Path) -> None:
    """Documents are numbered from 0, lines from 1, and an empty line counts only as a line."""
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(b'\xef\xbb\xbf\n{"text": "a"}\r\n \n{"text": "b"}\n\n')

    rows = list(JsonLines(path, "text").rows())

    assert [(row.id, row.content, row.line) for row in rows] == [(0, "a", 2), (1, "b", 4)]


def test_what_other_programs_write_as_json_is_read(tmp_path: Path) -> None:
    """Lone surrogates, NaN and numbers beyond a double are no reason to refuse a file."""
    data = rb'{"text": "\ud800"}' + b"\n" + b'{"text": "b", "score": NaN, "n": 1e999}'

    assert contents(tmp_path / "corpus.jsonl", data) == ["\ud800", "b"]


@given(rows=st.lists(st.fixed_dictionaries({"id": st.text(st.characters(codec="utf-8")), "text": st.text()})))
def test_jsonl_gives_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]]
) -> None:
    """Any texts and ids, duplicates too, come back in order."""
    path = tmp_path_factory.mktemp("source") / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    read = [{"id": row.id, "text": row.content} for row in JsonLines(path, "text", "id").rows()]

    assert read == rows


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        pytest.param(b'{"text": ', "invalid JSON", id="cut off"),
        pytest.param(b'{"text": "a"} {"text": "b"}', "invalid JSON", id="two objects"),
        pytest.param(b"[" * 100_000, "invalid JSON", id="nested deeply"),
        pytest.param(b'["a"]', "expected a JSON object, got an array", id="an array"),
        pytest.param(b'"a"', "expected a JSON object, got a text", id="a text"),
        pytest.param(b"null", "expected a JSON object, got null", id="null"),
        pytest.param(b"1.5", "expected a JSON object, got a number", id="a number"),
        pytest.param(b'{"text": "\xff"}', "invalid UTF-8 at byte 11: 0xff", id="invalid UTF-8"),
    ],
)
def test_an_unreadable_row_is_named(tmp_path: Path, line: bytes, reason: str) -> None:
    """The error has the file, the line and the reason."""
    path = tmp_path / "corpus.jsonl"

    error = refusal(path, b'{"text": "a"}\n' + line + b"\n")

    assert (error.path, error.line) == (str(path), 2)
    assert reason in error.reason
    assert str(error).startswith(f"{path}, line 2: ")


def test_invalid_utf8_in_a_text_file_is_named(tmp_path: Path) -> None:
    """A Latin-1 file is refused at its first umlaut."""
    error = refusal(tmp_path / "corpus.txt", "eins\nzwei\nfünf\n".encode("latin-1"))

    assert (error.line, error.reason) == (3, "invalid UTF-8 at byte 2: 0xfc")


def test_a_missing_text_column_names_those_that_exist(tmp_path: Path) -> None:
    """A column that no row has is an error, with the columns of the first row."""
    error = refusal(tmp_path / "corpus.jsonl", b'{"title": "a", "body": "b"}\n{"title": "c"}\n')

    assert error.reason == "no column 'text'; the columns are 'title', 'body'"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b'{"text": "b", "key": 1}', "no column 'id'; the columns are 'text', 'key'"),
        (b'{"text": "b", "id": null}', "column 'id': expected a text or an integer, got null"),
        (b'{"text": "b", "id": 1.5}', "column 'id': expected a text or an integer, got a number"),
        (b'{"text": "b", "id": true}', "column 'id': expected a text or an integer, got a boolean"),
        (rb'{"text": "b", "id": "\ud800"}', "column 'id': an id with a lone surrogate cannot be written to any file"),
    ],
)
def test_an_id_that_cannot_be_used_is_named(tmp_path: Path, row: bytes, reason: str) -> None:
    """Every row has an id of its own that can be written: there is nothing to fall back on."""
    error = refusal(tmp_path / "corpus.jsonl", b'{"text": "a", "id": 7}\n' + row, id_column="id")

    assert (error.line, error.reason) == (2, reason)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A missing file is a SourceError too, as is a directory."""
    path = tmp_path / "corpus.jsonl"
    with pytest.raises(SourceError, match=r"corpus\.jsonl: cannot be read: No such file"):
        list(JsonLines(path, "text").rows())
    with pytest.raises(SourceError, match="cannot be read: Is a directory"):
        list(TextLines(tmp_path).rows())


@pytest.mark.parametrize("name", ["corpus.xls", "corpus", "corpus.parquet.gz"])
def test_another_suffix_is_refused(name: str) -> None:
    """What has no suffix that is known is refused by its name."""
    with pytest.raises(ConfigurationError, match=r"expected a \.jsonl, \.txt, \.csv or \.tsv file"):
        open_source(Path(name), text_column="text", id_column=None)


def test_a_text_file_has_no_id_column() -> None:
    """An id column for a file without columns is a mistake, not something to ignore."""
    with pytest.raises(ConfigurationError, match="has no columns"):
        open_source(Path("corpus.txt"), text_column="text", id_column="id")
