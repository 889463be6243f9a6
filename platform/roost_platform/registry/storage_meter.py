"""Storage: for every hour of UTC and every version, its bytes times the seconds that it was stored.

A full hour is told of once it is over, by the gateway that leads. The broken hour in which a version is deleted is told of
in the transaction that deletes it, with all hours before it that were not told of yet: so nothing is lost between the two.
What is stored twice is charged twice: a version costs as if nobody else had the same file.

A stretch is named by its version and its hour, and what was told last is read from the database. So it does not matter who
tells, or how often: restarts and changes of the leader neither double nor lose an hour.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import islice

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import SQLAlchemyError

from roost_platform.database.connection import Database
from roost_platform.database.money_tables import resource_usage
from roost_platform.domain.errors import RoostError
from roost_platform.domain.hours import hour_of, pieces
from roost_platform.domain.resources import ResourceKind, ResourceUsage
from roost_platform.registry.versions import Version, list_after

logger = logging.getLogger(__name__)

Record = Callable[[Connection, Sequence[ResourceUsage]], object]
"""Adds stretches, each (source, id) once, in the transaction of the connection."""

SOURCE = "storage"
LATEST = timedelta(days=35)
"""How far back is told of what was stored while no gateway ran."""
SETTLED = timedelta(minutes=1)
"""An hour is told of so long after its end. A gateway whose clock is less than this behind then agrees that it is over."""
_LOOK_S = 20.0
_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class StorageMeter:
    """Tells of the hours that are over while `run` does, where `leads` says so."""

    def __init__(
        self,
        *,
        database: Database,
        record: Record,
        clock: Callable[[], datetime],
        leads: Callable[[], bool] = lambda: True,
        at_once: int = 1000,
    ) -> None:
        """`at_once`: most versions, and most stretches, in one transaction."""
        self._database = database
        self._record = record
        self._clock = clock
        self._leads = leads
        self._at_once = at_once
        self._told_until: datetime | None = None

    async def run(self) -> None:
        """Look now and then whether an hour is over, until cancelled. Failures are logged and tried again."""
        failing = False
        while True:
            try:
                if self._leads():
                    await self.tell()
                failing = False
            except (RoostError, SQLAlchemyError):
                if not failing:  # once per outage
                    logger.exception("storage_not_metered")
                failing = True
            await asyncio.sleep(_LOOK_S)

    async def tell(self) -> None:
        """Tell of all hours that are over and were not told of yet. Raises Unavailable or StorageFull."""
        now = self._clock()
        until = hour_of(now - SETTLED)
        if self._told_until is not None and until <= self._told_until:
            return
        after: tuple[str, str, int] | None = ("", "", 0)
        while after is not None and self._leads():
            after = await self._database.write(self._tell_some, after, now, until)
        if after is None:
            self._told_until = until

    def deleted(self, connection: Connection, gone: Sequence[Version]) -> None:
        """Versions are being deleted in this transaction: tell of the time up to now."""
        now = self._clock()
        self._record(connection, [usage for version in gone for usage in _untold(connection, version, now, now)])

    def _tell_some(
        self, connection: Connection, after: tuple[str, str, int], now: datetime, until: datetime
    ) -> tuple[str, str, int] | None:
        """Tell of some versions behind this one; the last one that was told of in full, None when all were."""
        found = list_after(connection, after, self._at_once)
        told: list[ResourceUsage] = []
        for version in found:
            told += islice(_untold(connection, version, now, until), self._at_once - len(told))
            if len(told) == self._at_once:
                break  # it may have more to tell: it is looked at again
            after = (version.tenant, version.model, version.number)
        self._record(connection, told)
        return after if self._at_once in (len(told), len(found)) else None


def _untold(connection: Connection, version: Version, now: datetime, until: datetime) -> Iterator[ResourceUsage]:
    """What a version stored from where it was told of last until then."""
    name = _name(version)
    since = _last_told(connection, name) or version.created_at
    for start, end in pieces(max(since, hour_of(now - LATEST)), until):
        yield ResourceUsage(
            source=SOURCE,
            id=f"{name}/{start:%Y-%m-%dT%H}",
            kind=ResourceKind.STORAGE,
            start=start,
            end=end,
            tenant=version.tenant,
            model=version.model,
            version=version.number,
            byte_seconds=_byte_seconds(version, end) - _byte_seconds(version, start),
        )


def _byte_seconds(version: Version, until: datetime) -> int:
    """Whole ones from its birth on: rounded so, those of its stretches sum up to those of its life, however it is cut."""
    return version.size * ((until - version.created_at) // _MICROSECOND) // 10**6


def _name(version: Version) -> str:
    """Of this version and no other: a model that is deleted and made again begins with version 1 again."""
    born_us = (version.created_at - _EPOCH) // _MICROSECOND
    return sha256(f"{version.tenant}/{version.model}/{version.number}/{born_us}".encode()).hexdigest()[:32]


def _last_told(connection: Connection, name: str) -> datetime | None:
    """The end of the last stretch that was told of. Its id is found by the primary key alone, in any collation: it has the
    name's digits, then those of its hour.
    """
    stretch = resource_usage.c
    last = select(func.max(stretch.id)).where(
        stretch.source == SOURCE, stretch.id.between(f"{name}/0000", f"{name}/9999")
    )
    ended: datetime | None = connection.scalar(
        select(stretch.end).where(stretch.source == SOURCE, stretch.id == last.scalar_subquery())
    )
    return ended
