"""Moves usage from the journal to the ledger, exactly once, whatever is killed when.

A stretch of lines and the position behind it are written in one transaction, and (source, sequence) is unique in the
ledger: shipped again, a line changes nothing.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection, delete, select
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from roost_platform.database.connection import Database
from roost_platform.database.tables import journal_positions
from roost_platform.domain.errors import RoostError
from roost_platform.metering.backlog import Backlog
from roost_platform.metering.files import REAL_FILES, Files, is_sealed
from roost_platform.metering.lines import Stretch, read_lines, scan
from roost_platform.metering.recording import UNFIT, Recorded, insert_for, record_lines, record_rows
from roost_platform.metering.segments import DAMAGED, Found, find_segments

_MEASURED_EVERY_S = 1.0
STRETCH_BYTES = 768 * 1024  # about 4,000 lines: one transaction
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Shipped:
    """What one transaction did."""

    offset: int
    new: int
    repeated: int
    damaged: int
    conflicts: int


class Shipper:
    """Ships all segments in `journal_folder`: those of this run and those that dead runs left behind.

    Sealed segments are deleted when everything in them is in the ledger. Damaged lines are logged, counted and kept in
    a file `<segment>-<offset>.damaged` beside the journal.
    """

    def __init__(
        self,
        *,
        journal_folder: Path,
        database: Database,
        interval_s: float = 1.0,
        stretch_bytes: int = STRETCH_BYTES,
        backlog: Backlog | None = None,
        files: Files = REAL_FILES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`backlog` is kept up to date while `run` does. `clock`: seconds that do not run back."""
        self.shipped = 0
        """Events that this process added to the ledger."""
        self.repeated = 0
        """Events that were in the ledger already."""
        self.damaged = 0
        """Lines that could not be read."""
        self.conflicts = 0
        """Events that came again with other content; the ledger keeps the first (`conflicts.py`)."""
        self._folder = journal_folder
        self._database = database
        self._interval_s = interval_s
        self._stretch_bytes = stretch_bytes
        self._backlog = backlog or Backlog()
        self._files = files
        self._clock = clock
        self._current_at = clock()
        self._offsets: dict[str, int] = {}
        self._lock = asyncio.Lock()
        self._begun = 0
        self._completed = 0

    @property
    def unshipped_bytes(self) -> int:
        """Bytes of the journal that are not in the ledger yet (as far as this shipper has looked)."""
        return sum(max(0, each.size - self._offsets.get(each.name, 0)) for each in find_segments(self._folder))

    @property
    def lag_s(self) -> float:
        """For how long usage has been waiting: seconds since all that was written then was in the ledger; 0 = none waits."""
        return self._clock() - self._current_at if self.unshipped_bytes else 0.0

    async def ship_once(self) -> int:
        """Ship what is there now; returns how many events were new to the ledger.

        Raises Unavailable or StorageFull when the database does not take them; nothing is lost then.
        """
        async with self._lock:
            return await self._pass()

    async def drain(self) -> None:
        """Return when all events whose turn was awaited before this call are in the ledger.

        Without such events it costs one look at the folder; callers that come together share the work.
        """
        wanted = self._begun + 1  # a pass that is under way may have looked before our events came
        async with self._lock:
            if self._completed < wanted:
                await self._pass()

    async def run(self) -> None:
        """Ship once per interval until cancelled. Failures are logged and tried again."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._measure())  # beside it: a database that is slow holds up the shipping
            both.create_task(self._ship_again_and_again())

    async def _measure(self) -> None:
        while True:
            try:
                self._backlog.measured(self.unshipped_bytes)
            except OSError:
                _log.exception("journal_not_measured")
            await asyncio.sleep(_MEASURED_EVERY_S)

    async def _ship_again_and_again(self) -> None:
        failing = False
        while True:
            try:
                await self.ship_once()
                failing = False
            except (RoostError, SQLAlchemyError, OSError):
                if not failing:  # once per outage
                    _log.exception("journal_shipping_failed")
                failing = True
            await asyncio.sleep(self._interval_s)

    async def _pass(self) -> int:
        self._begun += 1
        began_at = self._clock()
        found = find_segments(self._folder)
        unknown = [each.name for each in found if each.name not in self._offsets]
        if unknown:
            positions = await self._database.read(_read_positions, unknown)
            self._offsets |= {name: positions.get(name, 0) for name in unknown}
        new = 0
        for segment in found:
            try:
                new += await self._ship(segment)
            except FileNotFoundError:  # another shipper was faster
                self._offsets.pop(segment.name, None)
        self._completed = self._begun
        self._current_at = began_at
        return new

    async def _ship(self, segment: Found) -> int:
        sealed = is_sealed(segment.path)  # asked before the last look at the size: what is sealed grows no more
        size = segment.path.stat().st_size if sealed else segment.size
        new = 0
        while self._offsets[segment.name] < size:
            offset = self._offsets[segment.name]
            done = await self._database.write(_ship_stretch, self._files, segment, offset, self._stretch_bytes)
            if done.offset == offset:
                break  # what is left is a batch that is not whole
            self._offsets[segment.name] = done.offset
            self._count(done)
            new += done.new
        if sealed:
            await self._finish(segment, size)
        return new

    def _count(self, done: _Shipped) -> None:
        self.shipped += done.new
        self.repeated += done.repeated
        self.damaged += done.damaged
        self.conflicts += done.conflicts

    async def _finish(self, segment: Found, size: int) -> None:
        # The position first: after a kill between the two the segment is shipped again, which changes nothing. The other
        # way round, the row of a segment that is no more would stay for ever.
        await self._database.write(_forget_position, segment.name)
        self.damaged += await asyncio.to_thread(_discard, self._files, segment, self._offsets[segment.name], size)
        del self._offsets[segment.name]


def _discard(files: Files, segment: Found, offset: int, size: int) -> int:
    """Delete a segment that was shipped up to `offset`; returns how many damaged lines were found behind that.

    Behind its last whole batch may be one that was cut short; it never counted.
    """
    damaged: list[bytes] = []
    if offset < size:
        _, damaged = read_lines(files.read(segment.path, offset, size - offset))
        _report_damage(segment, offset, damaged)
        _log.warning("journal_tail_dropped", extra={"segment": segment.name, "bytes": size - offset})
    files.unlink(segment.path)
    return len(damaged)


def _ship_stretch(connection: Connection, files: Files, segment: Found, offset: int, length: int) -> _Shipped:
    found = _read_batches(files, segment.path, offset, length)
    if found.consumed == 0:
        return _Shipped(offset, 0, 0, 0, 0)
    done = _record(connection, found)
    _report_damage(segment, offset, done.damaged)
    if done.conflicts:
        _log.error("ledger_conflicts", extra={"segment": segment.name, "offset": offset, "events": done.conflicts})
    _move_position(connection, segment.name, offset + found.consumed)
    repeated = done.seen - done.new - done.conflicts
    return _Shipped(offset + found.consumed, done.new, repeated, len(done.damaged), done.conflicts)


@dataclass(slots=True)
class _Done:
    """What became of a stretch: events read, those that were new to the ledger, and lines that are no events."""

    seen: int = 0
    new: int = 0
    conflicts: int = 0
    damaged: list[bytes] = field(default_factory=list)

    def count(self, recorded: Recorded, seen: int) -> None:
        self.seen += seen
        self.new += recorded.new
        self.conflicts += recorded.conflicts


def _record(connection: Connection, found: Stretch) -> _Done:
    """Add a stretch to the ledger."""
    done = _Done()
    rows, done.damaged = read_lines(found.damaged)
    done.count(record_rows(connection, rows), len(rows))
    if found.sound:
        try:
            with connection.begin_nested():
                recorded = record_lines(connection, found.sound)
            done.count(recorded, found.sound_lines)
        except UNFIT as error:  # some value does not fit the table: make it fit, or find the line that it is in
            if _is_outage(connection, error):
                raise
            rows, unfit = read_lines(found.sound)
            done.count(record_rows(connection, rows), len(rows))
            done.damaged += unfit
    return done


def _is_outage(connection: Connection, error: Exception) -> bool:
    """On SQLite a value that does not fit may be an OperationalError, too."""
    return connection.dialect.name == "postgresql" and isinstance(error, (OperationalError, InterfaceError))


def _read_batches(files: Files, path: Path, offset: int, length: int) -> Stretch:
    """The whole batches in about `length` bytes; more are read when one batch is longer than that."""
    while True:
        text = files.read(path, offset, length)
        found = scan(text)
        if found.consumed or len(text) < length:
            return found
        length *= 2


def _report_damage(segment: Found, offset: int, lines: list[bytes]) -> None:
    if not lines:
        return
    kept = segment.path.with_name(f"{segment.name}-{offset}{DAMAGED}")
    kept.write_bytes(b"\n".join(lines) + b"\n")
    _log.error("journal_line_damaged", extra={"segment": segment.name, "lines": len(lines), "kept_in": kept.name})


def _read_positions(connection: Connection, names: list[str]) -> dict[str, int]:
    position = journal_positions.c
    query = select(position.segment, position.offset).where(position.segment.in_(names))
    return {segment: offset for segment, offset in connection.execute(query)}  # noqa: C416 (rows are not pairs to mypy)


def _move_position(connection: Connection, name: str, offset: int) -> None:
    """Forwards only: a second shipper that is behind must not make the first one's work be done again."""
    insert = insert_for(connection.dialect)(journal_positions).values(segment=name, offset=offset)
    connection.execute(
        insert.on_conflict_do_update(
            index_elements=[journal_positions.c.segment],
            set_={"offset": insert.excluded.offset},
            where=journal_positions.c.offset < insert.excluded.offset,
        )
    )


def _forget_position(connection: Connection, name: str) -> None:
    connection.execute(delete(journal_positions).where(journal_positions.c.segment == name))
