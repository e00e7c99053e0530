"""
Jobs that are killed with SIGKILL, again and again: they end with the result of an undisturbed run.

What was answered and not yet durable at a kill was in flight or being written: at most one batch for each worker of the
pipeline. With a store there are two for each request that may be in flight, as one can send while the other's batch is
written, and one more. This much may be sent again, and no more: nothing that the ledger has is ever asked for again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from ..behaviour.corpora import names
from ..contract.loopback import serve_in_a_thread
from .child import Order
from .corpus import MAX_INPUT_TOKENS, Corpus, assert_right, make_corpus, result_of
from .killing import Children, Chunked, CountingServer, Moment, children_of, draw

BATCH = 64
AT_ONCE = 4
UNCERTAIN = (2 * AT_ONCE + 1) * BATCH


@dataclass
class Bench:
    """A corpus, a server that counts, and the results that undisturbed runs make of it."""

    folder: Path
    corpus: Corpus
    server: CountingServer
    children: Children
    base_url: str
    part_rows: int
    chunked: Chunked = field(init=False)
    right: dict[str, dict[str, bytes]] = field(default_factory=dict)
    kills: int = 0
    most_uncertain: int = 0

    def __post_init__(self) -> None:
        self.chunked = Chunked(self.corpus)

    def order(self, destination: Path) -> Order:
        """The job that makes *destination*."""
        return Order(
            source=str(self.corpus.path),
            destination=str(destination),
            base_url=self.base_url,
            part_rows=self.part_rows,
            max_input_tokens=MAX_INPUT_TOKENS,
            max_batch_inputs=BATCH,
            max_concurrent_requests=AT_ONCE,
        )

    def undisturbed(self, name: str) -> None:
        """Make the right result of that *name*: every text is sent once."""
        self.server.answered.clear()
        destination = self.folder / f"undisturbed-{name}"
        assert not self.children.run(self.order(destination), None)
        self.right[name] = result_of(destination)
        assert_right(destination, self.corpus, self.server)
        again = {text: count for text, count in self.server.answered.items() if count > 1}
        assert not again, again

    def kill_until_done(self, name: str, rng: Random, most: tuple[int, int, float]) -> None:
        """Run a job into a folder of its own, and kill it until it is done before its moment comes."""
        folder = self.folder / f"killed-{self.kills}"
        folder.mkdir()
        destination = folder / name
        earlier = self.right[name] and {"": b"what was there before"}
        if destination.suffix:
            destination.write_bytes(earlier[""])
        self.server.answered.clear()
        durable: set[str] = set()
        uncertain = 0
        moments: list[Moment] = []
        while True:
            moments.append(draw(rng, *most))
            is_killed = self.children.run(self.order(destination), moments[-1])
            again = durable & self.server.in_this_run
            assert not again, f"{len(again)} that were durable were sent again, as {sorted(again)[:3]}: {moments}"
            if not is_killed:
                break
            self.kills += 1
            journal = folder / f"{name}.journal"
            durable = self.chunked.durable(journal, self.part_rows)
            lost = self.server.in_this_run - durable
            assert len(lost) <= UNCERTAIN, f"{len(lost)} were answered and not durable: {moments}"
            self.most_uncertain = max(self.most_uncertain, len(lost))
            uncertain += len(lost)
            self._assert_untouched(destination, earlier)
        assert result_of(destination) == self.right[name], moments
        assert sum(self.server.answered.values()) - len(self.server.answered) <= uncertain
        left = names(folder / f"{name}.journal")
        assert left == {"ledger.sqlite"}, f"{left} are left in the journal: {moments}"

    def _assert_untouched(self, destination: Path, earlier: dict[str, bytes]) -> None:
        """Nothing but the earlier result and files of the right one is there."""
        right = self.right[destination.name]
        for suffix, data in result_of(destination).items():
            assert data in (earlier.get(suffix), right.get(suffix)), suffix


@contextmanager
def bench(folder: Path, documents: int, parts: int) -> Iterator[Bench]:
    """A bench in *folder*, with a server that runs for as long as the block."""
    corpus = make_corpus(folder / "corpus.jsonl", documents)
    server = CountingServer(seed=3)
    with serve_in_a_thread(server) as base_url, children_of(server) as children:
        yield Bench(folder, corpus, server, children, base_url, -(-documents // parts))


@pytest.mark.slow
def test_20_000_documents_killed_at_200_moments_are_sent_once(quick_path: Path) -> None:
    """Jobs of every format, killed at replies, at operations of the disk and at random times, end as if undisturbed."""
    rng = Random(11)
    destinations = ["vectors.parquet", "vectors.npy", "vectors", "vectors.jsonl.zst"]
    with bench(quick_path, 20_000, parts=8) as it:
        for name in destinations:
            it.undisturbed(name)
        while it.kills < 200:
            it.kill_until_done(rng.choice(destinations), rng, (40, 35, 0.5))

    assert 0 < it.most_uncertain <= UNCERTAIN


@pytest.mark.parametrize("name", ["vectors.parquet", "vectors.npy", "vectors.jsonl.zst"])
def test_2_000_documents_killed_at_some_moments_are_sent_once(quick_path: Path, name: str) -> None:
    """The quick round of the above."""
    rng = Random(name)
    with bench(quick_path, 2_000, parts=8) as it:
        it.undisturbed(name)
        while it.kills < 4:
            it.kill_until_done(name, rng, (12, 60, 0.2))
