"""What only the local engine has: the machine's budget, the zygote and its spares, and replicas kept in their place."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

import orjson
import pytest

from engines_under_test import LocalHarness, _descendants
from intruder_model import TRIES
from roost_platform.domain.errors import ReplicaLost, Unavailable
from roost_platform.domain.scaling import ScalingPolicy
from roost_platform.domain.services import (
    Readiness,
    Revision,
    RevisionKey,
    RevisionStatus,
    Service,
    ServiceKey,
    TrafficTarget,
)
from roost_platform.engines.local.budget import BASE_REPLICA_BYTES, Budget, Capacity, machine_capacity, replica_bytes
from roost_platform.engines.local.engine import LocalEngine, LocalSettings
from roost_platform.engines.port import UpstreamRequest

MIB = 1024**2
REPLICA = replica_bytes(measured=0, artifact=20)


class Machine(LocalHarness):
    """The contract's harness with models of other names, and a machine as small as told."""

    def __init__(self, folder: Path, **settings: object) -> None:
        super().__init__()
        self._folder = folder
        self._settings = {"capacity": Capacity(8 << 30, 64), "spares": 2} | settings

    async def __aenter__(self) -> Self:
        self.engine = LocalEngine(
            locate=lambda digest: (self._artifacts[digest], False),
            settings=LocalSettings(tick=False, runtimes={"sleeper": "intruder_model:IntruderModel"}, **self._settings),
            clock=lambda: self.now,
        )
        await self.engine.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.engine.stop()
        assert not _descendants()

    async def deploy(
        self, model: str, *, ready: bool = True, behaviour: dict | None = None, **policy: object
    ) -> Revision:
        revision = self.install(**(behaviour or {}))
        key = ServiceKey("acme", model)
        traffic = (TrafficTarget(revision.name, 100),)
        await self.engine.apply(Service(key, (revision,), traffic, ScalingPolicy(**policy)))
        if ready:
            await self.until(lambda: self.of(model).ready is Readiness.TRUE)
        return revision

    def of(self, model: str) -> RevisionStatus:
        (status,) = self.engine.status(ServiceKey("acme", model)).revisions
        return status

    async def ask(self, model: str, seconds: float = 0, within: float = 20) -> int:
        body = orjson.dumps({"inputs": [{"name": "seconds", "datatype": "FP32", "shape": [1], "data": [seconds]}]})
        request = UpstreamRequest("POST", f"/v2/models/{model}/infer", [(b"content-type", b"application/json")], [body])
        key = RevisionKey(ServiceKey("acme", model), self.of(model).name)
        async with self.engine.lease(key, asyncio.get_running_loop().time() + within) as upstream:
            response = await upstream.send(request)
        assert response.status == 200, bytes(response.body)
        document = orjson.loads(response.body)
        assert document["model_name"] == model
        return document["outputs"][0]["data"][0]

    def named(self, name: str) -> list[int]:
        return [pid for pid, found in _descendants() if found == f"roost:{name}"]


MakeMachine = Callable[..., Awaitable[Machine]]


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[MakeMachine]:
    made: list[Machine] = []

    async def make(**settings: object) -> Machine:
        made.append(Machine(tmp_path, **settings))
        return await made[0].__aenter__()

    yield make
    for one in made:
        await one.__aexit__()


# The budget.


async def test_a_full_machine_puts_the_longest_idle_model_to_sleep_before_it_refuses(machine: MakeMachine):
    here = await machine(capacity=Capacity(8 << 30, 2))
    for number, model in enumerate(("first", "second")):
        await here.deploy(model, behaviour={"answer": number})
        assert await here.ask(model) == number
    assert await here.ask("first") == 0  # so that `second` is idle for longer

    await here.deploy("third", behaviour={"answer": 3})

    assert await here.ask("third") == 3
    assert (here.of("first").running, here.of("second").running, here.of("third").running) == (1, 0, 1)
    assert here.of("second").ready is Readiness.TRUE, "asleep is not broken"
    assert await here.ask("second") == 1, "and it is woken by the next call, in place of another"
    assert sum(here.of(model).running for model in ("first", "second", "third")) == 2


async def test_memory_counts_as_well_as_replicas(machine: MakeMachine):
    here = await machine(capacity=Capacity(2 * REPLICA + MIB, 64))
    for model in ("first", "second", "third"):
        await here.deploy(model)
        assert await here.ask(model) == 0
        assert len([name for _, name in _descendants() if name in ("roost:first", "roost:second", "roost:third")]) <= 2


async def test_when_nothing_is_idle_a_call_waits_and_is_told_at_its_deadline(machine: MakeMachine):
    here = await machine(capacity=Capacity(8 << 30, 1))
    await here.deploy("busy", behaviour={"answer": 1})
    long = asyncio.ensure_future(here.ask("busy", 1.5))
    await asyncio.sleep(0.05)
    await here.deploy("hungry", ready=False, behaviour={"answer": 2})

    begin = asyncio.get_running_loop().time()
    with pytest.raises(Unavailable) as refused:
        await here.ask("hungry", within=0.5)
    assert refused.value.code == "no_capacity"
    assert refused.value.retry_after_s
    assert 0.5 <= asyncio.get_running_loop().time() - begin < 1.0
    assert here.of("hungry").reason == "InsufficientCapacity"
    assert here.of("busy").running == 1, "who works is not disturbed"

    waiting = asyncio.ensure_future(here.ask("hungry"))
    assert await long == 1
    await here.pass_time(4)
    assert await waiting == 2, "the room is given on as soon as it is free"
    assert here.of("hungry").reason == ""


async def test_a_model_held_by_min_scale_is_not_put_to_sleep_for_another(machine: MakeMachine):
    here = await machine(capacity=Capacity(8 << 30, 1))
    await here.deploy("held", min_scale=1)
    await here.deploy("hungry", ready=False)
    with pytest.raises(Unavailable, match="no memory or cores"):
        await here.ask("hungry", within=0.3)
    assert here.of("held").running == 1


async def test_a_model_larger_than_the_machine_may_still_run_alone(machine: MakeMachine):
    here = await machine(capacity=Capacity(MIB, 64))
    await here.deploy("large", behaviour={"answer": 5})
    assert await here.ask("large") == 5


async def test_the_budget_is_given_back_however_replicas_end(machine: MakeMachine):
    here = await machine(capacity=Capacity(8 << 30, 2))
    budget = here.engine._budget
    for _ in range(5):
        await here.deploy("good")
        await here.ask("good")
        os.kill(here.named("good")[0], signal.SIGKILL)
        await here.until(lambda: here.of("good").running == 1)
        await here.deploy("bad", ready=False, behaviour={"exit_at_load": 1})
        await here.until(lambda: here.of("bad").ready is Readiness.FALSE)
        for model in ("good", "bad"):
            await here.engine.delete(ServiceKey("acme", model))
    assert (budget.replicas, budget.memory_bytes) == (0, 0)


def test_a_budget_is_plain_arithmetic():
    budget = Budget(Capacity(100, 3))
    assert budget.fits(1000), "one is always admitted on an empty machine"
    budget.take(60)
    assert (budget.fits(40), budget.fits(41)) == (True, False)
    budget.take(20)
    budget.take(10)
    assert not budget.fits(1), "the number counts as well as the sum"
    budget.give_back(60)
    assert (budget.replicas, budget.memory_bytes, budget.fits(70), budget.fits(71)) == (2, 30, True, False)


def test_the_machines_capacity_is_a_share_of_what_is_free():
    half, whole = machine_capacity(memory_share=0.5), machine_capacity(memory_share=1.0, replicas_per_core=1)
    assert 0 < half.memory_bytes < whole.memory_bytes
    assert whole.replicas == len(os.sched_getaffinity(0))
    assert replica_bytes(measured=0, artifact=10) == BASE_REPLICA_BYTES + 20
    assert replica_bytes(measured=7, artifact=10) == BASE_REPLICA_BYTES + 7


# The zygote and its spares.


async def test_a_killed_zygote_takes_its_children_along_and_another_one_serves_on(machine: MakeMachine):
    here = await machine()
    await here.deploy("one", behaviour={"answer": 1})
    (zygote,) = here.named("zygote")
    before = {pid for pid, _ in _descendants()}
    call = asyncio.ensure_future(here.ask("one", 5))
    await asyncio.sleep(0.05)

    os.kill(zygote, signal.SIGKILL)

    with pytest.raises(ReplicaLost):
        await call
    assert await here.ask("one") == 1
    await here.until(lambda: len(here.named("spare")) == 2)
    assert not before & {pid for pid, _ in _descendants()}


async def test_a_zygote_killed_while_models_wake_costs_them_no_call(machine: MakeMachine):
    here = await machine(spares=0)
    for model in ("one", "two"):
        await here.deploy(model, behaviour={"answer": 1})
    await here.pass_time(200)
    await here.until(lambda: not here.named("one") + here.named("two"))
    for _ in range(5):
        calls = [asyncio.ensure_future(here.ask(model)) for model in ("one", "two") for _ in range(5)]
        await here.until(lambda: kill_all(here.named("zygote")))
        results = await asyncio.gather(*calls, return_exceptions=True)
        # One that was on its replica already is lost with it; one that waited is not.
        assert {r if isinstance(r, int) else type(r) for r in results} <= {1, ReplicaLost}, results


async def test_a_zygote_that_died_while_all_was_asleep_is_there_at_the_next_call(machine: MakeMachine):
    here = await machine()
    await here.deploy("one", behaviour={"answer": 1})
    await here.pass_time(200)
    await here.until(lambda: not here.named("one"))
    os.kill(here.named("zygote")[0], signal.SIGKILL)
    await here.until(lambda: not here.named("spare"))
    assert await here.ask("one") == 1


async def test_spares_are_made_again_whoever_took_them(machine: MakeMachine):
    here = await machine(spares=3)
    await here.until(lambda: len(here.named("spare")) == 3)
    for model in ("one", "two"):
        await here.deploy(model)
        await here.until(lambda: len(here.named("spare")) == 3)
    for pid in here.named("spare"):  # the kernel, short of memory, may take them
        os.kill(pid, signal.SIGKILL)
    await here.until(lambda: not here.named("spare"))
    await here.deploy("three")
    await here.until(lambda: len(here.named("spare")) == 3)


async def test_no_zombie_and_no_descriptor_is_left_by_many_lives(machine: MakeMachine):
    here = await machine()
    await here.deploy("one", behaviour={"answer": 1})

    async def asleep_with_spares_adopted() -> None:
        """A spare has its name before the engine has its descriptors: the engine's own count says when it has."""
        await here.pass_time(200)
        await here.until(lambda: not here.named("one"))
        await here.until(lambda: sum(zygote.children for zygote in here.engine._zygotes.values()) == 2)

    await asleep_with_spares_adopted()
    open_before = open_descriptors()
    for _ in range(20):
        assert await here.ask("one") == 1
        await asleep_with_spares_adopted()
    await here.until(lambda: open_descriptors() <= open_before)
    await here.until(lambda: not zombies())


def kill_all(pids: list[int]) -> bool:
    """Whether there was one."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(pids)


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def zombies() -> list[str]:
    found = []
    for pid, _ in _descendants():
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text().split():
                stat = Path(f"/proc/{child}/stat").read_text()
                if stat[stat.rindex(")") + 2] == "Z":
                    found.append(stat)
    return found


# Replicas in their place.


async def test_l1_a_replica_told_to_stop_from_outside_is_replaced_without_a_failed_call(machine: MakeMachine):
    here = await machine()
    await here.deploy("one", behaviour={"answer": 1}, min_scale=1, container_concurrency=2)
    stop = asyncio.Event()
    answered = 0

    async def client() -> None:
        nonlocal answered
        while not stop.is_set():
            assert await here.ask("one", 0.005) == 1
            answered += 1

    clients = [asyncio.ensure_future(client()) for _ in range(6)]
    for _ in range(5):
        await asyncio.sleep(0.05)
        (pid,) = here.named("one")
        os.kill(pid, signal.SIGTERM)
        await here.until(lambda old=pid: here.named("one") and old not in here.named("one"))
    stop.set()
    await asyncio.gather(*clients)
    assert answered > 20


@pytest.mark.parametrize("behaviour", [{"load_s": 0.3}, {}], ids=["while it loads", "while it is idle"])
async def test_l1_a_replica_killed_before_it_serves_is_started_again_by_need(machine: MakeMachine, behaviour: dict):
    here = await machine()
    await here.deploy("one", behaviour={"answer": 1, **behaviour}, min_scale=1)
    first = here.named("one")
    os.kill(first[0], signal.SIGKILL)
    await here.until(lambda: here.named("one") not in ([], first))
    os.kill(here.named("one")[0], signal.SIGKILL)
    await asyncio.sleep(0.1)
    while here.of("one").running == 0:  # the second start failed, so the next one waits a little
        await here.pass_time(2)
        await asyncio.sleep(0.05)
    assert await here.ask("one") == 1
    assert here.of("one").ready is Readiness.TRUE


async def test_a_replica_reaches_nothing_and_knows_nothing(machine: MakeMachine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ROOST_OPERATOR_KEY", "secret-of-the-operator")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-cloud")
    here = await machine()
    revision = await here.deploy("one", behaviour={"answer": 1, "tries": True})
    key = RevisionKey(ServiceKey("acme", "one"), revision.name)
    await here.until(lambda: any("descriptors:" in line for line in here.engine.log(key, 500)))
    lines = dict(line.split(": ", 1) for line in here.engine.log(key, 500) if not line.startswith("{"))
    tries = {name: outcome for name, outcome in lines.items() if name.startswith("try ")}
    assert len(tries) == len(TRIES)
    assert set(tries.values()) == {"PermissionError"}, tries
    assert not [n for n in json.loads(lines["environment"]) if n.startswith(("ROOST_", "AWS_"))]
    descriptors = json.loads(lines["descriptors"])
    assert descriptors.count("socket") == 1 + 2, "its link, and the pair that an event loop has for signals"
    assert not [name for name in descriptors if name.startswith("/") and name != "/dev/null"]
    assert here.named("zygote")
    assert await here.ask("one") == 1


async def test_what_a_replica_prints_is_kept_by_revision_and_bounded(machine: MakeMachine):
    here = await machine()
    loud = await here.deploy("loud", behaviour={"answer": 1, "chatter": 50_000})
    await here.deploy("quiet", behaviour={"answer": 2})
    call = asyncio.ensure_future(here.ask("loud"))
    slowest = 0.0
    while not call.done():
        begin = asyncio.get_running_loop().time()
        assert await here.ask("quiet") == 2
        slowest = max(slowest, asyncio.get_running_loop().time() - begin)
    assert await call == 1
    assert slowest < 1
    key = RevisionKey(ServiceKey("acme", "loud"), loud.name)
    await here.until(lambda: any(line.startswith("yyy") for line in here.engine.log(key, 500)))
    lines = here.engine.log(key, 10_000)
    assert len(lines) <= 500
    assert max(map(len, lines)) <= 4096
    assert any(line.startswith("line 49999 ") for line in lines)
    quiet = RevisionKey(ServiceKey("acme", "quiet"), here.of("quiet").name)
    assert not any(line.startswith("line ") for line in here.engine.log(quiet, 500))
    assert len(here.of("loud").log) == 20


async def test_a_file_that_changed_on_disk_is_not_served(machine: MakeMachine):
    here = await machine()
    revision = await here.deploy("one", behaviour={"answer": 1})
    await here.pass_time(200)
    await here.until(lambda: not here.named("one"))
    here._artifacts[revision.digest].write_text('{"answer": 2}')
    with pytest.raises(Unavailable, match="sha256"):
        await here.ask("one")
