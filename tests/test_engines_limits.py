"""A hostile or broken model harms nobody else: real replicas that eat, crash, lie and pry, beside one that must not notice."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import orjson
import pytest

import onnx_bombs
from engines_under_test import KEY, LocalHarness
from intruder_model import DO_IT
from roost_platform.domain.errors import DeadlineExceeded, ReplicaLost, RoostError, Unavailable
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
from roost_platform.domain.signatures import Signature
from roost_platform.engines.local.budget import Capacity, ReplicaLimits
from roost_platform.engines.local.engine import DEFAULT_RUNTIMES, LocalEngine, LocalSettings
from roost_platform.engines.local.setbacks import FIRST_BACKOFF_S, Setbacks
from roost_platform.engines.port import UpstreamRequest, UpstreamResponse
from roost_runtimes import landlock
from roost_runtimes.frames import FIGURES, HEADER, Kind

MIB = 1024**2
TIGHT = ReplicaLimits(memory_factor=1, memory_slack_bytes=0, answer_bytes=4 * MIB)
"""About 280 MiB of private memory for each replica."""
INTRUDER = {"sleeper": "intruder_model:IntruderModel"}


class Machine(LocalHarness):
    """A machine with a good neighbour on it, `good`, that answers 7."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    async def open(self, runtimes: Mapping[str, str]) -> None:
        self.engine = LocalEngine(
            locate=lambda digest: (self._artifacts[digest], False),
            settings=LocalSettings(
                capacity=Capacity(8 << 30, 64), spares=2, tick=False, runtimes=runtimes, limits=TIGHT
            ),
            clock=lambda: self.now,
        )
        await self.engine.start()
        await self.deploy("good", self.install(answer=7))

    def install_file(self, path: Path) -> Revision:
        """An ONNX file as it was uploaded."""
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        self._artifacts[digest] = path
        return Revision(f"{path.stem}-00001", 1, digest, len(content), Signature((), ()), runtime="onnx-cpu")

    async def deploy(self, model: str, revision: Revision, *, ready: bool = True, **policy: object) -> None:
        traffic = (TrafficTarget(revision.name, 100),)
        await self.engine.apply(Service(ServiceKey("acme", model), (revision,), traffic, ScalingPolicy(**policy)))
        if ready:
            await self.until(lambda: self.of(model).ready is not Readiness.UNKNOWN, within=30)
            assert self.of(model).ready is Readiness.TRUE, self.of(model)

    async def deploy_intruder(self, *, ready: bool = True, **behaviour: object) -> None:
        await self.deploy(KEY.model, self.install(answer=1, **behaviour), ready=ready)

    def of(self, model: str) -> RevisionStatus:
        (status,) = self.engine.status(ServiceKey("acme", model)).revisions
        return status

    def log(self, model: str = KEY.model) -> list[str]:
        return self.engine.log(RevisionKey(ServiceKey("acme", model), self.of(model).name), 500)

    async def post(self, model: str, tensor: dict, *, within: float = 60) -> UpstreamResponse:
        body = orjson.dumps({"inputs": [tensor]})
        request = UpstreamRequest("POST", f"/v2/models/{model}/infer", [(b"content-type", b"application/json")], [body])
        key = RevisionKey(ServiceKey("acme", model), self.of(model).name)
        async with self.engine.lease(key, asyncio.get_running_loop().time() + within) as upstream:
            return await upstream.send(request)

    async def ask(self, model: str = KEY.model, seconds: float = 0, *, within: float = 60) -> UpstreamResponse:
        tensor = {"name": "seconds", "datatype": "FP32", "shape": [1], "data": [seconds]}
        return await self.post(model, tensor, within=within)

    async def count(self, model: str, n: int, *, within: float = 60) -> UpstreamResponse:
        return await self.post(model, {"name": "n", "datatype": "INT64", "shape": [1], "data": [n]}, within=within)

    async def still_good(self) -> None:
        """The neighbour answers, on the replica that it had from the start."""
        assert _value(await self.ask("good")) == 7
        assert not [line for line in self.log("good") if "ended" in line]

    async def serves_again(self) -> None:
        """The intruder's next call gets another replica."""
        for _ in range(200):
            try:
                assert _value(await self.ask()) == 1
            except Unavailable:
                await self.pass_time(2)
                await asyncio.sleep(0.05)
            else:
                return
        raise AssertionError(self.of(KEY.model))


def _value(response: UpstreamResponse) -> float:
    document = orjson.loads(response.body)
    assert response.status == 200, document
    return document["outputs"][0]["data"][0]


def _error(response: UpstreamResponse) -> tuple[int, str]:
    return response.status, orjson.loads(response.body)["code"]


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    here = Machine(tmp_path)
    await here.open(INTRUDER)
    yield here
    await here.engine.stop()


@pytest.fixture
async def onnx_machine(tmp_path: Path) -> AsyncIterator[Machine]:
    """It serves ONNX models as well."""
    here = Machine(tmp_path)
    await here.open(INTRUDER | dict(DEFAULT_RUNTIMES))
    yield here
    await here.engine.stop()


# What is allowed, and what is said of it.


def test_a_replica_may_take_several_times_what_was_measured_within_the_machine():
    limits = ReplicaLimits(memory_factor=4, memory_slack_bytes=1024 * MIB)
    assert limits.memory_bytes(100 * MIB, machine=8192 * MIB) == 1424 * MIB
    assert limits.memory_bytes(100 * MIB, machine=500 * MIB) == 500 * MIB
    assert limits.memory_bytes(100 * MIB, machine=50 * MIB) == 356 * MIB, (
        "enough for what was measured, whatever is there"
    )


def test_what_ends_as_soon_as_it_is_ready_is_forgiven_once_in_a_row():
    setbacks = Setbacks()
    assert not setbacks.died_young(0.1, useful=False)
    assert setbacks.died_young(0.1, useful=False)
    assert not setbacks.died_young(0.1, useful=True), "it had work, which may have ended it"
    assert not setbacks.died_young(0.1, useful=False), "the first in a row again"
    assert not setbacks.died_young(FIRST_BACKOFF_S, useful=False), "it lived for as long as a pause would be"


async def test_the_server_says_once_what_holds_replicas_back(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    here = Machine(tmp_path)
    await here.open(INTRUDER | dict(DEFAULT_RUNTIMES))
    await here.engine.stop()
    said = [record for record in caplog.records if record.message == "isolation"]
    assert [record.runtime for record in said] == ["sleeper", "onnx-cpu"]
    assert {record.landlock for record in said} == {landlock.abi()}
    warned = [record.message for record in caplog.records if record.message.endswith("_unavailable")]
    assert warned.count("landlock_unavailable") == (0 if landlock.abi() else 2)
    assert warned.count("sandbox_unavailable") == (0 if said[0].seccomp else 2)


# Memory.


@pytest.mark.parametrize("operator", onnx_bombs.MEMORY)
async def test_p15_s10_a_model_that_wants_gigabytes_on_one_input_fails_that_call_only(
    onnx_machine: Machine, operator: str
):
    await onnx_machine.deploy(
        "bomb", onnx_machine.install_file(onnx_bombs.MEMORY[operator](onnx_machine._folder / "bomb.onnx"))
    )
    assert _value(await onnx_machine.count("bomb", 1000)) == 1000
    for n in (1 << 29, 1 << 40, (1 << 62) - 1):
        status, code = _error(await onnx_machine.count("bomb", n))
        # Tile has a bound of its own, which it names.
        assert (status, code) == (502, "out_of_memory") or (
            operator == "Tile" and (status, code) == (422, "model_error")
        )
    assert _value(await onnx_machine.count("bomb", 1000)) == 1000
    assert not [line for line in onnx_machine.log("bomb") if "ended" in line], "the replica lives on"
    await onnx_machine.still_good()


async def test_p15_a_program_that_eats_all_it_gets_is_stopped_at_its_limit(machine: Machine):
    await machine.deploy_intruder(deed="eat memory")
    assert _error(await machine.ask(seconds=DO_IT)) == (502, "out_of_memory")
    assert _value(await machine.ask()) == 1
    await machine.still_good()


async def test_l6_a_model_that_does_not_fit_at_load_says_so_and_is_not_tried_without_pause(machine: Machine):
    await machine.deploy_intruder(ready=False, at_load="eat memory")
    await machine.until(lambda: machine.of(KEY.model).ready is Readiness.FALSE, within=30)
    assert machine.of(KEY.model).reason == "OutOfMemory"
    starts = sum("model_failed" in line for line in machine.log())
    assert starts == 1
    with pytest.raises(Unavailable, match="OutOfMemory") as refused:
        await machine.ask()
    assert refused.value.retry_after_s
    await machine.still_good()


@pytest.mark.parametrize("deed", ["abort", "crash"])
async def test_p15_what_dies_of_it_fails_what_is_on_it_and_is_replaced(machine: Machine, deed: str):
    await machine.deploy_intruder(deed=deed)
    with pytest.raises(ReplicaLost):
        await machine.ask(seconds=DO_IT)
    assert _value(await machine.ask()) == 1, "the next call waits for the next replica"
    await machine.still_good()


async def test_l6_one_that_ends_as_soon_as_it_is_ready_is_not_started_again_without_pause(machine: Machine):
    await machine.deploy_intruder(ready=False, at_load="quit soon")
    await machine.until(lambda: machine.of(KEY.model).ready is Readiness.FALSE, within=30)
    assert machine.of(KEY.model).reason == "ExitedAtStart"
    assert "status 3" in machine.of(KEY.model).message
    await machine.still_good()


# Files, descriptors, threads, output.


async def test_s33_bombs_of_files_threads_and_words_harm_nobody(machine: Machine):
    await machine.deploy_intruder(deed="open files")
    assert (await machine.ask(seconds=DO_IT)).status == 500
    await machine.until(lambda: any(line.startswith("opened ") for line in machine.log()))
    (opened,) = [line for line in machine.log() if line.startswith("opened ")]
    assert int(opened.split()[1]) < 64
    assert _value(await machine.ask()) == 1

    for deed in ("start threads", "eat shared memory"):
        await machine.deploy_intruder(deed=deed)
        await machine.until(lambda: machine.of(KEY.model).ready is Readiness.TRUE)
        try:
            assert (await machine.ask(seconds=DO_IT)).status in (500, 502)
        except ReplicaLost:
            assert deed == "start threads", "one that cannot have another thread may end of it"
        await machine.still_good()


async def test_s33_endless_output_keeps_nobody_waiting_and_is_not_kept(machine: Machine):
    await machine.deploy_intruder(deed="babble")
    babble = asyncio.ensure_future(machine.ask(seconds=DO_IT))
    answered = 0
    while not babble.done():
        await machine.still_good()
        answered += 1
        await asyncio.sleep(0.01)
    assert _value(await babble) == 1
    assert answered > 5
    assert len(machine.log()) <= 500
    assert max(map(len, machine.log())) <= 4096


@pytest.mark.skipif(landlock.abi() == 0, reason="this kernel has no Landlock; the server says so when it starts")
async def test_s17_other_tenants_files_the_operators_key_and_the_database_are_out_of_reach(machine: Machine):
    kept = {}
    for name in ("operator.key", "roost.db", "journal/0001.jsonl", "artifacts/sha256/ab/another", "server.json"):
        kept[name] = machine._folder / name
        kept[name].parent.mkdir(parents=True, exist_ok=True)
        kept[name].write_text("not yours")
    kept["the neighbour's model"] = machine._artifacts[next(iter(machine._artifacts))]
    await machine.deploy_intruder(files={name: str(path) for name, path in kept.items()}, tries=True)
    await machine.until(lambda: "tried" in machine.log())
    tries = dict(line.split(": ") for line in machine.log() if line.startswith("try "))
    assert {f"try to {what} {name}" for what in ("read", "write") for name in kept} <= set(tries)
    assert set(tries.values()) == {"PermissionError"}, tries
    assert {path.read_text() for name, path in kept.items() if "model" not in name} == {"not yours"}


# Time.


@pytest.mark.parametrize("quick_on_zeros", [True, False], ids=["on its event loop", "in a thread"])
async def test_s11_an_endless_loop_ends_at_its_deadline_and_the_slot_is_back(
    onnx_machine: Machine, quick_on_zeros: bool
):
    revision = onnx_machine.install_file(onnx_bombs.endless_loop(onnx_machine._folder / "loop.onnx"))
    await onnx_machine.deploy("loop", revision, container_concurrency=1, max_scale=1)
    assert _value(await onnx_machine.count("loop", 10)) == 10
    if not quick_on_zeros:  # a run that takes a while teaches the replica to use threads
        assert _value(await onnx_machine.count("loop", 200_000)) == 200_000
    endless = asyncio.ensure_future(onnx_machine.count("loop", 1 << 62, within=1))
    await onnx_machine.still_good()
    with pytest.raises(DeadlineExceeded):
        await endless
    assert _value(await onnx_machine.count("loop", 10)) == 10
    await onnx_machine.still_good()


# Lies on the link (S21).


async def test_an_honest_answer_that_is_too_large_is_an_error_of_that_call(onnx_machine: Machine):
    await onnx_machine.deploy(
        "long", onnx_machine.install_file(onnx_bombs.long_answer(onnx_machine._folder / "long.onnx"))
    )
    assert _value(await onnx_machine.count("long", 1000)) == 1
    assert _error(await onnx_machine.count("long", 4 * MIB)) == (422, "answer_too_large")
    assert _value(await onnx_machine.count("long", 1000)) == 1
    assert not [line for line in onnx_machine.log("long") if "ended" in line]


def _frame(
    kind: int, frame_id: int = 0, meta: bytes = b"", body: bytes = b"", *, status: int = 0, size: int = -1
) -> str:
    return (HEADER.pack(kind, status, frame_id, len(meta), len(body) if size < 0 else size) + meta + body).hex()


def _answer(headers: object, *, status: int = 200, frame_id: int = 1) -> str:
    return _frame(Kind.ANSWER, frame_id, FIGURES.pack(1, 1, 1) + json.dumps(headers).encode(), b"{}", status=status)


LIES = {
    "an answer to nobody": {"says": _answer([], frame_id=77)},
    "two answers to one call": {"says": _answer([], frame_id=1) * 2},
    "an answer with status 100": {"says": _answer([], status=100)},
    "an answer with status 9999": {"says": _answer([], status=9999)},
    "an answer that splits a header": {"says": _answer([["content-type", "a\r\nset-cookie: b"]])},
    "an answer whose header's name has a space": {"says": _answer([["content type", "a"]])},
    "an answer with headers that are none": {"says": _answer({"a": 1})},
    "an answer with a header that is a number": {"says": _answer([[1, 2, 3]])},
    "an answer without figures": {"says": _frame(Kind.ANSWER, 1, b"[]", status=200)},
    "an answer with garbage for headers": {"says": _frame(Kind.ANSWER, 1, FIGURES.pack(1, 1, 1) + b"[[[", status=200)},
    "ready again": {"says": _frame(Kind.READY, 0, b'{"load_us":1,"run_us":1}')},
    "ready with a run of minus one": {"says": _frame(Kind.READY, 0, b'{"run_us":-1}')},
    "failed while it serves": {"says": _frame(Kind.FAILED, 0, b'{"reason":"X","message":"y"}')},
    "failed without a reason": {"says": _frame(Kind.FAILED, 0, b"[]")},
    "a kind of frame that there is not": {"says": _frame(200)},
    "what only the engine says": {"says": _frame(Kind.ASSIGN, 0, b"{}")},
    "an answer of 4 GB": {"says": _frame(Kind.ANSWER, 1, status=200, size=0xFFFFFFFF)},
    "one byte more than it may answer": {"says": _frame(Kind.ANSWER, 1, status=200, size=4 * MIB + 1)},
    "meta of 2 MiB": {"says": HEADER.pack(Kind.ANSWER, 200, 1, 2 * MIB, 0).hex()},
    "pongs without end": {"says": _frame(Kind.PONG) * 100, "times": 1000},
    "noise": {"says": bytes(range(256)).hex(), "times": 50},
    "zeros": {"says": "00" * 4096, "times": 100},
}


@pytest.mark.parametrize("lie", LIES)
async def test_s21_a_replica_that_breaks_the_rules_of_its_link_is_ended(machine: Machine, lie: str):
    await machine.deploy_intruder(deed="lie", **LIES[lie])
    try:
        told = await machine.ask(seconds=DO_IT)
    except ReplicaLost:
        pass
    else:
        assert lie == "two answers to one call", told
        assert (told.status, bytes(told.body)) == (200, b"{}")
    await machine.until(lambda: any("Misbehaved" in line for line in machine.log()))
    await machine.still_good()
    await machine.serves_again()


async def test_s21_a_frame_that_never_ends_is_ended_with_its_call(machine: Machine):
    await machine.deploy_intruder(deed="lie", says=_frame(Kind.ANSWER, 1, status=200, size=4 * MIB))
    with pytest.raises(DeadlineExceeded):
        await machine.ask(seconds=DO_IT, within=0.5)
    await machine.still_good()
    await machine.until(lambda: any("Unresponsive" in line for line in machine.log()))
    await machine.serves_again()


async def test_s21_a_call_after_one_that_does_not_stop_is_not_lost_with_it(machine: Machine):
    await machine.deploy_intruder(deed="lie", says=_frame(Kind.ANSWER, 1, status=200, size=4 * MIB))
    with pytest.raises(DeadlineExceeded):
        await machine.ask(seconds=DO_IT, within=0.5)
    assert _value(await machine.ask()) == 1
    assert any("Unresponsive" in line for line in machine.log())


async def test_s21_while_nothing_is_asked_a_replica_may_not_send_a_body(machine: Machine):
    await machine.deploy_intruder(ready=False, at_load="lie", says=_frame(Kind.ANSWER, 1, status=200, size=100))
    await machine.until(lambda: machine.of(KEY.model).ready is Readiness.FALSE)
    assert machine.of(KEY.model).reason == "Misbehaved"
    await machine.still_good()
    with pytest.raises(RoostError) as refused:
        await machine.ask()
    assert refused.value.code == "not_ready"
