"""What the tests of the cache share: batches of chunks, and a cache that is used from outside of any event loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import shake_128
from pathlib import Path
from typing import Any

import anyio
import numpy as np

from embedbatch import Batch
from embedbatch.cache import Cache
from embedbatch.values import Vector, Vectors

RECIPE: Mapping[str, Any] = {"model": "m", "dimensions": 8, "base_url": "http://test/v1", "extra_body": {}}


async def inline(action: Callable[..., Any], *arguments: Any) -> Any:
    """Call it here and now, in no thread."""
    return action(*arguments)


def open_cache(directory: Path | str, **options: Any) -> Cache:
    """A cache in *directory* that uses no threads."""
    return Cache(directory, in_thread=inline, **options)


def batch_of(inputs: Sequence[bytes]) -> Batch:
    """Chunks with these bytes, each of a document of its own."""
    count = len(inputs)
    return Batch(list(inputs), list(range(count)), [0] * count, [0] * count, [len(wire) for wire in inputs])


def wires(count: int, first: int = 0) -> list[bytes]:
    """Inputs that differ."""
    return [b'"text %d"' % number for number in range(first, first + count)]


def vectors_of(inputs: Sequence[bytes], dimensions: int = 8) -> Vectors:
    """A vector for each of *inputs*, derived from it."""
    digests = [shake_128(wire).digest(2 * dimensions) for wire in inputs]
    rows = [np.frombuffer(digest, "<i2").astype(np.float32) for digest in digests]
    return np.stack(rows) if rows else np.empty((0, dimensions), np.float32)


def put(cache: Cache, inputs: Sequence[bytes], vectors: Vectors, recipe: Mapping[str, Any] = RECIPE) -> None:
    """Put *vectors* into *cache*."""
    anyio.run(cache.bound_to(recipe).put, batch_of(inputs), vectors)


def known(cache: Cache, inputs: Sequence[bytes], recipe: Mapping[str, Any] = RECIPE) -> Mapping[int, Vector]:
    """What *cache* knows of *inputs*."""
    result: Mapping[int, Vector] = anyio.run(cache.bound_to(recipe).known, batch_of(inputs))
    return result


def bytes_in(directory: Path) -> int:
    """What all files in *directory* take."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def assert_right(found: Mapping[int, Vector], inputs: Sequence[bytes], dimensions: int = 8) -> None:
    """Fail if a vector that was found is not, bit by bit, that of its input."""
    expected = vectors_of(inputs, dimensions)
    assert all(vector.tobytes() == expected[row].tobytes() for row, vector in found.items())
