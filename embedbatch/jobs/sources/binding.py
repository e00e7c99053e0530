"""What binds a job to files: what they held when it began."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import xxhash

from ...errors import SourceError
from ..identity import Fingerprint

_BLOCK = 2**20


def stamp(files: Sequence[Path]) -> str:
    """What a file system tells of *files* without reading them: another one means that they may have changed."""
    stamps = [_stamp(path) for path in files]
    if len(stamps) == 1:
        return stamps[0]
    lines = (os.fsencode(f"{path}\0{each}\n") for path, each in zip(files, stamps, strict=True))
    digest = xxhash.xxh3_128(b"".join(lines))
    return f"{len(stamps)} files {digest.hexdigest()}"


def fingerprint(path: Path) -> Fingerprint:
    """What one file holds."""
    before = _stamp(path)
    digest = xxhash.xxh3_128()
    size = _read(path, digest)
    return Fingerprint(size, digest.hexdigest(), before)


def fingerprint_of_all(files: Sequence[Path]) -> Fingerprint:
    """What several files hold, in their order. What they are called and where they are is no part of it."""
    before = stamp(files)
    *_, (size, digest) = _sums(files)
    return Fingerprint(size, digest, before)


def has_more_lines(path: Path, before: Fingerprint) -> bool:
    """True if *path* begins with the lines it had *before*, none of them longer than it was, and goes on."""
    digest = xxhash.xxh3_128()
    with _named(path), path.open("rb") as file:
        if path.stat().st_size <= before.bytes:
            return False
        file.seek(max(0, before.bytes - 1))
        end = file.read(min(1, before.bytes))
        # A last line without an end may have got one since: of two \r before a \n, the first would be of the line.
        is_apart = end in (b"", b"\n") or file.read(2).startswith(b"\n" if end == b"\r" else (b"\n", b"\r\n"))
    return is_apart and _read(path, digest, before.bytes) == before.bytes and digest.hexdigest() == before.digest


def has_more_files(files: Sequence[Path], before: Fingerprint) -> bool:
    """True if the first of *files* hold what all of them held *before*."""
    for size, digest in _sums(files[:-1]):
        if size > before.bytes:
            return False
        if digest == before.digest:
            return True
    return False


def _sums(files: Sequence[Path]) -> Iterator[tuple[int, str]]:
    """The bytes and the digest of the first file, of the first two, and so on."""
    total = 0
    digest = xxhash.xxh3_128()
    for path in files:
        contents = xxhash.xxh3_128()
        size = _read(path, contents)
        total += size
        digest.update(size.to_bytes(8, "little") + contents.digest())
        yield total, digest.hexdigest()


def _stamp(path: Path) -> str:
    with _named(path):
        status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"


def _read(path: Path, digest: xxhash.xxh3_128, size: int | None = None) -> int:
    """Put the first *size* bytes of *path*, or all, into *digest*; return how many there were."""
    seen = 0
    with _named(path), path.open("rb") as file:
        while block := file.read(_BLOCK if size is None else min(_BLOCK, size - seen)):
            digest.update(block)
            seen += len(block)
    return seen


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Give what the file system raises the file's name."""
    try:
        yield
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror or error}", path=str(path)) from error
