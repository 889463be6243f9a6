"""What the local engine tells of its replicas: real processes, and clocks of the test's where hours and steps matter."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from engine_harness import KEY
from engines_under_test import LocalHarness
from roost_platform.domain.errors import Unavailable
from roost_platform.domain.resources import ResourceUsage
from roost_platform.domain.scaling import ScalingPolicy
from roost_platform.domain.services import Readiness, Revision, RevisionKey, Service, ServiceKey, TrafficTarget
from roost_platform.engines.local.budget import Capacity
from roost_platform.engines.local.clocks import Clocks
from roost_platform.engines.local.engine import LocalEngine, LocalSettings

SECOND_US = 10**6
MICROSECOND = timedelta(microseconds=1)
OTHER = ServiceKey("umbrella", "sleeper")
NEARLY_NOON = datetime(2026, 11, 3, 11, 59, 59, 700_000, tzinfo=UTC)


class Machine(LocalHarness):
    """The contract's harness, with a machine, files and clocks as told."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self.elsewhere: set[str] = set()
        """Digests of files that must be fetched first, which takes a fifth of a second."""

    async def up(self, *, replicas: int = 64, clocks: Clocks | None = None) -> None:
        self.engine = LocalEngine(
            locate=lambda digest: None if digest in self.elsewhere else (self._artifacts[digest], False),
            fetch=self._fetch,
            settings=LocalSettings(
                capacity=Capacity(8 << 30, replicas),
                spares=2,
                tick=False,
                runtimes={"sleeper": "sleeper_model:SleeperModel"},
            ),
            on_usage=self.held.append,
            clock=lambda: self.now,
            clocks=clocks,
        )
        await self.engine.start()

    async def _fetch(self, digest: str) -> tuple[Path, bool]:
        await asyncio.sleep(0.2)
        self.elsewhere.discard(digest)
        return self._artifacts[digest], False

    async def serve(self, service: ServiceKey, revision: Revision, **policy: int) -> None:
        traffic = (TrafficTarget(revision.name, 100),)
        await self.engine.apply(Service(service, (revision,), traffic, ScalingPolicy(**policy)))
        await self.until(lambda: self.engine.status(service).revisions[0].ready is not Readiness.UNKNOWN)

    def lives(self, model: ServiceKey = KEY) -> list[list[ResourceUsage]]:
        """The stretches of each replica in order, the replica that was born first before the others."""
        found: dict[str, list[ResourceUsage]] = {}
        for usage in self.held:
            assert usage.setup_us + usage.active_us + usage.idle_us + usage.reserved_us == lasted_us(usage)
            assert usage.pull_us + usage.schedule_us + usage.load_us == usage.setup_us
            if (usage.tenant, usage.model) == model:
                found.setdefault(usage.replica, []).append(usage)
        for life in found.values():
            assert all(before.end == after.start for before, after in pairwise(life))
            assert sum(usage.final for usage in life[:-1]) == 0
        return list(found.values())


def lasted_us(usage: ResourceUsage) -> int:
    return (usage.end - usage.start) // MICROSECOND


def to_utc_us(moment: datetime) -> int:
    return int(moment.timestamp() * SECOND_US)


def total(life: list[ResourceUsage], name: str) -> int:
    return sum(getattr(usage, name) for usage in life)


MakeMachine = Callable[..., Awaitable[Machine]]


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[MakeMachine]:
    made: list[Machine] = []

    async def make(**how: object) -> Machine:
        made.append(Machine(tmp_path))
        await made[0].up(**how)
        return made[0]

    yield make
    await made[0].stop()
    assert all(life[-1].final for service in (KEY, OTHER) for life in made[0].lives(service)), "stopping ends all"


async def test_setup_is_split_into_fetching_the_file_and_loading_the_model(machine: MakeMachine):
    here = await machine()
    revision = here.install(load_s=0.3)
    here.elsewhere.add(revision.digest)
    begun = time.monotonic()
    await here.serve(KEY, revision)
    took_us = (time.monotonic() - begun) * SECOND_US
    here.engine.report_held()

    (life,) = here.lives()
    assert total(life, "pull_us") >= 0.19 * SECOND_US
    assert total(life, "load_us") >= 0.29 * SECOND_US
    assert total(life, "setup_us") <= took_us
    assert total(life, "schedule_us") > 0


async def test_spares_are_nobody_s(machine: MakeMachine):
    here = await machine()
    await asyncio.sleep(0.2)
    here.engine.report_held()
    await here.stop()
    assert here.held == []


async def test_waiting_for_room_is_part_of_the_setup_of_the_replica_that_gets_it(machine: MakeMachine):
    here = await machine(replicas=1)
    first = here.install(answer=1)
    await here.serve(KEY, first)
    other = here.install(answer=2)
    busy = asyncio.create_task(here.call(first, 0.6))
    await asyncio.sleep(0.1)
    await here.engine.apply(Service(OTHER, (other,), (TrafficTarget(other.name, 100),), ScalingPolicy()))
    await asyncio.sleep(0.1)
    here.engine.report_held()
    ((waiting,),) = here.lives(OTHER)
    assert waiting.schedule_us == lasted_us(waiting) >= 0.09 * SECOND_US, "told of while it waits, too"
    await busy
    await asyncio.sleep(0.5)  # the room is kept for half a second
    here.engine.tick()
    await here.until(lambda: here.engine.status(OTHER).revisions[0].running == 1)
    here.engine.report_held()

    (life,) = here.lives(OTHER)
    assert total(life, "schedule_us") >= 0.4 * SECOND_US
    ((*_, gone),) = here.lives(KEY)
    assert gone.final


async def test_what_waited_for_room_and_is_not_wanted_any_more_ends_without_ever_having_run(machine: MakeMachine):
    here = await machine(replicas=1)
    first, other = here.install(answer=1), here.install(answer=2)
    await here.serve(KEY, first)
    busy = asyncio.create_task(here.call(first, 1.0))
    await asyncio.sleep(0.05)
    await here.engine.apply(Service(OTHER, (other,), (TrafficTarget(other.name, 100),), ScalingPolicy()))
    with pytest.raises(Unavailable) as refused:
        async with here.engine.lease(RevisionKey(OTHER, other.name), asyncio.get_running_loop().time() + 0.2):
            raise AssertionError("there is no room")
    assert refused.value.code == "no_capacity"
    await here.engine.delete(OTHER)

    ((only,),) = here.lives(OTHER)
    assert only.final
    assert only.schedule_us == lasted_us(only) > 0
    assert only.cold_starts == 0
    await busy


async def test_a_model_that_cannot_be_loaded_has_setup_only(machine: MakeMachine):
    here = await machine()
    await here.serve(KEY, here.install(refuse="no", load_s=0.1))
    await here.until(lambda: bool(here.held))

    ((life,),) = here.lives()
    assert life.final
    assert life.setup_us == lasted_us(life) >= 0.09 * SECOND_US
    assert life.cold_starts == 0


async def test_stretches_are_cut_at_the_full_hour_and_at_each_report(machine: MakeMachine):
    offset_us = to_utc_us(NEARLY_NOON) - 2 * 3600 * SECOND_US - time.monotonic_ns() // 1000
    here = await machine(clocks=Clocks(time_of_day_ns=lambda: time.monotonic_ns() + offset_us * 1000))
    revision = here.install()
    await here.serve(KEY, revision)
    offset_us = to_utc_us(NEARLY_NOON) - time.monotonic_ns() // 1000
    here.engine.report_held()
    here.held.clear()
    call = asyncio.create_task(here.call(revision, 0.8))
    await asyncio.sleep(0.4)
    here.engine.report_held()
    await call
    here.engine.report_held()

    (life,) = here.lives()
    noon = datetime(2026, 11, 3, 12, tzinfo=UTC)
    assert life[0].start >= NEARLY_NOON
    assert sum(usage.end == noon for usage in life) == 1
    assert sum(usage.start == noon for usage in life) == 1
    assert len(life) == 3
    assert total(life, "active_us") >= 0.8 * SECOND_US


async def test_the_one_that_was_idle_for_min_scale_is_reserved_and_the_one_beyond_it_is_not(machine: MakeMachine):
    here = await machine()
    revision = here.install()
    await here.serve(KEY, revision, min_scale=2, initial_scale=2, container_concurrency=1)
    await here.until(lambda: here.status(revision).running == 2)
    here.engine.report_held()
    before = len(here.held)
    await here.call(revision, 0.3)
    here.engine.report_held()
    kept = here.held[before:]
    assert sum(usage.active_us for usage in kept) >= 0.3 * SECOND_US
    assert sum(usage.reserved_us for usage in kept) >= 0.3 * SECOND_US, "the other one, meanwhile"
    assert sum(usage.idle_us for usage in kept) == 0

    await here.apply(revision, min_scale=1, container_concurrency=1)
    before = len(here.held)
    here.engine.report_held()
    await asyncio.sleep(0.2)
    here.engine.report_held()
    one, other = here.held[before + 2 :]
    assert sorted([one.idle_us > 0, other.idle_us > 0]) == [False, True], "one of two is beyond the min-scale now"
    assert one.reserved_us + other.reserved_us == max(lasted_us(one), lasted_us(other))

    # Both busy: nobody is reserved.
    await asyncio.gather(here.call(revision, 0.3), here.call(revision, 0.3))
    before = len(here.held)
    here.engine.report_held()
    assert sum(usage.active_us for usage in here.held[before:]) >= 2 * 0.3 * SECOND_US


async def test_a_replica_killed_from_outside_ends_then_and_its_successor_is_no_cold_start(machine: MakeMachine):
    here = await machine()
    revision = here.install()
    await here.serve(KEY, revision, min_scale=1)
    (pid,) = here.replicas()
    os.kill(pid, signal.SIGKILL)
    await here.until(lambda: any(usage.final for usage in here.held))
    await here.until(lambda: here.status(revision).running == 1)
    await here.call(revision)
    here.engine.report_held()

    killed, successor = here.lives()
    assert killed[-1].final
    assert successor[0].start >= killed[-1].end
    assert total(killed, "cold_starts") == total(successor, "cold_starts") == 0


async def test_calls_that_wake_a_sleeping_model_are_one_cold_start_for_each_replica(machine: MakeMachine):
    here = await machine()
    revision = here.install(load_s=0.1)
    await here.serve(KEY, revision, activation_scale=2)
    await here.pass_time(200)
    await here.until(lambda: not here.replicas())
    await asyncio.gather(*(here.call(revision, 0.1) for _ in range(20)))
    await here.until(lambda: here.status(revision).running == 2)
    await here.engine.delete(KEY)

    deployed, *woken = here.lives()
    assert total(deployed, "cold_starts") == 0
    assert [total(life, "cold_starts") for life in woken] == [1, 1]
    for life in woken:
        (stretch,) = [usage for usage in life if usage.cold_starts]
        assert stretch.load_us >= 0.09 * SECOND_US


async def test_the_time_of_day_set_back_by_an_hour_neither_adds_nor_takes_time(machine: MakeMachine):
    step = 0
    here = await machine(clocks=Clocks(time_of_day_ns=lambda: time.time_ns() + step * 1000))
    revision = here.install()
    await here.serve(KEY, revision)
    begun = time.monotonic()
    step = -3600 * SECOND_US
    here.engine.report_held()
    await asyncio.sleep(0.2)
    here.engine.report_held()
    first, after = [usage for usage in here.held if usage.replica][:2]
    assert timedelta(seconds=-3601) < after.start - first.end < timedelta(seconds=-3599)
    assert 0.19 * SECOND_US <= after.idle_us <= (time.monotonic() - begun) * SECOND_US
    here.held.clear()  # what follows is told by the new time of day; the fixture looks at it as one life
