"""Rollouts through restarts and failing transactions, and the choice among revisions."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from databases import url_of
from gateway_parts import (
    IRIS,
    NOON,
    SIGNATURE,
    Parts,
    ScriptedEngine,
    database_in,
    gateway_parts,
    route_of,
    serving,
    states_of,
)
from roost_gateway.access.routes import RevisionRecord, RevisionState, Route
from roost_gateway.predict.headers import sort_headers
from roost_platform.database.connection import Database
from roost_platform.domain.errors import Unavailable
from roost_platform.domain.scaling import ScalingPolicy
from roost_platform.domain.services import Revision, TrafficTarget

pytestmark = pytest.mark.usefixtures("each_database")

# Restarts: the second gateway has the database only, as after `kill -9`.


async def deploying(parts: Parts) -> None:
    await parts.deploy(await parts.add_version())


async def ready(parts: Parts) -> None:
    await parts.serve()


async def failed(parts: Parts) -> None:
    parts.engine.broken(await parts.deploy(await parts.add_version()))
    await parts.deployments.settled(IRIS)


async def rolled_back_during_a_deployment(parts: Parts) -> None:
    await parts.serve()
    await deploying(parts)
    await parts.deployments.rollback(IRIS, 1)


async def registered_but_not_deployed(parts: Parts) -> None:
    await parts.add_version()


RESTARTS: list[tuple[Callable[[Parts], Any], dict[str, str], dict[str, int]]] = [
    (deploying, {"iris-00001": "ready"}, {"iris-00001": 100}),
    (ready, {"iris-00001": "ready"}, {"iris-00001": 100}),
    (failed, {"iris-00001": "failed"}, {}),
    (rolled_back_during_a_deployment, {"iris-00001": "ready", "iris-00002": "failed"}, {"iris-00001": 100}),
    (registered_but_not_deployed, {}, {}),
]


@pytest.mark.parametrize(("reach", "states", "traffic"), RESTARTS, ids=[case[0].__name__ for case in RESTARTS])
async def test_restart_carries_on(tmp_path: Path, reach, states, traffic):
    async with gateway_parts(tmp_path) as first:
        await first.add_tenant()
        await reach(first)
        proven = {r.name for r in first.engine.services[IRIS].revisions if r.proven} if first.engine.services else set()
    engine = ScriptedEngine()
    for name in ("iris-00001", "iris-00002"):
        engine.ready(name)
    async with gateway_parts(tmp_path, engine=engine) as second:
        if engine.applied:
            told = {r.name for r in engine.applied[0].revisions if r.proven}
            assert told == proven, "what was ready before starts asleep; what was not is proven again"
        await second.deployments.settled(IRIS)
        assert states_of(second) == states
        assert {t.revision: t.percent for t in route_of(second).service.traffic} == traffic


async def test_interrupted_upload_says_so_and_can_be_repeated(tmp_path: Path):
    async with gateway_parts(tmp_path) as first:
        await first.add_tenant()
        number = await first.add_version()
    async with gateway_parts(tmp_path) as second:
        with pytest.raises(Unavailable, match="interrupted"):
            route_of(second).leading()
        name = await second.deploy(number)
        second.engine.ready(name)
        await second.deployments.settled(IRIS)
        assert serving(second) == {name: 100}


class FailingDatabase(Database):
    """Fails the n-th transaction that writes, before it begins or (by turns) after it was committed."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.until_failure = -1
        self.after_commit = False

    async def write(self, work, *args, **kwargs):
        self.until_failure -= 1
        failing = self.until_failure == 0
        if failing and not self.after_commit:
            raise Unavailable("the database does not answer right now")
        result = await super().write(work, *args, **kwargs)
        if failing:
            raise Unavailable("the database does not answer right now")
        return result


@pytest.mark.parametrize("after_commit", [False, True], ids=["before", "after the commit"])
async def test_no_failed_transaction_leaves_a_half_state(tmp_path: Path, after_commit):
    for nth in range(1, 20):
        folder = tmp_path / str(nth)
        folder.mkdir()
        database_in(folder).close()
        database = FailingDatabase(url_of(folder))
        async with gateway_parts(folder, database=database) as parts:
            await parts.add_tenant()
            first, second = [await parts.add_version(digest=d) for d in ("a", "b")]
            for name in (f"iris-{n:05d}" for n in range(1, 9)):
                parts.engine.ready(name)
            database.until_failure, database.after_commit = nth, after_commit
            for operation in story(parts, first, second):
                try:
                    await operation()
                except Unavailable:
                    await operation()
                await parts.deployments.settled(IRIS)
            done = database.until_failure > 0
            final = [r.revision.version for r in route_of(parts).records if r.revision.name in serving(parts)]
            assert final == [first], f"failure of transaction {nth}"
            assert set(states_of(parts).values()) == {"ready"}
        if done:
            return
    raise AssertionError("the story never ran without a failure")


async def test_a_commit_that_was_not_confirmed_is_followed_without_another_try(tmp_path: Path):
    database_in(tmp_path).close()
    database = FailingDatabase(url_of(tmp_path))
    async with gateway_parts(tmp_path, database=database) as parts:
        await parts.add_tenant()
        number = await parts.add_version()
        parts.engine.ready("iris-00001")
        database.until_failure, database.after_commit = 1, True
        with pytest.raises(Unavailable):
            await parts.deploy(number)
        await parts.deployments.settled(IRIS)
        assert serving(parts) == {"iris-00001": 100}


def story(parts: Parts, first: int, second: int) -> Iterator[Callable[[], Any]]:
    yield lambda: parts.deploy(first)
    yield lambda: parts.deploy(second)
    yield lambda: parts.deployments.scale(IRIS, {"min-scale": 1})
    yield lambda: parts.deployments.rollback(IRIS, first)


def test_traffic_split_is_followed_and_a_share_of_nothing_gets_nothing():
    route = split_route({"iris-00001": 50, "iris-00002": 0, "iris-00003": 50})
    chosen = [route.revision_for(None, sort_headers([])).name for _ in range(200)]
    assert chosen in (["iris-00001", "iris-00003"] * 100, ["iris-00003", "iris-00001"] * 100)


def split_route(percents: dict[str, int]) -> Route:
    records = [
        RevisionRecord(Revision(name, number, "0" * 64, 1, SIGNATURE), RevisionState.READY, "", NOON)
        for number, name in enumerate(percents, start=1)
    ]
    return Route(
        key=IRIS,
        scaling=ScalingPolicy(),
        traffic=tuple(TrafficTarget(name, percent) for name, percent in percents.items()),
        records=records,
        last_version=len(records),
        created_at=NOON,
    )
