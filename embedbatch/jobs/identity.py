"""What a job is bound to: run again with something else, it would mix vectors that do not belong together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

_BLOCK = 2**20


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """
    What a source file held: its *bytes* and their *digest*, 128 bits.

    *stamp* changes when the file is written: where it is the same, the file is not read again to be compared.
    """

    bytes: int
    digest: str
    stamp: str


def stamp(path: Path) -> str:
    """What a file system tells of *path* without reading it: another one means that it may have changed."""
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"


def fingerprint(path: Path, size: int | None = None) -> Fingerprint:
    """The fingerprint of the file *path*, or of its first *size* bytes."""
    digest = xxhash.xxh3_128()
    seen = 0
    before = stamp(path)
    with path.open("rb") as file:
        while block := file.read(_BLOCK if size is None else min(_BLOCK, size - seen)):
            digest.update(block)
            seen += len(block)
    return Fingerprint(seen, digest.hexdigest(), before)


def has_grown(path: Path, before: Fingerprint) -> bool:
    """True if the file *path* begins with what it was *before*, and goes on."""
    return os.path.getsize(path) > before.bytes and fingerprint(path, before.bytes).digest == before.digest


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is not the same in two identities, in words."""
    names = [*before, *(name for name in now if name not in before)]
    return [
        f"{name} was {before.get(name)!r} and is {now.get(name)!r}"
        for name in names
        if before.get(name) != now.get(name)
    ]
