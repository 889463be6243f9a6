"""Rollouts on a real database: begun, counted for, decided, steered by hand, and carried on by the next gateway."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from gateway_parts import IRIS, Parts, gateway_parts, route_of
from roost_gateway.deployments.traffic import Split
from roost_gateway.predict.taps import Taps
from roost_gateway.rollouts import store
from roost_gateway.rollouts.rollouts import Rollouts
from roost_gateway.rollouts.telling import event_of
from roost_platform.database.history import read_history
from roost_platform.domain.errors import Conflict, InvalidRequest, NotFound
from roost_platform.domain.rollouts import Rollout, RolloutPlan, RolloutState

pytestmark = pytest.mark.usefixtures("each_database")


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    """Version 1 serves, version 2 is ready and waits."""
    async with gateway_parts(tmp_path) as made:
        await made.add_tenant()
        await made.serve()
        number = await made.add_version()
        made.engine.ready(await made.deploy(number, takes_traffic=False))
        await made.deployments.settled(IRIS)
        yield made


def plan(*, every_s: int = 60, guard: str = "errors<20%", minimum: int = 20, **how) -> RolloutPlan:
    return RolloutPlan.of(**({"to": 2, "steps": [10, 50]} | how), every_s=every_s, guard=guard, minimum=minimum)


class Traffic:
    """Calls as the prediction path shows them to taps."""

    def __init__(self, parts: Parts) -> None:
        self.taps = Taps()
        self.rollouts: Rollouts = parts.rollouts(taps=self.taps)

    def calls(self, version: int, count: int, *, status: int = 200, seconds: float = 0.01, **measured) -> None:
        about = {"version": version, "status": status, "cold_start_us": 0, "named": False} | measured
        call = SimpleNamespace(measured=SimpleNamespace(request_id="r", **about), seconds=seconds)
        for _ in range(count):
            self.taps.show(self.taps.of(IRIS), call)


@pytest.fixture
def traffic(parts: Parts) -> Traffic:
    return Traffic(parts)


async def latest(parts: Parts) -> Rollout:
    (rollout,) = await parts.database.read(store.of_model, IRIS, limit=1)
    return rollout


async def told(parts: Parts) -> list[str]:
    return [event.what for event in await parts.database.read(store.events_of, (await latest(parts)).id)]


def shares(parts: Parts) -> dict[int, int]:
    service = route_of(parts).service
    return {service.revision(t.revision).version: t.percent for t in service.traffic}


async def test_a_version_that_is_no_worse_is_promoted_step_by_step(parts: Parts, traffic: Traffic):
    rollout = await traffic.rollouts.begin(IRIS, plan(), by="k1")
    assert (shares(parts), rollout.percent, rollout.state) == ({1: 90, 2: 10}, 10, "running")
    assert dict(route_of(parts).routing.aliases) == {"stable": 1, "candidate": 2}
    for expected in ({1: 90, 2: 10}, {1: 50, 2: 50}):
        assert shares(parts) == expected
        traffic.calls(1, 200)
        traffic.calls(2, 100)
        await traffic.rollouts.look()
        assert shares(parts) == expected, "the step's time is not over"
        parts.clock.move(seconds=61)
        await traffic.rollouts.look()
    assert shares(parts) == {2: 100}
    done = await latest(parts)
    assert (done.state, done.reason) == ("promoted", "all guards have passed in every step")
    assert dict(route_of(parts).routing.aliases) == {"stable": 2}
    assert await told(parts) == ["started", "held", "step", "held", "promoted"]
    events = await parts.database.read(store.events_of, done.id)
    assert [
        (event.by, event.facts["percent"]) for event in events if event.what in ("started", "step", "promoted")
    ] == [
        ("k1", 10),
        ("roost", 50),
        ("roost", 50),
    ]
    sides = events[-1].facts["numbers"]["errors<20%"]
    assert (sides["candidate"]["calls"], sides["serving"]["calls"]) == (100, 200)
    history = await parts.database.read(read_history, IRIS, limit=20)
    assert [entry.after["traffic"] for entry in reversed(history) if entry.what == "rollout"] == [
        {"1": 90, "2": 10},
        {"1": 50, "2": 50},
        {"2": 100},
    ]
    assert traffic.taps.of(IRIS) == (), "nobody counts any more"


async def test_a_version_that_is_worse_is_rolled_back_at_once(parts: Parts, traffic: Traffic):
    await traffic.rollouts.begin(IRIS, plan(guard="errors<1%"))
    traffic.calls(1, 500)
    traffic.calls(2, 30, status=502)
    await traffic.rollouts.look()
    assert shares(parts) == {1: 100}
    done = await latest(parts)
    assert (done.state, done.reason) == ("rolled_back", "version 2 violates errors<1%, and version 1 does less")
    assert dict(route_of(parts).routing.aliases) == {"stable": 1}
    assert await told(parts) == ["started", "rolled_back"]


@pytest.mark.parametrize(
    ("how", "bad"),
    [
        ({"seconds": 0.2}, True),
        ({"seconds": 0.05}, False),
        ({"seconds": 0.2, "cold_start_us": 190_000}, False),
        ({"status": 422}, True),
        ({"status": 504}, True),
        ({"status": 400}, None),
        ({"named": True, "seconds": 0.2}, None),
        ({"version": 9, "seconds": 0.2}, None),
    ],
)
async def test_what_counts_and_what_is_bad(parts: Parts, traffic: Traffic, how, bad):
    await traffic.rollouts.begin(IRIS, plan(guard="p99<100ms"))
    traffic.calls(**{"version": 2, "count": 3} | how)
    await traffic.rollouts.look()
    evidence = await parts.database.read(store.evidence_of, await latest(parts))
    counted = evidence.candidate.get("p99<100ms")
    seen = (counted.total, counted.bad) if counted is not None else (0, 0)
    assert seen == ((0, 0) if bad is None else (3, 3 * bad))


async def test_too_few_calls_hold_a_step_and_that_is_told_once(parts: Parts, traffic: Traffic):
    await traffic.rollouts.begin(IRIS, plan())
    traffic.calls(1, 500)
    traffic.calls(2, 3)
    parts.clock.move(seconds=86_400)
    for _ in range(3):
        await traffic.rollouts.look()
    assert (shares(parts), await told(parts)) == ({1: 90, 2: 10}, ["started", "held"])
    assert (await latest(parts)).reason == "not enough evidence yet for errors<20%"


async def test_when_both_are_bad_the_new_one_is_not_blamed(parts: Parts, traffic: Traffic):
    await traffic.rollouts.begin(IRIS, plan(guard="errors<1%"))
    for version in (1, 2):
        traffic.calls(version, 200)
        traffic.calls(version, 60, status=500)
    await traffic.rollouts.look()
    assert shares(parts) == {1: 90, 2: 10}
    assert (await latest(parts)).reason == "both versions violate errors<1%"


async def test_another_gateways_evidence_counts_and_a_restart_loses_none(parts: Parts, traffic: Traffic):
    await traffic.rollouts.begin(IRIS, plan(every_s=0))
    traffic.calls(1, 40)
    traffic.calls(2, 30)
    await traffic.rollouts.look()
    assert shares(parts) == {1: 90, 2: 10}
    restarted = Traffic(parts)
    await restarted.rollouts.look()
    restarted.calls(1, 40)
    restarted.calls(2, 30)
    await restarted.rollouts.look()
    assert shares(parts) == {1: 50, 2: 50}
    evidence = (await parts.database.read(store.events_of, (await latest(parts)).id))[-1].facts["numbers"]
    assert evidence["errors<20%"]["candidate"]["calls"] == 60


async def test_paused_it_takes_no_step_but_is_rolled_back_if_it_has_to_be(parts: Parts, traffic: Traffic):
    await traffic.rollouts.begin(IRIS, plan(every_s=0, guard="errors<5%"))
    await traffic.rollouts.change(IRIS, RolloutState.PAUSED, by="k2")
    traffic.calls(1, 1000)
    traffic.calls(2, 1000)
    await traffic.rollouts.look()
    assert (shares(parts), (await latest(parts)).reason) == ({1: 90, 2: 10}, "it is paused")
    await traffic.rollouts.change(IRIS, RolloutState.RUNNING)
    await traffic.rollouts.change(IRIS, RolloutState.PAUSED)
    traffic.calls(2, 900, status=500)
    await traffic.rollouts.look()
    assert (shares(parts), (await latest(parts)).state) == ({1: 100}, "rolled_back")
    assert await told(parts) == ["started", "paused", "held", "resumed", "paused", "rolled_back"]


async def test_resumed_it_goes_on(parts: Parts, traffic: Traffic):
    await traffic.rollouts.begin(IRIS, plan(every_s=0))
    await traffic.rollouts.change(IRIS, RolloutState.PAUSED)
    traffic.calls(1, 200)
    traffic.calls(2, 200)
    await traffic.rollouts.change(IRIS, RolloutState.RUNNING)
    await traffic.rollouts.look()
    assert shares(parts) == {1: 50, 2: 50}


async def test_aborted_by_hand_the_old_version_serves_again(parts: Parts, traffic: Traffic):
    await traffic.rollouts.begin(IRIS, plan())
    done = await traffic.rollouts.change(IRIS, RolloutState.ABORTED, by="k2")
    assert (shares(parts), done.state, done.reason) == ({1: 100}, "aborted", "it was aborted by hand")
    for wish in (RolloutState.ABORTED, RolloutState.PAUSED, RolloutState.RUNNING):
        with pytest.raises(Conflict) as caught:
            await traffic.rollouts.change(IRIS, wish)
        assert caught.value.code == "no_rollout"


@pytest.mark.parametrize("by_hand", ["rollback", "split", "deploy"])
async def test_who_changes_the_traffic_by_hand_ends_it_and_keeps_what_he_wished(
    parts: Parts, traffic: Traffic, by_hand: str
):
    await traffic.rollouts.begin(IRIS, plan())
    if by_hand == "rollback":
        await parts.deployments.rollback(IRIS, 2)
    elif by_hand == "split":
        await parts.deployments.split(IRIS, Split({"1": 30, "2": 70}))
    else:
        await parts.serve()
    wished = shares(parts)
    traffic.calls(1, 1000)
    traffic.calls(2, 1000)
    await traffic.rollouts.look()
    done = await latest(parts)
    assert (shares(parts), done.state, done.reason) == (wished, "aborted", "the traffic was changed by hand")


async def test_a_model_that_is_deleted_takes_its_rollout_with_it(parts: Parts, traffic: Traffic):
    await traffic.rollouts.begin(IRIS, plan())
    await parts.deployments.delete(IRIS)
    await traffic.rollouts.look()
    done = await latest(parts)
    assert (done.state, done.reason) == ("aborted", "the model was deleted")
    assert await told(parts) == ["started", "aborted"]


async def test_what_cannot_begin_changes_nothing(parts: Parts, traffic: Traffic):
    for wish, error, code in (
        (plan(to=9), NotFound, "not_found"),
        (plan(to=1), Conflict, "already_serving"),
    ):
        with pytest.raises(error) as caught:
            await traffic.rollouts.begin(IRIS, wish)
        assert caught.value.code == code
    await traffic.rollouts.begin(IRIS, plan())
    with pytest.raises(Conflict) as caught:
        await traffic.rollouts.begin(IRIS, plan())
    assert caught.value.code == "rollout_active"
    await traffic.rollouts.change(IRIS, RolloutState.ABORTED)
    await parts.deployments.split(IRIS, Split({"1": 50, "2": 50}))
    with pytest.raises(Conflict) as caught:
        await traffic.rollouts.begin(IRIS, plan())
    assert caught.value.code == "traffic_split"


@pytest.mark.parametrize(
    ("how", "field"),
    [
        ({"steps": []}, "steps"),
        ({"steps": [100]}, "steps"),
        ({"steps": [0, 100]}, "steps"),
        ({"steps": [50, 50]}, "steps"),
        ({"steps": [50, 101]}, "steps"),
        ({"steps": list(range(1, 30))}, "steps"),
        ({"every_s": -1}, "every_s"),
        ({"minimum": 0}, "minimum"),
        ({"guard": "p99"}, "guard"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_by_its_field(how, field):
    with pytest.raises(InvalidRequest) as caught:
        plan(**how)
    assert caught.value.field == field


async def test_every_decision_is_told_until_it_is_taken(parts: Parts):
    rollouts = parts.rollouts(told=asyncio.Event())
    await rollouts.begin(IRIS, plan())
    (due,) = await parts.database.read(store.untold, parts.clock(), limit=9)
    event = event_of(due, source="/x")
    assert (event["type"], event["subject"]) == ("io.roost.rollout.started.v1", "tenant/acme/model/iris")
    assert event["data"]["percent"] == 10
    assert event["data"]["steps"] == [10, 50, 100]
    await parts.database.write(store.note_tries, {due.event.id: (1, False)}, parts.clock())
    assert await parts.database.read(store.untold, parts.clock(), limit=9) == []
    parts.clock.move(seconds=2)
    (again,) = await parts.database.read(store.untold, parts.clock(), limit=9)
    assert (again.tries, event_of(again, source="/x")) == (1, event)
    await parts.database.write(store.note_tries, {due.event.id: (2, True)}, parts.clock())
    parts.clock.move(seconds=86_400)
    assert await parts.database.read(store.untold, parts.clock(), limit=9) == []
