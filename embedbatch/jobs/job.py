"""A job on disk: what it is bound to, what is done of it, and what is to be done."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any
from uuid import uuid4

import anyio.to_thread
import msgspec

from ..errors import ConfigurationError, JournalError, SourceError
from .disk import Disk
from .duplicates import NO_DUPLICATES, Duplicates, Hashes, find_duplicates
from .earlier import Earlier, result_of
from .identity import Fingerprint, differences
from .ledger import Ledger
from .parts import Division
from .sinks import Destination
from .sources import BEGINNING, Place, Row, Scan, Source, scan

_LEDGER = "ledger.sqlite"
_START_OVER = "To start over: --fresh, in Python fresh=True"
_HASHES = "hashes.bin"
_DUPLICATES = "duplicates.npy"


class Job:
    """
    The job whose result goes to *destination*, in the folder that says. One process at a time has it open.

    *source* is what it embeds; *scan*, *division* and *duplicates* say what that holds. *earlier* tells that the job
    was finished before, and goes on from its result.
    """

    def __init__(self, destination: Destination, source: Source, disk: Disk, *, fresh: bool) -> None:
        self.destination = destination
        self.source = source
        self.disk = disk
        self.folder = destination.journal
        self.scan = Scan(0, 0, "int")
        self.division = Division(0, 1)
        self.duplicates = NO_DUPLICATES
        self.earlier: Earlier | None = None
        try:
            disk.make_directory(self.folder)
        except OSError as error:
            raise ConfigurationError(f"destination: cannot make {self.folder}: {error.strerror}") from error
        try:
            self.ledger = Ledger(self.folder / _LEDGER)
        except JournalError as error:
            if not fresh:
                error.add_note(f"What is in it cannot be used. {_START_OVER}.")
                raise
            disk.remove(self.folder)
            disk.make_directory(self.folder)
            self.ledger = Ledger(self.folder / _LEDGER)
        if fresh:
            self.ledger.clear()
            self.tidy()

    async def settle(
        self,
        identity: Mapping[str, Any],
        *,
        dimensions: int | None,
        part_rows: int,
        dedupe: bool,
        bad_rows: Sequence[SourceError] = (),
        retry_failed: bool = False,
        extend: bool = False,
    ) -> None:
        """
        Make sure that the job goes on as it began, or begin it. Then *bad_rows* are those that were met.

        With *retry_failed* it is ready to ask again for what has failed; with *extend* for what the source has more.

        Raises :class:`ConfigurationError` if it was begun with another *identity* or source.
        """
        identity = msgspec.json.decode(msgspec.json.encode(identity))  # as it comes back from the ledger
        before = self.ledger.fact("identity")
        if before is None:
            await self._begin(identity, dimensions=dimensions, part_rows=part_rows, dedupe=dedupe)
        else:
            self._check_identity(before, identity)
            self._learn()
            changed = await anyio.to_thread.run_sync(partial(self._find_change, extend=extend))
            if changed is not None:
                await self._extend(changed, retry_failed=retry_failed)
            elif retry_failed:
                self._retry()
        self._learn()
        self.duplicates = await self._load_duplicates()
        if bad_rows and not self.is_finished and not self.ledger.bad_rows():
            self.ledger.note_bad_rows(bad_rows)  # each reading meets them again
        earlier = self.ledger.fact("earlier")
        self.earlier = None if earlier is None else Earlier(**earlier)
        holds = partial(self.destination.holds, self.scan.documents, self.run)
        if self.is_finished and not await anyio.to_thread.run_sync(holds):
            raise ConfigurationError(f"{self.destination} is gone, which this job had made. {_START_OVER}")

    def _learn(self) -> None:
        self.scan = Scan(**self.ledger.fact("scan"))
        self.division = Division(self.scan.documents, self.ledger.fact("part_rows"))

    def check_source(self) -> None:
        """Raise :class:`SourceError` if the source was written to since the job was settled."""
        known = msgspec.convert(self.ledger.fact("source"), Fingerprint)
        if self.source.stamp() != known.stamp:
            raise SourceError("was written to while it was read", path=self.source.name)

    @property
    def run(self) -> str:
        """What tells its rows in a table from those of others: a UUID."""
        return str(self.ledger.fact("run"))

    @property
    def is_finished(self) -> bool:
        """True if the result is there."""
        return self.ledger.fact("is_finished") is True

    def columns(self) -> Mapping[str, Any]:
        """The other columns that go into the result: an Arrow type for each, or a kind of ``jobs.columns``."""
        schema = self.source.schema() if self.source.columns else None
        return self.scan.columns if schema is None else dict(zip(schema.names, schema.types, strict=True))

    def parts_to_do(self) -> list[int]:
        """The parts that are not in the result."""
        complete = self.ledger.complete_parts()
        return [part for part in range(self.division.parts) if part not in complete]

    def rows_from(self, position: int) -> Iterator[Row]:
        """
        The rows of the source from *position* on.

        Raises :class:`SourceError` where there should be more of them.
        """
        part, marks = position // self.division.part_rows, self.ledger.marks()
        known = max((number for number in marks if number <= part), default=0)
        place = Place(self.division.first(known), *marks[known]) if known in marks else BEGINNING
        yield from islice(self.source.rows(place), position - place.position, None)
        raise SourceError("has fewer documents than when this job began", path=self.source.name)

    def close(self) -> None:
        """Let other processes have it. What holds nothing that was paid for is removed."""
        try:
            is_empty = self.ledger.is_empty() and not self.is_finished and self.ledger.fact("earlier") is None
        except JournalError:
            is_empty = False
        try:
            if is_empty and os.name != "nt":  # where no open file can be removed
                self.disk.remove(self.folder)  # as long as nobody else can have it
        finally:
            self.ledger.close()

    def tidy(self) -> None:
        """Remove all but the ledger."""
        for path in self.folder.iterdir():
            if not path.name.startswith(_LEDGER):
                self.disk.remove(path)

    async def _begin(
        self, identity: Mapping[str, Any], *, dimensions: int | None, part_rows: int, dedupe: bool
    ) -> None:
        before = await anyio.to_thread.run_sync(self.source.fingerprint)
        facts = await self._look_through(before, dedupe=dedupe)
        run = str(uuid4())
        self.ledger.state(identity=identity, part_rows=part_rows, dimensions=dimensions, run=run, **facts)

    async def _look_through(self, found: Fingerprint, *, dedupe: bool) -> dict[str, Any]:
        """Read all of the source, which was *found* to hold this; return what is to be known of it."""
        duplicates: Duplicates | None = None
        if dedupe:
            totals, duplicates = await self._find_duplicates()
        else:
            totals = await scan(self.source)
        if self.source.stamp() != found.stamp:
            raise SourceError("was written to while it was read", path=self.source.name)
        self.disk.sync_directory(self.folder)
        return {
            "source": found,
            "scan": totals,
            "duplicates": 0 if duplicates is None else len(duplicates),
            "digest_of_duplicates": None if duplicates is None else duplicates.digest,
        }

    async def _find_duplicates(self) -> tuple[Scan, Duplicates]:
        path = self.folder / _HASHES
        with self.disk.open(path) as file:
            file.truncate(0)
            totals = await scan(self.source, Hashes(file).add)
        duplicates = Duplicates(await anyio.to_thread.run_sync(find_duplicates, path))
        self.disk.remove(path)
        duplicates.save(self.disk, self.folder / _DUPLICATES)
        return totals, duplicates

    async def _load_duplicates(self) -> Duplicates:
        """Those that were found when the job began; they are looked for again where the file is not what it was."""
        known = self.ledger.fact("digest_of_duplicates")
        if known is None or self.is_finished:
            return NO_DUPLICATES
        with contextlib.suppress(OSError, ValueError, EOFError):
            duplicates = Duplicates.load(self.folder / _DUPLICATES)
            if duplicates.digest == known:
                return duplicates
        _, duplicates = await self._find_duplicates()
        if duplicates.digest != known:
            raise JournalError("is damaged, and cannot be made again", path=str(self.folder / _DUPLICATES))
        return duplicates

    def _check_identity(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        changed = differences(before, now)
        if changed:
            moved = before.get("destination") != now.get("destination")
            rather = "Name another journal: --journal, in Python journal=" if moved else _START_OVER
            raise ConfigurationError(
                f"{self.folder} is of another job: {'; '.join(changed)}. Run it as it was begun. {rather}"
            )

    def _find_change(self, *, extend: bool) -> Fingerprint | None:
        """What the source holds now, if it has grown and is to be extended; ``None`` if it holds the same."""
        known = msgspec.convert(self.ledger.fact("source"), Fingerprint)
        if self.source.stamp() == known.stamp:
            return None
        found = self.source.fingerprint()
        if found.digest == known.digest:
            self.ledger.state(source=found)
            return None
        has_grown = self.source.has_grown(known)
        sizes = f"since this job began: {known.bytes:,} bytes then, {found.bytes:,} now"
        if not has_grown:
            raise ConfigurationError(
                f"{self.source.name} is not what it was {sizes}. Put it back as it was. {_START_OVER}"
            )
        if not self.is_finished:
            raise ConfigurationError(
                f"{self.source.name} has grown {sizes}. This job is not finished: finish it with the source as it was, "
                f"its first {known.bytes:,} bytes. {_START_OVER}"
            )
        if not extend:
            raise ConfigurationError(
                f"{self.source.name} has grown {sizes}. For what is new: --extend, in Python extend=True. {_START_OVER}"
            )
        return found

    def _retry(self) -> None:
        """Make ready to ask again for what has failed for good."""
        if not self.is_finished:
            earlier = self.ledger.fact("earlier")
            if earlier is not None:
                self.ledger.state(earlier={**earlier, "failures": True})
            for part in self.parts_to_do() if earlier is None else ():
                self.ledger.forget_failures(self.division.first(part), self.division.end(part), final_too=True)
        elif self.ledger.count_failures()[0]:
            self._go_on_from_result(failures=True)

    async def _extend(self, found: Fingerprint, *, retry_failed: bool) -> None:
        facts = await self._look_through(found, dedupe=self.ledger.fact("digest_of_duplicates") is not None)
        self.ledger.note_bad_rows([])  # it was read from the beginning
        self._go_on_from_result(failures=retry_failed, **facts)

    def _go_on_from_result(self, *, failures: bool, **facts: Any) -> None:
        result_of(self.destination)  # which has to be one
        earlier = Earlier(self.scan.documents, failures)
        self.ledger.begin_again(earlier=earlier, publishing=None, is_finished=None, **facts)
