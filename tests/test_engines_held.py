"""What every engine tells of its replicas: each one's life, second for second, and what it was spent on.

Where replicas are pods, moments are as exact as a cluster writes them down: in whole seconds.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from engine_harness import KEY, Harness
from engines_under_test import HARNESSES
from roost_platform.domain.resources import ResourceKind, ResourceUsage
from roost_platform.domain.services import Revision

MICROSECOND = timedelta(microseconds=1)
SECOND_US = 10**6
LATE_S = 40.0
"""Within this an engine has told of a replica that is gone."""


@pytest.fixture(params=HARNESSES)
async def under_test(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Harness]:
    harness: Harness = request.param()
    await harness.start(tmp_path)
    yield harness
    await harness.stop()


async def ended(harness: Harness, replicas: int) -> list[list[ResourceUsage]]:
    """The stretches of so many replicas, each to its end, in the order of their births; looked at as a whole."""
    await harness.until(lambda: sum(usage.final for usage in harness.held) == replicas, LATE_S)
    assert len({(usage.source, usage.id) for usage in harness.held}) == len(harness.held)
    lives: dict[str, list[ResourceUsage]] = {}
    for usage in harness.held:
        assert usage.kind is ResourceKind.REPLICA
        assert (usage.tenant, usage.model) == KEY
        assert re.fullmatch("cpu-[1-9]", usage.resource_class)
        assert usage.start.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1) >= usage.end
        parts = (usage.setup_us, usage.active_us, usage.idle_us, usage.reserved_us)
        assert min(parts) >= 0
        assert sum(parts) == (usage.end - usage.start) // MICROSECOND
        assert usage.pull_us + usage.schedule_us + usage.load_us == usage.setup_us
        assert (usage.byte_seconds, usage.job_us) == (0, 0)
        lives.setdefault(usage.replica, []).append(usage)
    assert len(lives) == replicas
    for life in lives.values():
        life.sort(key=lambda usage: usage.start)
        assert [usage.final for usage in life] == [False] * (len(life) - 1) + [True]
        assert all(before.end == after.start for before, after in pairwise(life))
    return sorted(lives.values(), key=lambda life: life[0].start)


def total(life: list[ResourceUsage], name: str) -> int:
    return sum(getattr(usage, name) for usage in life)


async def deployed(harness: Harness, **options: object) -> Revision:
    revision = harness.install(answer=1, load_s=0.2)
    await harness.apply(revision, **options)
    await harness.until_ready(revision)
    return revision


async def asleep(harness: Harness) -> None:
    await harness.pass_time(200)
    await harness.until(lambda: not harness.replicas(), 30)


async def test_the_life_of_a_replica_is_told_from_its_birth_to_its_end(under_test: Harness) -> None:
    begun = time.monotonic()
    revision = await deployed(under_test)
    await under_test.engine.delete(KEY)

    (life,) = await ended(under_test, 1)
    assert {(usage.version, usage.revision) for usage in life} == {(revision.version, revision.name)}
    assert total(life, "load_us") >= 0.2 * SECOND_US
    assert (total(life, "active_us"), total(life, "reserved_us"), total(life, "cold_starts")) == (0, 0, 0)
    # A cluster knows a beginning and an end to the second.
    assert (life[-1].end - life[0].start) / MICROSECOND <= (time.monotonic() - begun + 2) * SECOND_US


async def test_a_replica_is_active_as_long_as_a_request_is_in_it_and_overlaps_count_once(under_test: Harness) -> None:
    revision = await deployed(under_test, max_scale=1)
    busy = 0.0
    for calls in (1, 5):
        begun = time.monotonic()
        await asyncio.gather(*(under_test.call(revision, 0.4) for _ in range(calls)))
        busy += time.monotonic() - begun
    await under_test.engine.delete(KEY)

    (life,) = await ended(under_test, 1)
    assert 2 * 0.4 * SECOND_US <= total(life, "active_us") <= busy * SECOND_US


async def test_what_min_scale_keeps_is_reserved_while_it_is_not_busy(under_test: Harness) -> None:
    revision = await deployed(under_test, min_scale=1)
    begun = time.monotonic()
    await under_test.call(revision, 0.3)
    await asyncio.sleep(1)
    kept = time.monotonic() - begun
    await under_test.engine.delete(KEY)

    (life,) = await ended(under_test, 1)
    assert total(life, "active_us") >= 0.3 * SECOND_US
    assert total(life, "active_us") + total(life, "reserved_us") >= (kept - 1) * SECOND_US
    assert total(life, "reserved_us") > 0


async def test_a_call_that_wakes_a_model_is_one_cold_start(under_test: Harness) -> None:
    revision = await deployed(under_test)
    await asleep(under_test)
    await under_test.call(revision)
    await under_test.call(revision)
    await under_test.engine.delete(KEY)

    first, woken = await ended(under_test, 2)
    assert total(first, "cold_starts") == 0, "nobody called: it was being deployed"
    assert total(woken, "cold_starts") == 1
    (stretch,) = [usage for usage in woken if usage.cold_starts]
    assert stretch.setup_us > 0 or stretch.start > woken[0].start
