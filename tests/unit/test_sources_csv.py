"""Rows with delimiters: quotes, line numbers, and rows that are none."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.errors import SourceError
from embedbatch.jobs.sources import CsvRows, Row

from .sourcing import (
    TEXTS,
    assert_can_begin_anywhere,
    contents,
    csv_rows,
    opened,
    places,
    refusal,
    split,
    without_places,
    write,
)

# As a program that lost its quoting may write: the reader must neither fail nor lose its place.
DEBRIS = st.lists(
    st.sampled_from([b'"', b'""', b",", b"\n", b"\r\n", b"\r", b"a", b"\xc3\xa9", b"\xff", b" "]), max_size=40
)


@given(
    rows=st.lists(st.tuples(TEXTS, TEXTS), max_size=8),
    # Not minimal with \n: before Python 3.13, csv does not quote a lone \r then, and nothing could tell.
    style=st.sampled_from([(csv.QUOTE_ALL, "\n"), (csv.QUOTE_ALL, "\r\n"), (csv.QUOTE_MINIMAL, "\r\n")]),
    bom=st.sampled_from([b"", b"\xef\xbb\xbf"]),
)
def test_what_csv_writes_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], style: tuple[int, str], bom: bytes
) -> None:
    """Any texts come back, with quotes and line ends of every kind in them; and reading can begin at any row."""
    path = tmp_path_factory.mktemp("source") / "corpus.csv"
    path.write_bytes(bom + csv_rows(rows, names=["key", "text"], quoting=style[0], lineterminator=style[1]))

    source = opened(path, id_column="key")

    assert [(row.id, row.content) for row in source.rows()] == rows
    assert_can_begin_anywhere(source)


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    """A row is where its first line is, also behind rows of several lines; its bytes are those of all its lines."""
    path = tmp_path / "corpus.csv"
    path.write_bytes(b'id,text\n1,"one\n\ntwo"\r\n\n2,"three\r\nfour"\n3,five')

    rows = list(CsvRows(path, "text", "id").rows())

    assert rows == [
        Row("1", "one\n\ntwo", 2, 14, 8),
        Row("2", "three\r\nfour", 6, 16, 23),
        Row("3", "five", 8, 6, 39),
    ]


def test_a_tsv_file_has_tabs(tmp_path: Path) -> None:
    """Fields of .tsv are apart by tabs, commas belong to the text; quotes are as in .csv."""
    path = tmp_path / "corpus.tsv"
    path.write_bytes(b'id\ttext\n1\ta, b\n2\t"c\td"\n')

    assert contents(opened(path)) == ["a, b", "c\td"]


@given(rows=st.lists(st.tuples(TEXTS), max_size=8), cuts=st.lists(st.integers(0, 8), max_size=3))
def test_a_file_that_is_split_has_the_same_documents(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str]], cuts: list[int]
) -> None:
    """Each of several files has its own first row, which is no document."""
    folder = tmp_path_factory.mktemp("source")
    files = {f"{number}.csv": csv_rows(piece) for number, piece in enumerate(split(rows, cuts))}
    write(folder, {"whole.csv": csv_rows(rows)})

    several = opened(write(folder / "several", files))

    assert without_places(several.rows()) == without_places(opened(folder / "whole.csv").rows())
    assert_can_begin_anywhere(several)


def test_files_may_have_their_columns_in_any_order(tmp_path: Path) -> None:
    """The names in each file's first row say where its columns are, and how many there are."""
    write(tmp_path, {"a.csv": b"id,text\n1,a\n", "b.csv": b"text,x,id\nb,,2\n"})

    assert [(row.id, row.content) for row in opened(tmp_path, id_column="id").rows()] == [("1", "a"), ("2", "b")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"1", "expected 2 fields, as in the first row, got 1"),
        (b"1,2,3", "expected 2 fields, as in the first row, got 3"),
        (b'1,"a" b', "invalid CSV: ',' expected after '\"'"),
        (b"1,a\rb", "invalid CSV: a carriage return outside of quotes"),
        (b'1,"a', "invalid CSV: unexpected end of data"),
        (b"1,\xff", "invalid UTF-8 at byte 3: 0xff"),
        (b'1,"' + b"a" * (2**25 + 1) + b'"', "invalid CSV: field larger than field limit (33554432)"),
    ],
    ids=["few", "many", "behind a quote", "carriage return", "open quote", "invalid UTF-8", "huge"],
)
def test_a_bad_row_is_named(tmp_path: Path, line: bytes, reason: str) -> None:
    """The error has file, line and reason; passed over, it costs no other row."""
    path = tmp_path / "corpus.csv"
    path.write_bytes(b'id,text\n0,"x\ny"\n' + line + b"\n2,b\n3,c\n")

    error = refusal(opened(path))

    assert (places(error), error.reason) == (("corpus.csv", 4), reason)
    assert contents(opened(path, skip_bad_rows=True)) == ["x\ny", "b", "c"]


def test_a_long_document_is_no_bad_row(tmp_path: Path) -> None:
    """A field may be longer than the 131,072 characters that the csv module takes by itself."""
    path = tmp_path / "corpus.csv"
    path.write_bytes(csv_rows([("a" * 1_000_000,)]))

    assert [len(text) for text in contents(opened(path))] == [1_000_000]


def test_bytes_that_are_no_text_spoil_their_row_only(tmp_path: Path) -> None:
    """In a row of several lines, the error names the line they are on; the whole row is passed over."""
    path = tmp_path / "corpus.csv"
    path.write_bytes(b'text\n"a\n\xff\nb"\nc\n')
    bad: list[SourceError] = []

    assert contents(opened(path, skip_bad_rows=True, on_bad_row=bad.append)) == ["c"]
    assert [places(error) for error in bad] == [("corpus.csv", 3)]


@given(debris=DEBRIS)
def test_no_debris_makes_the_reader_lose_its_place(
    tmp_path_factory: pytest.TempPathFactory, debris: list[bytes]
) -> None:
    """Whatever is in the file, rows and bad rows are found, and reading can begin at any row."""
    path = tmp_path_factory.mktemp("source") / "corpus.csv"
    path.write_bytes(b"a,text\n" + b"".join(debris) + b'\n1,"end"\n')

    assert_can_begin_anywhere(opened(path, skip_bad_rows=True))


@given(debris=DEBRIS)
def test_a_readable_file_is_read_as_csv_reads_it(tmp_path_factory: pytest.TempPathFactory, debris: list[bytes]) -> None:
    """Where the csv module reads the whole file at once without an error, the rows are the same ones."""
    data = b"".join(debris).replace(b"\xff", b"")
    path = tmp_path_factory.mktemp("source") / "corpus.csv"
    path.write_bytes(b"text,b\n" + data)
    try:
        expected = list(csv.reader(io.StringIO(data.decode(), newline="\n"), strict=True))
    except csv.Error:
        expected = [["", "", "no row"]]

    bad: list[SourceError] = []
    rows = [
        [row.content, row.extra["b"]]
        for row in opened(path, columns="all", skip_bad_rows=True, on_bad_row=bad.append).rows()
    ]

    if not bad:
        assert rows == [row for row in expected if row]
    if all(len(row) in (0, 2) for row in expected):
        assert not bad


@pytest.mark.parametrize(
    ("data", "options", "reason"),
    [
        (b"", {}, "is empty: expected a first row with the names of the columns"),
        (b"\n\n", {}, "is empty: expected a first row with the names of the columns"),
        (b"id;text\n1;a\n", {}, "no column 'text'; the columns are 'id;text'"),
        (b"text\na\n", {"id_column": "id"}, "no column 'id'; the columns are 'text'"),
        (b"text\na\n", {"columns": ["title"]}, "no column 'title'; the columns are 'text'"),
        (b"text,text\na,b\n", {}, "column 'text' is there twice"),
        ("text\n".encode("utf-16"), {}, "invalid UTF-8 at byte 1: 0xff"),
        (b'"text\na', {}, "invalid CSV: unexpected end of data"),
    ],
)
def test_a_first_row_that_cannot_be_used_ends_it(
    tmp_path: Path, data: bytes, options: dict[str, object], reason: str
) -> None:
    """Without the names of the columns no row can be read: this is no bad row that could be passed over."""
    path = tmp_path / "corpus.csv"
    path.write_bytes(data)

    assert refusal(opened(path, skip_bad_rows=True, **options)).reason == reason


def test_columns_that_were_asked_for_come_with_the_row(tmp_path: Path) -> None:
    """All of them but the text and the id, or those that are named, as texts."""
    path = tmp_path / "corpus.csv"
    path.write_bytes(b"id,text,n,title\n1,a,5,A\n")

    assert [row.extra for row in opened(path, id_column="id", columns="all").rows()] == [{"n": "5", "title": "A"}]
    assert [row.extra for row in opened(path, columns=["title", "id"]).rows()] == [{"title": "A", "id": "1"}]
