"""A job of a million documents, against a quick server: memory stays where it is, and every row is right."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from benchmarks.speed.vectors import choice, decimals, text

from .loopback import ROOT

DOCUMENTS = 1_000_000
DIMENSIONS = 64
MEGABYTE = 10**6

# In a process of its own, whose memory is nobody else's: what is resident, by the documents that are done.
CHILD = """
import sys
from pathlib import Path

import anyio
import msgspec

from embedbatch import Embedder, jobs

source, target, base_url = sys.argv[1:]
seen = []

def resident(progress):
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    seen.append((progress.documents, 4096 * pages))

async def run():
    async with Embedder("bench", base_url=base_url, api_key="none", dimensions=64) as embedder:
        first = await jobs.run(source, target, embedder, progress=resident)
    async with Embedder("bench", base_url=base_url, api_key="none", dimensions=64) as embedder:
        again = await jobs.run(source, target, embedder)
    return first, again

first, again = anyio.run(run)
told = {"seen": seen, "embedded": first.embedded, "again": again.usage.requests - first.usage.requests}
print(msgspec.json.encode(told).decode())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="there is no /proc to read memory from")
def test_a_million_documents_take_no_more_memory_than_two_fifths_of_them(tmp_path: Path) -> None:
    """Flat once a part was written, and 200 MB at most beside what the flow may hold; each vector is its text's."""
    source, target = tmp_path / "c.txt", tmp_path / "v.npy"
    with source.open("w") as file:
        file.writelines(f"{text(number)[:60]}\n" for number in range(DOCUMENTS))
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.speed.server", "--dimensions", str(DIMENSIONS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    ) as server:
        assert server.stdout is not None
        base_url = f"http://127.0.0.1:{server.stdout.readline().split()[-1]}/v1"
        command = [sys.executable, "-c", CHILD, str(source), str(target), base_url]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert server.stdin is not None
        server.stdin.close()
    assert done.returncode == 0, done.stderr

    told = msgspec.json.decode(done.stdout)
    begun = told["seen"][0][1]
    early = max(size for documents, size in told["seen"] if documents <= DOCUMENTS * 2 // 5)  # a part is written
    assert (told["embedded"], told["again"]) == (DOCUMENTS, 0)
    assert max(size for _, size in told["seen"]) - early < 40 * MEGABYTE
    assert max(size for _, size in told["seen"]) - begun < 200 * MEGABYTE
    right, vectors = decimals(DIMENSIONS).astype(np.float32), np.load(target, mmap_mode="r")
    assert len(vectors) == DOCUMENTS
    for first in range(0, DOCUMENTS, 100_000):
        rows = [choice(text(number)[:60].encode()) for number in range(first, first + 100_000)]
        np.testing.assert_array_equal(vectors[first : first + 100_000], right[rows])
