"""Replicas that hang without dying (K15), and those that only look like it (K16): asked, forgiven or replaced once."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engines_under_test import KEY, LocalHarness
from roost_platform.domain.errors import ReplicaLost
from roost_platform.domain.services import Revision, RevisionKey
from roost_platform.engines.local.pulse import IDLE_LOOKS, MISSES, Pulse, Sign, processor_ticks
from roost_platform.engines.local.replica import Replica

LOOKS_UNTIL_HUNG = IDLE_LOOKS + MISSES


class Machine(LocalHarness):
    """The contract's harness, and looks at pulses that do not depend on how fast replicas are."""

    async def look(self, looks: int) -> None:
        """So many looks; between two of them, a replica that answers has the time to, however slow the machine."""
        for _ in range(looks):
            self.engine.check_pulses()
            for pid in self.replicas():
                if not stopped(pid):
                    await self.until(lambda pid=pid: self.has_answered(pid))

    def has_answered(self, pid: int) -> bool:
        found = [r for runner in self.engine._runners.values() for r in runner.replicas if r.pid == pid]
        return not any(replica._pulse._asked for replica in found)

    def replica_of(self, revision: Revision) -> Replica:
        (replica,) = self.engine._runners[RevisionKey(KEY, revision.name)].replicas
        return replica


def stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    made = Machine()
    await made.start(tmp_path)
    yield made
    await made.stop()
    assert not made.replicas()


async def stop_process(machine: Machine, pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    await machine.until(lambda: stopped(pid))


async def test_k15_an_idle_replica_that_no_longer_answers_is_replaced_once(machine: Machine):
    revision = machine.install(answer=1)
    await machine.apply(revision, min_scale=1)
    await machine.until_ready(revision)
    await machine.look(20)  # as long as it answers, nothing happens
    (pid,) = machine.replicas()
    while machine.replica_of(revision)._pulse._quiet:
        await machine.look(1)
    await stop_process(machine, pid)

    await machine.look(LOOKS_UNTIL_HUNG - 1)
    assert machine.replicas() == [pid], "not before the third miss"
    await machine.look(1)

    runner = machine.engine._runners[RevisionKey(KEY, revision.name)]
    await machine.until(lambda: pid not in [r.pid for r in runner.replicas] and runner.ready == 1)
    second = machine.replicas()
    assert (await machine.call(revision))["answer"] == 1
    await machine.look(3 * LOOKS_UNTIL_HUNG)
    assert machine.replicas() == second, "once"
    assert any("Hung: it stopped answering" in line for line in machine.engine.log(RevisionKey(KEY, revision.name), 20))


async def test_k15_a_busy_replica_that_stands_still_fails_its_call_long_before_the_deadline(machine: Machine):
    revision = machine.install(answer=1)
    await machine.apply(revision, timeout_s=300)
    await machine.until_ready(revision)
    (pid,) = machine.replicas()
    call = asyncio.ensure_future(machine.call(revision, 100, within=300))
    await asyncio.sleep(0.1)
    await stop_process(machine, pid)

    await machine.look(1 + MISSES)

    with pytest.raises(ReplicaLost):
        await call
    assert (await machine.call(revision))["answer"] == 1
    assert pid not in machine.replicas()


async def test_k15_a_replica_that_hangs_on_its_way_out_does_not_keep_its_room(machine: Machine):
    revision = machine.install()
    await machine.apply(revision)
    await machine.until_ready(revision)
    (pid,) = machine.replicas()
    await stop_process(machine, pid)
    deletion = asyncio.ensure_future(machine.engine.delete(KEY))
    await asyncio.sleep(0)
    await machine.look(LOOKS_UNTIL_HUNG)
    await asyncio.wait_for(deletion, 10)
    await machine.until(lambda: not machine.replicas())  # its link closes a moment before the process is gone
    assert machine.engine._budget.replicas == 0


async def test_a_run_that_computes_on_the_event_loop_is_left_alone(machine: Machine):
    revision = machine.install(answer=1, spins=True)
    await machine.apply(revision)
    await machine.until_ready(revision)
    before = machine.replicas()
    call = asyncio.ensure_future(machine.call(revision, 2.0))
    for _ in range(3 * (MISSES + 1)):
        machine.engine.check_pulses()
        await asyncio.sleep(0.2)
    assert (await call)["answer"] == 1
    assert machine.replicas() == before


async def test_k16_a_slow_load_is_not_mistaken_for_a_hang(machine: Machine):
    revision = machine.install(answer=1, load_s=1.0)
    await machine.apply(revision)
    await machine.until(machine.replicas)
    first = machine.replicas()
    while not machine.status(revision).running:
        machine.engine.check_pulses()  # some hundred looks, a few were enough for one that serves
        await asyncio.sleep(0.005)
    assert machine.replicas() == first
    assert (await machine.call(revision))["answer"] == 1


# The decision, without processes.


def looks(pulse: Pulse, number: int, *, busy: bool = False, served: int = 0, computed: int = 0) -> list[Sign]:
    return [pulse.look(served=served, busy=busy, computed=lambda: computed) for _ in range(number)]


def test_an_idle_one_is_asked_seldom_and_a_busy_one_at_once():
    idle = Pulse()
    for _ in range(3):
        assert looks(idle, IDLE_LOOKS) == [Sign.WELL] * (IDLE_LOOKS - 1) + [Sign.ASK]
        idle.heard()
    assert looks(Pulse(), 4, busy=True) == [Sign.ASK, Sign.WELL, Sign.WELL, Sign.HUNG]


def test_answers_make_asking_needless_and_forgive_a_ping_under_way():
    pulse = Pulse()
    for served in range(1, 50):
        assert looks(pulse, 1, busy=True, served=served) == [Sign.WELL]
    assert looks(pulse, 3, busy=True, served=49) == [Sign.ASK, Sign.WELL, Sign.WELL]
    assert looks(pulse, 2, busy=True, served=50) == [Sign.WELL, Sign.ASK]


def test_one_that_computes_is_hung_only_when_it_has_nothing_to_compute():
    busy = Pulse()
    for used in range(20):
        assert Sign.HUNG not in looks(busy, MISSES, busy=True, computed=used)
    assert Sign.HUNG in looks(busy, 2 * MISSES, busy=True, computed=19), "it stands still now"
    idle = Pulse()
    signs = [sign for used in range(LOOKS_UNTIL_HUNG) for sign in looks(idle, 1, computed=used)]
    assert signs[-1] is Sign.HUNG


def test_the_processor_time_of_a_process_grows_and_of_none_is_nothing():
    begin = processor_ticks(os.getpid())
    while processor_ticks(os.getpid()) == begin:
        pass
    assert processor_ticks(1 << 22) == 0
