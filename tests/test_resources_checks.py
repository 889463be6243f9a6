"""How long checks of uploads ran is told of once for each, refused ones included, and never what was our own fault."""

import asyncio
import os
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from hostile_models import endless_loop
from registry_parts import IRIS, NOON, adding, body, open_database
from roost_platform.database.connection import Database
from roost_platform.domain.errors import ModelRejected, Unavailable
from roost_platform.domain.resources import ResourceKind, ResourceUsage
from roost_platform.domain.tenants import Quota
from roost_platform.registry.check_meter import CheckMeter
from roost_platform.registry.checking import Checker, CheckLimits
from roost_platform.registry.registry import Registry
from roost_platform.registry.store import DiskStore
from roost_process import descendants

CHECKER = "roost-check"
SECOND_US = 10**6
MICROSECOND = timedelta(microseconds=1)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with open_database(tmp_path, "acme") as made:
        yield made


class Uploads:
    def __init__(self, folder: Path, database: Database, **checker: object) -> None:
        self.told: list[ResourceUsage] = []
        self.registry = Registry(
            database=database,
            store=DiskStore(folder),
            checker=Checker(**checker),
            staging=folder / "staging",
            clock=lambda: NOON + timedelta(minutes=30),
            on_usage=self.told.append,
        )
        (folder / "staging").mkdir()

    async def upload(self, data: bytes) -> int:
        registered = await self.registry.register(IRIS, body(data), limit_bytes=10**6, quota=Quota())
        return registered.version.number


def looked_at(usage: ResourceUsage) -> int:
    """Microseconds of a check, after a look at the rest."""
    assert (usage.kind, usage.tenant, usage.model) == (ResourceKind.CHECK, *IRIS)
    assert usage.end == NOON + timedelta(minutes=30)
    assert usage.job_us == (usage.end - usage.start) // MICROSECOND > 0
    assert (usage.setup_us, usage.active_us, usage.idle_us, usage.reserved_us, usage.byte_seconds) == (0, 0, 0, 0, 0)
    return usage.job_us


async def test_every_check_is_told_of_once_with_the_version_that_came_of_it(tmp_path, database):
    uploads = Uploads(tmp_path, database)
    begun = time.monotonic()
    assert await uploads.upload(adding(1)) == 1
    with pytest.raises(ModelRejected):
        await uploads.upload(adding(1)[:-40])
    assert await uploads.upload(adding(1)) == 1, "these bytes are known: nothing is checked"
    took_us = (time.monotonic() - begun) * SECOND_US
    await uploads.registry.stop()

    good, refused = uploads.told
    assert (good.version, refused.version) == (1, 0)
    assert 0 < looked_at(good) + looked_at(refused) < took_us
    assert good.id != refused.id


async def test_a_check_that_takes_too_long_is_told_of_for_as_long_as_it_was_let_run(tmp_path, database):
    uploads = Uploads(tmp_path, database, limits=CheckLimits(wall_s=0.001))
    with pytest.raises(ModelRejected) as refused:
        await uploads.upload(adding(1))
    assert refused.value.code == "too_slow"
    await uploads.registry.stop()
    (usage,) = uploads.told
    assert looked_at(usage) >= 1000
    assert usage.version == 0


async def test_what_fails_for_our_own_reasons_is_nobody_s(tmp_path, database):
    uploads = Uploads(tmp_path, database, python=str(tmp_path / "absent"))
    with pytest.raises(Unavailable):
        await uploads.upload(adding(1))
    await uploads.registry.stop()
    assert uploads.told == []


async def test_who_leaves_while_the_file_is_checked_has_still_had_it_checked(tmp_path, database):
    uploads = Uploads(tmp_path, database)
    leaving = asyncio.create_task(uploads.upload(endless_loop().SerializeToString()))
    while not any(process.name == CHECKER for process in descendants(os.getpid())):
        assert not leaving.done()
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await uploads.registry.stop()
    (usage,) = uploads.told
    assert looked_at(usage) >= 0.1 * SECOND_US
    assert usage.version == 0


def test_a_check_over_the_full_hour_is_cut_there():
    told: list[ResourceUsage] = []
    CheckMeter(tell=told.append, clock=lambda: NOON + timedelta(seconds=2)).ran(IRIS, 4, 5 * SECOND_US + 1)
    before, after = told
    assert (before.end, after.start) == (NOON, NOON)
    assert (before.job_us, after.job_us) == (3 * SECOND_US + 1, 2 * SECOND_US)
    assert before.id.split("/")[0] == after.id.split("/")[0]
    assert before.id != after.id
    assert (before.version, after.version) == (4, 4)
    CheckMeter(tell=told.append, clock=lambda: NOON).ran(IRIS, 4, 0)
    assert len(told) == 2
