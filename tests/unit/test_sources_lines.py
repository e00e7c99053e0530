"""Files with a document in each line: where reading can begin, what is skipped, and what else a row carries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.errors import ConfigurationError, SourceError
from embedbatch.jobs.sources import JsonLines, Row, TextLines

from .sourcing import (
    TEXTS,
    assert_can_begin_anywhere,
    contents,
    json_lines,
    opened,
    places,
    refusal,
    split,
    without_places,
    write,
)

LINES = st.lists(
    st.sampled_from([b"", b" ", b"one", b'{"text": "a"}', b'{"text": "\xc3\xa9"}', b"\xff", b"["]), max_size=8
)


@given(
    lines=LINES,
    end=st.sampled_from([b"\n", b"\r\n"]),
    is_ended=st.booleans(),
    bom=st.sampled_from([b"", b"\xef\xbb\xbf"]),
)
@pytest.mark.parametrize("format", ["txt", "jsonl"])
def test_reading_can_begin_at_any_row(
    tmp_path_factory: pytest.TempPathFactory, format: str, lines: list[bytes], end: bytes, is_ended: bool, bom: bytes
) -> None:
    """From the place of any row on come exactly the rows that are left, whatever stands between them."""
    path = tmp_path_factory.mktemp("source") / f"corpus.{format}"
    path.write_bytes(bom + end.join(lines) + (end if is_ended else b""))

    assert_can_begin_anywhere(opened(path, skip_bad_rows=True))


@given(texts=st.lists(TEXTS, max_size=8), cuts=st.lists(st.integers(0, 8), max_size=3))
def test_a_file_that_is_split_has_the_same_documents(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], cuts: list[int]
) -> None:
    """Rows go on from file to file: ids and texts are those of one file, also where one of them is empty."""
    folder = tmp_path_factory.mktemp("source")
    records = [{"text": text} for text in texts]
    whole = folder / "whole.jsonl"
    whole.write_bytes(json_lines(records))
    files = {f"{number}.jsonl": json_lines(piece) for number, piece in enumerate(split(records, cuts))}

    several = opened(write(folder / "several", files))

    assert without_places(several.rows()) == without_places(opened(whole).rows())
    assert_can_begin_anywhere(several)


def test_a_row_of_several_files_names_its_file(tmp_path: Path) -> None:
    """Lines are counted in each file; in a single file, whose name is known, a row names none."""
    write(tmp_path, {"a.txt": b"one\ntwo\n", "b.txt": b"three"})

    rows = list(opened(tmp_path).rows())

    assert [(row.id, row.content, row.line) for row in rows] == [(0, "one", 1), (1, "two", 2), (2, "three", 1)]
    assert [row.file for row in rows] == [str(tmp_path / name) for name in ("a.txt", "a.txt", "b.txt")]
    assert {row.file for row in opened(tmp_path / "a.txt").rows()} == {None}


def test_every_file_may_have_a_byte_order_mark(tmp_path: Path) -> None:
    """Files that were written by several programs are read as one."""
    write(tmp_path, {"a.txt": b"\xef\xbb\xbfone\n", "b.txt": b"\xef\xbb\xbftwo\n"})

    assert contents(opened(tmp_path)) == ["one", "two"]


def test_a_column_may_be_in_one_of_several_files_only(tmp_path: Path) -> None:
    """Where one file has the column, rows of another that lack it are documents without text; else it is missing."""
    write(tmp_path, {"a.jsonl": b'{"body": "a"}\n', "b.jsonl": b'{"text": "b"}\n'})

    assert contents(opened(tmp_path)) == [None, "b"]
    assert refusal(opened(tmp_path, text_column="title")).reason == "no column 'title'; the columns are 'body'"


def test_bad_rows_can_be_passed_over(tmp_path: Path) -> None:
    """They are handed to the callable, with file and line, and get no position; the ids of the others leave no gap."""
    write(
        tmp_path,
        {
            "a.jsonl": b'{"text": "a"}\n{"text": \n\n{"text": "\xff"}\n',
            "b.jsonl": b'[1]\n{"text": "b"}\n',
        },
    )
    bad: list[SourceError] = []

    source = opened(tmp_path, skip_bad_rows=True, on_bad_row=bad.append)

    assert [(row.id, row.content, row.line) for row in source.rows()] == [(0, "a", 1), (1, "b", 2)]
    assert [places(error) for error in bad] == [("a.jsonl", 2), ("a.jsonl", 4), ("b.jsonl", 1)]
    assert [error.reason.partition(":")[0] for error in bad] == [
        "invalid JSON",
        "invalid UTF-8 at byte 11",
        "expected a JSON object, got an array",
    ]
    assert_can_begin_anywhere(source)


def test_a_row_without_its_id_is_a_bad_row(tmp_path: Path) -> None:
    """An id that is missing or cannot be used is passed over too, when rows may be."""
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(
        json_lines([{"text": "a", "id": 1}, {"text": "b"}, {"text": "c", "id": None}, {"text": "d", "id": 4}])
    )

    source = opened(path, id_column="id", skip_bad_rows=True)

    assert [(row.id, row.content) for row in source.rows()] == [(1, "a"), (4, "d")]


def test_a_line_of_text_that_is_passed_over_leaves_no_gap(tmp_path: Path) -> None:
    """Ids count documents then, and no longer lines."""
    path = tmp_path / "corpus.txt"
    path.write_bytes(b"one\n\xff\nthree\n")

    assert list(TextLines(path, skip_bad_rows=True).rows()) == [Row(0, "one", 1, 4, 0), Row(1, "three", 3, 6, 6)]
    assert (refusal(TextLines(path)).line, refusal(TextLines(path)).reason) == (2, "invalid UTF-8 at byte 1: 0xff")


def test_what_the_callable_raises_is_not_mistaken_for_a_broken_file(tmp_path: Path) -> None:
    """A handler that cannot write its log ends the reading with its own error."""
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(b"[\n")

    def fail(error: SourceError) -> None:
        raise OSError("the log is full")

    with pytest.raises(OSError, match="the log is full"):
        list(JsonLines(path, "text", skip_bad_rows=True, on_bad_row=fail).rows())


@pytest.mark.parametrize(
    ("columns", "extras"),
    [
        ((), [{}, {}]),
        (["title"], [{"title": "A"}, {"title": None}]),
        (["n", "id"], [{"n": [1], "id": 7}, {"n": None, "id": 8}]),
        ("all", [{"title": "A", "n": [1]}, {"other": {"x": None}}]),
    ],
)
def test_columns_that_were_asked_for_come_with_the_row(tmp_path: Path, columns: Any, extras: list[Any]) -> None:
    """By name, None where a row lacks them; or all but the text and the id."""
    path = tmp_path / "corpus.jsonl"
    records = [{"id": 7, "text": "a", "title": "A", "n": [1]}, {"id": 8, "text": "b", "other": {"x": None}}]
    path.write_bytes(json_lines(records))

    rows = list(opened(path, id_column="id", columns=columns).rows())

    assert [row.extra for row in rows] == extras
    assert [row.content for row in rows] == ["a", "b"]


def test_a_column_that_no_row_has_is_missed(tmp_path: Path) -> None:
    """Asked for by name, it has to be in some row at least, as the text's."""
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(json_lines([{"text": "a"}, {"text": "b", "title": "B"}]))

    assert refusal(opened(path, columns=["title", "author"])).reason == "no column 'author'; the columns are 'text'"
    assert len(list(opened(path, columns=["title"]).rows())) == 2


def test_a_text_file_has_no_columns_to_ask_for(tmp_path: Path) -> None:
    """Columns by name are a mistake for a .txt file; all of none are none."""
    path = tmp_path / "corpus.txt"
    path.write_bytes(b"one\n")

    assert [row.extra for row in opened(path, columns="all").rows()] == [{}]
    with pytest.raises(ConfigurationError, match="which has no columns"):
        opened(path, columns=["title"])


def test_one_name_is_no_list_of_columns() -> None:
    """A text where names are expected would be read letter by letter: it is refused."""
    with pytest.raises(ConfigurationError, match=r'expected names of columns or "all", got \'title\''):
        opened(Path("corpus.jsonl"), columns="title")


@given(records=st.lists(st.dictionaries(TEXTS, st.integers() | TEXTS | st.none(), max_size=3), max_size=5))
def test_all_columns_are_what_the_row_was(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]]
) -> None:
    """Text and extra columns together are the object of the line, whatever its keys are."""
    path = tmp_path_factory.mktemp("source") / "corpus.jsonl"
    path.write_bytes(json_lines([{**record, "text": "t"} for record in records]))

    rows = list(JsonLines(path, "text", columns="all").rows())

    assert [{**row.extra, "text": row.content} for row in rows] == [{**record, "text": "t"} for record in records]
    assert json.dumps([dict(row.extra) for row in rows])
