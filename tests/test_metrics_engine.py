"""The engine's series, from a real local engine on a clock of the test's: replicas, load, ends, and that looking wakes nothing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from engine_harness import KEY
from engines_under_test import LocalHarness
from roost_gateway.metrics.engine import EngineFiguresCollector
from roost_gateway.metrics.page import make_page
from roost_platform.domain.services import Readiness


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[LocalHarness]:
    harness = LocalHarness()
    await harness.start(tmp_path)
    yield harness
    await harness.stop()


def series(here: LocalHarness) -> dict[str, float]:
    """By name, and what else than tenant, model and revision a series is labelled with."""
    page = make_page(EngineFiguresCollector(here.engine))().decode()
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    return {
        " ".join(
            [sample.name, *(v for k, v in sample.labels.items() if k not in ("tenant", "model", "revision"))]
        ): sample.value
        for sample in samples
    }


def revision_series(found: dict[str, float]) -> set[str]:
    return {name for name in found if name.startswith(("roost_replica", "roost_autoscaler", "roost_queue"))}


async def test_replicas_and_load_of_a_revision_that_serves(here: LocalHarness):
    revision = here.install()
    await here.apply(revision, container_concurrency=1, max_scale=1, window_s=6)
    await here.until_ready(revision)
    calls = [asyncio.create_task(here.call(revision, 0.5)) for _ in range(3)]
    await here.until(lambda: series(here)["roost_queue_length"] == 2)
    await here.pass_time(4)
    found = series(here)
    assert (found["roost_replicas_wanted"], found["roost_replicas_ready"], found["roost_replicas_idle"]) == (1, 1, 0)
    assert (found["roost_replica_requests"], found["roost_replicas_starting"], found["roost_replicas_limit"]) == (
        1,
        0,
        1,
    )
    assert found["roost_autoscaler_desired_replicas"] >= 3, "the load alone calls for more than the limit"
    assert 0 < found["roost_autoscaler_stable_load"] <= 3
    assert 0 < found["roost_autoscaler_panic_load"] <= 3
    assert found["roost_autoscaler_panic"] == 1
    assert found["roost_replica_requested_cores 0"] == 1
    assert found["roost_replica_memory_bytes 0"] > 1e6
    assert found["roost_replica_cpu_seconds_total 0"] >= 0
    assert found["roost_node_cores"] >= 1
    await asyncio.gather(*calls)
    assert series(here)["roost_replicas_idle"] == 1


async def test_looking_at_a_model_that_sleeps_wakes_nothing_and_it_has_no_series(here: LocalHarness):
    revision = here.install()
    await here.apply(revision, window_s=6)
    await here.until_ready(revision)
    await here.call(revision)
    await here.pass_time(20)
    async with asyncio.timeout(10):
        while revision_series(series(here)):  # until its process has gone, and the tick after that
            await here.pass_time(2)
            await asyncio.sleep(0.01)
    woken = series(here)["roost_activations_total"]
    for _ in range(20):
        assert revision_series(series(here)) == set()
    await here.pass_time(4)
    assert not here.replicas()
    assert series(here)["roost_activations_total"] == woken


async def test_ends_are_counted_by_reason_and_go_with_the_model(here: LocalHarness):
    revision = here.install()
    await here.apply(revision, min_scale=1)
    await here.until_ready(revision)
    before = here.replicas()
    here.kill_one()
    await here.until(lambda: here.replicas() and here.replicas() != before and here.status(revision).running == 1)
    # Its place may be taken before it is known how it ended.
    await here.until(lambda: "roost_replica_restarts_total Crashed" in series(here))
    assert series(here)["roost_replica_restarts_total Crashed"] == 1
    broken = here.install(exit_at_load=1)
    await here.apply(revision, broken, to=revision, min_scale=1)
    await here.until(lambda: here.status(broken).ready is Readiness.FALSE)
    assert failed_starts(series(here)) >= 1
    await here.engine.delete(KEY)
    found = series(here)
    assert revision_series(found) == set()
    assert found["roost_activations_total"] >= 1


def failed_starts(found: dict[str, float]) -> float:
    return sum(value for name, value in found.items() if name.startswith("roost_replica_failed_starts_total"))
