"""The contract that every engine keeps. Names begin with the case in the fault tables that they cover.

One try everywhere: no call is repeated, every body is checked. Durations are the tables' scaled down; what is asked of
them (in order, at once, nobody left waiting) does not depend on the scale.
"""

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engines_under_test import HARNESSES, KEY, Harness
from roost_platform.domain.errors import DeadlineExceeded, NotFound, ReplicaLost, Unavailable
from roost_platform.domain.services import Readiness


@pytest.fixture(params=HARNESSES)
async def under_test(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Harness]:
    harness: Harness = request.param()
    marker = request.node.get_closest_marker("engine")
    await harness.start(tmp_path, **(marker.kwargs if marker else {}))
    yield harness
    await harness.stop()
    assert not harness.replicas(), "an engine that stopped leaves no process"


async def test_k1_two_hundred_calls_wake_a_sleeping_model(under_test: Harness) -> None:
    revision = under_test.install(answer=7)
    await under_test.apply(revision, max_scale=4)
    await under_test.until_ready(revision)
    await under_test.pass_time(200)
    await under_test.until(lambda: not under_test.replicas())

    answers = await asyncio.gather(*(under_test.call(revision) for _ in range(200)))

    assert [a["answer"] for a in answers] == [7] * 200
    assert 1 <= len(under_test.replicas()) <= 4


@pytest.mark.timeout(300)
async def test_k2_no_call_fails_at_the_edge_of_sleep(under_test: Harness) -> None:
    revision = under_test.install(answer=1)
    await under_test.apply(revision, window_s=6)
    await under_test.until_ready(revision)
    for _ in range(1000):
        await under_test.pass_time(4)
        calls = []
        while under_test.status(revision).wanted:
            await under_test.pass_time(1)
        for _ in range(3):  # the decision is made; the replica is on its way out
            calls.append(asyncio.ensure_future(under_test.call(revision)))
            await asyncio.sleep(0.001)
        assert [a["answer"] for a in await asyncio.gather(*calls)] == [1, 1, 1]
        await under_test.pass_time(12)
        await under_test.until(lambda: not under_test.replicas())


async def test_k3_drain_lets_calls_in_flight_finish(under_test: Harness) -> None:
    old, new = under_test.install(answer=1), under_test.install(answer=2)
    await under_test.apply(old, container_concurrency=6)
    await under_test.until_ready(old)
    calls = []
    for _ in range(6):
        calls.append(asyncio.ensure_future(under_test.call(old, 1.2)))
        await asyncio.sleep(0.1)

    await under_test.apply(new, container_concurrency=6)

    assert [a["answer"] for a in await asyncio.gather(*calls)] == [1] * 6
    await under_test.until_ready(new)
    assert await under_test.until(lambda: len(under_test.replicas()) == 1) <= 1


async def test_k4_delete_during_a_call(under_test: Harness) -> None:
    revision = under_test.install(answer=3)
    await under_test.apply(revision)
    await under_test.until_ready(revision)
    call = asyncio.ensure_future(under_test.call(revision, 1.0))
    await asyncio.sleep(0.1)

    deletion = asyncio.ensure_future(under_test.engine.delete(KEY))
    await asyncio.sleep(0)

    with pytest.raises(NotFound):
        await under_test.call(revision)
    assert (await call)["answer"] == 3
    await deletion
    await under_test.until(lambda: not under_test.replicas())
    assert under_test.engine.status(KEY).revisions == ()


async def test_k5_an_idle_replica_goes_at_once_whatever_its_timeout(under_test: Harness) -> None:
    revision = under_test.install()
    await under_test.apply(revision, timeout_s=300)
    await under_test.until_ready(revision)
    await under_test.call(revision)
    begin = time.monotonic()
    await under_test.engine.delete(KEY)
    assert not under_test.replicas()
    assert time.monotonic() - begin <= 5


@pytest.mark.parametrize("stubborn", [False, True], ids=["cancellable", "must be killed"])
async def test_k6_a_call_ends_at_its_deadline_and_gives_its_slot_back(under_test: Harness, stubborn: bool) -> None:
    revision = under_test.install(answer=5, stubborn=stubborn)
    await under_test.apply(revision, container_concurrency=1, max_scale=1)
    await under_test.until_ready(revision)
    begin = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        await under_test.call(revision, 20, within=1.0)
    assert 1.0 <= time.monotonic() - begin <= 1.5
    assert (await under_test.call(revision, within=5))["answer"] == 5
    assert time.monotonic() - begin <= 3.5


async def test_k9_a_slow_load_outlives_the_call_that_began_it(under_test: Harness) -> None:
    revision = under_test.install(answer=9, load_s=1.5)
    await under_test.apply(revision)
    with pytest.raises(DeadlineExceeded):
        await under_test.call(revision, within=0.5)
    assert (await under_test.call(revision))["answer"] == 9
    assert len(under_test.replicas()) == 1


@pytest.mark.engine(start_timeout_s=0.5)
async def test_k10_who_waits_for_a_model_that_never_gets_ready_is_told_with_all_others(under_test: Harness) -> None:
    revision = under_test.install(load_s=60)
    await under_test.apply(revision)

    async def refused_at() -> float:
        with pytest.raises(Unavailable):
            await under_test.call(revision)
        return time.monotonic()

    ends = await asyncio.gather(*(refused_at() for _ in range(20)))

    assert max(ends) - min(ends) <= 0.1
    status = under_test.status(revision)
    assert (status.ready, status.reason) == (Readiness.FALSE, "StartTimeout")
    await under_test.until(lambda: not under_test.replicas())


async def test_k11_a_model_that_exits_at_start_says_so_with_its_last_lines(under_test: Harness) -> None:
    revision = under_test.install(exit_at_load=3)
    await under_test.apply(revision)
    await under_test.until(lambda: under_test.status(revision).ready is Readiness.FALSE)
    status = under_test.status(revision)
    assert status.reason == "ExitedAtStart"
    assert "status 3" in status.message
    assert any("about to exit" in line for line in status.log)
    with pytest.raises(Unavailable, match="status 3") as refused:
        await under_test.call(revision)
    assert refused.value.retry_after_s is not None
    assert refused.value.retry_after_s > 0


async def test_k12_a_revision_without_runtime_leaves_the_old_one_serving(under_test: Harness) -> None:
    old = under_test.install(answer=1)
    await under_test.apply(old)
    await under_test.until_ready(old)
    missing = dataclasses.replace(under_test.install(), runtime="nothing")
    await under_test.apply(old, missing)
    await under_test.until(lambda: under_test.status(missing).ready is Readiness.FALSE)
    assert under_test.status(missing).reason == "RuntimeMissing"
    assert (await under_test.call(old))["answer"] == 1


async def test_k14_a_killed_replica_fails_only_its_calls_and_is_replaced(under_test: Harness) -> None:
    revision = under_test.install(answer=4)
    await under_test.apply(revision, container_concurrency=1, min_scale=2)
    await under_test.until(lambda: under_test.status(revision).running == 2)
    calls = [asyncio.ensure_future(under_test.call(revision, 0.5)) for _ in range(2)]
    await asyncio.sleep(0.1)

    under_test.kill_one()

    results = await asyncio.gather(*calls, return_exceptions=True)
    assert sorted(type(r).__name__ for r in results) == [ReplicaLost.__name__, "dict"]
    await under_test.until(lambda: under_test.status(revision).running == 2, within=2)
    assert (await under_test.call(revision))["answer"] == 4


async def test_k18_concurrency_one_means_one(under_test: Harness) -> None:
    revision = under_test.install()
    await under_test.apply(revision, container_concurrency=1, max_scale=3)
    await under_test.until_ready(revision)

    async def client() -> list[int]:
        return [(await under_test.call(revision, 0.02))["overlap"] for _ in range(30)]

    seen = await asyncio.gather(*(client() for _ in range(5)))
    assert {overlap for client_seen in seen for overlap in client_seen} == {1}


async def test_k19_a_hundred_at_once_through_ten_replicas_of_one_slot(under_test: Harness) -> None:
    revision = under_test.install(answer=6)
    await under_test.apply(revision, container_concurrency=1, max_scale=10)
    await under_test.until_ready(revision)
    calls = [asyncio.ensure_future(under_test.call(revision, 0.3)) for _ in range(100)]
    await under_test.pass_time(2)
    answers = await asyncio.gather(*calls)
    assert [a["answer"] for a in answers] == [6] * 100
    assert {a["overlap"] for a in answers} == {1}
    assert len(under_test.replicas()) <= 10


@pytest.mark.engine(queue_depth=5)
async def test_k20_one_more_than_the_queue_holds_is_refused_at_once(under_test: Harness) -> None:
    revision = under_test.install(answer=1)
    await under_test.apply(revision, container_concurrency=1, max_scale=1)
    await under_test.until_ready(revision)
    accepted = [asyncio.ensure_future(under_test.call(revision, 0.1)) for _ in range(6)]
    await asyncio.sleep(0)
    begin = time.monotonic()
    with pytest.raises(Unavailable) as refused:
        await under_test.call(revision)
    assert time.monotonic() - begin < 0.05
    assert (refused.value.code, refused.value.retry_after_s) == ("queue_full", 1)
    assert [a["answer"] for a in await asyncio.gather(*accepted)] == [1] * 6


async def test_k24_a_broken_revision_never_serves_and_going_back_takes_no_second(under_test: Harness) -> None:
    first, second, broken = under_test.install(answer=1), under_test.install(answer=2), under_test.install(refuse="no")
    await under_test.apply(first)
    await under_test.until_ready(first)
    await under_test.apply(first, second, broken)
    await under_test.until_ready(second)
    await under_test.until(lambda: under_test.status(broken).ready is Readiness.FALSE)
    assert under_test.status(broken).message == "no"
    assert (await under_test.call(first))["answer"] == 1
    await under_test.apply(first, second, to=second)
    await under_test.pass_time(100)
    await under_test.until(lambda: not under_test.replicas())

    begin = time.monotonic()
    await under_test.apply(first, second, to=first)
    assert (await under_test.call(first))["answer"] == 1
    assert time.monotonic() - begin <= 1


async def test_min_scale_holds_and_max_scale_bounds(under_test: Harness) -> None:
    revision = under_test.install()
    await under_test.apply(revision, min_scale=2, max_scale=3)
    await under_test.until(lambda: under_test.status(revision).running == 2)
    await under_test.pass_time(200)
    assert under_test.status(revision).running == 2
    await under_test.apply(revision, min_scale=0)
    await under_test.pass_time(200)
    await under_test.until(lambda: not under_test.replicas())
    assert under_test.status(revision).ready is Readiness.TRUE


async def test_apply_is_idempotent(under_test: Harness) -> None:
    revision = under_test.install(answer=8)
    for _ in range(5):
        await under_test.apply(revision)
    await under_test.until_ready(revision)
    assert len(under_test.replicas()) == 1
    assert (await under_test.call(revision))["answer"] == 8


async def test_a_cancelled_caller_frees_its_slot(under_test: Harness) -> None:
    revision = under_test.install(answer=2)
    await under_test.apply(revision, container_concurrency=1, max_scale=1)
    await under_test.until_ready(revision)
    call = asyncio.ensure_future(under_test.call(revision, 20))
    await asyncio.sleep(0.1)
    call.cancel()
    assert (await under_test.call(revision, within=3))["answer"] == 2
