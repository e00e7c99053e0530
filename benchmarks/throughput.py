"""
Vectors per second through the whole flow, against the load server: `python benchmarks/throughput.py`.

Short texts, no delay: what is measured is the client. Every vector is checked; a wrong one fails the run.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import numpy as np

from embedbatch import Embedder, Embedding

sys.path.insert(0, str(Path(__file__).parent))
from load_server import expected

TEXT = "document number {:08d}: " + "some words that make it about two hundred bytes long, as many passages are, " * 2


@contextlib.contextmanager
def load_server(dimensions: int) -> Iterator[str]:
    """Start the load server on another core; give its base_url."""
    command = [sys.executable, str(Path(__file__).with_name("load_server.py")), "--dimensions", str(dimensions)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if len(os.sched_getaffinity(0)) > 1:
            os.sched_setaffinity(process.pid, {max(os.sched_getaffinity(0))})
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.stdin.close()


async def embed(base_url: str, texts: list[str], wanted: np.ndarray) -> tuple[float, float]:
    """Vectors per second of embed() and of stream()."""
    async with Embedder("bench", base_url=base_url) as embedder:
        started_at = time.perf_counter()
        embeddings = await embedder.embed(texts)
        together = len(texts) / (time.perf_counter() - started_at)
        if not np.array_equal(embeddings.vectors, wanted):
            raise SystemExit("embed(): a vector is not at its text")
        del embeddings
        started_at = time.perf_counter()
        async with embedder.stream(texts) as results:
            async for result in results:
                assert isinstance(result, Embedding)
                if result.position % 97 == 0 and not np.array_equal(result.vector, wanted[result.position]):
                    raise SystemExit("stream(): a vector is not at its text")
        return together, len(texts) / (time.perf_counter() - started_at)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--texts", type=int, default=50_000)
    options.add_argument("--dimensions", type=int, default=1_536)
    options.add_argument("--rounds", type=int, default=3)
    given = options.parse_args()
    texts = [TEXT.format(number) for number in range(given.texts)]
    wanted = expected(texts, given.dimensions)
    with load_server(given.dimensions) as base_url:
        rounds = [anyio.run(embed, base_url, texts, wanted) for _ in range(given.rounds)]
    for name, figures in zip(("embed()", "stream()"), zip(*rounds, strict=True), strict=True):
        print(f"{name:9} {statistics.median(figures):9,.0f} vectors/s, median of {given.rounds}")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB")


if __name__ == "__main__":
    main()
