"""A file of rows, used by several threads at once."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from embedbatch.jobs.disk import Disk
from embedbatch.jobs.rows import Bytes, RowFile

WIDTH = 32
ROWS = 200
AT_ONCE = 8


def some_rows(rng: np.random.Generator, count: int) -> Bytes:
    return rng.integers(0, 256, (count, WIDTH)).astype(np.uint8)


def keep_doing(what: Callable[[], object], done: threading.Event) -> threading.Thread:
    """A thread that does *what* until *done*."""

    def go_on() -> None:
        while not done.is_set():
            what()

    thread = threading.Thread(target=go_on)
    thread.start()
    return thread


@pytest.mark.parametrize("seed", range(8))
def test_every_row_is_in_its_place_whatever_other_threads_do(tmp_path: Path, seed: int) -> None:
    """One thread writes and others read and sync, 400 files: with a buffer one in 25 has rows in others' places."""
    rng, other_rng = np.random.default_rng(seed), np.random.default_rng(100 + seed)
    for number in range(50):
        file = RowFile(Disk(), tmp_path / str(number), rows=ROWS, width=WIDTH, begin=128)
        expected = some_rows(rng, ROWS)
        done = threading.Event()
        threads = [
            keep_doing(file.sync, done),
            keep_doing(lambda file=file: file.read(int(other_rng.integers(0, ROWS)), AT_ONCE), done),  # type: ignore[misc]
        ]

        for place in rng.permutation(ROWS // AT_ONCE).tolist():
            file.write(place * AT_ONCE, expected[place * AT_ONCE : (place + 1) * AT_ONCE])

        done.set()
        for thread in threads:
            thread.join()
        np.testing.assert_array_equal(file.read(0, ROWS), expected)
        file.close()


class Piecemeal(io.FileIO):
    """A file that takes and gives ten bytes at once."""

    def write(self, data: Any, /) -> int:
        return super().write(data[:10])

    def readinto(self, buffer: Any, /) -> int:
        return super().readinto(memoryview(buffer)[:10])


class PiecemealDisk(Disk):
    """A disk of such files."""

    def open(self, path: Path, buffering: int = -1) -> BinaryIO:
        path.touch()
        return Piecemeal(path, "r+b")  # type: ignore[return-value]


def test_what_the_system_takes_in_pieces_is_written_and_read_whole(tmp_path: Path) -> None:
    """A system may write and read less than it was asked to; rows behind the end of the file are zeros."""
    file = RowFile(PiecemealDisk(), tmp_path / "rows", rows=0, width=WIDTH)
    expected = some_rows(np.random.default_rng(1), 3)

    file.write(1, expected)

    np.testing.assert_array_equal(
        file.read(0, 6), np.concatenate([np.zeros((1, WIDTH)), expected, np.zeros((2, WIDTH))])
    )
    file.close()


def test_a_file_that_is_closed_is_synced_no_more(tmp_path: Path) -> None:
    """Another thread may be about to sync a file that is not needed any more."""
    file = RowFile(Disk(), tmp_path / "rows", rows=1, width=WIDTH)
    file.write(0, np.ones((1, WIDTH), np.uint8))
    file.close()

    file.sync()
