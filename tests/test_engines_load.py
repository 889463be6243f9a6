"""Scaling, replacing and making room while calls come (K13, K21, K30), and deaths in every phase of a life (L1).

Local engine, real processes. One try for each call; every answer is checked.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from engines_under_test import GIB, KEY, LocalHarness
from roost_platform.domain.errors import ReplicaLost, Unavailable
from roost_platform.domain.scaling import ScalingPolicy
from roost_platform.domain.services import Readiness, Revision, RevisionKey, Service, ServiceKey, TrafficTarget
from roost_platform.engines.local.budget import Capacity
from roost_platform.engines.local.replica import Replica

LIVES = 20
"""Of replicas killed in each phase."""


@pytest.fixture
async def machine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LocalHarness]:
    made = LocalHarness(capacity=getattr(request, "param", None))
    await made.start(tmp_path)
    yield made
    await made.stop()
    assert not made.replicas()
    assert not zombies(), "what ended was reaped"


def zombies() -> list[int]:
    """Dead descendants of this process that nobody has waited for."""
    found, parents = [], [os.getpid()]
    while parents:
        with suppress(OSError):
            for children in Path(f"/proc/{parents.pop()}/task").glob("*/children"):
                for pid in map(int, children.read_text().split()):
                    parents.append(pid)
                    if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                        found.append(pid)
    return found


class Clients:
    """Some clients, each calling one after another."""

    def __init__(self, machine: LocalHarness, revision: Revision, seconds: float) -> None:
        self.answered = 0
        self.failed: list[Exception] = []
        self._machine = machine
        self._revision = revision
        self._seconds = seconds
        self._wanted = 0
        self._tasks: list[asyncio.Task[None]] = []

    def be(self, number: int) -> None:
        """From now on, so many; those too many stop after the call they are in."""
        self._wanted = number
        self._tasks = [task for task in self._tasks if not task.done()]
        for rank in range(len(self._tasks), number):
            self._tasks.append(asyncio.create_task(self._client(rank)))

    async def _client(self, rank: int) -> None:
        while rank < self._wanted:
            try:
                answer = await self._machine.call(self._revision, self._seconds)
                assert answer["answer"] == 7
                self.answered += 1
            except Exception as error:  # noqa: BLE001 - what it is, the test says
                self.failed.append(error)

    async def until_answered(self, more: int) -> None:
        wanted = self.answered + more
        await self._machine.until(lambda: self.answered >= wanted or self.failed, within=60)

    async def stop(self) -> None:
        self.be(0)
        await asyncio.gather(*self._tasks)


@asynccontextmanager
async def clients(machine: LocalHarness, revision: Revision, seconds: float) -> AsyncIterator[Clients]:
    made = Clients(machine, revision, seconds)
    try:
        yield made
    finally:
        await made.stop()


async def test_k21_load_goes_up_and_down_and_up_and_every_call_is_answered(machine: LocalHarness):
    revision = machine.install(answer=7)
    await machine.apply(revision, container_concurrency=1, max_scale=4)
    await machine.until_ready(revision)
    seen: list[int] = []
    one, all_ = {1, 2}, {4}  # replicas are filled to 70 %, so one call after another is worth a second one
    async with clients(machine, revision, 0.01) as load:
        for number, seconds, scale in ((1, 20, one), (12, 20, all_), (1, 200, one), (12, 20, all_), (1, 200, one)):
            load.be(number)
            for _ in range(seconds // 2):  # the autoscaler's seconds pass while calls go on
                await load.until_answered(number)
                await machine.pass_time(2)
                seen.append(machine.status(revision).running)
            await machine.until(lambda scale=scale: machine.status(revision).running in scale)
    assert not load.failed
    assert load.answered >= 450
    assert max(seen) <= 4


async def test_k30_replicas_killed_one_by_one_lose_only_what_ran_on_them(machine: LocalHarness):
    revision = machine.install(answer=7)
    await machine.apply(revision, container_concurrency=2, min_scale=4, max_scale=4)
    await machine.until(lambda: machine.status(revision).running == 4)
    kills = 0
    async with clients(machine, revision, 0.02) as load:
        load.be(8)
        for _ in range(4):
            for pid in machine.replicas():
                await load.until_answered(8) if not load.failed else await asyncio.sleep(0.05)
                os.kill(pid, signal.SIGKILL)
                kills += 1
                await machine.until(lambda pid=pid: pid not in machine.replicas())
                await machine.until(lambda: len(machine.replicas()) == 4)
                await machine.until(lambda: machine.status(revision).running == 4)
    assert kills == 16
    assert {type(error) for error in load.failed} <= {ReplicaLost}
    assert len(load.failed) <= 2 * kills, "no more than the slots of each"
    assert load.answered > 8 * 4
    assert len(machine.replicas()) == 4


@pytest.mark.parametrize("machine", [Capacity(8 * GIB, 1)], indirect=True)
async def test_k13_a_new_version_without_room_says_why_and_the_old_one_serves_on(machine: LocalHarness):
    old, new = machine.install(answer=1), machine.install(answer=2)
    await machine.apply(old, min_scale=1)
    await machine.until_ready(old)
    await machine.apply(old, new, min_scale=1)
    for _ in range(20):
        assert (await machine.call(old))["answer"] == 1
        await machine.pass_time(2)
    status = machine.status(new)
    assert (status.ready, status.reason) == (Readiness.UNKNOWN, "InsufficientCapacity")
    assert "memory or cores" in status.message
    with pytest.raises(Unavailable) as refused:
        await machine.call(new, within=0.2)
    assert (refused.value.code, refused.value.retry_after_s) == ("no_capacity", 1)
    assert machine.status(old).running == 1

    await machine.apply(old, new, min_scale=0)  # room can be made now
    await machine.until_ready(new)
    assert (await machine.call(new))["answer"] == 2


@pytest.mark.parametrize("machine", [Capacity(8 * GIB, 1)], indirect=True)
async def test_room_is_given_on_as_soon_as_a_replica_is_idle(machine: LocalHarness):
    """Without any tick of the autoscaler: the test lets no time pass."""
    busy, hungry = machine.install(answer=1), machine.install(answer=2)
    other = ServiceKey(KEY.tenant, "other")
    await machine.apply(busy)
    await machine.until_ready(busy)
    long = asyncio.ensure_future(machine.call(busy, 0.8))  # longer than KEEP_S
    await asyncio.sleep(0.05)
    traffic = (TrafficTarget(hungry.name, 100),)
    await machine.engine.apply(Service(other, (hungry,), traffic, ScalingPolicy()))

    async def waits() -> None:
        async with machine.engine.lease(RevisionKey(other, hungry.name), asyncio.get_running_loop().time() + 30):
            return

    waiting = asyncio.ensure_future(waits())
    await asyncio.sleep(0.05)
    assert machine.engine.status(other).revisions[0].reason == "InsufficientCapacity"
    assert not waiting.done()

    assert (await long)["answer"] == 1, "who works is not disturbed"
    await waiting
    assert machine.engine.status(other).revisions[0].running == 1
    assert (await machine.call(busy))["answer"] == 1, "and the other way round"
    assert not machine.engine._starving


# L1: the end of a replica in each phase of its life, many times on one engine.


async def asleep(machine: LocalHarness) -> None:
    await machine.pass_time(200)
    await machine.until(lambda: not machine.replicas())


async def assert_books_are_right(machine: LocalHarness, revision: Revision, replicas: int) -> None:
    await machine.until(lambda: len(machine.replicas()) == replicas)
    await machine.until(lambda: machine.engine._budget.replicas == replicas)
    if replicas:
        await machine.until(lambda: machine.status(revision).running == replicas)
        assert machine.status(revision).ready is Readiness.TRUE


async def kill_when(machine: LocalHarness, there: Callable[[], list[int]]) -> None:
    await machine.until(there)
    for pid in there():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("load_s", [0, 0.1], ids=["start", "load"])
async def test_l1_killed_while_it_starts_or_loads(machine: LocalHarness, load_s: float):
    revision = machine.install(answer=7, load_s=load_s)
    await machine.apply(revision)
    await machine.until_ready(revision)
    (runner,) = machine.engine._runners.values()

    def spares() -> list[Replica]:
        return list(machine.engine._zygotes["sleeper"]._spares)

    for _ in range(LIVES):
        await asleep(machine)
        await machine.until(lambda: len(spares()) == 2 and not runner.replicas)
        if not load_s:  # it is handed the model and dies before it does anything about it
            os.kill(spares()[0].pid, signal.SIGSTOP)
        call = asyncio.ensure_future(machine.call(revision))
        await kill_when(machine, machine.replicas if load_s else lambda: [replica.pid for replica in runner.replicas])
        assert (await call)["answer"] == 7, "the caller waited for the next one"
        await assert_books_are_right(machine, revision, 1)


async def test_l1_killed_while_idle(machine: LocalHarness):
    revision = machine.install(answer=7)
    await machine.apply(revision)
    await machine.until_ready(revision)
    for _ in range(LIVES):
        await kill_when(machine, machine.replicas)
        with suppress(ReplicaLost):  # while the engine has not heard of the death yet
            assert (await machine.call(revision))["answer"] == 7
        assert (await machine.call(revision))["answer"] == 7
        await assert_books_are_right(machine, revision, 1)


async def test_l1_killed_while_it_runs(machine: LocalHarness):
    revision = machine.install(answer=7)
    await machine.apply(revision)
    await machine.until_ready(revision)
    for _ in range(LIVES):
        call = asyncio.ensure_future(machine.call(revision, 20))
        await machine.until(
            lambda: any(r.inflight for runner in machine.engine._runners.values() for r in runner.replicas)
        )
        await kill_when(machine, machine.replicas)
        with pytest.raises(ReplicaLost):
            await call
        assert (await machine.call(revision))["answer"] == 7
        await assert_books_are_right(machine, revision, 1)


async def test_l1_killed_while_it_drains(machine: LocalHarness):
    for _ in range(LIVES):
        old, new = machine.install(answer=1), machine.install(answer=7)
        await machine.apply(old)
        await machine.until_ready(old)
        before = machine.replicas()
        call = asyncio.ensure_future(machine.call(old, 20))
        await asyncio.sleep(0.01)
        await machine.apply(new)
        await kill_when(machine, lambda before=before: before)
        with pytest.raises(ReplicaLost):
            await call
        assert (await machine.call(new))["answer"] == 7
        await assert_books_are_right(machine, new, 1)
        await machine.engine.delete(KEY)
        await machine.until(lambda: machine.engine._budget.replicas == 0)
