"""A journal that is used by the thread that puts replies, and by the one that completes parts."""

from __future__ import annotations

import io
import threading
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import anyio
import anyio.to_thread
import numpy as np
import pytest

from embedbatch.jobs.disk import Disk
from embedbatch.jobs.journal import Journal
from embedbatch.jobs.ledger import Ledger
from embedbatch.jobs.parts import Division
from embedbatch.values import Batch, Chunks

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])]

PART_ROWS = 4
LONG, SHORT = 0, PART_ROWS  # documents: of the first part, in two chunks; of the second, in one


class SlowFile(io.FileIO):
    """A file whose writes take until *may_end*."""

    def __init__(self, path: Path, began: threading.Event, may_end: threading.Event) -> None:
        super().__init__(path, "r+b")
        self._began = began
        self._may_end = may_end

    def write(self, data: Any, /) -> int:
        self._began.set()
        assert self._may_end.wait(5)
        return super().write(data)


class SlowDisk(Disk):
    """A disk that is slow with the vectors of the second part."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.may_end = threading.Event()

    def open(self, path: Path, buffering: int = -1) -> BinaryIO:
        file = super().open(path, buffering)
        if path.name != "segment-000001.rows":
            return file
        file.close()
        return SlowFile(path, self.began, self.may_end)  # type: ignore[return-value]


def row_files(folder: Path) -> list[str]:
    """The names of the journal's files."""
    return sorted(path.name for path in folder.glob("*.rows"))


async def test_a_part_is_not_removed_while_a_reply_is_written_to_it(tmp_path: Path) -> None:
    """
    A document of the first part fails by one of its chunks, which completes that part, while the other is written.

    Otherwise a file was closed that was about to be written to, or came back after it was removed.
    """
    disk = SlowDisk()
    ledger = Ledger(tmp_path / "ledger.sqlite")
    journal = Journal(disk, tmp_path, ledger, division=Division(8, PART_ROWS), dimensions=2)
    journal.positions = {LONG: LONG, SHORT: SHORT}
    await journal.known(Chunks([b'"lo"', b'"ng"'], [LONG, LONG], [0, 1], [1, 1], [1, 1]))
    reply = Batch([b'"short"', b'"ng"'], [SHORT, LONG], [0, 1], [1, 1], [1, 1])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(journal.put, reply, np.ones((2, 2), np.float32))
        await anyio.to_thread.run_sync(disk.began.wait)
        del journal.positions[LONG]  # it has failed
        drop = threading.Thread(target=partial(journal.drop, 0))
        drop.start()
        await anyio.to_thread.run_sync(drop.join, 0.05)  # time enough, if it did not wait
        disk.may_end.set()
        await anyio.to_thread.run_sync(drop.join)

    assert row_files(tmp_path) == ["inputs-000001.rows", "segment-000001.rows"]
    journal.close()
    ledger.close()
