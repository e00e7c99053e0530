"""Whatever happens to the files of a cache, it gives right vectors or none, and never ends a run."""

from __future__ import annotations

import random
import re
import shutil
import sqlite3
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.cache import Cache

from .caching import RECIPE, assert_right, bytes_in, known, open_cache, put, vectors_of, wires


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A cache of 300 vectors that nobody has open."""
    with open_cache(tmp_path) as cache:
        put(cache, wires(300), vectors_of(wires(300)))
    return tmp_path


@pytest.fixture(scope="module")
def pristine() -> Iterator[Path]:
    """A cache of 300 vectors, to be copied."""
    with tempfile.TemporaryDirectory() as folder:
        with open_cache(folder) as cache:
            put(cache, wires(300), vectors_of(wires(300)))
        yield Path(folder)


def index_of(directory: Path, number: int = 1) -> Path:
    """The index in the folder *number*."""
    return directory / f"v1-{number:06}" / "index.sqlite"


def damage(path: Path, how: str, rng: random.Random) -> None:
    """Do to the file *path* what *how* says."""
    size = path.stat().st_size
    if how == "remove":
        path.unlink()
        return
    with path.open("r+b") as file:
        if how == "truncate":
            file.truncate(rng.randrange(size))
            return
        for _ in range(rng.choice([1, 20, 300])):
            file.seek(rng.randrange(size))
            file.write(rng.randbytes(rng.choice([1, 16, 2_000])) if how == "overwrite" else bytes(200))


def assert_warned(caught: pytest.WarningsRecorder, *patterns: str) -> None:
    """Fail if the warnings are not these, in this order."""
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == len(patterns)
    assert all(re.search(pattern, message) for pattern, message in zip(patterns, messages, strict=True))


@pytest.mark.slow
@given(
    st.sampled_from(["index.sqlite", "00000001.f32"]),
    st.sampled_from(["overwrite", "zero", "truncate", "remove"]),
    st.integers(0, 2**32),
)
def test_damage_never_gives_a_wrong_vector(pristine: Path, name: str, how: str, seed: int) -> None:
    """
    Bytes overwritten or zeroed, a file cut off or gone: what is found is right, what is kept after that is found.
    """
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(shutil.copytree(pristine, Path(folder) / "cache"))
        damage(directory / "v1-000001" / name, how, random.Random(seed))

        with warnings.catch_warnings(), open_cache(directory) as cache:
            warnings.simplefilter("ignore")
            for _ in range(3):  # what is damaged may not be met the first time
                assert_right(known(cache, wires(400)), wires(400))
                put(cache, wires(400), vectors_of(wires(400)))
            found = known(cache, wires(400))
            assert_right(found, wires(400))
            assert len(found) + cache.stats.not_kept >= 400


@pytest.mark.parametrize("content", [b"", b"not SQLite at all" * 1_000, b"SQLite format 3\0" + bytes(5_000)], ids=len)
def test_a_damaged_index_is_set_aside(directory: Path, content: bytes, recwarn: pytest.WarningsRecorder) -> None:
    """
    It warns once, leaves the index without its vectors, and begins anew; the next time there is nothing to warn of.
    """
    index_of(directory).write_bytes(content)
    with open_cache(directory) as cache:
        assert not known(cache, wires(300))
        put(cache, wires(300), vectors_of(wires(300)))
        assert len(known(cache, wires(300))) == 300

    assert index_of(directory).read_bytes() == content
    assert [path.name for path in index_of(directory).parent.iterdir()] == ["index.sqlite"]
    with open_cache(directory) as cache:
        assert len(known(cache, wires(300))) == 300
    assert_warned(recwarn, r"is damaged: .* It is set aside, and a new one begun\.")


def test_one_damaged_index_is_kept(directory: Path) -> None:
    """
    What was set aside before is removed when it happens again.
    """
    for number in (1, 2, 3):
        index_of(directory, number).write_bytes(b"no index")
        with open_cache(directory) as cache, pytest.warns(UserWarning, match="is damaged"):
            put(cache, wires(300), vectors_of(wires(300)))

    assert sorted(path.name for path in directory.iterdir()) == ["v1-000003", "v1-000004"]


def test_who_has_the_old_index_open_goes_on_to_the_new_one(directory: Path) -> None:
    """
    Two have it open, and one finds it damaged: both go on together.
    """
    with open_cache(directory) as one:
        assert len(known(one, wires(300))) == 300
        index_of(directory).unlink()
        with open_cache(directory) as other:
            with pytest.warns(UserWarning, match="is damaged: there is no index"):
                assert not known(other, wires(300))
            put(other, wires(10), vectors_of(wires(10)))

            assert sorted(known(one, wires(300))) == list(range(10))
            put(one, wires(10, 10), vectors_of(wires(10, 10)))
            assert len(known(other, wires(300))) == 20


def test_a_damaged_vector_is_asked_for_again(directory: Path) -> None:
    """
    One number changes on the disk: that vector is missing, the others are there; put again it is whole.
    """
    with (directory / "v1-000001" / "00000001.f32").open("r+b") as file:
        file.seek(32 * 7 + 4)
        file.write(b"\x00\x00\x80\x3f")

    with open_cache(directory) as cache:
        assert sorted(set(range(300)) - known(cache, wires(300)).keys()) == [7]
        assert (cache.stats.hits, cache.stats.misses, cache.stats.damaged) == (299, 1, 1)
        put(cache, wires(1, 7), vectors_of(wires(1, 7)))
        assert len(known(cache, wires(300))) == 300


def test_vectors_that_another_process_drops_are_not_there(directory: Path) -> None:
    """
    A file that is gone between the question to the index and the reading is no damage.
    """
    with open_cache(directory) as cache:
        assert len(known(cache, wires(300))) == 300
        (directory / "v1-000001" / "00000001.f32").unlink()

        assert not known(cache, wires(300))
        assert (cache.stats.misses, cache.stats.damaged) == (300, 0)


def test_vectors_that_change_places_are_not_mistaken(directory: Path) -> None:
    """
    Two whole vectors in each other's place: neither is given out.
    """
    path = directory / "v1-000001" / "00000001.f32"
    content = path.read_bytes()
    path.write_bytes(content[32:64] + content[:32] + content[64:])

    with open_cache(directory) as cache:
        found = known(cache, wires(300))

    assert sorted(set(range(300)) - found.keys()) == [0, 1]
    assert_right(found, wires(300))


def test_what_a_killed_process_left_behind_is_removed(directory: Path) -> None:
    """
    Vectors that no index tells of, and half a folder, do not stay for ever.
    """
    stray, half = directory / "v1-000001" / "00000000.f32", directory / ".new-1234"
    stray.write_bytes(bytes(1_000))
    half.mkdir()
    with open_cache(directory, max_bytes=1_000_000) as cache:
        for first in range(0, 4_000, 1_000):
            put(cache, wires(1_000, first), vectors_of(wires(1_000, first), 16))
    assert not stray.exists()

    index_of(directory).write_bytes(b"no index")
    with open_cache(directory) as cache, pytest.warns(UserWarning, match="is damaged"):
        known(cache, wires(1))
    assert not half.exists()


def test_a_process_that_does_not_let_go_costs_only_the_caching(
    directory: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """
    While another one writes without end nothing is kept, one warning says so, and what is there is still found. It is
    waited for once, and again when it has let go.
    """
    stuck = sqlite3.connect(index_of(directory), isolation_level=None)
    with open_cache(directory, patience=0.01) as cache:
        put(cache, wires(1), vectors_of(wires(1)))
        stuck.execute("BEGIN IMMEDIATE")
        for _ in range(3):
            put(cache, wires(10, 500), vectors_of(wires(10, 500)))
        assert (cache.stats.not_kept, cache.stats.kept) == (30, 1)
        assert len(known(cache, wires(300))) == 300
        assert waiting_time(cache) == 0

        stuck.execute("ROLLBACK")
        put(cache, wires(10, 500), vectors_of(wires(10, 500)))
        assert len(known(cache, wires(10, 500))) == 10
        assert waiting_time(cache) == 10
    stuck.close()
    assert_warned(recwarn, r"cannot be written: database is locked\. The run goes on without it\.")


def waiting_time(cache: Cache) -> int:
    """For how many milliseconds *cache* waits for a lock."""
    connection = cache._index._connection
    assert connection is not None
    milliseconds: int = connection.execute("PRAGMA busy_timeout").fetchone()[0]
    return milliseconds


@pytest.mark.parametrize("name", ["taken", "taken/below"])
def test_a_directory_that_cannot_be_costs_only_the_caching(
    tmp_path: Path, name: str, recwarn: pytest.WarningsRecorder
) -> None:
    """
    There is a file of that name: it warns that it can be neither read nor written, once for each.
    """
    (tmp_path / "taken").write_text("")
    with open_cache(tmp_path / name) as cache:
        for _ in range(3):
            assert not known(cache, wires(5))
            put(cache, wires(5), vectors_of(wires(5)))

    assert (cache.stats.unread, cache.stats.misses, cache.stats.not_kept) == (15, 15, 15)
    assert_warned(recwarn, r"cannot be read: .*The run goes on", r"cannot be written: .*The run goes on")


def test_a_directory_that_vanishes_is_begun_anew(directory: Path) -> None:
    """
    Somebody removes all of it during a run.
    """
    with warnings.catch_warnings(), open_cache(directory) as cache:
        warnings.simplefilter("ignore")
        known(cache, wires(300))
        shutil.rmtree(directory)
        for _ in range(3):
            assert not known(cache, wires(300, 1_000))
            put(cache, wires(5), vectors_of(wires(5)))

    with open_cache(directory) as cache:
        assert_right(known(cache, wires(5)), wires(5))


def test_folders_of_another_format_are_left_alone(directory: Path) -> None:
    """
    What a later version of the library has put beside it stays.
    """
    other = directory / "v2-000007" / "index"
    other.parent.mkdir()
    other.write_text("from the future")
    index_of(directory).write_bytes(b"no index")
    with open_cache(directory) as cache, pytest.warns(UserWarning, match="is damaged"):
        put(cache, wires(5), vectors_of(wires(5)), RECIPE)

    assert other.read_text() == "from the future"
    assert bytes_in(directory) > 0
