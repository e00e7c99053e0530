"""
Losses of power and disks that fail: the same call, with a good disk again, ends as if nothing had happened.

What a loss of power leaves is drawn: see `LossyDisk`. Time is real here, as files are written in threads.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from random import Random
from typing import Any, TypeAlias, get_args

import anyio
import pytest

from embedbatch import ConfigurationError, JournalError, RunStoppedError, jobs
from embedbatch.jobs.disk import Disk
from embedbatch.testing import ScriptedServer

from ..behaviour.corpora import DESTINATIONS, names
from .corpus import SUFFIXES, Corpus, assert_right, make_corpus, make_embedder, refusing_server, result_of
from .disks import Contents, CountingDisk, FailingDisk, LedgerAt, LossyDisk, Names, copy_tree

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

PART_ROWS = 20
Case: TypeAlias = "Callable[[Scene, Path, int], Awaitable[int]]"
VARIANTS = list(product(get_args(Names), get_args(Contents), get_args(LedgerAt)))


@dataclass
class Scene:
    """A corpus in *root*, the earlier result of *destination* there, and the one that an undisturbed run makes."""

    root: Path
    corpus: Corpus
    destination: str
    server: ScriptedServer
    earlier: dict[str, bytes]
    right: dict[str, bytes]

    async def run(self, root: Path, disk: Disk | None = None, **options: Any) -> None:
        """Run the job in *root*, which has what this scene's has."""
        async with make_embedder(self.server) as embedder:
            await jobs.run(
                root / self.corpus.path.name,
                root / self.destination,
                embedder,
                id_column="id",
                part_rows=PART_ROWS,
                disk=disk,
                **options,
            )

    async def begin(self, requests: int) -> None:
        """Begin the job in the root of the scene, and stop it when that many *requests* have come."""
        stop = anyio.Event()
        seen = len(self.server.received)
        self.server.reply_when(lambda request: stop.set() if request.number == seen + requests else None)
        with pytest.raises(RunStoppedError):
            await self.run(self.root, stop=stop)

    def assert_finished(self, root: Path) -> None:
        """The result in *root* is the undisturbed one, and the journal has nothing left but its ledger."""
        assert result_of(root / self.destination) == self.right
        assert names(root / f"{self.destination}.journal") == {"ledger.sqlite"}

    def assert_untouched(self, root: Path, log: list[str]) -> None:
        """What is in *root* is the earlier result; once the *log* of the disk has a file published, or the new one."""
        found = result_of(root / self.destination)
        targets = {f"{self.destination}{suffix}" for suffix in SUFFIXES}
        if not any(operation.partition(" ")[2] in targets for operation in log):
            assert found.keys() == self.earlier.keys()
        for suffix, data in found.items():
            assert data in (self.earlier.get(suffix), self.right.get(suffix)), suffix


async def make_scene(folder: Path, destination: str, documents: int = 60) -> Scene:
    """A scene in *folder*."""
    root = folder / "root"
    root.mkdir()
    server = refusing_server()
    corpus = make_corpus(root / "corpus.jsonl", documents, refused=1)
    scene = Scene(root, corpus, destination, server, {}, {})
    undisturbed = folder / "undisturbed"
    copy_tree(root, undisturbed)
    await scene.run(undisturbed)
    scene.right = result_of(undisturbed / destination)
    assert_right(undisturbed / destination, corpus, server)
    earlier = make_corpus(root / "earlier.jsonl", 50, refused=1, seed=2)
    await replace(scene, corpus=earlier).run(root)
    shutil.rmtree(root / f"{destination}.journal")
    scene.earlier = result_of(root / destination)
    return scene


async def survive(scene: Scene, root: Path, disk: Disk) -> BaseException | None:
    """Run with a *disk* that fails; return what was raised."""
    try:
        await scene.run(root, disk)
    except Exception as error:
        return error
    return None


def assert_promised(error: BaseException | None) -> None:
    """An *error* is of the kinds that a disk may cause: never a group, never an internal one."""
    promised = OSError | ConfigurationError | JournalError | RunStoppedError
    assert error is None or isinstance(error, promised), repr(error)


@contextmanager
def copy_of(scene: Scene, number: int) -> Iterator[Path]:
    """A copy of the scene's root, for as long as the block lasts."""
    copy = scene.root.with_name(f"copy-{number}")
    copy_tree(scene.root, copy)
    yield copy
    for path in scene.root.parent.glob(f"{copy.name}*"):
        shutil.rmtree(path)


async def lose_power_at(scene: Scene, root: Path, nth: int) -> int:
    """
    Lose the power at operation *nth* of the job in *root*, and go on in what is left.

    Returns how many operations there were, or more than *nth* if it was reached.
    """
    rng = Random(f"{scene.destination} {root.name} {nth}")
    names, contents, ledger = rng.choice(VARIANTS)
    wreck = root.with_suffix(".wreck")
    disk = LossyDisk(root, wreck, rng, nth=nth, names=names, contents=contents, ledger=ledger)
    with explaining(f"power lost at {nth}: names {names}, {contents}, ledger {ledger}", disk):
        error = await survive(scene, root, disk)
        if not disk.is_dead:
            assert error is None
            return len(disk.log)
        await go_on(scene, wreck, disk)
        assert_promised(error)
    return nth + 1


async def fail_at(scene: Scene, root: Path, nth: int, *, for_good: bool) -> int:
    """Let operation *nth* of the job in *root* fail, then go on with a good disk; return how many there were."""
    disk = FailingDisk(nth, errno.EIO if nth % 2 else errno.ENOSPC, for_good=for_good)
    with explaining(f"error at {nth}", disk):
        error = await survive(scene, root, disk)
        await go_on(scene, root, disk)
        assert_promised(error)
    return max(nth + 1, len(disk.log)) if len(disk.log) >= nth else nth


async def go_on(scene: Scene, root: Path, disk: CountingDisk) -> None:
    """What *disk* has left in *root* is as promised, and a run with a good one makes the undisturbed result of it."""
    scene.assert_untouched(root, disk.log)
    await scene.run(root, CountingDisk())
    scene.assert_finished(root)


@contextmanager
def explaining(what: str, disk: CountingDisk) -> Iterator[None]:
    """A block whose errors say *what* happened to the *disk*."""
    try:
        yield
    except Exception as error:
        raise AssertionError(f"{what}, after {disk.log[-3:]}: {error!r}") from error


async def every_operation(scene: Scene, case: Case) -> int:
    """Try *case* at each operation of a run, in a copy of the scene's root; return how many there were."""
    problems: list[str] = []
    operations, nth = 1, 0
    while nth < operations:
        nth += 1
        try:
            with copy_of(scene, nth) as root:
                operations = await case(scene, root, nth)
        except AssertionError as problem:
            problems.append(str(problem)[:600])
            operations = nth + 1
    assert not problems, f"{len(problems)} of {nth}:\n" + "\n".join(problems)
    return operations


@DESTINATIONS
@pytest.mark.slow
@pytest.mark.parametrize("begins", ["anew", "in the middle"])
async def test_a_loss_of_power_at_any_operation_costs_nothing_but_tokens(
    quick_path: Path, destination: str, begins: str
) -> None:
    """At every operation of the disk, with every kind of loss: run again, and the result is the undisturbed one."""
    scene = await make_scene(quick_path, destination)
    if begins == "in the middle":
        await scene.begin(requests=7)

    operations = await every_operation(scene, lose_power_at)

    assert operations > 40


@DESTINATIONS
@pytest.mark.slow
@pytest.mark.parametrize("for_good", [False, True], ids=["once", "for good"])
async def test_an_error_of_the_disk_at_any_operation_loses_nothing(
    quick_path: Path, destination: str, for_good: bool
) -> None:
    """Whatever raises, and also if nothing works from then on: a good disk ends the job as if nothing had happened."""
    scene = await make_scene(quick_path, destination)

    operations = await every_operation(scene, partial(fail_at, for_good=for_good))

    assert operations > 80


@DESTINATIONS
async def test_some_losses_and_errors(quick_path: Path, destination: str) -> None:
    """The quick round of the two above: some operations, drawn anew for each format."""
    scene = await make_scene(quick_path, destination)
    rng = Random(destination)

    for nth in rng.sample(range(1, 80), 8):
        with copy_of(scene, nth) as root:
            await lose_power_at(scene, root, nth)
        with copy_of(scene, nth) as root:
            await fail_at(scene, root, nth, for_good=nth % 2 == 0)
