"""Tables in memory, of whatever library they are."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.errors import ConfigurationError, SourceError
from embedbatch.jobs.sources import Row, open_table

from .sourcing import TEXTS, assert_can_begin_anywhere, contents, opened, without_places

COLUMNS: dict[str, list[Any]] = {"id": [3, 1, 2], "text": ["a", None, "é"], "title": ["A", "B", None]}


def of_pandas(columns: dict[str, list[Any]]) -> Any:
    """A frame whose index is not 0, 1, 2, …."""
    pandas = pytest.importorskip("pandas", minversion="2.2")
    return pandas.DataFrame(columns, index=range(5, 5 + len(columns["text"])))


def of_polars(columns: dict[str, list[Any]]) -> Any:
    return pytest.importorskip("polars").DataFrame(columns)


def of_duckdb(columns: dict[str, list[Any]]) -> Any:
    """A relation, which is a query that has not been run."""
    duckdb = pytest.importorskip("duckdb")
    return duckdb.connect().from_arrow(pa.table(columns)).filter("id > 0")


def of_datasets(columns: dict[str, list[Any]]) -> Any:
    return pytest.importorskip("datasets").Dataset.from_dict(columns)


def data_of_datasets(columns: dict[str, list[Any]]) -> Any:
    return of_datasets(columns).data


def reader(columns: dict[str, list[Any]]) -> Any:
    """What can be read once."""
    return pa.table(columns).to_reader(max_chunksize=2)


TABLES = [of_pandas, of_polars, of_duckdb, of_datasets, data_of_datasets, reader, pa.table, pa.record_batch]


@pytest.mark.parametrize("make", TABLES, ids=lambda make: make.__name__)
def test_rows_are_those_of_the_table(make: Callable[[Any], Any]) -> None:
    """In order, with null as None; read twice, and from any row on, whatever the table is."""
    source = open_table(make(COLUMNS), "text", "id", columns=["title"])

    rows = list(source.rows())

    assert [(row.id, row.content, row.extra) for row in rows] == [
        (3, "a", {"title": "A"}),
        (1, None, {"title": "B"}),
        (2, "é", {"title": None}),
    ]
    assert [(row.line, row.bytes, row.offset, row.file) for row in rows] == [
        (1, 1, 0, None),
        (2, 0, 1, None),
        (3, 2, 2, None),
    ]
    assert_can_begin_anywhere(source)


@pytest.mark.parametrize("make", TABLES, ids=lambda make: make.__name__)
def test_the_fingerprint_is_that_of_the_rows(make: Callable[[Any], Any]) -> None:
    """The same rows have the same digest, whatever library they come from; another row has another."""
    several = {name: [*values, *values] for name, values in COLUMNS.items()}
    changed = {**COLUMNS, "text": ["a", None, "e"]}

    found = open_table(make(COLUMNS), "text", "id").fingerprint()

    assert found.digest == open_table(pa.table(COLUMNS), "text", "id").fingerprint().digest
    assert found.digest != open_table(make(several), "text", "id").fingerprint().digest
    assert found.digest != open_table(make(changed), "text", "id").fingerprint().digest
    assert found.digest == open_table(make({**COLUMNS, "title": ["-"] * 3}), "text", "id").fingerprint().digest


def test_other_columns_of_a_frame_may_be_anything() -> None:
    """What Arrow has no type for does no harm in a column of pandas that is not needed; asked for, it is refused."""
    frame = of_pandas({**COLUMNS, "any": [1, "one", object()]})

    assert contents(open_table(frame, "text", "id", columns=["title"])) == ["a", None, "é"]
    with pytest.raises(ConfigurationError, match="pandas DataFrame cannot be read as a table"):
        open_table(frame, "text", "id", columns=["any"])


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_a_dictionary_is_its_values(kind: pa.DataType) -> None:
    """Of texts of any type, as those of polars are views: as documents, as ids, and in other columns."""
    values = pa.DictionaryArray.from_arrays(pa.array([1, None, 0, 1], pa.uint32()), pa.array(["é", "b"], kind))
    ids = pa.DictionaryArray.from_arrays(pa.array([0, 1, 1, 0], pa.uint32()), pa.array(["x", "y"], kind))

    source = open_table(pa.table({"text": values, "id": ids, "more": values}), "text", "id", columns="all")

    texts = ["b", None, "é", "b"]
    rows = list(source.rows())
    assert [(row.id, row.content, row.extra["more"]) for row in rows] == list(zip("xyyx", texts, texts, strict=True))
    assert source.schema() == pa.schema([("more", pa.large_string())])
    plain = pa.table({"text": texts, "id": list("xyyx"), "more": texts})
    assert source.fingerprint().digest == open_table(plain, "text", "id", columns="all").fingerprint().digest


def test_a_dataset_that_was_shuffled_has_its_new_order() -> None:
    """A dataset of Hugging Face keeps its rows where they are, and their order beside them."""
    dataset = of_datasets({"text": [f"text {n}" for n in range(50)]}).shuffle(seed=0)

    assert contents(open_table(dataset, "text", None)) == list(dataset["text"])
    assert dataset["text"][0] != "text 0"


@given(
    texts=st.lists(TEXTS | st.none(), max_size=9),
    chunks=st.lists(st.integers(0, 9), max_size=3),
    kind=st.sampled_from([pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]),
)
def test_how_it_is_kept_makes_no_difference(texts: list[str | None], chunks: list[int], kind: pa.DataType) -> None:
    """Cut into chunks and of any type of text, rows and digest are the same."""
    whole = open_table(pa.table({"text": pa.array(texts, pa.string())}), "text", None)
    bounds = [0, *sorted(min(chunk, len(texts)) for chunk in chunks), len(texts)]
    pieces = [pa.array(texts[a:b], pa.string()).cast(kind) for a, b in pairwise(bounds)]

    source = open_table(pa.table({"text": pa.chunked_array(pieces, kind)}), "text", None)

    assert contents(source) == texts
    assert without_places(source.rows()) == without_places(whole.rows())
    assert source.fingerprint().digest == whole.fingerprint().digest


@given(
    rows=st.lists(st.lists(st.sampled_from(["", "a", "ab", None]), max_size=3), min_size=2, max_size=2, unique_by=tuple)
)
def test_other_texts_have_another_digest(rows: list[list[str | None]]) -> None:
    """Where one text ends and the next begins, and whether it is empty or null, is part of it."""
    one, other = (open_table(pa.table({"text": pa.array(texts, pa.string())}), "text", None) for texts in rows)

    assert one.fingerprint().digest != other.fingerprint().digest


def test_token_arrays_and_what_else_is_asked_for_are_part_of_the_digest() -> None:
    """Tokens are, as lists, and extra columns of any type."""
    columns = {"text": [[1, 2], [3], None], "meta": [{"x": 1}, None, {"x": 2.5}]}
    source = open_table(pa.table(columns), "text", None, columns="all")
    others = [{**columns, "text": [[1], [2, 3], None]}, {**columns, "meta": [{"x": 1}, None, {"x": 2.0}]}]

    digests = {open_table(pa.table(other), "text", None, columns="all").fingerprint().digest for other in others}

    assert contents(source) == columns["text"]
    assert [row.extra for row in source.rows()] == [{"meta": meta} for meta in columns["meta"]]
    assert len({source.fingerprint().digest, *digests}) == 3


def test_a_stamp_is_of_one_table_only() -> None:
    """It stays for as long as the source does; another table, which may hold something else, has another."""
    table = pa.table({"text": ["a"]})
    source = open_table(table, "text", None)

    assert source.stamp() == source.stamp() == source.fingerprint().stamp
    assert source.stamp() != open_table(table, "text", None).stamp()
    assert source.has_grown(source.fingerprint()) is False


def test_only_what_is_needed_is_kept() -> None:
    """A stream's other columns are let go while it is read."""
    table = pa.table({"text": ["a"] * 1000, "pad": ["x" * 10_000] * 1000})
    before = pa.total_allocated_bytes()

    source = open_table(table.to_reader(), "text", None)
    del table

    assert pa.total_allocated_bytes() < before - 9_000_000
    assert len(list(source.rows())) == 1000


def test_an_arrow_table_is_not_copied() -> None:
    """What is Arrow's already stays where it is."""
    table = pa.table({"text": ["x" * 1000] * 1000})
    before = pa.total_allocated_bytes()

    source = open_table(table, "text", None)

    assert pa.total_allocated_bytes() < before + 10_000
    assert len(list(source.rows())) == 1000


def test_the_table_and_its_file_have_the_same_documents(tmp_path: Path) -> None:
    """Read from memory or from Parquet, rows are the same."""
    table = pa.table(COLUMNS)
    pq.write_table(table, tmp_path / "corpus.parquet")

    assert list(open_table(table, "text", "id").rows()) == list(
        opened(tmp_path / "corpus.parquet", id_column="id").rows()
    )


def test_a_bad_row_of_a_table_is_named() -> None:
    """By the name of its library and its number; passed over, it gets no position."""
    table = pa.table({"text": ["a", "b"], "id": pa.array([None, 1], pa.int64())})
    bad: list[SourceError] = []

    with pytest.raises(
        SourceError, match=r"^pyarrow Table, line 1: column 'id': expected a text or an integer, got null"
    ):
        list(open_table(table, "text", "id").rows())
    source = open_table(table, "text", "id", skip_bad_rows=True, on_bad_row=bad.append)

    assert list(source.rows()) == [Row(1, "b", 2, 1, 1)]
    assert [error.line for error in bad] == [1]
    assert source.name == "pyarrow Table"


@pytest.mark.parametrize(
    ("columns", "id_column", "reason"),
    [
        ({"body": ["a"]}, None, "no column 'text'; the columns are 'body'"),
        ({"text": [1]}, None, "column 'text': expected texts or lists of integers, got int64"),
        ({"text": ["a"], "id": [True]}, "id", "column 'id': expected texts or integers, got bool"),
    ],
)
@pytest.mark.parametrize("make", [pa.table, of_datasets], ids=lambda make: make.__name__)
def test_a_table_without_the_columns_is_refused_at_once(
    make: Callable[[Any], Any], columns: dict[str, Any], id_column: str | None, reason: str
) -> None:
    """Opening it says which column is not there, or is of another type."""
    with pytest.raises(SourceError) as caught:
        open_table(make(columns), "text", id_column)

    assert caught.value.reason == reason


def test_what_is_no_table_is_refused() -> None:
    """A list, a column and a query that was not run say what is expected instead."""
    polars = pytest.importorskip("polars")
    for no_table in (["a"], object(), polars.LazyFrame({"text": ["a"]})):
        with pytest.raises(ConfigurationError, match="expected a table with __arrow_c_stream__"):
            open_table(no_table, "text", None)
    pandas = pytest.importorskip("pandas")
    for column in (polars.Series(["a"]), pandas.Series(["a"]), pa.chunked_array([["a"]])):
        with pytest.raises(ConfigurationError, match=r"as a table|expected a table"):
            open_table(column, "text", None)


def test_a_dataset_that_is_streamed_is_refused() -> None:
    """It may have no end, and may have another order the next time."""
    datasets = pytest.importorskip("datasets")
    streamed = datasets.Dataset.from_dict({"text": ["a"]}).to_iterable_dataset()
    splits = datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": ["a"]})})

    for no_table in (streamed, splits):
        with pytest.raises(ConfigurationError, match="expected a table with __arrow_c_stream__"):
            open_table(no_table, "text", None)
