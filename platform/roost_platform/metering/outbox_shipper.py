"""Moves what tenants held from the outbox to the database, once each, whatever is killed when.

(source, id) is unique there, so what is shipped again changes nothing: no position is kept. A segment is deleted when all of
it is in the database and nobody can write to it any more.
"""

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from roost_platform.database.connection import Database
from roost_platform.domain.errors import RoostError
from roost_platform.metering.files import is_sealed
from roost_platform.metering.lines import scan
from roost_platform.metering.resource_lines import decode_lines
from roost_platform.metering.resources import RecordedResources, record_resources
from roost_platform.metering.segments import DAMAGED, Found, find_segments

_log = logging.getLogger(__name__)
_STRETCH_BYTES = 192 * 1024  # some 600 lines: one transaction


@dataclass(frozen=True, slots=True)
class _Shipped:
    offset: int
    recorded: RecordedResources
    damaged: int


class OutboxShipper:
    """Ships all segments in the outbox's folder: those of this run and those that dead runs left behind.

    Damaged lines are logged, counted and kept in a file `<segment>-<offset>.damaged` beside them.
    """

    def __init__(
        self, *, folder: Path, database: Database, interval_s: float = 1.0, stretch_bytes: int = _STRETCH_BYTES
    ) -> None:
        self.shipped = 0
        """Stretches that this process added to the database."""
        self.repeated = 0
        """Stretches that were there already."""
        self.conflicts = 0
        """Stretches that came again with other content; the first is kept."""
        self.damaged = 0
        """Lines that could not be read."""
        self._folder = folder
        self._database = database
        self._interval_s = interval_s
        self._stretch_bytes = stretch_bytes
        self._offsets: dict[str, int] = {}
        self._lock = asyncio.Lock()

    @property
    def unshipped_bytes(self) -> int:
        """Bytes of the outbox that are not in the database yet (as far as this shipper has looked)."""
        return sum(max(0, each.size - self._offsets.get(each.name, 0)) for each in find_segments(self._folder))

    async def drain(self) -> None:
        """Ship what is written now. Raises Unavailable or StorageFull when the database does not take it; nothing is
        lost then.
        """
        async with self._lock:
            for segment in find_segments(self._folder):
                try:
                    await self._ship(segment)
                except FileNotFoundError:  # another shipper was faster
                    self._offsets.pop(segment.name, None)

    async def run(self) -> None:
        """Ship once per interval until cancelled. Failures are logged and tried again."""
        failing = False
        while True:
            try:
                await self.drain()
                failing = False
            except (RoostError, SQLAlchemyError, OSError):
                if not failing:  # once per outage
                    _log.exception("outbox_shipping_failed")
                failing = True
            await asyncio.sleep(self._interval_s)

    async def _ship(self, segment: Found) -> None:
        sealed = is_sealed(segment.path)  # asked before the last look at the size: what is sealed grows no more
        size = segment.path.stat().st_size if sealed else segment.size
        offset = self._offsets.get(segment.name, 0)
        while offset < size:
            done = await self._database.write(_ship_stretch, segment, offset, self._stretch_bytes)
            if done.offset == offset:
                break  # what is left is a batch that is not whole
            self._offsets[segment.name] = offset = done.offset
            self._count(done)
        if sealed:
            await asyncio.to_thread(_discard, segment, offset, size)
            self._offsets.pop(segment.name, None)

    def _count(self, done: _Shipped) -> None:
        self.shipped += done.recorded.new
        self.repeated += done.recorded.repeated
        self.conflicts += done.recorded.conflicts
        self.damaged += done.damaged


def _ship_stretch(connection: Connection, segment: Found, offset: int, length: int) -> _Shipped:
    consumed, lines = _read_batches(segment.path, offset, length)
    usages, damaged = decode_lines(lines)
    if damaged:
        kept = segment.path.with_name(f"{segment.name}-{offset}{DAMAGED}")
        kept.write_bytes(b"\n".join(damaged) + b"\n")
        _log.error("outbox_line_damaged", extra={"segment": segment.name, "lines": len(damaged), "kept_in": kept.name})
    recorded = record_resources(connection, usages)
    if recorded.conflicts:
        _log.error("resource_conflicts", extra={"segment": segment.name, "stretches": recorded.conflicts})
    return _Shipped(offset + consumed, recorded, len(damaged))


def _read_batches(path: Path, offset: int, length: int) -> tuple[int, bytes]:
    """The whole batches in about `length` bytes; more are read when one batch is longer than that."""
    while True:
        with path.open("rb") as file:
            file.seek(offset)
            text = file.read(length)
        found = scan(text)
        if found.consumed or len(text) < length:
            return found.consumed, found.sound + found.damaged
        length *= 2


def _discard(segment: Found, offset: int, size: int) -> None:
    """Delete a segment that was shipped up to `offset`. Behind its last whole batch may be one that was cut short."""
    if offset < size:
        _log.warning("outbox_tail_dropped", extra={"segment": segment.name, "bytes": size - offset})
    segment.path.unlink()
