"""Jobs into tables that are killed, stopped, or lose their database: run again, no row is twice there or missing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import anyio
import msgspec
import pytest

from embedbatch import DestinationError, RunInterruptedError, jobs

from ..contract.loopback import ROOT, serve_in_a_thread
from ..crash.corpus import MAX_INPUT_TOKENS, Corpus, make_corpus, refusing_server
from ..crash.killing import CountingServer
from .child import Order
from .cluster import Cluster
from .tables import DIMENSIONS, Stored, assert_rows, corpus, embed, in_lance, in_postgres
from .test_postgres import execute

PARTS = 16
DOCUMENTS = 1_600


@dataclass
class Bench:
    """A corpus, a server that counts, and a table."""

    folder: Path
    corpus: Corpus
    server: CountingServer
    base_url: str
    url: str
    read: Callable[[], list[Stored]]
    kills: int = field(default=0)

    def run(self, *, at_reply: int | None = None, die_at: int | None = None, when: str = "after") -> int:
        """Run the job in a process of its own, and kill it at a reply or a part; return its exit status."""
        with self.begun(at_reply=at_reply, die_at=die_at, when=when) as child:
            status = child.wait(60)
        self.server.wait_until_idle()
        self.kills += status == -signal.SIGKILL
        return status

    @contextmanager
    def begun(self, *, at_reply: int | None = None, **options: Any) -> Iterator[subprocess.Popen[str]]:
        """The same, without waiting for its end."""
        order = Order(
            source=str(self.corpus.path),
            destination=self.url,
            base_url=self.base_url,
            part_rows=-(-DOCUMENTS // PARTS),
            dimensions=DIMENSIONS,
            max_input_tokens=MAX_INPUT_TOKENS,
            **options,
        )
        command = [sys.executable, "-W", "ignore", "-m", "tests.databases.child", msgspec.json.encode(order).decode()]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
        self.server.begin(at_reply)
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=self.folder, text=True
        ) as child:
            assert child.stdin is not None and child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            self.server.victim = child.pid
            child.stdin.write("\n")
            child.stdin.flush()
            yield child
        self.server.victim = None

    def assert_right(self) -> None:
        """Every document that is one chunk has the vector of its text, each is there once, and the parts are whole."""
        stored = self.read()
        texts = [text if len(text) <= MAX_INPUT_TOKENS else None for text in self.corpus.texts]
        short = [each for each, text in zip(stored, texts, strict=True) if text is not None]
        assert len(stored) == len({each.row for each in stored}) == DOCUMENTS
        assert len({each.run for each in stored}) == 1
        assert [each.id for each in stored] == [f"id-{number}" for number in range(DOCUMENTS)]
        assert all(each.vector is not None for each, text in zip(stored, texts, strict=True) if text is None)
        renumbered = [Stored(each.run, row, each.id, each.vector, {}) for row, each in enumerate(short)]
        assert_rows(renumbered, [text for text in texts if text is not None], self.server)


@contextmanager
def bench(folder: Path, url: str, read: Callable[[], list[Stored]]) -> Iterator[Bench]:
    """A bench whose table is at *url*."""
    server = CountingServer(seed=3, dimensions=DIMENSIONS)
    with serve_in_a_thread(server) as base_url:
        yield Bench(folder, make_corpus(folder / "corpus.jsonl", DOCUMENTS), server, base_url, url, read)


def kill_and_end(it: Bench, seed: str, kills: int) -> None:
    """Kill so many runs, in turn at a part and at a reply, and let one end."""
    rng = Random(seed)
    whens = ("after", "during", "before")
    while it.kills < kills:
        moment: dict[str, Any] = {"at_reply": rng.randint(1, 3)}
        if it.kills % 2 == 0:
            moment = {"die_at": rng.randint(0, 1), "when": whens[it.kills // 2 % 3]}
        assert it.run(**moment) == -signal.SIGKILL, f"{moment} did not come, after {it.kills} kills"
    assert it.run() == 0
    it.assert_right()
    assert it.run() == 0  # it is finished, and not done again
    assert not it.server.in_this_run
    it.assert_right()


def test_killed_again_and_again_into_postgres(dsn: str, tmp_path: Path) -> None:
    """SIGKILL at replies, before, in the middle of and right after the transactions of parts."""
    with bench(tmp_path, f"{dsn}&table=docs", lambda: in_postgres(dsn)) as it:
        kill_and_end(it, "postgres", kills=8)


def test_killed_again_and_again_into_lance(tmp_path: Path) -> None:
    """The same of LanceDB, where a part takes two commits if some of it is there."""
    with bench(tmp_path, f"lancedb://{tmp_path}/db?table=docs", lambda: in_lance(tmp_path / "db")) as it:
        kill_and_end(it, "lance", kills=6)


def test_killed_while_the_server_takes_a_part(dsn: str, tmp_path: Path) -> None:
    """A client that dies while PostgreSQL has half of its rows leaves none of them."""
    with bench(tmp_path, f"{dsn}&table=docs", lambda: in_postgres(dsn)) as it:
        assert it.run(die_at=1, when="after") == -signal.SIGKILL
        # A trigger that waits for a lock stops the copying at a row in the middle of part 3.
        row = 3 * -(-DOCUMENTS // PARTS) + 50
        execute(
            dsn,
            "CREATE FUNCTION halt() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NEW; END'",
            f"CREATE TRIGGER halt BEFORE INSERT ON docs FOR EACH ROW WHEN (NEW.row = {row}) EXECUTE FUNCTION halt()",
        )
        import psycopg

        with psycopg.connect(dsn, autocommit=True) as holder, it.begun() as child:
            holder.execute("SELECT pg_advisory_lock(42)")
            waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            while holder.execute(waiting).fetchone() == (0,):
                assert child.poll() is None
            child.kill()
            child.wait()
        it.server.wait_until_idle()
        assert {each.row for each in it.read()} == set(range(3 * -(-DOCUMENTS // PARTS)))

        assert it.run() == 0
        it.assert_right()


@pytest.mark.anyio
@pytest.mark.parametrize("key", ["", "&key=id"])
@pytest.mark.parametrize("kind", ["postgres", "lance"])
async def test_stopped_and_resumed(dsn: str, tmp_path: Path, kind: str, key: str) -> None:
    """A stop event ends the run in order; the same call goes on, and sends nothing twice."""
    url = f"{dsn}&table=docs{key}" if kind == "postgres" else f"lancedb://{tmp_path}/db?table=docs{key}"
    source, texts = corpus(tmp_path, 200)
    server = refusing_server(dimensions=DIMENSIONS, latency=0.05)
    stop = anyio.Event()

    def tell(progress: jobs.Progress) -> None:
        if progress.documents >= 20:
            stop.set()

    with pytest.raises(RunInterruptedError):
        await embed(source, url, server, stop=stop, progress=tell)
    sent = [text for request in server.received for text in request.inputs]
    summary = await embed(source, url, server)

    again = [text for request in server.received for text in request.inputs][len(sent) :]
    assert not set(sent) & set(again) and again
    assert summary.runs == 2
    stored = in_postgres(dsn) if kind == "postgres" else in_lance(tmp_path / "db")
    assert_rows(stored, texts, server)


@pytest.mark.anyio
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["in order", "crash"])
async def test_a_database_that_goes_away_and_comes_back(
    cluster: Cluster, dsn: str, tmp_path: Path, how: signal.Signals
) -> None:
    """The run ends with the reason, also when it begins without one; with it, the same call ends it, and pays once."""
    source, texts = corpus(tmp_path, 200)
    server = refusing_server(dimensions=DIMENSIONS)
    url = f"{dsn}&table=docs"
    is_down = threading.Event()

    def tell(progress: jobs.Progress) -> None:
        if progress.documents >= 60 and not is_down.is_set():
            cluster.stop(how)
            is_down.set()

    try:
        with pytest.raises(DestinationError, match=r"(connect|terminat|closed).*the same call goes on") as raised:
            await embed(source, url, server, progress=tell)
        assert raised.value.destination.startswith("postgresql://")
        sent = len(server.received)
        with pytest.raises(DestinationError, match="Nothing was sent"):
            await embed(source, url, server)
        assert is_down.is_set() and len(server.received) == sent
    finally:
        cluster.start()
    await embed(source, url, server)

    assert_rows(in_postgres(dsn), texts, server)


@pytest.mark.anyio
async def test_rows_that_somebody_changed_are_found_and_made_again(dsn: str, tmp_path: Path) -> None:
    """A row that is gone, or another vector, in a part that is complete: the run that ends the job notices."""
    source, texts = corpus(tmp_path, 200)
    server = refusing_server(dimensions=DIMENSIONS, latency=0.05)
    url = f"{dsn}&table=docs"
    stop = anyio.Event()

    def tell(progress: jobs.Progress) -> None:
        if progress.documents >= 60:
            stop.set()

    with pytest.raises(RunInterruptedError):
        await embed(source, url, server, stop=stop, progress=tell)
    execute(dsn, "DELETE FROM docs WHERE row = 1", "UPDATE docs SET embedding = embedding + embedding WHERE row = 17")
    with pytest.raises(Exception, match="2 parts of the result are damaged"):
        await embed(source, url, server)
    await embed(source, url, server)

    assert_rows(in_postgres(dsn), texts, server)
