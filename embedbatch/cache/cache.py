"""The door of the cache: one directory, and a store for each recipe."""

from __future__ import annotations

import os
import sqlite3
import threading
import warnings
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
import anyio.to_thread
import msgspec

from ..errors import ConfigurationError, DimensionsError
from ..store import Store
from ..values import Batch, Chunks, Vector, Vectors
from .files import DamagedError
from .index import Index

MAX_BYTES = 4_000_000_000
MIN_BYTES = 1_000_000
PATIENCE = 2.0  # seconds

# What decides how documents become chunks, and not what the vector of a chunk is: the chunk's own bytes are in its key.
_BEFORE_CHUNKS = {"long_input", "max_input_tokens", "tokenizer", "empty", "surrogates", "count_tokens", "prefix"}
_KEY_BYTES = 16  # nobody has found two texts with the same 128 bits
_FORMAT = b"embedbatch 1"

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class CacheStats:
    """
    What a :class:`Cache` has done since it was made, in vectors.

    *hits* were there, *misses* were not; *kept* were put in. *not_kept* could not be, because the directory cannot be
    written, the disk is full, or another process did not let go. *unread* were looked for in vain for such a reason:
    they are among the misses, and so are the *damaged*. *dropped* had to make room.
    """

    hits: int = 0
    misses: int = 0
    kept: int = 0
    not_kept: int = 0
    unread: int = 0
    damaged: int = 0
    dropped: int = 0


class Cache:
    """
    Vectors in *directory*, for any number of runs, processes and threads at once.

        with Cache("~/.cache/vectors") as cache:
            async with Embedder(model, cache=cache) as embedder:
                ...

    It knows a text by the recipe and by what goes on the wire for it, and gives back every bit of its vector. What is
    there is taken at its word: a server that serves another model under the same name and address is not noticed,
    unless its vectors have another size. Add something of your own to the recipe to tell such servers apart.

    All files together have at most *max_bytes*; what was not used for the longest time goes first, some 32 MB at once.
    A process that writes is waited for, *patience* seconds at most. *clock* tells the seconds since 1970. All work is
    done by *in_thread*.

    The cache never ends a run: what is damaged is asked for again, a damaged index set aside, and where the directory
    cannot be read or written texts are sent as if there were none. It warns once, and :attr:`stats` counts. Files are
    opened when they are first needed, and closed before a fork.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        max_bytes: int = MAX_BYTES,
        patience: float = PATIENCE,
        clock: Callable[[], float] = lambda: datetime.now(UTC).timestamp(),
        in_thread: Callable[..., Awaitable[Any]] = anyio.to_thread.run_sync,
    ) -> None:
        if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < MIN_BYTES:
            raise ConfigurationError(f"max_bytes: expected an int of at least {MIN_BYTES:,}, got {max_bytes!r}")
        self.directory = Path(directory).expanduser()
        self._in_thread = in_thread
        self._index = Index(self.directory, max_bytes=max_bytes, patience=patience)
        self._clock = clock
        self._is_closed = False
        self._stats = CacheStats()
        self._counting = threading.Lock()
        self._told: set[str] = set()
        self._untold: list[str] = []
        _caches.add(self)

    @property
    def stats(self) -> CacheStats:
        """What it has done so far."""
        return self._stats

    def bound_to(self, recipe: Mapping[str, Any]) -> Store:
        """
        The vectors of one *recipe*, which is what they depend on besides the texts: see ``Embedder.recipe``.

        What only says how documents are cut into chunks does not count. Raises :class:`ConfigurationError` if it holds
        what JSON cannot carry.
        """
        return _Bound(self, _fingerprint(recipe))

    def close(self) -> None:
        """Close the files. Its stores can no longer be used."""
        self._is_closed = True
        self._index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Cache {str(self.directory)!r}, {self._stats}>"

    # for its stores ---------------------------------------------------------------------------------------------

    def _find(self, recipe: bytes, keys: Sequence[bytes]) -> dict[bytes, Vector]:
        found = self._attempt("read", partial(self._index.find, recipe, keys, self._clock()))
        if found is None:
            self._count(unread=len(keys))
            return {}
        self._count(damaged=found.damaged)
        return found.vectors

    def _keep(self, recipe: bytes, keys: Sequence[bytes], vectors: Vectors) -> None:
        dropped = self._attempt("written", partial(self._index.keep, recipe, keys, vectors, self._clock()))
        if dropped is None:
            self._count(not_kept=len(keys))
        else:
            self._count(kept=len(keys), dropped=dropped)

    def _check_open(self) -> None:
        if self._is_closed:
            raise ConfigurationError(f"the cache in {self.directory} is closed")

    def _warn(self) -> None:
        """Warn of what has gone wrong since the last time."""
        while self._untold:
            warnings.warn(self._untold.pop(0), stacklevel=3)

    def _hold(self) -> None:
        """Before a fork: close the files, and let no thread be in the middle of anything."""
        self._counting.acquire()
        self._index.hold()

    def _let_go(self) -> None:
        """After a fork, in both processes."""
        self._index.let_go()
        self._counting.release()

    def _attempt(self, what: str, action: Callable[[], _Result]) -> _Result | None:
        """What *action* returns; ``None`` if it cannot be done."""
        try:
            try:
                return action()
            except DamagedError as error:
                self._complain("damaged", f"is damaged: {error}. It is set aside, and a new one begun.")
                self._index.begin_anew(error.number)
                return action()
        except (DamagedError, OSError, sqlite3.Error) as error:
            self._complain(what, f"cannot be {what}: {error}. The run goes on without it.")
            return None

    def _complain(self, kind: str, text: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            self._untold.append(f"the cache in {self.directory} {text}")

    def _count(self, **more: int) -> None:
        with self._counting:
            counts = {name: getattr(self._stats, name) + count for name, count in more.items()}
            self._stats = replace(self._stats, **counts)


class _Bound:
    """The part of *cache* that belongs to one *recipe*."""

    def __init__(self, cache: Cache, recipe: bytes) -> None:
        self._cache = cache
        self._recipe = recipe
        self._hash = blake2b(recipe, digest_size=_KEY_BYTES, person=_FORMAT)
        self._dimensions: int | None = None  # of the vectors that were given out or put in

    async def known(self, chunks: Chunks, /) -> Mapping[int, Vector]:
        self._cache._check_open()
        if not chunks:
            return {}
        known: dict[int, Vector] = await self._cache._in_thread(self._find, chunks.inputs)
        self._cache._warn()
        return known

    async def put(self, batch: Batch, vectors: Vectors, /) -> None:
        self._cache._check_open()
        if not batch:
            return
        # It is waited for also when the run is cancelled: what was paid for is kept.
        with anyio.CancelScope(shield=True):
            await self._cache._in_thread(self._keep, batch.inputs, vectors)
        self._cache._warn()
        before, self._dimensions = self._dimensions, vectors.shape[1]
        if before not in (None, self._dimensions):
            raise DimensionsError(
                f"expected vectors of {before:,} numbers, which the cache in {self._cache.directory} has of this "
                f"model, got {self._dimensions:,}: another model has its name now. The old ones are not used any more; "
                "begin again."
            )

    def _find(self, inputs: Sequence[bytes]) -> dict[int, Vector]:
        keys = self._keys(inputs)
        found = self._cache._find(self._recipe, keys)
        if found:
            dimensions = len(next(iter(found.values())))
            self._dimensions = self._dimensions or dimensions
            if dimensions != self._dimensions:
                found = {}  # another process has found out that the model has changed
        known = {row: found[key] for row, key in enumerate(keys) if key in found}
        self._cache._count(hits=len(known), misses=len(inputs) - len(known))
        return known

    def _keep(self, inputs: Sequence[bytes], vectors: Vectors) -> None:
        self._cache._keep(self._recipe, self._keys(inputs), vectors)

    def _keys(self, inputs: Sequence[bytes]) -> list[bytes]:
        keys = []
        copy = self._hash.copy
        for wire in inputs:
            hashed = copy()
            hashed.update(wire)
            keys.append(hashed.digest())
        return keys


def _fingerprint(recipe: Mapping[str, Any]) -> bytes:
    """What stands for all of *recipe* that a chunk's vector depends on. What is not known to be irrelevant counts."""
    relevant = {name: value for name, value in recipe.items() if name not in _BEFORE_CHUNKS}
    if isinstance(relevant.get("base_url"), str):
        relevant["base_url"] = relevant["base_url"].rstrip("/")
    try:
        encoded = msgspec.json.encode(relevant, order="deterministic")
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"recipe: not what JSON can carry: {error}") from error
    return blake2b(encoded, digest_size=_KEY_BYTES, person=_FORMAT).digest()


_caches: weakref.WeakSet[Cache] = weakref.WeakSet()
_held: list[Cache] = []


def _before_fork() -> None:
    for cache in list(_caches):
        cache._hold()
        _held.append(cache)


def _after_fork() -> None:
    while _held:
        _held.pop()._let_go()


if hasattr(os, "register_at_fork"):
    # SQLite's locks belong to a process: not even a connection that a child only leaves alone is safe.
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
