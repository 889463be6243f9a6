"""Closes the books of gateway runs that have ended: this one's when it stops, and those of runs that were killed.

    all segments shipped? ─▶ count what the ledger holds ─▶ one transaction: unknown calls, balance ─▶ the file is deleted

Killed between any two of these, the next one to look does the same again, with the same result.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from roost_platform.database.connection import Database
from roost_platform.domain.errors import RoostError
from roost_platform.metering.files import REAL_FILES, Files, is_sealed
from roost_platform.metering.intents import SUFFIX, Left, read_intents, unanswered
from roost_platform.metering.segments import find_segments
from roost_platform.metering.sources import (
    Balance,
    Counted,
    begin_source,
    close_source,
    count_events,
    last_sequence,
    requests_of,
    slices,
)

UNREADABLE = ".unreadable"
_log = logging.getLogger(__name__)


class Settler:
    """For one journal folder; the shipper of the same folder ships what it waits for."""

    def __init__(
        self,
        *,
        journal_folder: Path,
        database: Database,
        clock: Callable[[], datetime],
        interval_s: float = 1.0,
        files: Files = REAL_FILES,
    ) -> None:
        self.unknown = 0
        """Calls found under way in dead runs by this process; never charged."""
        self._folder = journal_folder
        self._database = database
        self._clock = clock
        self._interval_s = interval_s
        self._files = files
        self._lock = asyncio.Lock()

    async def begin(self, source: str) -> None:
        """Write down that a run has begun. Raises Unavailable or StorageFull."""
        await self._database.write(begin_source, source, started_at=self._clock())

    async def settle(self) -> int:
        """Close the books of all runs that have ended and are shipped; returns how many those were.

        Raises Unavailable, StorageFull or OSError; nothing is lost then.
        """
        async with self._lock:
            ended = await asyncio.to_thread(self._ended)
            for path in ended:
                left = await asyncio.to_thread(read_intents, path)
                await (self._put_aside(path) if left is None else self._close(path, left))
            return len(ended)

    async def run(self) -> None:
        """Settle once per interval until cancelled. Failures are logged and tried again."""
        failing = False
        while True:
            try:
                await self.settle()
                failing = False
            except (RoostError, SQLAlchemyError, OSError):
                if not failing:  # once per outage
                    _log.exception("runs_not_settled")
                failing = True
            await asyncio.sleep(self._interval_s)

    def _ended(self) -> list[Path]:
        """Files of runs that can write no more, and of whose journal nothing is left to ship."""
        dead = [path for path in sorted(self._folder.glob(f"*{SUFFIX}")) if is_sealed(path)]
        # Looked for after that: no segment can be begun any more.
        waiting = {segment.name.rpartition("-")[0] for segment in find_segments(self._folder)} if dead else set()
        return [path for path in dead if path.name.removesuffix(SUFFIX) not in waiting]

    async def _close(self, path: Path, left: Left) -> None:
        sequences = [call.sequence for call in left.calls if call.sequence is not None]
        unknown = unanswered(left, await self._database.read(requests_of, left.source, sequences))
        counted = await self._count(left.source)
        now = self._clock()
        first = await self._database.write(
            close_source, left, completed=counted.requests, unknown=unknown, closed_at=now
        )
        if first:
            self._report(Balance(left.source, left.opened, counted.requests, left.unstored, len(unknown)), left)
        await asyncio.to_thread(self._files.unlink, path)

    async def _count(self, source: str) -> Counted:
        counted = Counted()
        for sequences in slices(await self._database.read(last_sequence, source)):
            counted += await self._database.read(count_events, source, sequences)
        return counted

    def _report(self, balance: Balance, left: Left) -> None:
        self.unknown += balance.unknown
        if balance.unknown:
            _log.warning("calls_unknown", extra={"source": balance.source, "calls": balance.unknown})
        if balance.unaccounted:
            figures = {name: getattr(balance, name) for name in ("opened", "completed", "unstored", "unknown")}
            _log.error(
                "calls_unaccounted", extra={"source": balance.source, "machine_restarted": left.restarted, **figures}
            )

    async def _put_aside(self, path: Path) -> None:
        """A power cut came before the file was on the disk, or it was damaged: that run stays unaccounted for."""
        source = path.name.removesuffix(SUFFIX)
        left = Left(source, 0, 0, 0, (), restarted=True)
        counted = await self._count(source)
        await self._database.write(close_source, left, completed=counted.requests, unknown=(), closed_at=self._clock())
        kept = path.with_name(path.name + UNREADABLE)
        await asyncio.to_thread(path.replace, kept)
        _log.error("intents_unreadable", extra={"source": source, "kept_in": kept.name})
