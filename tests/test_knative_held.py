"""What the Knative engine tells of pods that are real processes: as they come and go, and as leaders and watches do."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from engine_harness import KEY
from fake_kubernetes.faults import Fault
from knative_harness import KnativeHarness
from roost_platform.domain.errors import Unavailable
from roost_platform.domain.resources import ResourceUsage
from roost_platform.domain.services import Readiness
from roost_platform.engines.knative.held import nothing_told
from roost_platform.engines.knative.pod_life import us_of

SECOND = 1_000_000
COARSE_S = 1.0
"""Kubernetes cuts its times to whole seconds."""
LATE_S = 40.0


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[KnativeHarness]:
    one = KnativeHarness()
    await one.start(tmp_path)
    yield one
    await one.stop()


def lives(usages: Sequence[ResourceUsage]) -> list[list[ResourceUsage]]:
    """By replica, oldest first; each checked to be whole so far, and to add up."""
    found: dict[str, list[ResourceUsage]] = {}
    for usage in sorted(usages, key=lambda usage: (usage.start, usage.replica)):
        found.setdefault(usage.replica, []).append(usage)
        parts = (usage.setup_us, usage.active_us, usage.idle_us, usage.reserved_us)
        assert sum(parts) == us_of(usage.end) - us_of(usage.start)
        assert min(parts) >= 0
        assert usage.pull_us + usage.schedule_us + usage.load_us == usage.setup_us
        assert (usage.source, usage.tenant, usage.model, usage.resource_class) == ("knative", *KEY, "cpu-2")
    for life in found.values():
        assert all(before.end == after.start for before, after in pairwise(life)), "a hole, or an overlap"
    return list(found.values())


def total(life: Sequence[ResourceUsage], name: str) -> float:
    """Of a part, in seconds."""
    return sum(getattr(usage, name) for usage in life) / SECOND


def cold_starts(life: Sequence[ResourceUsage]) -> int:
    return sum(usage.cold_starts for usage in life)


async def finished(harness: KnativeHarness, replicas: int) -> list[list[ResourceUsage]]:
    await harness.until(lambda: sum(usage.final for usage in harness.held) == replicas, LATE_S)
    found = lives(harness.held)
    assert [[usage.final for usage in life].index(True) for life in found] == [len(life) - 1 for life in found]
    return found


async def test_a_new_leader_goes_on_where_the_old_one_stopped_though_the_ledger_is_behind(
    harness: KnativeHarness,
) -> None:
    """Both tell of the same stretches meanwhile, and say the same."""
    leader = "a"
    told: dict[str, list[ResourceUsage]] = {"a": [], "b": [], "c": []}

    async def what_a_told(replicas: Sequence[str]) -> Mapping[str, datetime]:
        return {usage.replica: usage.end for usage in told["a"] if usage.replica in replicas}

    harness.held.clear()
    for name, own in told.items():
        await harness.start_engine(
            leads=lambda name=name: leader == name,
            on_usage=own.append,
            told_until=what_a_told if name == "c" else nothing_told,
        )
    revision = harness.install(load_s=0.2)
    await harness.apply(revision, min_scale=1)
    await harness.until_ready(revision)
    began = time.monotonic()
    await harness.call(revision, 0.5)
    busy_s = time.monotonic() - began
    await harness.until(lambda: told["a"], LATE_S)
    leader = "b"
    await harness.until(lambda: told["b"], LATE_S)
    leader = "c"
    began = time.monotonic()
    await harness.call(revision, 0.5)
    busy_s += time.monotonic() - began
    await harness.engine.delete(KEY)
    await harness.until(lambda: told["c"] and told["c"][-1].final, LATE_S)

    by_id: dict[str, ResourceUsage] = {}
    for usage in (*told["a"], *told["b"], *told["c"]):
        assert by_id.setdefault(usage.id, usage) == usage
    assert told["b"][0] == told["a"][0], "its ledger knew nothing"
    assert told["c"][0].start == told["a"][-1].end
    (life,) = lives(list(by_id.values()))
    assert 1.0 <= total(life, "active_us") <= busy_s
    assert total(life, "load_us") >= 0.2
    assert (total(life, "idle_us"), cold_starts(life)) == (0, 0)
    assert len(harness.knative.ingress.seen) == 2, "replicas are asked past Knative"


async def test_a_request_in_a_replica_that_is_taken_away_counts_to_its_end(harness: KnativeHarness) -> None:
    revision = harness.install()
    await harness.apply(revision)
    await harness.until_ready(revision)
    began = time.monotonic()
    call = asyncio.create_task(harness.call(revision, 2.0))
    await asyncio.sleep(0.3)
    await harness.evict_one()
    await call
    took_s = time.monotonic() - began
    await harness.until(lambda: any(usage.final for usage in harness.held), LATE_S)
    life = next(life for life in lives(harness.held) if life[-1].final)
    # Asked each second on its way out: of the last one nobody may know.
    assert 2.0 - 1.5 <= total(life, "active_us") <= took_s + 0.1
    assert (life[-1].end - life[0].start).total_seconds() <= took_s + 2 * COARSE_S + 2.0


async def test_a_process_that_is_killed_is_a_replica_s_misfortune_and_no_second_start(harness: KnativeHarness) -> None:
    revision = harness.install(load_s=0.2)
    await harness.apply(revision)
    await harness.until_ready(revision)
    await harness.call(revision, 0.3)
    (pod,) = harness.knative.pods()
    first = pod.pid
    harness.kill_one()
    await harness.until(lambda: pod.pid not in (None, first) and pod.ready, LATE_S)
    await harness.until(lambda: harness.status(revision).ready is Readiness.TRUE, LATE_S)
    await harness.call(revision, 0.3)
    await harness.engine.delete(KEY)

    (life,) = await finished(harness, 1)
    assert total(life, "active_us") >= 0.3
    assert cold_starts(life) == 0
    assert 0 < total(life, "load_us") <= (life[-1].end - life[0].start).total_seconds()


@pytest.mark.parametrize("watches", ["expired", "lost"])
async def test_a_pod_that_goes_while_nobody_can_see_it_ends_when_it_was_seen_last(
    harness: KnativeHarness, watches: str
) -> None:
    revision = harness.install()
    await harness.apply(revision)
    await harness.until_ready(revision)
    (pod,) = harness.knative.pods()
    seen_by = datetime.now(UTC)
    blind = [Fault(times=1000, status=503, verb=verb, resource="pods") for verb in ("list", "watch")]
    harness.api.faults.pending.extend(blind)
    if watches == "expired":
        harness.api.expire_watches()
    else:
        harness.api.drop_connections()
    harness.api.remove("Pod", pod.name, pod.namespace, gracePeriodSeconds=0)
    gone_by = datetime.now(UTC)
    await asyncio.sleep(1.5)
    harness.api.faults.pending.clear()
    await harness.until(lambda: any(usage.final for usage in harness.held), LATE_S)

    life = next(life for life in lives(harness.held) if life[-1].final)
    assert life[-1].end <= gone_by
    assert (seen_by - life[-1].end).total_seconds() <= 10, "it had been asked within ten seconds"


async def test_a_start_that_fails_is_setup_and_no_load(harness: KnativeHarness) -> None:
    revision = harness.install(exit_at_load=3, load_s=0.3)
    await harness.apply(revision)
    await harness.until(lambda: harness.status(revision).reason == "ExitedAtStart", LATE_S)
    with pytest.raises(Unavailable):
        await harness.call(revision, within=0.2)
    await harness.engine.delete(KEY)

    (life,) = await finished(harness, 1)
    lifetime_s = (life[-1].end - life[0].start).total_seconds()
    assert total(life, "setup_us") == pytest.approx(lifetime_s)
    assert [total(life, name) for name in ("load_us", "active_us", "idle_us", "reserved_us")] == [0] * 4
    assert cold_starts(life) == 0


async def test_replicas_that_are_woken_together_have_a_life_and_a_cold_start_each(harness: KnativeHarness) -> None:
    revision = harness.install()
    await harness.apply(revision, container_concurrency=1, activation_scale=2)
    await harness.until_ready(revision)
    await harness.pass_time(200)
    await harness.until(lambda: not harness.replicas(), LATE_S)
    began = time.monotonic()
    await asyncio.gather(*(harness.call(revision, 1.0) for _ in range(2)))
    took_s = time.monotonic() - began
    await harness.engine.delete(KEY)

    first, *woken = await finished(harness, 3)
    assert (cold_starts(first), total(first, "active_us")) == (0, 0)
    assert [cold_starts(life) for life in woken] == [1, 1]
    assert all(1.0 <= total(life, "active_us") <= took_s for life in woken)
