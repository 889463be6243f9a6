"""Storage: bytes times seconds of every version, to the hour while it lives and to the second at its two ends."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection

from registry_parts import IRIS, NOON, open_database
from resource_parts import conflicts, dirty, held
from roost_platform.database.connection import Database
from roost_platform.domain.errors import NotFound
from roost_platform.domain.resources import ResourceKind, ResourceUsage
from roost_platform.domain.services import ServiceKey
from roost_platform.domain.signatures import Signature
from roost_platform.domain.tenants import Quota
from roost_platform.metering.resources import record_resources
from roost_platform.registry import versions
from roost_platform.registry.checking import Checker
from roost_platform.registry.registry import Registry
from roost_platform.registry.storage_meter import LATEST, SETTLED, StorageMeter
from roost_platform.registry.store import DiskStore
from roost_platform.registry.versions import NewVersion

pytestmark = pytest.mark.usefixtures("each_database")

HOUR = timedelta(hours=1)
BORN = NOON + timedelta(minutes=34, seconds=56, microseconds=789_012)
SIZE = 1_234_567
NO_LIMITS = Quota(models=0, storage_bytes=0)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with open_database(tmp_path, "acme") as made:
        yield made


class Storage:
    """A gateway's meter, made anew as after a restart, at a time that the test moves."""

    def __init__(self, folder: Path, database: Database, *, leads: bool = True, at_once: int = 50) -> None:
        self.now = NOON
        self.database = database
        self.meter = StorageMeter(
            database=database, record=record_resources, clock=lambda: self.now, leads=lambda: leads, at_once=at_once
        )
        self.registry = Registry(
            database=database,
            store=DiskStore(folder),
            checker=Checker(),
            staging=folder / "staging",
            clock=lambda: self.now,
            on_deleted=self.meter.deleted,
        )

    async def add(self, born: datetime, *, model: str = "iris", size: int = SIZE, digest: str = "a") -> None:
        new = NewVersion(ServiceKey("acme", model), digest * 64, size, Signature((), ()), 1, born)
        await self.database.write(versions.add_version, new, NO_LIMITS)

    async def tell_at(self, now: datetime) -> list[ResourceUsage]:
        self.now = now
        await self.meter.tell()
        return await self.database.read(held)


def stored(usages: Sequence[ResourceUsage]) -> int:
    """Byte-seconds of all, each looked at."""
    for usage in usages:
        assert (usage.kind, usage.source, usage.tenant) == (ResourceKind.STORAGE, "storage", "acme")
        assert usage.start < usage.end <= usage.start.replace(minute=0, second=0, microsecond=0) + HOUR
        assert (usage.setup_us, usage.active_us, usage.idle_us, usage.reserved_us, usage.job_us) == (0, 0, 0, 0, 0)
    return sum(usage.byte_seconds for usage in usages)


def byte_seconds(life: timedelta, size: int = SIZE) -> int:
    return size * (life // timedelta(microseconds=1)) // 10**6


async def test_the_broken_hour_of_a_birth_and_full_hours_are_told_once_they_are_over(tmp_path, database):
    storage = Storage(tmp_path, database)
    await storage.add(BORN)
    assert await storage.tell_at(NOON + HOUR + SETTLED - timedelta(microseconds=1)) == []
    (first,) = await storage.tell_at(NOON + HOUR + SETTLED)
    assert (first.start, first.end) == (BORN, NOON + HOUR)
    assert (first.model, first.version) == ("iris", 1)
    told = await storage.tell_at(NOON + 4 * HOUR + SETTLED)
    assert sorted((usage.start, usage.end) for usage in told[0:]) == [
        (BORN, NOON + HOUR),
        *((NOON + n * HOUR, NOON + (n + 1) * HOUR) for n in (1, 2, 3)),
    ]
    assert stored(told) == byte_seconds(NOON + 4 * HOUR - BORN)
    assert set(await database.read(dirty)) == {("resources", "acme", NOON + n * HOUR) for n in range(4)}


async def test_restarts_and_changes_of_the_leader_neither_double_nor_lose_an_hour(tmp_path, database):
    await Storage(tmp_path, database).add(BORN)
    for hours in (2, 2, 3, 3, 7, 5, 9):  # one came up with a clock that is two hours behind
        told = await Storage(tmp_path, database).tell_at(NOON + hours * HOUR + SETTLED)
        assert await Storage(tmp_path, database, leads=False).tell_at(NOON + 100 * HOUR) == told
    assert stored(told) == byte_seconds(NOON + 9 * HOUR - BORN)
    assert await database.read(conflicts) == []


async def test_two_leaders_at_once_tell_the_same(tmp_path, database):
    both = [Storage(tmp_path, database), Storage(tmp_path, database)]
    for number in range(3):
        await both[0].add(BORN, model=f"m{number}")
    await asyncio.gather(*(one.tell_at(NOON + 30 * HOUR + SETTLED) for one in both))
    assert stored(await database.read(held)) == 3 * byte_seconds(NOON + 30 * HOUR - BORN)
    assert await database.read(conflicts) == []


async def test_a_version_that_is_deleted_was_stored_to_the_second(tmp_path, database):
    storage = Storage(tmp_path, database)
    await storage.add(BORN)
    await storage.add(BORN + 2 * HOUR, size=77, digest="b")
    await storage.tell_at(NOON + HOUR + SETTLED)
    end = storage.now = NOON + 5 * HOUR + timedelta(minutes=1, microseconds=5)
    await storage.registry.delete_model(IRIS)
    told = await storage.tell_at(NOON + 50 * HOUR)
    first, second = ([usage for usage in told if usage.version == number] for number in (1, 2))
    assert stored(first) == byte_seconds(end - BORN)
    assert stored(second) == byte_seconds(end - BORN - 2 * HOUR, 77)
    assert max(usage.end for usage in told) == end
    assert await database.read(conflicts) == []


async def test_a_version_that_lives_for_a_moment_only_is_told_of_too(tmp_path, database):
    storage = Storage(tmp_path, database)
    await storage.add(BORN)
    storage.now = BORN + timedelta(seconds=2)
    await storage.registry.delete_model(IRIS)
    assert stored(await database.read(held)) == 2 * SIZE


async def test_a_model_made_again_under_its_name_in_the_same_hour_is_another_one(tmp_path, database):
    storage = Storage(tmp_path, database)
    for start in (0, 20):
        await storage.add(NOON + timedelta(minutes=start))
        storage.now = NOON + timedelta(minutes=start + 10)
        await storage.registry.delete_model(IRIS)
    assert stored(await storage.tell_at(NOON + 3 * HOUR)) == 2 * SIZE * 600
    assert await database.read(conflicts) == []


async def test_a_deletion_that_fails_tells_of_nothing(tmp_path, database):
    storage = Storage(tmp_path, database)
    await storage.add(BORN)

    def broken(connection: Connection, gone: Sequence[versions.Version]) -> None:
        storage.meter.deleted(connection, gone)
        raise NotFound("the transaction ends here")

    registry = Registry(
        database=database, store=DiskStore(tmp_path), checker=Checker(), staging=tmp_path / "staging", on_deleted=broken
    )
    storage.now = NOON + 3 * HOUR
    with pytest.raises(NotFound):
        await registry.delete_model(IRIS)
    assert await database.read(held) == []
    assert len(await registry.versions(IRIS)) == 1
    assert stored(await storage.tell_at(NOON + 3 * HOUR + SETTLED)) == byte_seconds(NOON + 3 * HOUR - BORN)


async def test_a_month_of_being_down_is_caught_up_and_no_more_than_that(tmp_path, database):
    storage = Storage(tmp_path, database, at_once=500)
    await storage.add(BORN)
    month = timedelta(days=30)
    assert stored(await storage.tell_at(NOON + month + SETTLED)) == byte_seconds(month - (BORN - NOON))
    later = await Storage(tmp_path, database).tell_at(NOON + 2 * month + LATEST / 2 + SETTLED)
    starts = sorted({usage.start for usage in later if usage.start >= NOON + month})
    assert starts[0] == NOON + 2 * month - LATEST / 2
    assert len(starts) == 35 * 24


async def test_more_versions_than_one_transaction_takes_are_all_told_of_in_full(tmp_path, database):
    for number in range(20):
        await Storage(tmp_path, database).add(BORN, model=f"m{number:03}", size=number)
    for hours, at_once in ((2, 7), (6, 5), (7, 20), (8, 10)):
        told = await Storage(tmp_path, database, at_once=at_once).tell_at(NOON + hours * HOUR + SETTLED)
        lasted = NOON + hours * HOUR - BORN
        assert stored(told) == sum(byte_seconds(lasted, number) for number in range(20))


async def test_the_loop_tells_as_soon_as_it_can(tmp_path, database):
    storage = Storage(tmp_path, database)
    await storage.add(BORN)
    storage.now = NOON + 2 * HOUR
    running = asyncio.create_task(storage.meter.run())
    while not await database.read(held):
        assert not running.done()
        await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert stored(await database.read(held)) == byte_seconds(NOON + HOUR - BORN)
