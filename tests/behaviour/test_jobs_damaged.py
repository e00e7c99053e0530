"""A journal whose files are not what was written: found out, named, and never used."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from embedbatch import ConfigurationError, JournalError, Limits, RunStoppedError, jobs
from embedbatch.jobs.disk import Disk
from embedbatch.jobs.ledger import Ledger
from embedbatch.plan.tokens import ByteBound
from embedbatch.testing import Scripted, ScriptedServer

from .conftest import MakeEmbedder
from .corpora import DESTINATIONS, corpus, read, sent

# Files are written in threads, during which virtual time would jump: these run on both loops in real time.
pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("both_backends")]

ONE_AT_A_TIME = Limits(max_batch_inputs=8, max_concurrent_requests=1)
TEXTS = [f"text {n % 48}" for n in range(144)]
PART_ROWS = 16


def flip(path: Path) -> None:
    """Change one bit of what the file says."""
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


DAMAGE = pytest.mark.parametrize(
    "damage",
    [
        pytest.param(flip, id="one bit"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:700]), id="cut off"),
        pytest.param(lambda path: path.write_bytes(b"garbage" * 40), id="garbage"),
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(Path.unlink, id="gone"),
    ],
)


async def begin(source: Path, target: Path, server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """Let a job do its first half, in which all texts are sent that will come again."""
    until = len(server.received) + 6
    server.reply_when(
        lambda request: (
            Scripted(status=429, body={"error": {"message": "no", "code": "insufficient_quota"}})
            if len(server.received) > until
            else None
        )
    )
    async with make_embedder(limits=ONE_AT_A_TIME) as embedder:
        with pytest.raises(RunStoppedError):
            await jobs.run(source, target, embedder, part_rows=PART_ROWS)
    server.reply_when(lambda request: Scripted())


@DAMAGE
@DESTINATIONS
async def test_damaged_duplicates_are_found_again(
    tmp_path: Path,
    server: ScriptedServer,
    make_embedder: MakeEmbedder,
    destination: str,
    damage: Callable[[Path], object],
) -> None:
    """What is known of duplicates comes from the source: it is read again, and nothing is sent twice."""
    texts = [*TEXTS, *(f"more {n}" for n in range(16))]
    source, target = corpus(tmp_path, texts), tmp_path / destination
    await begin(source, target, server, make_embedder)
    damage(tmp_path / f"{destination}.journal" / "duplicates.npy")
    async with make_embedder(limits=ONE_AT_A_TIME) as embedder:
        await jobs.run(source, target, embedder, part_rows=PART_ROWS)

    np.testing.assert_array_equal(read(target)[1], [server.vector_of(text) for text in texts])


@DAMAGE
async def test_damaged_originals_are_made_again(
    tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder, damage: Callable[[Path], object]
) -> None:
    """No duplicate gets a vector that is not its original's: the run says which part it makes again, and does."""
    texts = [*(f"text {n}" for n in range(48)), *(f"more {n}" for n in range(16)), *(f"text {n}" for n in range(48))]
    source, target = corpus(tmp_path, texts), tmp_path / "v.parquet"
    await begin(source, target, server, make_embedder)
    damage(tmp_path / "v.parquet.journal" / "originals.rows")
    runs = 0
    while not target.exists():
        runs += 1
        async with make_embedder(limits=ONE_AT_A_TIME) as embedder:
            try:
                await jobs.run(source, target, embedder, part_rows=PART_ROWS)
            except JournalError as error:
                assert "is damaged. The next run makes its part of the result again" in str(error)  # noqa: PT017

    assert 2 <= runs <= 4  # three parts have originals
    np.testing.assert_array_equal(read(target)[1], [server.vector_of(text) for text in texts])


class Intruder(Disk):
    """A disk on which another run tries to begin whenever something is removed."""

    def __init__(self, ledger: Path) -> None:
        self.ledger = ledger
        self.tried = 0

    def remove(self, path: Path) -> None:
        self._try()
        super().remove(path)
        self._try()

    def _try(self) -> None:
        if self.ledger.exists():
            self.tried += 1
            with pytest.raises(ConfigurationError, match="another run is writing"):
                Ledger(self.ledger)


async def test_nobody_gets_in_while_a_job_starts_over(
    tmp_path: Path, server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """The ledger of the job before is emptied, and never without its lock."""
    source, target = corpus(tmp_path, ["a", "b"]), tmp_path / "v.npy"
    disk = Intruder(tmp_path / "v.npy.journal" / "ledger.sqlite")
    async with make_embedder() as embedder:
        first = await jobs.run(source, target, embedder)
        again = await jobs.run(source, target, embedder, fresh=True, disk=disk)

    assert disk.tried
    assert sent(server) == ["a", "b", "a", "b"]
    assert (first.runs, again.runs, again.usage) == (1, 1, first.usage)


async def test_nobody_gets_in_while_an_empty_job_is_removed(tmp_path: Path, make_embedder: MakeEmbedder) -> None:
    """A job that has done nothing leaves nothing, and nobody else's."""
    server = ScriptedServer()
    server.reply_when(lambda request: Scripted(status=401))
    source, target = corpus(tmp_path, ["a", "b"]), tmp_path / "v.npy"
    disk = Intruder(tmp_path / "v.npy.journal" / "ledger.sqlite")
    async with make_embedder(transport=server) as embedder:
        with pytest.raises(RunStoppedError):
            await jobs.run(source, target, embedder, disk=disk)

    assert disk.tried
    assert not (tmp_path / "v.npy.journal").exists()


class FaultyFile(io.FileIO):
    """A file that does something else instead of its *nth* write."""

    def __init__(self, path: Path, instead: Callable[[FaultyFile, bytes], object], nth: int) -> None:
        super().__init__(path, "r+b")
        self._instead = instead
        self._left = nth

    def write(self, data: Any, /) -> int:
        self._left -= 1
        if self._left:
            return super().write(data)
        self._instead(self, bytes(data))
        return len(data)

    def write_flipped(self, data: bytes) -> None:
        """Another bit than was handed in."""
        super().write(bytes([data[0] ^ 1]) + data[1:])

    def write_elsewhere(self, data: bytes) -> None:
        """As when another thread has moved the place."""
        self.seek(-4, io.SEEK_CUR)
        super().write(data)

    def write_nothing(self, data: bytes) -> None:
        """As when what was written is lost."""


class FaultyDisk(Disk):
    """A disk on which the *nth* write of vectors fails in silence."""

    def __init__(self, instead: Callable[[FaultyFile, bytes], object], nth: int) -> None:
        self._instead = instead
        self._nth = nth

    def open(self, path: Path, buffering: int = -1) -> BinaryIO:
        file = super().open(path, buffering)
        if buffering or not path.name.startswith(("segment-", "vectors.")):
            return file
        file.close()
        return FaultyFile(path, self._instead, self._nth)  # type: ignore[return-value]


@pytest.mark.parametrize("nth", [2, 3])
@pytest.mark.parametrize(
    "instead",
    [
        pytest.param(FaultyFile.write_flipped, id="one bit"),
        pytest.param(FaultyFile.write_elsewhere, id="elsewhere"),
        pytest.param(FaultyFile.write_nothing, id="lost"),
    ],
)
@DESTINATIONS
async def test_no_vector_gets_into_the_result_that_is_not_what_was_put(
    tmp_path: Path,
    make_embedder: MakeEmbedder,
    destination: str,
    instead: Callable[[FaultyFile, bytes], object],
    nth: int,
) -> None:
    """Whatever becomes of a write between the reply and the result: the run says so, and the next one asks again."""
    texts = [*(f"text {n}" for n in range(20)), "text 3", "long " * 20, *(f"more {n}" for n in range(20))]
    source, target, undisturbed = corpus(tmp_path, texts), tmp_path / destination, tmp_path / f"un{destination}"
    options: dict[str, Any] = {"max_input_tokens": 40, "long_input": "split", "tokenizer": ByteBound()}
    async with make_embedder(limits=ONE_AT_A_TIME, **options) as embedder:
        with pytest.raises(JournalError, match=r"vectors are not there as they were put\. The next run asks"):
            await jobs.run(source, target, embedder, part_rows=PART_ROWS, disk=FaultyDisk(instead, nth))
        assert not target.exists()
        for _ in range(2):  # what was written elsewhere may have hit a part that was complete, which is made again
            with contextlib.suppress(JournalError):
                await jobs.run(source, target, embedder, part_rows=PART_ROWS)
        await jobs.run(source, undisturbed, embedder, part_rows=PART_ROWS)

    np.testing.assert_array_equal(read(target)[1], read(undisturbed)[1])
