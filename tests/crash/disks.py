"""Disks that fail, and a disk that loses what was not synced."""

from __future__ import annotations

import errno
import io
import os
import shutil
import struct
import threading
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, BinaryIO, Literal

from embedbatch.jobs.disk import Disk

PAGE = 4_096

Names = Literal["gone", "kept", "some"]
Contents = Literal["synced", "torn", "written"]
LedgerAt = Literal["as after a kill", "cut", "checkpoint"]


class _Raw(io.FileIO):
    """A file whose writes are operations of a disk."""

    def __init__(self, path: Path, descriptor: int, before_write: Callable[[Path], object]) -> None:
        super().__init__(descriptor, "r+b")
        self._path = path
        self._before_write = before_write

    def write(self, data: Any, /) -> int:
        self._before_write(self._path)
        return super().write(data)


class CountingDisk(Disk):
    """Counts its operations: *log* has the kind and the name of each, and *before* is called with its number."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self._counting = threading.RLock()

    def before(self, number: int) -> None:
        """Operation *number*, from 1, is about to begin."""

    def open(self, path: Path, buffering: int = -1) -> BinaryIO:
        self._count("open", path)
        plain = super().open(path)
        descriptor = os.dup(plain.fileno())
        plain.close()
        raw = _Raw(path, descriptor, lambda name: self._count("write", name))
        file: Any = io.BufferedRandom(raw) if buffering else raw
        self.opened(path, file)
        return file  # type: ignore[no-any-return]

    def opened(self, path: Path, file: Any) -> None:
        """*path* is open as *file*."""

    def read(self, path: Path) -> BinaryIO:
        self._count("read", path)
        return super().read(path)

    def make_directory(self, path: Path) -> None:
        self._count("make_directory", path)
        super().make_directory(path)

    def allocate(self, file: BinaryIO, size: int) -> None:
        self._count("allocate", Path(str(size)))
        super().allocate(file, size)

    def sync(self, file: BinaryIO) -> None:
        self._count("sync", Path("a file"))
        file.flush()

    def replace(self, source: Path, target: Path) -> None:
        self._count("replace", target)
        super().replace(source, target)

    def remove(self, path: Path) -> None:
        self._count("remove", path)
        super().remove(path)

    def sync_directory(self, path: Path) -> None:
        self._count("sync_directory", path)

    def _count(self, kind: str, path: Path) -> None:
        with self._counting:
            self.log.append(f"{kind} {path.name}")
            self.before(len(self.log))


class FailingDisk(CountingDisk):
    """A disk whose *nth* operation raises, and with *for_good* all that follow too."""

    def __init__(self, nth: int, code: int = errno.ENOSPC, *, for_good: bool = False) -> None:
        super().__init__()
        self._nth = nth
        self._code = code
        self._for_good = for_good

    def before(self, number: int) -> None:
        if number == self._nth or (self._for_good and number > self._nth):
            raise OSError(self._code, os.strerror(self._code), self.log[number - 1])


class _Node:
    """What is in a file, whatever its name: at its last sync, and, once its name is gone, when it went."""

    def __init__(self, synced: bytes) -> None:
        self.synced = synced
        self.last: bytes | None = None


class LossyDisk(CountingDisk):
    """
    The disk of *root*, which knows what is certain: of a file what it had at its last sync, of a directory the names
    at its last sync.

    At operation *nth* the power is lost. What may be left then is put into *wreck*, and no operation works any more.
    """

    def __init__(
        self, root: Path, wreck: Path, rng: Random, *, nth: int, names: Names, contents: Contents, ledger: LedgerAt
    ) -> None:
        super().__init__()
        self.is_dead = False
        self._root = root
        self._wreck = wreck
        self._rng = rng
        self._nth = nth
        self._choose: tuple[Names, Contents, LedgerAt] = (names, contents, ledger)
        self._base = {path: _Node(path.read_bytes()) for path in root.rglob("*") if path.is_file()}
        self._live = dict(self._base)
        self._folders = {path for path in root.rglob("*") if path.is_dir()}  # whose names are certain
        self._changes: list[tuple[set[Path], Callable[[dict[Path, _Node]], object]]] = []  # of names, in order
        self._files: weakref.WeakKeyDictionary[Any, Path] = weakref.WeakKeyDictionary()

    def before(self, number: int) -> None:
        if self.is_dead or number == self._nth:
            if not self.is_dead:
                self.lose_power()
            raise OSError(errno.EIO, "the power is lost")

    def opened(self, path: Path, file: Any) -> None:
        with self._counting:
            self._files[file] = path
            if path not in self._live:
                node = self._live[path] = _Node(b"")
                self._changes.append(({path.parent}, partial(_add, new=path, node=node)))

    def sync(self, file: BinaryIO) -> None:
        super().sync(file)
        with self._counting:
            node = self._live.get(self._files[file])
            if node is not None:
                node.synced = os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)

    def replace(self, source: Path, target: Path) -> None:
        with self._counting:
            moved = {path: self._live[path] for path in self._within(source)}
            self._remember(target)
            super().replace(source, target)
            for path in moved:
                self._live[target / path.relative_to(source)] = self._live.pop(path)
            change = partial(_rename, source=source, target=target, moved=moved)
            self._changes.append(({source.parent, target.parent}, change))
            if source in self._folders:  # as certain under either name: which one it has is told by the changes
                self._folders.add(target)

    def remove(self, path: Path) -> None:
        with self._counting:
            gone = self._within(path)
            for each in gone:
                self._remember(each)
            super().remove(path)
            for each in gone:
                self._live.pop(each)
                self._changes.append(({path.parent}, partial(_drop, old=each)))

    def sync_directory(self, path: Path) -> None:
        super().sync_directory(path)
        with self._counting:
            self._folders |= {each for each in path.iterdir() if each.is_dir()}
            rest = []
            for folders, change in self._changes:
                if path in folders:
                    change(self._base)
                else:
                    rest.append((folders, change))
            self._changes = rest

    def lose_power(self) -> None:
        """Put into the wreck what a loss of power may leave of the root."""
        self.is_dead = True
        names, contents, ledger = self._choose
        left = dict(self._base)
        changes = {"gone": 0, "kept": len(self._changes), "some": self._rng.randint(0, len(self._changes))}[names]
        for _, change in self._changes[:changes]:
            change(left)
        for path, node in left.items():
            folders = [each for each in path.parents if self._root in each.parents]
            if "ledger.sqlite" not in path.name and (names == "kept" or self._folders.issuperset(folders)):
                self._write(path, self._survivor(path, node, contents))
        for folder in self._root.glob("*.journal"):
            if folder in self._folders or names == "kept":
                self._save_ledger(folder, ledger)

    def _survivor(self, path: Path, node: _Node, contents: Contents) -> bytes:
        written = node.last
        if written is None:
            places = [place for place, each in self._live.items() if each is node]
            written = places[0].read_bytes() if places and places[0].exists() else node.synced
        if contents == "synced":
            return node.synced
        if contents == "written":
            return written
        size = self._rng.choice([len(node.synced), len(written)])
        torn = bytearray(node.synced[:size].ljust(size, b"\0"))
        for at in range(0, size, PAGE):
            page = written[at : min(at + PAGE, size)]
            if self._rng.random() < 0.5:
                torn[at : at + len(page)] = page
        return bytes(torn)

    def _save_ledger(self, folder: Path, at: LedgerAt) -> None:
        """The ledger after a kill; with its last commits lost; or as it was when it was last checkpointed."""
        source, wal = folder / "ledger.sqlite", folder / "ledger.sqlite-wal"
        if source.exists():
            self._write(source, source.read_bytes())
        if wal.exists() and at != "checkpoint":
            log = wal.read_bytes()
            if at == "cut" and not _is_checkpointed(log, source.read_bytes()):
                log = log[: self._rng.randint(0, len(log))]
            self._write(wal, log)

    def _write(self, path: Path, data: bytes) -> None:
        target = self._wreck / path.relative_to(self._root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    def _within(self, path: Path) -> list[Path]:
        """The files that have the name *path*, or are in the folder of that name."""
        return [each for each in self._live if each == path or path in each.parents]

    def _remember(self, path: Path) -> None:
        """What *path* has: its name is about to go, and may come back."""
        node = self._live.get(path)
        if node is not None and path.is_file():
            node.last = path.read_bytes()


def _is_checkpointed(log: bytes, ledger: bytes) -> bool:
    """True if all that is in the *log* of SQLite is in the *ledger* too: then it was synced, and cannot be lost."""
    size, _, *salts = struct.unpack(">4I", log[8:24]) if len(log) >= 32 else (PAGE, 0)
    pages: dict[int, bytes] = {}
    for at in range(32, len(log) - size, 24 + size):
        number, _, *found = struct.unpack(">4I", log[at : at + 16])
        if found == salts:  # of this round: behind it are frames of the one before
            pages[number] = log[at + 24 : at + 24 + size]
    return all(ledger[(number - 1) * size : number * size] == page for number, page in pages.items())


def _add(names: dict[Path, _Node], *, new: Path, node: _Node) -> None:
    names[new] = node


def _drop(names: dict[Path, _Node], *, old: Path) -> None:
    names.pop(old, None)


def _rename(names: dict[Path, _Node], *, source: Path, target: Path, moved: dict[Path, _Node]) -> None:
    for path, node in moved.items():
        if names.get(path) is node:
            del names[path]
        names[target / path.relative_to(source)] = node


def copy_tree(source: Path, target: Path) -> None:
    """A copy of all that is in *source*."""
    shutil.copytree(source, target, dirs_exist_ok=True)
