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

from engine_harness import KEY, ROOM_S, Harness
from engines_under_test import CLUSTERS, HARNESSES, HERE
from roost_platform.domain.errors import DeadlineExceeded, NotFound, ReplicaLost, Unavailable
from roost_platform.domain.services import Readiness
from roost_platform.domain.tenants import Quota


@pytest.fixture(params=HARNESSES)
async def under_test(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Harness]:
    harness: Harness = request.param()
    for case, reason in harness.unmet.items():
        if request.node.name.startswith(case):
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
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
    for _ in range(under_test.sleep_cycles):
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
    assert await under_test.until(lambda: len(under_test.replicas()) == 1) <= under_test.drained_s


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
    await under_test.until(lambda: not under_test.replicas(), within=under_test.gone_s)
    assert time.monotonic() - begin <= under_test.gone_s


@pytest.mark.parametrize("stubborn", [False, True], ids=["cancellable", "must be killed"])
async def test_k6_a_call_ends_at_its_deadline_and_gives_its_slot_back(under_test: Harness, stubborn: bool) -> None:
    revision = under_test.install(answer=5, stubborn=stubborn)
    await under_test.apply(revision, container_concurrency=1, max_scale=1)
    await under_test.until_ready(revision)
    begin = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        await under_test.call(revision, under_test.stubborn_s if stubborn else 20, within=1.0)
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
            await under_test.call(revision, within=100)
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


@pytest.mark.engine(start_timeout_s=8)
@pytest.mark.parametrize("under_test", CLUSTERS, indirect=True)
async def test_k13_a_revision_that_no_machine_has_room_for_leaves_the_old_one_serving(under_test: Harness) -> None:
    old = under_test.install(answer=1)
    await under_test.apply(old)
    await under_test.until_ready(old)
    large = dataclasses.replace(under_test.install(), memory_bytes=1 << 50)
    await under_test.apply(old, large)
    await under_test.until(lambda: under_test.status(large).reason == "Unschedulable")
    await under_test.pass_time(10)  # room may come within the time for starting
    await under_test.until(lambda: under_test.status(large).ready is Readiness.FALSE)
    assert "memory" in under_test.status(large).message
    with pytest.raises(Unavailable):
        await under_test.call(large)
    assert (await under_test.call(old))["answer"] == 1


@pytest.mark.engine(quota=Quota(replicas=1))
@pytest.mark.parametrize("under_test", CLUSTERS, indirect=True)
async def test_k13_a_revision_over_the_quota_says_so_and_leaves_the_old_one_serving(under_test: Harness) -> None:
    old, new = under_test.install(answer=1), under_test.install(answer=2)
    await under_test.apply(old, min_scale=1)
    await under_test.until_ready(old)
    await under_test.apply(old, new, min_scale=1)
    await under_test.until(lambda: under_test.status(new).reason == "QuotaExceeded")
    for _ in range(ROOM_S // 10):  # a quota may have room again: that long it is waited for
        if under_test.status(new).ready is Readiness.UNKNOWN:
            await under_test.pass_time(10)
    assert under_test.status(new).ready is Readiness.FALSE
    assert "pods=1" in under_test.status(new).message
    assert (await under_test.call(old))["answer"] == 1


@pytest.mark.parametrize("under_test", HERE, indirect=True)
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
@pytest.mark.parametrize("under_test", HERE, indirect=True)
async def test_k20_one_more_than_the_queue_holds_is_refused_at_once(under_test: Harness) -> None:
    revision = under_test.install(answer=1)
    await under_test.apply(revision, container_concurrency=1, max_scale=1)
    await under_test.until_ready(revision)
    accepted = [asyncio.ensure_future(under_test.call(revision, 0.1)) for _ in range(6)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable) as refused:
        await under_test.call(revision)
    assert not accepted[1].done(), "refused at once, not when the queue had moved"
    assert (refused.value.code, refused.value.retry_after_s) == ("queue_full", 1)
    assert [a["answer"] for a in await asyncio.gather(*accepted)] == [1] * 6


async def test_k21_load_that_goes_up_and_down_and_up_again_is_all_answered(under_test: Harness) -> None:
    revision = under_test.install(answer=4)
    await under_test.apply(revision, container_concurrency=1, max_scale=3, window_s=6)
    await under_test.until_ready(revision)
    most = 0

    async def client() -> int:
        nonlocal most
        answers = [(await under_test.call(revision, 0.02))["answer"] for _ in range(15)]
        most = max(most, len(under_test.replicas()))
        return answers.count(4)

    for _ in range(2):
        clients = [asyncio.ensure_future(client()) for _ in range(8)]
        while not all(task.done() for task in clients):
            await under_test.pass_time(1)
            await asyncio.sleep(0.05)
        assert [task.result() for task in clients] == [15] * 8
        await under_test.pass_time(60)
        await under_test.until(lambda: not under_test.replicas())
    assert 2 <= most <= 3


async def test_k22_traffic_moves_to_a_new_version_under_load_without_an_error(under_test: Harness) -> None:
    old, new = under_test.install(answer=1), under_test.install(answer=2)
    await under_test.apply(old, container_concurrency=4)
    await under_test.until_ready(old)
    target, moved = old, False

    async def client() -> list[int]:
        answers = []
        while not moved:
            answers.append((await under_test.call(target, 0.005))["answer"])
        return [*answers, *[(await under_test.call(target, 0.005))["answer"] for _ in range(10)]]

    clients = [asyncio.ensure_future(client()) for _ in range(4)]
    await under_test.apply(old, new, container_concurrency=4)
    await under_test.until_ready(new)
    target = new
    await under_test.apply(old, new, to=new, container_concurrency=4)
    moved = True
    for answers in await asyncio.gather(*clients):
        assert answers[0] == 1
        assert answers[-10:] == [2] * 10
        assert answers == sorted(answers), "nothing goes back"


async def test_k23_a_named_version_is_exact_whatever_the_split(under_test: Harness) -> None:
    first, second = under_test.install(answer=1), under_test.install(answer=2)
    await under_test.apply(first, second)
    await under_test.until_ready(first)
    await under_test.until_ready(second)
    await under_test.split((first, second), {first: 50, second: 50})
    answers = await asyncio.gather(*(under_test.call((first, second)[n % 2]) for n in range(200)))
    assert [answer["answer"] for answer in answers] == [1, 2] * 100


async def test_k24_a_broken_revision_never_serves_and_going_back_takes_no_second(under_test: Harness) -> None:
    first, second, broken = under_test.install(answer=1), under_test.install(answer=2), under_test.install(refuse="no")
    await under_test.apply(first)
    await under_test.until_ready(first)
    await under_test.apply(first, second, broken)
    await under_test.until_ready(second)
    await under_test.until(lambda: under_test.status(broken).ready is Readiness.FALSE)
    await under_test.until(lambda: under_test.shows_refusal(under_test.status(broken), "no"))
    assert (await under_test.call(first))["answer"] == 1
    await under_test.apply(first, second, to=second)
    await under_test.pass_time(100)
    await under_test.until(lambda: not under_test.replicas())

    begin = time.monotonic()
    await under_test.apply(first, second, to=first)
    assert (await under_test.call(first))["answer"] == 1
    assert time.monotonic() - begin <= under_test.rollback_s


async def test_k25_what_a_client_says_of_itself_arrives_and_changes_nothing(under_test: Harness) -> None:
    revision = under_test.install(answer=5)
    await under_test.apply(revision)
    await under_test.until_ready(revision)
    more = [
        (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        (b"x-user", "Gr\u00fc\u00dfe  , ; =".encode()),
        (b"x-twice", b"1"),
        (b"x-twice", b"2"),
    ]
    response = await under_test.raw_call(revision, 0, within=10, more=more)
    assert response.status == 200
    assert b'"data":[5]' in bytes(response.body)
    seen = under_test.headers_seen()
    if seen is not None:
        assert [pair for pair in seen if pair[0] in (b"traceparent", b"x-user", b"x-twice")] == more
        hosts = [value for name, value in seen if name == b"host"]
        assert hosts == [b"v1-sleeper.roost-acme.svc.cluster.local"]


@pytest.mark.parametrize("under_test", CLUSTERS, indirect=True)
async def test_k30_replicas_that_are_taken_away_one_by_one_cost_no_call(under_test: Harness) -> None:
    revision = under_test.install(answer=6)
    await under_test.apply(revision, container_concurrency=2, min_scale=2, max_scale=2)
    await under_test.until(lambda: under_test.status(revision).running == 2)
    over = False

    async def client() -> list[int]:
        answers = []
        while not over:
            answers.append((await under_test.call(revision, 0.05))["answer"])
        return answers

    clients = [asyncio.ensure_future(client()) for _ in range(3)]
    for _ in range(4):
        before = set(under_test.replicas())
        await under_test.evict_one()
        await under_test.until(lambda before=before: len(set(under_test.replicas()) - before) == 1)
        await under_test.until(lambda: len(under_test.replicas()) == 2 and under_test.status(revision).running == 2)
    over = True
    answers = await asyncio.gather(*clients)
    assert {answer for of_client in answers for answer in of_client} == {6}
    assert min(len(of_client) for of_client in answers) >= 4
