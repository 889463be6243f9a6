"""What every engine promises beyond the faults of its contract: figures, bounds of scale, repetition, callers who leave."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine_harness import KEY, Harness
from engines_under_test import HARNESSES
from roost_platform.domain.services import Readiness, ServiceKey


@pytest.fixture(params=HARNESSES)
async def under_test(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Harness]:
    harness: Harness = request.param()
    marker = request.node.get_closest_marker("engine")
    await harness.start(tmp_path, **(marker.kwargs if marker else {}))
    yield harness
    await harness.stop()
    assert not harness.replicas(), "an engine that stopped leaves no process"


async def test_figures_tell_replicas_and_load_of_every_revision(under_test: Harness) -> None:
    first, second = under_test.install(), under_test.install()
    await under_test.apply(first, second, max_scale=3)
    for revision in (first, second):
        await under_test.until_ready(revision)
    running = asyncio.create_task(under_test.call(first, 0.5))
    await under_test.until(lambda: under_test.engine.figures_of(KEY)[first.name].in_flight == 1)
    figures = under_test.engine.figures_of(KEY)
    assert list(figures) == [first.name, second.name]
    busy = figures[first.name]
    assert (busy.ready, busy.queued, busy.cold_starts, busy.most) == (1, 0, 1, 3)
    assert busy.wanted >= 1
    await running
    await under_test.until(lambda: under_test.engine.figures_of(KEY)[first.name].in_flight == 0)
    assert under_test.engine.figures_of(ServiceKey("acme", "unknown")) == {}


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
