"""Parquet files: what their types come to, where reading can begin, and how much of them is in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.errors import SourceError
from embedbatch.jobs.sources import Place, Row

from .sourcing import (
    TEXTS,
    assert_can_begin_anywhere,
    contents,
    opened,
    places,
    refusal,
    split,
    without_places,
    write,
)


def parquet(path: Path, *, row_group_size: int = 2, **columns: Any) -> Path:
    """A file of *columns*."""
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return path


def broken_texts(*texts: bytes) -> pa.Array[Any]:
    """*texts* as an array of texts, which some are not."""
    return pa.Array.from_buffers(pa.string(), len(texts), pa.array(texts, pa.binary()).buffers())


@given(
    texts=st.lists(TEXTS | st.none(), max_size=9),
    cuts=st.lists(st.integers(0, 9), max_size=3),
    row_group_size=st.integers(1, 9),
)
def test_files_and_row_groups_make_no_difference(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str | None], cuts: list[int], row_group_size: int
) -> None:
    """One file, or several with row groups of any size: the documents are the same, from any of them on."""
    folder = tmp_path_factory.mktemp("source")
    (folder / "several").mkdir()
    whole = parquet(folder / "whole.parquet", row_group_size=row_group_size, text=pa.array(texts, pa.string()))
    for number, piece in enumerate(split(texts, cuts)):
        parquet(folder / "several" / f"{number}.parquet", text=pa.array(piece, pa.string()))

    several = opened(folder / "several")

    assert contents(opened(whole)) == texts
    assert without_places(several.rows()) == without_places(opened(whole).rows())
    assert_can_begin_anywhere(opened(whole))
    assert_can_begin_anywhere(several)


def test_a_row_says_where_it_is(tmp_path: Path) -> None:
    """Lines are the rows of a file, from 1; the offset is the rows of all files before; bytes are those of the text."""
    parquet(tmp_path / "a.parquet", text=["é", "b", None])
    parquet(tmp_path / "b.parquet", text=["cde"])
    a, b = str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")

    rows = list(opened(tmp_path).rows())

    assert rows == [
        Row(0, "é", 1, 2, 0, a),
        Row(1, "b", 2, 1, 1, a),
        Row(2, None, 3, 0, 2, a),
        Row(3, "cde", 1, 3, 3, b),
    ]
    assert [row.file for row in opened(tmp_path / "a.parquet").rows()] == [None] * 3


@pytest.mark.parametrize(
    "texts",
    [
        pa.array(["a", None, "é"]),
        pa.array(["a", None, "é"], pa.large_string()),
        pa.array(["a", None, "é"], pa.string_view()),
        pa.array(["a", None, "é"]).dictionary_encode(),
        pa.array(["a", None, "é"], pa.large_string()).dictionary_encode(),
    ],
    ids=lambda texts: str(texts.type),
)
def test_texts_are_texts_however_they_are_kept(tmp_path: Path, texts: pa.Array[Any]) -> None:
    """Plain, large, as views and as dictionaries; null is handed on, to become a failure of its document."""
    rows = list(opened(parquet(tmp_path / "corpus.parquet", text=texts)).rows())

    assert [(row.content, row.bytes) for row in rows] == [("a", 1), (None, 0), ("é", 2)]


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.int64()), pa.large_list(pa.int32()), pa.list_(pa.uint16()), pa.list_(pa.int64(), 2)], ids=str
)
def test_lists_of_integers_are_token_arrays(tmp_path: Path, kind: pa.DataType) -> None:
    """They come as lists of Python's integers."""
    tokens = pa.array([[1, 2], None, [3, 4]], kind)

    assert contents(opened(parquet(tmp_path / "corpus.parquet", text=tokens))) == [[1, 2], None, [3, 4]]


def test_a_column_of_nothing_but_null_is_one_of_documents_without_text(tmp_path: Path) -> None:
    """Its type is null, and its documents are None."""
    assert contents(opened(parquet(tmp_path / "corpus.parquet", text=pa.nulls(2)))) == [None, None]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pa.array([7, 8], pa.int64()), [7, 8]),
        (pa.array([7, 2**64 - 1], pa.uint64()), [7, 2**64 - 1]),
        (pa.array(["x", "y"]).dictionary_encode(), ["x", "y"]),
    ],
)
def test_ids_are_integers_or_texts(tmp_path: Path, ids: pa.Array[Any], expected: list[Any]) -> None:
    """They come as they are."""
    path = parquet(tmp_path / "corpus.parquet", text=["a", "b"], id=ids)

    assert [row.id for row in opened(path, id_column="id").rows()] == expected


@pytest.mark.parametrize(
    ("columns", "options", "reason"),
    [
        ({"body": ["a"]}, {}, "no column 'text'; the columns are 'body'"),
        ({"text": ["a"]}, {"id_column": "id"}, "no column 'id'; the columns are 'text'"),
        ({"text": ["a"]}, {"columns": ["id"]}, "no column 'id'; the columns are 'text'"),
        ({"text": [1.5]}, {}, "column 'text': expected texts or lists of integers, got double"),
        ({"text": [b"a"]}, {}, "column 'text': expected texts or lists of integers, got binary"),
        ({"text": [[1.5]]}, {}, "column 'text': expected texts or lists of integers, got list<element: double>"),
        ({"text": ["a"], "id": [1.5]}, {"id_column": "id"}, "column 'id': expected texts or integers, got double"),
    ],
)
def test_columns_that_cannot_be_used_are_named(
    tmp_path: Path, columns: dict[str, Any], options: dict[str, Any], reason: str
) -> None:
    """No row is read of a file whose columns are not there, or hold something else."""
    path = parquet(tmp_path / "corpus.parquet", **columns)

    assert refusal(opened(path, skip_bad_rows=True, **options)).reason == reason


def test_each_of_several_files_has_to_have_the_column(tmp_path: Path) -> None:
    """The error names the file that has not; files may have their columns in any order and of other types."""
    parquet(tmp_path / "a.parquet", id=[1], text=["a"])
    parquet(tmp_path / "b.parquet", text=pa.array(["b"], pa.large_string()), id=["2"])
    assert [(row.id, row.content) for row in opened(tmp_path, id_column="id").rows()] == [(1, "a"), ("2", "b")]

    parquet(tmp_path / "c.parquet", body=["c"])
    assert refusal(opened(tmp_path)).path == str(tmp_path / "c.parquet")


def test_a_bad_row_is_named_and_can_be_passed_over(tmp_path: Path) -> None:
    """Bytes that are no text, and an id that is null: the row is named by its number, and gets no position."""
    path = parquet(
        tmp_path / "corpus.parquet",
        row_group_size=10,
        text=broken_texts(b"a", b"b\xff", b"c", b"d"),
        id=["1", "2", None, "4"],
    )
    bad: list[SourceError] = []

    error = refusal(opened(path, id_column="id"))
    source = opened(path, id_column="id", skip_bad_rows=True, on_bad_row=bad.append)

    assert (places(error), error.reason) == (("corpus.parquet", 2), "column 'text': invalid UTF-8 at byte 2: 0xff")
    assert [(row.id, row.content, row.line) for row in source.rows()] == [("1", "a", 1), ("4", "d", 4)]
    assert [places(each) for each in bad] == [("corpus.parquet", 2), ("corpus.parquet", 3)]
    assert bad[1].reason == "column 'id': expected a text or an integer, got null"
    assert [row.id for row in opened(path, skip_bad_rows=True).rows()] == [0, 1, 2]
    assert_can_begin_anywhere(opened(path, skip_bad_rows=True))


def test_columns_that_were_asked_for_come_with_the_row(tmp_path: Path) -> None:
    """All of them but the text and the id, or those that are named, as Python's values; one name may have a dot."""
    path = parquet(tmp_path / "corpus.parquet", id=[1], text=["a"], n=[[1, None]], meta=[{"x": 1.5}], **{"a.b": [b"c"]})

    everything = {"n": [1, None], "meta": {"x": 1.5}, "a.b": b"c"}
    assert [row.extra for row in opened(path, id_column="id", columns="all").rows()] == [everything]
    assert [row.extra for row in opened(path, columns=["a.b", "text"]).rows()] == [{"a.b": b"c", "text": "a"}]


@pytest.mark.parametrize("spoil", ["cut", "text", "empty", "missing"])
def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path, spoil: str) -> None:
    """Cut off, of another format, empty or gone: a SourceError with the file and a reason."""
    path = parquet(tmp_path / "corpus.parquet", text=["a"] * 100)
    data = path.read_bytes()
    spoiled = {"cut": data[:-10], "text": b"not at all a Parquet file", "empty": b""}
    source = opened(path)
    path.unlink()
    if spoil in spoiled:
        path.write_bytes(spoiled[spoil])

    error = refusal(source)

    assert places(error) == ("corpus.parquet", None)
    assert error.reason.startswith("cannot be read: No such file" if spoil == "missing" else "not a Parquet file: ")


def test_a_page_that_was_damaged_is_found(tmp_path: Path) -> None:
    """Where pages have checksums, a flipped bit is an error and no other text."""
    path = tmp_path / "corpus.parquet"
    table = pa.table({"text": ["some text"] * 100})
    pq.write_table(
        table, path, compression="none", use_dictionary=False, write_statistics=False, write_page_checksum=True
    )
    data = bytearray(path.read_bytes())
    data[data.index(b"some text")] ^= 1
    path.write_bytes(data)

    error = refusal(opened(path))

    assert error.reason.startswith("broken Parquet file: ")
    assert "checksum" in error.reason.lower()


def test_row_groups_before_the_beginning_are_not_read(tmp_path: Path) -> None:
    """Begun behind damaged pages, and behind a file that is damaged, reading finds nothing wrong."""
    for name in ("a.parquet", "b.parquet"):
        path = parquet(tmp_path / name, row_group_size=10, text=[f"text {n}" for n in range(30)])
        group = pq.ParquetFile(path).metadata.row_group(0).column(0)
        data = bytearray(path.read_bytes())
        first = group.dictionary_page_offset or group.data_page_offset
        data[first : first + group.total_compressed_size] = b"\xff" * group.total_compressed_size
        path.write_bytes(data)
    source = opened(tmp_path)

    rows = list(source.rows(Place(45, 16, 45)))

    assert [(row.id, row.content, row.line, row.offset) for row in rows] == [
        (30 + n, f"text {n}", n + 1, 30 + n) for n in range(15, 30)
    ]
    refusal(source)


def test_columns_that_are_not_needed_are_not_read(tmp_path: Path) -> None:
    """Damage in another column is not met."""
    path = tmp_path / "corpus.parquet"
    table = pa.table({"pad": ["padding"] * 9, "text": ["a"] * 9})
    pq.write_table(table, path, compression="none", use_dictionary=False, write_page_checksum=True)
    path.write_bytes(path.read_bytes().replace(b"padding", b"paddinG"))

    assert contents(opened(path)) == ["a"] * 9
    refusal(opened(path, columns="all"))


@pytest.mark.slow
def test_a_large_row_group_is_read_in_bounded_memory(tmp_path: Path) -> None:
    """Of a row group of 80 MB, Arrow holds less than 32 MB at any row."""
    letters = np.random.default_rng(0).integers(97, 123, (5_000, 16_000), np.uint8)
    path = tmp_path / "corpus.parquet"
    options: dict[str, Any] = {"compression": "zstd", "use_dictionary": False, "row_group_size": 5_000}
    pq.write_table(pa.table({"text": [bytes(row).decode() for row in letters]}), path, **options)
    before = pa.total_allocated_bytes()

    documents = most = 0
    for row in opened(path).rows():
        documents += row.bytes == 16_000
        most = max(most, pa.total_allocated_bytes() - before)

    assert documents == 5_000
    assert most < 32_000_000


def test_a_short_text_that_is_repeated_costs_no_more(tmp_path: Path) -> None:
    """A dictionary of one long text makes a small file of many rows, which become texts a few at a time."""
    text = "x" * 1_000_000
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 500, pa.int32()), pa.array([text]))
    path = parquet(tmp_path / "corpus.parquet", row_group_size=500, text=column)
    before = pa.total_allocated_bytes()

    most = 0
    for row in opened(path).rows():
        assert row.bytes == 1_000_000
        most = max(most, pa.total_allocated_bytes() - before)

    assert most < 32_000_000


def test_files_in_subfolders_are_found_by_a_pattern(tmp_path: Path) -> None:
    """Datasets with a folder for each partition are named by a pattern with two asterisks."""
    write(tmp_path, {"year=1/_SUCCESS": b"", "year=2/.hidden": b""})
    parquet(tmp_path / "year=1" / "x.parquet", text=["a"])
    parquet(tmp_path / "year=2" / "x.parquet", text=["b"])

    assert contents(opened(tmp_path / "**" / "*.parquet")) == ["a", "b"]
