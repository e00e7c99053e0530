"""What is written can be read: with pyarrow and numpy alone, and by search."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedbatch.errors import ConfigurationError, SourceError
from embedbatch.jobs import Match, Origin, read_origin, search
from embedbatch.jobs.disk import Disk
from embedbatch.jobs.parts import Division
from embedbatch.jobs.sinks.formats import check_destination, open_sink
from embedbatch.jobs.sinks.result import Block
from embedbatch.jobs.sources import IdType
from embedbatch.values import Id

FORMATS = pytest.mark.parametrize("suffix", [".parquet", ".npy", ""])
Vectors = npt.NDArray[np.float32]


def write(
    path: Path,
    blocks: list[Vectors],
    *,
    ids: list[Id] | None = None,
    id_type: IdType = "int",
    dimensions: int | None = 4,
    texts: list[str | None] | None = None,
) -> None:
    """A result of *blocks*, with ids counted from 0."""
    origin = Origin(model="m", dimensions=dimensions, endpoint="e", base_url="http://h/v1", version="1")
    folder = path.parent / "journal"
    folder.mkdir()
    documents = sum(map(len, blocks))
    division = Division(documents, max(1, documents))
    sink = open_sink(Disk(), folder, path, origin, division=division, id_type=id_type, keep_text=texts is not None)

    def make() -> Iterator[Block]:
        first = 0
        for vectors in blocks:
            rows = range(first, first + len(vectors))
            yield Block(
                ids=[row if ids is None else ids[row] for row in rows],
                vectors=vectors,
                tokens=[None if np.isnan(vector).any() else row + 1 for row, vector in zip(rows, vectors, strict=True)],
                texts=None if texts is None else [texts[row] for row in rows],
            )
            first += len(vectors)

    digest = sink.write_part(0, make())
    for draft, final in sink.assemble({0: digest}):
        draft.replace(final)


def some_vectors(rows: int, *, seed: int = 0) -> Vectors:
    """Random vectors of 4 numbers."""
    return np.random.default_rng(seed).standard_normal((rows, 4), np.float32)


def test_parquet_has_the_documented_columns(tmp_path: Path) -> None:
    """id, vector as a fixed-size list of float32, tokens and text; a failed row keeps its place, with null."""
    path = tmp_path / "v.parquet"
    vectors = some_vectors(5)
    vectors[[0, 3]] = np.nan
    texts = ["a", "b", None, "", "é"]

    write(path, [vectors[:2], vectors[2:]], texts=texts)
    table = pq.read_table(path)

    assert table.schema.field("id").type == pa.int64()
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 4)
    assert table.schema.field("tokens").type == pa.int64()
    assert table.column("id").to_pylist() == [0, 1, 2, 3, 4]
    assert table.column("tokens").to_pylist() == [None, 2, 3, None, 5]
    assert table.column("text").to_pylist() == texts
    assert table.column("vector").is_null().to_pylist() == [True, False, False, True, False]
    present = np.array(table.column("vector").drop_null().to_pylist(), np.float32)
    np.testing.assert_array_equal(present, vectors[[1, 2, 4]])
    assert pq.ParquetFile(path).num_row_groups == 2


def test_mixed_ids_are_strings_in_parquet(tmp_path: Path) -> None:
    """A column has one type: where one id is a text, the others are written as texts."""
    write(tmp_path / "v.parquet", [some_vectors(3)], ids=["a", 2, 2**70], id_type="str")

    assert pq.read_table(tmp_path / "v.parquet").column("id").to_pylist() == ["a", "2", str(2**70)]


def test_npy_is_an_array_that_numpy_loads(tmp_path: Path) -> None:
    """float32, C order, one row for each document, NaN where it failed; ids and origin are beside it."""
    path = tmp_path / "v.npy"
    vectors = some_vectors(5)
    vectors[1] = np.nan

    write(
        path, [vectors[:2], vectors[2:]], ids=["a", 1, "c", "c", 2**70], id_type="str", texts=["x", None, "", "y", "z"]
    )
    loaded = np.load(path)

    assert loaded.dtype == np.dtype("<f4")
    assert loaded.flags.c_contiguous
    np.testing.assert_array_equal(loaded, vectors)
    assert (tmp_path / "v.npy.ids.jsonl").read_text().splitlines() == [
        '{"id":"a","tokens":1,"text":"x"}',
        '{"id":1,"tokens":null,"text":null}',
        '{"id":"c","tokens":3,"text":""}',
        '{"id":"c","tokens":4,"text":"y"}',
        '{"id":1180591620717411303424,"tokens":5,"text":"z"}',
    ]
    assert (tmp_path / "v.npy.meta.json").read_text() == (
        '{"model":"m","dimensions":4,"endpoint":"e","base_url":"http://h/v1","version":"1",'
        '"truncate_dimensions":null,"normalize":false,"query_prefix":"","query_fields":{}}\n'
    )


@FORMATS
def test_the_origin_is_recorded(tmp_path: Path, suffix: str) -> None:
    """Model, dimensions, endpoint, address and version come back from the file."""
    path = tmp_path / f"v{suffix}"
    write(path, [some_vectors(1)])

    assert read_origin(path) == Origin(model="m", dimensions=4, endpoint="e", base_url="http://h/v1", version="1")


@FORMATS
def test_search_finds_the_highest_cosines(tmp_path: Path, suffix: str) -> None:
    """The same rows as a comparison with all of them, best first, over several blocks; failed rows never match."""
    path = tmp_path / f"v{suffix}"
    vectors, query = some_vectors(1_000), some_vectors(1, seed=1)[0]
    vectors[::3] = np.nan
    cosines = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    expected = np.argsort(-cosines)[:7].tolist()

    write(path, [vectors[:10], vectors[10:600], vectors[600:]])
    matches = search(path, query, 7)

    assert [match.row for match in matches] == [match.id for match in matches] == expected
    np.testing.assert_allclose([match.score for match in matches], cosines[expected], rtol=1e-5)


@FORMATS
def test_search_returns_ids_and_texts(tmp_path: Path, suffix: str) -> None:
    """Each match has its own id and text; of equal ones the earlier comes first; zeros have no direction."""
    path = tmp_path / f"v{suffix}"
    rows = np.array([[0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [2, 0, 0, 0]], np.float32)

    write(path, [rows[:3], rows[3:]], ids=["zero", "x", "y", "x"], id_type="str", texts=["0", None, "why", "ex"])

    assert search(path, [1, 0, 0, 0], 4) == [
        Match("x", 1.0, 1, None),
        Match("x", 1.0, 3, "ex"),
        Match("y", 0.0, 2, "why"),
    ]


@FORMATS
def test_a_result_without_any_vector_has_no_matches(tmp_path: Path, suffix: str) -> None:
    """Where every document failed and the size of the vectors was never known, the rows are there and match nothing."""
    path = tmp_path / f"v{suffix}"
    write(path, [np.empty((3, 0), np.float32)], dimensions=None)

    assert search(path, [1, 0, 0, 0]) == []
    rows = len(np.load(path)) if suffix == ".npy" else pq.read_table(path).num_rows
    assert rows == 3


@FORMATS
def test_a_query_of_another_size_is_refused(tmp_path: Path, suffix: str) -> None:
    """Vectors of another model cannot be compared, so their size is checked; so is k."""
    path = tmp_path / f"v{suffix}"
    write(path, [some_vectors(2)])

    with pytest.raises(ConfigurationError, match=r"query: expected shape \(4,\), got \(5,\)"):
        search(path, [1.0] * 5)
    with pytest.raises(ConfigurationError, match="k: expected at least 1, got 0"):
        search(path, [1.0] * 4, 0)


@FORMATS
def test_what_is_no_result_is_named(tmp_path: Path, suffix: str) -> None:
    """A missing file, a file of another kind and a file without a record of its model are SourceErrors."""
    missing, other, foreign = (tmp_path / f"{name}{suffix}" for name in ("missing", "other", "foreign"))
    other.write_bytes(b"something else entirely")
    if suffix == ".npy":
        np.save(foreign, np.zeros((2, 4), np.float32))
        foreign.with_name("foreign.npy.meta.json").write_text("{}")
    else:
        pq.write_table(pa.table({"vector": [1, 2]}), foreign)

    with pytest.raises(SourceError, match=r"missing\S*: cannot be read: .*[Nn]o such file"):
        read_origin(missing)
    with pytest.raises(SourceError, match=r"other\S*: not a"):
        read_origin(other)
    with pytest.raises(SourceError, match=r"foreign\S*: it does not say what made its vectors"):
        read_origin(foreign)


def test_a_destination_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """Another suffix, a missing directory and a directory in its place are named."""
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "holiday.jpg").touch()
    for name, reason in [
        ("v.csv", "expected a .parquet or .npy file, or a name without a suffix, got 'v.csv'"),
        ("full", "there is something else in the directory"),
        ("missing/v.npy", "there is no directory"),
        ("folder.npy", "expected a file, got the directory"),
    ]:
        with pytest.raises(ConfigurationError) as caught:
            check_destination(tmp_path / name)
        assert reason in str(caught.value)
