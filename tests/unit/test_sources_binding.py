"""How it is told that files are what they were, or have grown."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.errors import SourceError
from embedbatch.jobs.sources import Source

from .sourcing import contents, opened, write


def test_the_fingerprint_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    """Size and digest are those of the file as it is on the disk, compressed or not."""
    for name, data in {"a.jsonl": b'{"text": "a"}\n', "b.txt": b"", "c.txt.gz": gzip.compress(b"c")}.items():
        write(tmp_path, {name: data})
        source = opened(tmp_path / name)

        found = source.fingerprint()

        assert (found.bytes, found.digest) == (len(data), xxhash.xxh3_128_hexdigest(data))
        assert found.stamp == source.stamp()


@pytest.mark.parametrize("name", ["", "*.txt", "a.txt"])
def test_the_stamp_changes_when_a_file_is_written_to(tmp_path: Path, name: str) -> None:
    """For a file, a folder and a pattern; what is left alone keeps its stamp."""
    write(tmp_path, {"a.txt": b"a", "b.txt": b"b"})
    before = opened(tmp_path / name).stamp()
    assert opened(tmp_path / name).stamp() == before

    os.utime(tmp_path / "a.txt", ns=(0, 1))

    assert opened(tmp_path / name).stamp() != before


def test_the_stamp_of_a_folder_changes_with_its_files(tmp_path: Path) -> None:
    """One more, and another name."""
    stamps = [opened(write(tmp_path, {"a.txt": b"a"})).stamp(), opened(write(tmp_path, {"b.txt": b"b"})).stamp()]
    (tmp_path / "b.txt").rename(tmp_path / "c.txt")
    stamps.append(opened(tmp_path).stamp())

    assert len({*stamps}) == 3


def test_the_fingerprint_of_a_folder_is_that_of_what_is_in_it(tmp_path: Path) -> None:
    """The same files elsewhere, or under names of the same order, have it; in another order, or cut elsewhere, not."""

    def digest(folder: str, files: dict[str, bytes]) -> str:
        return opened(write(tmp_path / folder, files)).fingerprint().digest

    found = digest("one", {"a.txt": b"a\n", "b.txt": b"b\n"})

    assert found == digest("two", {"x.txt": b"a\n", "y.txt": b"b\n", "notes.md": b"-"})
    assert found == opened(tmp_path / "one" / "*.txt").fingerprint().digest
    assert found != digest("three", {"a.txt": b"b\n", "b.txt": b"a\n"})
    assert found != digest("four", {"a.txt": b"a\nb\n"})
    assert found != digest("five", {"a.txt": b"a\n", "b.txt": b"", "c.txt": b"b\n"})


@pytest.mark.parametrize("name", ["corpus.txt", "corpus.jsonl", "corpus.csv"])
@pytest.mark.parametrize(
    ("before", "now", "has_grown"),
    [
        (b"text\none\n", b"text\none\ntwo\n", True),
        (b"text\none", b"text\none\ntwo\n", True),
        (b"text\none", b"text\none\r\ntwo\n", True),
        (b"text\none", b"text\nones\n", False),
        (b"text\none", b"text\none\rs\n", False),
        (b"text\none\r", b"text\none\r\ntwo\n", True),
        (b"text\none\r", b"text\none\r\r\ntwo\n", False),
        (b"text\none\n", b"text\none\n", False),
        (b"text\none\n", b"text\n", False),
        (b"text\none\n", b"text\ntwo\nthree\n", False),
        (b"", b"text\n", True),
    ],
)
def test_a_file_of_lines_has_grown_if_lines_were_added(
    tmp_path: Path, name: str, before: bytes, now: bytes, has_grown: bool
) -> None:
    """What was there is unchanged, and the last line has not become longer."""
    source = opened(write(tmp_path, {name: before}) / name)
    known = source.fingerprint()

    write(tmp_path, {name: now})

    assert source.has_grown(known) is has_grown


@given(
    before=st.lists(st.sampled_from([b"a", b"\n", b"\r"]), max_size=5),
    more=st.lists(st.sampled_from([b"a", b"\n", b"\r"]), max_size=5),
)
def test_what_has_grown_begins_with_the_documents_it_had(
    tmp_path_factory: pytest.TempPathFactory, before: list[bytes], more: list[bytes]
) -> None:
    """Whenever a file is said to have grown, its first documents are those it had."""
    path = tmp_path_factory.mktemp("source") / "corpus.txt"
    path.write_bytes(b"".join(before))
    source = opened(path)
    known, documents = source.fingerprint(), contents(source)
    path.write_bytes(b"".join([*before, *more]))

    if source.has_grown(known):
        assert contents(source)[: len(documents)] == documents


def test_bad_rows_at_the_end_may_become_good_ones(tmp_path: Path) -> None:
    """Where rows of a .csv file were passed over, what was added may have closed a quote: it cannot be told."""
    path = tmp_path / "corpus.csv"
    path.write_bytes(b'text\na\n"b\nc\n')
    source = opened(path, skip_bad_rows=True)
    known = source.fingerprint()
    assert contents(source) == ["a", "c"]

    path.write_bytes(b'text\na\n"b\nc\nd"\n')

    assert contents(source) == ["a", "b\nc\nd"]
    assert source.has_grown(known) is False


@pytest.mark.parametrize("name", ["corpus.txt.gz", "corpus.parquet"])
def test_of_other_files_it_cannot_be_told(tmp_path: Path, name: str) -> None:
    """A compressed file and a Parquet file have not grown as far as can be told."""
    path = tmp_path / name
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(b"one\n"))
    else:
        pq.write_table(pa.table({"text": ["one"]}), path)
    source = opened(path)
    known = source.fingerprint()

    path.write_bytes(path.read_bytes() * 2)

    assert source.has_grown(known) is False


@pytest.mark.parametrize(
    ("now", "has_grown"),
    [
        ({"a.txt": b"a\n", "b.txt": b"b\n", "c.txt": b"c\n"}, True),
        ({"a.txt": b"a\n", "b.txt": b"b\n", "c.txt": b"", "d.txt": b"d"}, True),
        ({"a.txt": b"a\n", "b.txt": b"b\n"}, False),
        ({"a.txt": b"a\n", "b.txt": b"b\nc\n"}, False),
        ({"a.txt": b"a\n", "aa.txt": b"-\n", "b.txt": b"b\n"}, False),
        ({"a.txt": b"a\nb\n", "b.txt": b"", "c.txt": b"c\n"}, False),
        ({"a.txt": b"a\n"}, False),
    ],
)
def test_several_files_have_grown_if_files_were_added_behind_them(
    tmp_path: Path, now: dict[str, bytes], has_grown: bool
) -> None:
    """Those that were there are the first ones, unchanged and in the same order."""
    known = opened(write(tmp_path, {"a.txt": b"a\n", "b.txt": b"b\n"})).fingerprint()
    for path in tmp_path.iterdir():
        path.unlink()

    assert opened(write(tmp_path, now)).has_grown(known) is has_grown


def test_one_file_of_a_folder_can_be_followed_by_another(tmp_path: Path) -> None:
    """A folder with one file is several files that happen to be one."""
    known = opened(write(tmp_path, {"a.parquet": b"a"})).fingerprint()

    assert opened(write(tmp_path, {"b.parquet": b"b"})).has_grown(known) is True


def readings(source: Source) -> list[object]:
    """What binds a job to *source*, as calls."""
    known = opened(Path(__file__), format="txt").fingerprint()
    return [source.stamp, source.fingerprint, lambda: source.has_grown(known)]


@pytest.mark.parametrize("name", ["a.txt", "*.txt"])
def test_a_file_that_is_gone_is_named(tmp_path: Path, name: str) -> None:
    """Whatever is asked for, the error is a SourceError with the file."""
    source = opened(write(tmp_path, {"a.txt": b"a", "b.txt": b"b"}) / name)
    (tmp_path / "a.txt").unlink()

    for ask in readings(source):
        assert callable(ask)
        with pytest.raises(SourceError, match=r"a\.txt: cannot be read: No such file") as caught:
            ask()
        assert caught.value.path == str(tmp_path / "a.txt")
