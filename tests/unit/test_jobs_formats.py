"""What is written can be read: with pyarrow and numpy alone, and by search."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedbatch.errors import ConfigurationError, SourceError
from embedbatch.jobs import Match, Origin, read_origin, search
from embedbatch.jobs.disk import Disk
from embedbatch.jobs.parts import Division
from embedbatch.jobs.sinks.formats import check_destination, open_result, open_sink, room_for
from embedbatch.jobs.sinks.result import Block
from embedbatch.jobs.sources import IdType
from embedbatch.values import Id

from ..behaviour.corpora import json_rows, read

FORMATS = pytest.mark.parametrize("suffix", [".parquet", ".npy", "", ".jsonl", ".jsonl.gz", ".jsonl.zst"])
META = (
    '{"model":"m","dimensions":4,"endpoint":"e","base_url":"http://h/v1","version":"1",'
    '"truncate_dimensions":null,"normalize":false,"query_prefix":"","query_fields":{}}\n'
)
Vectors = npt.NDArray[np.float32]


def write(
    path: Path,
    blocks: list[Vectors],
    *,
    ids: list[Id] | None = None,
    id_type: IdType = "int",
    dimensions: int | None = 4,
    texts: list[str | None] | None = None,
    part_rows: int | None = None,
    **options: Any,
) -> None:
    """A result of *blocks*, each a part of its own if there are *part_rows*, with ids counted from 0."""
    origin = Origin(model="m", dimensions=dimensions, endpoint="e", base_url="http://h/v1", version="1")
    folder = path.parent / "journal"
    folder.mkdir()
    documents = sum(map(len, blocks))
    division = Division(documents, part_rows or max(1, documents))
    keep_text = texts is not None
    sink = open_sink(Disk(), folder, path, origin, division=division, id_type=id_type, keep_text=keep_text, **options)
    dtype = options.get("dtype", "float32")
    room = room_for(folder, path, division=division, dimensions=dimensions or 0, dtype=dtype)
    if room is not None:  # a job's journal has written them there
        everything = np.concatenate([np.empty((0, dimensions or 0), "<f4"), *blocks])
        room.path.write_bytes(b" " * room.begin + everything.tobytes())

    def make(blocks: list[Vectors], first: int) -> Iterator[Block]:
        for vectors in blocks:
            rows = range(first, first + len(vectors))
            yield Block(
                ids=[row if ids is None else ids[row] for row in rows],
                vectors=vectors if room is None else None,
                tokens=[None if np.isnan(vector).any() else row + 1 for row, vector in zip(rows, vectors, strict=True)],
                texts=None if texts is None else [texts[row] for row in rows],
            )
            first += len(vectors)

    parts = [[block] for block in blocks] if part_rows else [blocks]
    for number, part in enumerate(parts):
        digest = sink.write_part(number, make(part, division.first(number)))
        assert sink.digest(number) == digest
    for draft, final in sink.assemble(range(len(parts)) if documents else ()):
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
    assert (tmp_path / "v.npy.meta.json").read_text() == META


PACKED = pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])


@PACKED
def test_jsonl_has_an_object_in_each_line(tmp_path: Path, suffix: str) -> None:
    """id, embedding, tokens and text, in that order, null where the document failed; several parts are one stream."""
    path = tmp_path / f"v{suffix}"
    vectors = np.array([[0.1, -0.0, 1, 1e-45], [np.nan] * 4, [1 / 3, 2, 3, 3.4e18]], np.float32)

    write(path, [vectors[:2], vectors[2:]], part_rows=2, ids=["a", 1, 2**70], id_type="str", texts=["x", None, ""])
    rows = json_rows(path)

    assert rows == [
        {"id": "a", "embedding": [0.1, -0.0, 1.0, 1e-45], "tokens": 1, "text": "x"},
        {"id": 1, "embedding": None, "tokens": None, "text": None},
        {"id": 2**70, "embedding": [0.33333334, 2.0, 3.0, 3.4e18], "tokens": 3, "text": ""},
    ]
    assert [list(row) for row in rows] == [["id", "embedding", "tokens", "text"]] * 3
    assert path.with_name(f"{path.name}.meta.json").read_text() == META
    assert [match.id for match in search(path, [1, 0, 0, 0], 3)] == ["a", 2**70]


@PACKED
def test_the_same_rows_make_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    """No time and no name is packed in, so that a job that goes on ends with the bytes of one that did not stop."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / f"v{suffix}", [some_vectors(3), some_vectors(2)], part_rows=3)

    assert (tmp_path / "one" / f"v{suffix}").read_bytes() == (tmp_path / "two" / f"v{suffix}").read_bytes()


@PACKED
def test_no_rows_are_a_file_that_can_be_read(tmp_path: Path, suffix: str) -> None:
    """Also packed: nothing at all would be no archive."""
    path = tmp_path / f"v{suffix}"
    write(path, [])

    assert json_rows(path) == []
    assert search(path, [1, 0, 0, 0]) == []


def test_every_bit_of_a_float32_comes_back_from_jsonl(tmp_path: Path) -> None:
    """By way of float64 too, as json reads; also of the one number that its fewest digits would lose."""
    path = tmp_path / "v.jsonl"
    bits = np.random.default_rng(3).integers(0, 0x7F800000, (2_000, 4), np.uint32)
    bits[::2] |= 0x80000000
    bits[0] = [0x15AE43FD, 0x95AE43FD, 0x15AE43FE, 0x15AE43FC]
    bits[1] = [0x80000000, 1, 0x7F7FFFFF, 0x00800000]
    vectors = bits.view(np.float32)

    write(path, [vectors])
    (found,) = np.concatenate(list(open_result(path).blocks()))[None]

    np.testing.assert_array_equal(read(path)[1].view(np.uint32), bits)
    np.testing.assert_array_equal(found.view(np.uint32), bits)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"id": 0, "embedding": [1, 2, 3]}', "line 2: expected 4 numbers in embedding, got 3"),
        ('{"id": 0, "embedding": [1, 2, 3, "x"]}', "line 2: not a row of a result: Expected `float`"),
        ('{"id": 0, "embed', "line 2: not a row of a result: JSON is malformed"),
        ("\udcff", "line 2: not a row of a result"),
    ],
)
def test_a_broken_line_of_jsonl_is_named(tmp_path: Path, line: str, reason: str) -> None:
    """With its file and number."""
    path = tmp_path / "v.jsonl"
    write(path, [some_vectors(1)])
    path.write_bytes(path.read_bytes() + line.encode(errors="surrogateescape") + b"\n")

    with pytest.raises(SourceError, match=reason):
        search(path, [1, 0, 0, 0])


@pytest.mark.parametrize("suffix", [".parquet", ".npy", ""])
def test_float16_takes_half_the_room(tmp_path: Path, suffix: str) -> None:
    """Rounded to the nearest, failed rows as ever; search reads it."""
    path = tmp_path / f"v{suffix}"
    vectors = some_vectors(5)
    vectors[1] = np.nan

    write(path, [vectors], dtype="float16")

    if suffix == ".npy":
        assert np.load(path).dtype == np.dtype("<f2")
    else:
        assert pq.read_table(path).schema.field("vector").type == pa.list_(pa.float16(), 4)
    np.testing.assert_array_equal(read(path)[1], vectors.astype(np.float16))
    assert {block.dtype for block in open_result(path).blocks()} == {np.dtype(np.float32)}
    assert [match.row for match in search(path, vectors[3], 1)] == [3]


def test_float16_and_jsonl_do_not_go_together(tmp_path: Path) -> None:
    """There the numbers are decimal. Another type there is not."""
    with pytest.raises(ConfigurationError, match="'float16' is for"):
        check_destination(tmp_path / "v.jsonl.gz", dtype="float16")
    with pytest.raises(ConfigurationError, match="dtype: expected one of float32, float16, got 'float64'"):
        check_destination(tmp_path / "v.npy", dtype="float64")  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "package", "remedy"),
    [
        ("v.parquet", "pyarrow", "'embedbatch[jobs]'"),
        ("v", "pyarrow", "'embedbatch[jobs]'"),
        ("v.jsonl", "orjson", "'embedbatch[jobs]'"),
        ("v.jsonl.zst", "zstandard", "zstandard"),
    ],
)
def test_a_missing_package_is_named_with_its_remedy(name: str, package: str, remedy: str) -> None:
    """The format that needs it says so up front; .npy needs none."""
    program = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from pathlib import Path\n"
        "from embedbatch.errors import ConfigurationError\n"
        "from embedbatch.jobs.sinks.formats import check_destination\n"
        "check_destination(Path('v.npy'))\n"
        f"try: check_destination(Path({name!r}))\n"
        f"except ConfigurationError as error: message = str(error)\n"
        f"assert '{package}' in message and {'pip install ' + remedy!r} in message, message\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


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
    assert len(read(path)[0]) == 3


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
    other.with_name(f"other{suffix}.meta.json").write_text(META)
    if suffix == ".npy":
        np.save(foreign, np.zeros((2, 4), np.float32))
        foreign.with_name("foreign.npy.meta.json").write_text("{}")
    elif suffix.startswith(".jsonl"):
        foreign.write_bytes(b"")
        foreign.with_name(f"foreign{suffix}.meta.json").write_text("{}")
    else:
        pq.write_table(pa.table({"vector": [1, 2]}), foreign)

    with pytest.raises(SourceError, match=r"missing\S*: cannot be read: .*[Nn]o such file"):
        read_origin(missing)
    with pytest.raises(SourceError, match=r"other\S*: (not a|broken archive)|other.jsonl, line 1: not a row"):
        search(other, [1, 0, 0, 0])
    with pytest.raises(SourceError, match=r"foreign\S*: it does not say what made its vectors"):
        read_origin(foreign)


def test_a_destination_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """Another suffix, a missing directory and a directory in its place are named."""
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "holiday.jpg").touch()
    for name, reason in [
        ("v.csv", "expected a .parquet, .npy, .jsonl, .jsonl.gz or .jsonl.zst file, or a name without a suffix, got"),
        ("v.gz", "got 'v.gz'"),
        ("v.npy.gz", "got 'v.npy.gz'"),
        ("v.jsonl.parquet.gz", "got 'v.jsonl.parquet.gz'"),
        ("full", "there is something else in the directory"),
        ("missing/v.npy", "there is no directory"),
        ("folder.npy", "expected a file, got the directory"),
    ]:
        with pytest.raises(ConfigurationError) as caught:
            check_destination(tmp_path / name)
        assert reason in str(caught.value)
