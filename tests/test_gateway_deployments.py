"""Rollouts: the state machine on a real database and directory, with an engine that does as it is told."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select

from gateway_parts import IRIS, Parts, gateway_parts, route_of, serving, states_of, until
from roost_gateway.deployments.rollout import ModelState, model_state
from roost_gateway.deployments.store import REVISIONS_KEPT
from roost_platform.database.tables import revisions
from roost_platform.domain.errors import Conflict, InvalidRequest, NotFound, Unavailable
from roost_platform.domain.services import Readiness, TrafficTarget

pytestmark = pytest.mark.usefixtures("each_database")


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    async with gateway_parts(tmp_path) as made:
        await made.add_tenant()
        yield made


async def test_first_revision_takes_traffic_once_it_is_ready(parts: Parts):
    number = await parts.add_version()
    name = await parts.deploy(number)
    assert (name, states_of(parts), serving(parts)) == ("iris-00001", {"iris-00001": "deploying"}, {})
    assert route_of(parts).leading().name == name, "calls may wait for the first revision"
    parts.engine.ready(name)
    await parts.deployments.settled(IRIS)
    assert (states_of(parts), serving(parts)) == ({name: "ready"}, {name: 100})


async def test_broken_first_version_gives_its_reason_to_callers(parts: Parts):
    name = await parts.deploy(await parts.add_version())
    parts.engine.broken(name, "OutOfMemory", "it needs more memory than a replica may have")
    await parts.deployments.settled(IRIS)
    assert states_of(parts) == {name: "failed"}
    assert parts.engine.services[IRIS].revisions == ()
    with pytest.raises(Unavailable, match="OutOfMemory: it needs more memory") as caught:
        route_of(parts).leading()
    assert caught.value.code == "revision_failed"
    with pytest.raises(Unavailable):
        route_of(parts).for_version(1)


async def test_broken_new_version_never_gets_a_call(parts: Parts):
    _, old = await parts.serve()
    name = await parts.deploy(await parts.add_version())
    parts.engine.broken(name)
    await parts.deployments.settled(IRIS)
    assert (states_of(parts), serving(parts)) == ({old: "ready", name: "failed"}, {old: 100})
    assert all(TrafficTarget(name, 100) not in service.traffic for service in parts.engine.applied)
    assert route_of(parts).leading().name == old


async def test_failure_keeps_reason_and_log_after_the_engine_forgot_the_revision(parts: Parts):
    name = await parts.deploy(await parts.add_version())
    parts.engine.broken(name)
    await parts.deployments.settled(IRIS)
    (status,) = parts.deployments.statuses(route_of(parts))
    assert (status.ready, status.reason, status.log[-1]) == (Readiness.FALSE, "ExitedAtStart", "Traceback: boom")


async def test_traffic_stays_on_the_old_revision_until_the_new_one_is_ready(parts: Parts):
    _, old = await parts.serve()
    name = await parts.deploy(await parts.add_version())
    assert serving(parts) == {old: 100}
    parts.engine.ready(name)
    await parts.deployments.settled(IRIS)
    assert serving(parts) == {name: 100}
    assert [r.name for r in parts.engine.services[IRIS].revisions] == [old, name], "the old one stays for a rollback"


async def test_same_version_and_settings_again_change_nothing(parts: Parts):
    number, name = await parts.serve()
    applied = parts.engine.services[IRIS]
    assert await parts.deploy(number) == name
    assert (states_of(parts), parts.engine.services[IRIS]) == ({name: "ready"}, applied)


async def test_other_settings_make_another_revision(parts: Parts):
    number, name = await parts.serve()
    assert await parts.deploy(number, max_batch_size=8) == "iris-00002"
    assert states_of(parts) == {name: "ready", "iris-00002": "deploying"}
    assert route_of(parts).for_version(number).name == name, "a named version is served by what is ready"


async def test_failed_version_is_tried_again_under_a_new_name(parts: Parts):
    number = await parts.add_version()
    first = await parts.deploy(number)
    parts.engine.broken(first)
    await parts.deployments.settled(IRIS)
    second = await parts.deploy(number)
    parts.engine.ready(second)
    await parts.deployments.settled(IRIS)
    assert (states_of(parts), serving(parts)) == ({first: "failed", second: "ready"}, {second: 100})


@pytest.mark.parametrize(
    ("order", "traffic"),
    [
        ([2, 3], "iris-00003"),
        ([3, 2], "iris-00003"),
    ],
    ids=["the older first", "the newer first"],
)
async def test_of_two_deployments_at_once_the_newer_ends_with_the_traffic(parts: Parts, order, traffic):
    await parts.serve()
    for _ in order:
        await parts.deploy(await parts.add_version())
    for generation in order:
        name = f"iris-{generation:05d}"
        parts.engine.ready(name)
        await until(lambda name=name: states_of(parts)[name] == "ready")
    await parts.deployments.settled(IRIS)
    assert serving(parts) == {traffic: 100}
    assert set(states_of(parts).values()) == {"ready"}


async def test_a_working_version_serves_when_the_one_after_it_is_broken(parts: Parts):
    await parts.serve()
    second = await parts.deploy(await parts.add_version())
    third = await parts.deploy(await parts.add_version())
    parts.engine.broken(third)
    parts.engine.ready(second)
    await parts.deployments.settled(IRIS)
    assert serving(parts) == {second: 100}


async def test_rollback_moves_all_traffic_at_once(parts: Parts):
    number, old = await parts.serve()
    _, new = await parts.serve()
    await parts.deployments.rollback(IRIS, number)
    assert (serving(parts), states_of(parts)) == ({old: 100}, {old: "ready", new: "ready"})


async def test_rollback_during_a_deployment_cancels_it(parts: Parts):
    number, old = await parts.serve()
    name = await parts.deploy(await parts.add_version())
    await parts.deployments.rollback(IRIS, number)
    parts.engine.ready(name)
    await parts.deployments.settled(IRIS)
    assert (states_of(parts), serving(parts)) == ({old: "ready", name: "failed"}, {old: 100})
    record = route_of(parts).record(name)
    assert record is not None
    assert record.reason == "Cancelled: the model was rolled back to version 1 first"


async def test_deployment_after_a_rollback_takes_traffic_again(parts: Parts):
    number, _ = await parts.serve()
    await parts.serve()
    await parts.deployments.rollback(IRIS, number)
    _, name = await parts.serve()
    assert serving(parts) == {name: 100}


async def test_rollback_refuses_what_cannot_serve(parts: Parts):
    with pytest.raises(NotFound, match="no such model"):
        await parts.deployments.rollback(IRIS, 1)
    await parts.serve()
    broken = await parts.add_version()
    parts.engine.broken(await parts.deploy(broken))
    await parts.deployments.settled(IRIS)
    await parts.deploy(await parts.add_version())
    undeployed = await parts.add_version(digest="abc")
    codes = {}
    for number in (broken, broken + 1, undeployed):
        with pytest.raises(Conflict) as caught:
            await parts.deployments.rollback(IRIS, number)
        codes[number] = caught.value.code
    assert list(codes.values()) == ["version_failed", "version_deploying", "version_not_deployed"]
    with pytest.raises(NotFound, match="no such version"):
        await parts.deployments.rollback(IRIS, 99)
    assert serving(parts) == {"iris-00001": 100}


async def test_deleted_model_is_unknown_at_once_and_gone_when_drained(parts: Parts):
    number, _ = await parts.serve()
    parts.engine.drained.clear()
    deletion = asyncio.create_task(parts.deployments.delete(IRIS))
    await parts.engine.draining.wait()
    assert parts.directory.route(IRIS.tenant, IRIS.model) is None
    with pytest.raises(Conflict, match="being deleted"):
        parts.deployments.check_accepts(IRIS)
    for refused in (parts.deployments.delete(IRIS),):
        with pytest.raises(NotFound):
            await refused
    later = [
        asyncio.create_task(coroutine)
        for coroutine in (
            parts.deployments.rollback(IRIS, number),
            parts.deployments.scale(IRIS, {"min-scale": 1}),
            parts.deploy(number),
        )
    ]
    parts.engine.drained.set()
    await deletion
    errors = await asyncio.gather(*later, return_exceptions=True)
    assert [type(error) for error in errors] == [NotFound, NotFound, Conflict]
    assert parts.engine.deleted == [IRIS]
    assert parts.directory.route(IRIS.tenant, IRIS.model) is None
    with pytest.raises(NotFound):
        await parts.registry.versions(IRIS)


async def test_delete_during_a_deployment_ends_it(parts: Parts):
    name = await parts.deploy(await parts.add_version())
    await parts.deployments.delete(IRIS)
    parts.engine.ready(name)
    await parts.deployments.settled(IRIS)
    assert parts.directory.routes() == []
    assert await parts.database.read(lambda c: c.execute(select(revisions)).all()) == []


@pytest.mark.sqlite  # elsewhere a table that is missing is a mistake, not an outage
async def test_model_is_served_again_when_its_deletion_fails(parts: Parts):
    _, name = await parts.serve()
    await parts.database.write(lambda c: c.exec_driver_sql("ALTER TABLE versions RENAME TO hidden"))
    with pytest.raises(Unavailable):
        await parts.deployments.delete(IRIS)
    await parts.database.write(lambda c: c.exec_driver_sql("ALTER TABLE hidden RENAME TO versions"))
    await parts.deployments.settled(IRIS)
    assert serving(parts) == {name: 100}
    await parts.deployments.delete(IRIS)
    assert parts.directory.routes() == []


async def test_engine_out_of_reach_does_not_undo_a_deletion(parts: Parts):
    await parts.serve()
    parts.engine.delete_failures = 3
    await parts.deployments.delete(IRIS)
    assert parts.directory.routes() == []
    with pytest.raises(NotFound):
        await parts.registry.versions(IRIS)
    await parts.deployments.settled(IRIS)
    assert parts.engine.deleted == [IRIS], "told again until it has let go"


async def test_model_of_the_same_name_is_begun_when_the_engine_has_let_the_first_one_go(parts: Parts):
    await parts.serve()
    parts.engine.delete_failures = 3
    await parts.deployments.delete(IRIS)
    _, name = await parts.serve()
    assert serving(parts) == {name: 100}
    assert parts.engine.deleted == [IRIS], "once, and before the second one"


async def test_name_of_a_deleted_model_can_be_used_again(parts: Parts):
    await parts.serve()
    await parts.deployments.delete(IRIS)
    number, name = await parts.serve()
    assert (number, name, serving(parts)) == (1, "iris-00001", {"iris-00001": 100})


async def test_engine_out_of_reach_does_not_undo_a_deployment(parts: Parts):
    parts.engine.apply_failures = 3
    name = await parts.deploy(await parts.add_version())
    parts.engine.ready(name)
    await parts.deployments.settled(IRIS)
    assert serving(parts) == {name: 100}


async def test_operation_ends_even_when_its_caller_is_gone(parts: Parts):
    number = await parts.add_version()
    caller = asyncio.create_task(parts.deploy(number))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await until(lambda: parts.directory.route(IRIS.tenant, IRIS.model) is not None)
    parts.engine.ready("iris-00001")
    await until(lambda: IRIS in parts.engine.services)
    await parts.deployments.settled(IRIS)
    assert serving(parts) == {"iris-00001": 100}


async def test_many_deployments_at_once_get_names_in_order_and_the_last_serves(parts: Parts):
    numbers = [await parts.add_version(digest=f"{n:x}") for n in range(1, 13)]
    names = await asyncio.gather(*(parts.deploy(number) for number in numbers))
    assert sorted(names) == [f"iris-{n:05d}" for n in range(1, 13)]
    for name in names:
        parts.engine.ready(name)
    await parts.deployments.settled(IRIS)
    assert serving(parts) == {"iris-00012": 100}
    assert set(states_of(parts).values()) == {"ready"}


async def test_old_revisions_are_dropped_but_never_one_that_serves(parts: Parts):
    number, first = await parts.serve()
    for _ in range(5):
        await parts.serve()
    await parts.deployments.rollback(IRIS, number)
    for batch in range(2, REVISIONS_KEPT + 10):
        name = await parts.deploy(number, max_batch_size=batch)
        parts.engine.broken(name)
        await parts.deployments.settled(IRIS)
    kept = states_of(parts)
    assert len(kept) == REVISIONS_KEPT
    assert (kept[first], serving(parts)) == ("ready", {first: 100})
    assert len(await parts.registry.versions(IRIS)) == 6, "versions are never dropped"
    with pytest.raises(NotFound):
        route_of(parts).for_version(2)


async def test_scaling_changes_the_policy_and_tells_the_engine(parts: Parts):
    number, _ = await parts.serve()
    policy = await parts.deployments.scale(IRIS, {"min-scale": 2, "target": "10"})
    assert (policy.min_scale, policy.target) == (2, 10.0)
    assert parts.engine.services[IRIS].scaling == policy
    await parts.deploy(number, scaling_options={"min-scale": None, "max-scale": "4"})
    assert (route_of(parts).service.scaling.min_scale, route_of(parts).service.scaling.max_scale) == (0, 4)


async def test_refused_scaling_leaves_everything_as_it_was(parts: Parts):
    number, _ = await parts.serve()
    before = route_of(parts)
    for refused in (
        parts.deployments.scale(IRIS, {"min-scale": 5, "max-scale": 2}),
        parts.deploy(number, scaling_options={"nonsense": "1"}, max_batch_size=9),
    ):
        with pytest.raises(InvalidRequest):
            await refused
    assert states_of(parts) == {"iris-00001": "ready"}
    assert route_of(parts).service == before.service


async def test_model_state_is_that_of_what_serves(parts: Parts):
    def state() -> ModelState:
        return model_state(route_of(parts), parts.deployments.statuses(route_of(parts)))

    name = await parts.deploy(await parts.add_version())
    assert state() is ModelState.DEPLOYING
    parts.engine.ready(name)
    await parts.deployments.settled(IRIS)
    assert state() is ModelState.READY
    parts.engine.asleep(name)
    assert state() is ModelState.ASLEEP
    parts.engine.broken(name)
    assert state() is ModelState.FAILED
