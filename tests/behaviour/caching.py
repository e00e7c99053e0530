"""
Runs with a cache, in this process or in one of its own:

    python tests/behaviour/caching.py fill DIRECTORY FIRST COUNT        prints what was kept, batch by batch
    python tests/behaviour/caching.py embed DIRECTORY FIRST COUNT       prints what came of a run, as JSON
    python tests/behaviour/caching.py fork DIRECTORY FIRST COUNT        prints what a child and its parent found
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import anyio
import msgspec
import numpy as np

from embedbatch import Batch, Embedder, Limits
from embedbatch.cache import Cache
from embedbatch.testing import ScriptedServer
from embedbatch.values import Vector

ROOT = Path(__file__).parents[2]
BATCH = 50
DIMENSIONS = 64
MODEL = "test-model"
URL = "http://test/v1"


def texts(count: int, first: int = 0) -> list[str]:
    """Texts that differ."""
    return [f"text {number}" for number in range(first, first + count)]


def batch_of(some: list[str]) -> Batch:
    """Chunks of these texts, each of a document of its own."""
    inputs = [msgspec.json.encode(text) for text in some]
    return Batch(inputs, list(range(len(some))), [0] * len(some), [0] * len(some), [9] * len(some))


def make(cache: Cache, server: ScriptedServer, **options: Any) -> Embedder:
    """An embedder that asks *cache* before *server*."""
    given = {"model": MODEL, "base_url": URL, "transport": server, "rng": Random(7), **options}
    return Embedder(cache=cache, **given)


async def find(cache: Cache, some: list[str]) -> int:
    """How many of these texts *cache* knows; fails if it has another vector for one than the server gives."""
    server = ScriptedServer(dimensions=DIMENSIONS)
    store = cache.bound_to(Embedder(MODEL, base_url=URL, transport=server).recipe)
    known: Mapping[int, Vector] = await store.known(batch_of(some))
    for row, vector in known.items():
        assert vector.tobytes() == server.vector_of(some[row]).tobytes()
    return len(known)


def begin(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Begin a process that does what *arguments* say."""
    command = [sys.executable, __file__, *map(str, arguments)]
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True, **options)


def result(process: subprocess.Popen[str]) -> Any:
    """What *process* printed as JSON, when it has ended well."""
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return json.loads(output)


async def fill(cache: Cache, some: list[str]) -> None:
    """Put the vectors of these texts, BATCH at a time, and tell of each batch."""
    server = ScriptedServer(dimensions=DIMENSIONS)
    store = cache.bound_to(Embedder(MODEL, base_url=URL, transport=server).recipe)
    for begun in range(0, len(some), BATCH):
        batch = some[begun : begun + BATCH]
        await store.put(batch_of(batch), np.stack([server.vector_of(text) for text in batch]))
        print(begun + len(batch), flush=True)


async def embed(cache: Cache, some: list[str]) -> dict[str, Any]:
    """Embed these texts; what came of it."""
    server = ScriptedServer(dimensions=DIMENSIONS)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with make(cache, server, limits=Limits(max_batch_inputs=BATCH)) as embedder:
            embeddings = await embedder.embed(some)
    return {
        "sent": sum(len(request.inputs) for request in server.received),
        "right": bool((embeddings.vectors == np.stack([server.vector_of(text) for text in some])).all()),
        "stats": asdict(cache.stats),
        "warnings": [str(warning.message) for warning in caught],
    }


def fork(directory: Path, some: list[str]) -> None:
    """Use a cache in a process, in its child, and in the process again."""
    half = len(some) // 2
    with Cache(directory) as cache:
        anyio.run(fill, cache, some[:half])
        child = os.fork()
        if not child:
            found = anyio.run(find, cache, some)
            anyio.run(fill, cache, some[half:])
            cache.close()
            os._exit(0 if found == half else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert anyio.run(find, cache, some) == len(some)
        anyio.run(fill, cache, some)


def main() -> None:
    """Do what the command line says."""
    what, directory, first, count, *flags = sys.argv[1:]
    some = texts(int(count), int(first))
    if "unprivileged" in flags and os.geteuid() == 0:
        with Cache(Path(directory) / "elsewhere") as cache:
            anyio.run(embed, cache, some)  # so that all is imported
        os.seteuid(65_534)
    if "full" in flags:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    if what == "fork":
        fork(Path(directory), some)
        return
    with Cache(directory) as cache:
        if what == "fill":
            anyio.run(fill, cache, some)
        else:
            print(json.dumps(anyio.run(embed, cache, some)))


if __name__ == "__main__":
    main()
