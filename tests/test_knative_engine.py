"""The Knative engine's behaviour: the real engine and client on a fake API server and a mini Knative."""

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from knative_engine_parts import (
    KEY,
    KREVISION,
    NAMESPACE,
    Setting,
    call,
    fall_asleep,
    left_over,
    make_revision,
    make_service,
    status_of,
    until,
    until_failed,
    until_ready,
)
from roost_platform.domain.errors import NotFound
from roost_platform.domain.services import Readiness, RevisionKey, Service, TrafficTarget


@pytest.fixture
async def setting() -> AsyncIterator[Setting]:
    async with Setting() as setting:
        yield setting


async def test_a_model_is_made_and_called(setting: Setting, tmp_path: Path) -> None:
    engine = await setting.engine(tmp_path)
    first = make_revision(1)
    await engine.apply(make_service(first))
    await until_ready(engine, first)
    assert (await call(engine, first))["version"] == "1"
    status = status_of(engine, first)
    assert (status.reason, status.message, status.running) == ("", "", 1)


async def test_a_call_waits_for_a_model_that_is_being_made(setting: Setting, tmp_path: Path) -> None:
    engine = await setting.engine(tmp_path)
    first = make_revision(1, runtime="slow")
    await engine.apply(make_service(first))
    answers = await asyncio.gather(*(call(engine, first) for _ in range(20)))
    assert {a["version"] for a in answers} == {"1"}


async def test_k24_a_broken_version_gets_no_call_and_a_rollback_is_traffic_only(
    setting: Setting, tmp_path: Path
) -> None:
    engine = await setting.engine(tmp_path)
    first, second, broken = make_revision(1), make_revision(2), make_revision(3, runtime="exits")
    await engine.apply(make_service(first))
    await until_ready(engine, first)
    first = dataclasses.replace(first, proven=True)
    await engine.apply(make_service(first, second, broken, to=first))
    await until_ready(engine, second)
    await until_failed(engine, broken)
    second = dataclasses.replace(second, proven=True)
    await engine.apply(make_service(first, second, to=second))
    await until(lambda: _percents(setting) == {"v1": 0, "v2": 100})
    made = {r["metadata"]["name"] for r in setting.api.objects(KREVISION)}

    began = time.monotonic()
    await engine.apply(make_service(first, second, to=first))
    assert (await call(engine, first))["version"] == "1"
    await until(lambda: _percents(setting) == {"v1": 100, "v2": 0})
    assert time.monotonic() - began < 10
    assert (await call(engine, second))["version"] == "2"
    await until(lambda: len(setting.api.objects(KREVISION)) == 2)
    assert {r["metadata"]["name"] for r in setting.api.objects(KREVISION)} <= made


def _percents(setting: Setting) -> dict[str, int]:
    return {t["tag"]: t["percent"] for t in setting.service()["status"].get("traffic", [])}


async def test_a_split_is_told_to_the_cluster(setting: Setting, tmp_path: Path) -> None:
    engine = await setting.engine(tmp_path)
    first, second = make_revision(1), make_revision(2)
    await engine.apply(make_service(first, second))
    await until_ready(engine, first)
    await until_ready(engine, second)
    traffic = (TrafficTarget(first.name, 30), TrafficTarget(second.name, 70))
    wish = make_service(first, second)
    await engine.apply(dataclasses.replace(wish, traffic=traffic))
    await until(lambda: _percents(setting) == {"v1": 30, "v2": 70})


async def test_another_policy_makes_another_knative_revision_while_the_old_one_serves(
    setting: Setting, tmp_path: Path
) -> None:
    engine = await setting.engine(tmp_path)
    first = make_revision(1)
    await engine.apply(make_service(first, to=first))
    await until_ready(engine, first)
    (before,) = (r["metadata"]["name"] for r in setting.api.objects(KREVISION))
    pid = (await call(engine, first))["pid"]
    long_one = asyncio.create_task(call(engine, first, seconds=1.5))
    await asyncio.sleep(0.1)

    await engine.apply(make_service(dataclasses.replace(first, proven=True), to=first, target=7.0))

    async def replaced() -> bool:
        return bool((await call(engine, first))["pid"] != pid)

    while not await replaced():
        assert status_of(engine, first).ready is Readiness.TRUE
    assert (await long_one)["pid"] == pid
    await until(lambda: before not in {r["metadata"]["name"] for r in setting.api.objects(KREVISION)})


async def test_the_newest_idle_revisions_are_kept_for_rollback_and_a_retired_one_comes_back_with_traffic(
    tmp_path: Path,
) -> None:
    async with Setting(revisions_kept=1) as setting:
        engine = await setting.engine(tmp_path)
        all_of_them = [make_revision(n) for n in (1, 2, 3)]
        await engine.apply(make_service(*all_of_them))
        for revision in all_of_them:
            await until_ready(engine, revision)
        first, second, third = (dataclasses.replace(r, proven=True) for r in all_of_them)
        await engine.apply(make_service(first, second, third, to=third))
        await until(lambda: len(setting.api.objects(KREVISION)) == 2)
        assert (status_of(engine, first).ready, status_of(engine, first).reason) == (Readiness.FALSE, "Retired")
        await engine.apply(make_service(first, second, third, to=first))
        assert (await call(engine, first))["version"] == "1"


async def test_a_model_that_sleeps_stays_ready_and_wakes_on_a_call(setting: Setting, tmp_path: Path) -> None:
    engine = await setting.engine(tmp_path)
    first = make_revision(1)
    await engine.apply(make_service(first, to=first, window=6))
    await until_ready(engine, first)
    await fall_asleep(setting)
    await until(lambda: not engine.figures().revisions)
    assert status_of(engine, first).ready is Readiness.TRUE
    assert (await call(engine, first))["version"] == "1"
    await until(lambda: engine.figures().activations == 2)
    assert {name: one.cold_starts for name, one in engine.figures_of(KEY).items()} == {first.name: 2}
    assert {key: one.ready for key, one in engine.figures().revisions.items()} == {RevisionKey(KEY, first.name): 1}


async def test_delete_lets_calls_in_flight_finish_and_leaves_nothing(setting: Setting, tmp_path: Path) -> None:
    engine = await setting.engine(tmp_path)
    first = make_revision(1)
    await engine.apply(make_service(first, to=first))
    await until_ready(engine, first)
    running = asyncio.create_task(call(engine, first, seconds=0.5))
    await asyncio.sleep(0.1)

    deleting = asyncio.create_task(engine.delete(KEY))
    await asyncio.sleep(0)
    with pytest.raises(NotFound):
        engine.lease(RevisionKey(KEY, first.name), 1e9)
    assert engine.status(KEY).revisions == ()
    assert (await running)["version"] == "1"
    await deleting

    assert left_over(setting) == []
    assert setting.api.get("Namespace", NAMESPACE) is not None
    await engine.delete(KEY)


async def test_the_namespace_of_a_tenant_that_is_gone_goes_with_its_last_model(
    setting: Setting, tmp_path: Path
) -> None:
    engine = await setting.engine(tmp_path)
    first = make_revision(1)
    await engine.apply(make_service(first))
    await until_ready(engine, first)
    setting.quotas.clear()
    await engine.delete(KEY)
    await until(lambda: setting.api.get("Namespace", NAMESPACE) is None)


async def test_a_model_whose_only_revision_failed_leaves_nothing_running(setting: Setting, tmp_path: Path) -> None:
    engine = await setting.engine(tmp_path)
    broken = make_revision(1, runtime="exits")
    await engine.apply(make_service(broken))
    await until_failed(engine, broken)
    await engine.apply(make_service())
    await until(lambda: left_over(setting) == [])
    second = make_revision(2)
    await engine.apply(make_service(second))
    await until_ready(engine, second)


async def test_l16_a_hundred_changes_at_once_leave_the_last_wish_and_nothing_else(
    setting: Setting, tmp_path: Path
) -> None:
    engine = await setting.engine(tmp_path)
    wishes: list[Service | None] = [
        None if n % 5 == 4 else make_service(make_revision(n % 3 + 1), target=float(n % 7 + 1)) for n in range(100)
    ]
    last = make_revision(9)
    wishes.append(make_service(last))
    await asyncio.gather(*(engine.delete(KEY) if wish is None else engine.apply(wish) for wish in wishes))
    await until_ready(engine, last)
    await until(lambda: len(setting.api.objects(KREVISION)) == 1)
    assert (await call(engine, last))["version"] == "9"
    (template,) = (s["spec"]["template"]["metadata"]["labels"] for s in setting.services())
    assert template["roost.dev/revision"] == last.name

    await asyncio.gather(*(engine.delete(KEY) if n % 2 else engine.apply(wishes[-1]) for n in range(100)))
    await engine.delete(KEY)
    await until(lambda: left_over(setting) == [])
