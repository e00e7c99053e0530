"""Several processes with one cache, and what happens to one must not harm another."""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random

import anyio
import pytest

from embedbatch.cache import Cache

from .caching import begin, find, result, texts

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork, and other permissions")


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that other users can read."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def found_in(directory: Path, some: list[str]) -> int:
    """How many of these texts the cache knows, all of them right."""
    with Cache(directory) as cache:
        return anyio.run(find, cache, some)


@pytest.mark.slow
def test_processes_write_at_the_same_time(tmp_path: Path) -> None:
    """
    Four at once over an empty directory, two of them with the same texts: everything is kept, and right.
    """
    running = [begin("embed", tmp_path, first, 2_000) for first in (0, 0, 1_000, 5_000)]
    results = [result(process) for process in running]

    assert all(each["right"] and not each["warnings"] for each in results)
    assert all(each["stats"]["not_kept"] == each["stats"]["damaged"] == 0 for each in results)
    assert found_in(tmp_path, [*texts(3_000), *texts(2_000, 5_000)]) == 5_000
    assert [path.name for path in tmp_path.iterdir()] == ["v1-000001"]


@pytest.mark.slow
def test_a_process_that_is_killed_loses_nothing_it_was_told_is_kept(tmp_path: Path) -> None:
    """
    SIGKILL in the middle of puts, ten times over the same directory: what a put has returned for is there, all of it is
    right, and the next process goes on.
    """
    rng = Random(7)
    for turn in range(10):
        first = 100_000 * turn
        with begin("fill", tmp_path, first, 100_000) as process:
            assert process.stdout is not None
            told = [process.stdout.readline() for _ in range(rng.randrange(1, 60))]
            process.send_signal(signal.SIGKILL)
            told += process.stdout.readlines()
        kept = int(told[-1])

        assert found_in(tmp_path, texts(kept, first)) == kept
        assert found_in(tmp_path, texts(200, first + kept)) in (0, 50)  # the batch that was not told of is there or not

    with Cache(tmp_path) as cache:
        anyio.run(find, cache, texts(1_000))
        assert cache.stats.damaged == 0


@POSIX
@pytest.mark.slow
def test_a_forked_process_opens_its_own_files(tmp_path: Path) -> None:
    """
    A child uses the cache of its parent, finds what that has put and puts more; the parent finds that, and goes on.
    """
    process = begin("fork", tmp_path, 0, 1_000)
    process.communicate(timeout=60)

    assert process.returncode == 0
    assert found_in(tmp_path, texts(1_000)) == 1_000


@POSIX
@pytest.mark.slow
def test_a_cache_that_cannot_be_written_is_still_read(directory: Path) -> None:
    """
    A directory of somebody else: what is there is used, the rest is sent; one warning says that nothing is kept.
    """
    begin("fill", directory, 0, 500).communicate(timeout=60)
    inside = directory / "v1-000001"
    (directory / "elsewhere").mkdir()
    for path in (*inside.iterdir(), inside, directory):
        path.chmod(path.stat().st_mode & ~0o222)
    try:
        outcome = result(begin("embed", directory, 400, 200, "unprivileged"))
    finally:
        for path in (directory, inside):
            path.chmod(0o755)

    assert outcome["right"]
    assert outcome["sent"] == 100
    assert outcome["stats"]["hits"] == outcome["stats"]["not_kept"] == 100
    (warning,) = outcome["warnings"]
    assert "cannot be written: attempt to write a readonly database" in warning
    assert found_in(directory, texts(600)) == 500


@POSIX
@pytest.mark.slow
def test_a_full_disk_costs_only_the_caching(tmp_path: Path) -> None:
    """
    A process that may write no more than 100 kB to a file: the run is whole, and says once that it could not keep all.
    """
    outcome = result(begin("embed", tmp_path, 0, 3_000, "full"))

    assert outcome["right"]
    assert outcome["sent"] == 3_000
    stats = outcome["stats"]
    assert stats["kept"] + stats["not_kept"] == 3_000
    assert stats["not_kept"] > 0
    (warning,) = outcome["warnings"]
    assert "cannot be written" in warning
    assert found_in(tmp_path, texts(3_000)) == stats["kept"]
    assert result(begin("embed", tmp_path, 0, 3_000))["sent"] == stats["not_kept"]
    assert found_in(tmp_path, texts(3_000)) == 3_000
