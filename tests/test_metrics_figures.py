"""What the gateway counts, and how it is written: figures of calls, of cold starts, of uploads and of quotas."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway_parts import gateway_parts
from roost_gateway.cli.platform_status import series_of, status_of
from roost_gateway.metrics.cold_starts import ColdStartFigures
from roost_gateway.metrics.held import HeldFigures
from roost_gateway.metrics.page import Page, make_page
from roost_gateway.metrics.quotas import QuotaFigures
from roost_gateway.metrics.uploads import UploadFigures
from roost_gateway.predict.figures import PredictFigures
from roost_platform.domain.errors import ReplicaLost, Throttled, Unavailable
from roost_platform.domain.resources import ResourceKind, ResourceUsage
from roost_platform.domain.services import ServiceKey
from roost_platform.domain.usage import ANSWERED_OUTCOMES, Outcome
from roost_platform.engines.local.figures import numbered, resident_bytes
from roost_platform.engines.local.setbacks import OTHER, Setbacks

IRIS = ServiceKey("acme", "iris")
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def series(*parts) -> dict[str, float]:
    families = text_string_to_metric_families(make_page(*parts)().decode())
    return {
        " ".join([sample.name, *(f"{k}={v}" for k, v in sorted(sample.labels.items()))]): sample.value
        for family in families
        for sample in family.samples
    }


def test_a_models_outcomes_are_there_before_its_first_call_so_that_the_first_failure_is_an_increase():
    figures = PredictFigures(models=lambda: [IRIS])
    outcomes = {f"roost_requests_total model=iris outcome={outcome} tenant=acme": 0.0 for outcome in ANSWERED_OUTCOMES}
    assert outcomes.items() <= series(figures).items()
    assert not [name for name in series(figures) if name.startswith("roost_request_duration_seconds")]


def test_a_call_is_counted_in_parts_that_add_up():
    figures = PredictFigures(models=lambda: [IRIS])
    figures.answered(IRIS, Outcome.OK, seconds=0.5, queue_us=100_000, cold_start_us=60_000, compute_us=380_000, rows=7)
    figures.answered(IRIS, Outcome.PLATFORM_ERROR, seconds=0.2, queue_us=200_000, cold_start_us=0)
    found = series(figures)
    assert found["roost_inferences_total model=iris tenant=acme"] == 7
    assert found["roost_compute_seconds_total model=iris tenant=acme"] == 0.38
    assert found["roost_queue_seconds_total model=iris tenant=acme"] == 0.3
    assert found["roost_added_duration_seconds_count"] == 1, "what no replica answered has nothing added"
    assert found["roost_added_duration_seconds_sum"] == pytest.approx(0.02)
    assert found["roost_cold_start_duration_seconds_bucket le=0.05 model=iris tenant=acme"] == 0
    assert found["roost_cold_start_duration_seconds_bucket le=0.1 model=iris tenant=acme"] == 1
    assert found["roost_request_duration_seconds_sum model=iris tenant=acme"] == pytest.approx(0.7)


def test_versions_are_counted_beside_each_other_and_a_models_calls_are_all_of_them():
    kept = {1, 2}
    figures = PredictFigures(models=lambda: [IRIS], has_version=lambda key, version: key == IRIS and version in kept)
    for version, outcome, seconds in ((1, "ok", 0.5), (2, "model_error", 0.2), (2, "ok", 0.002), (0, "throttled", 0.1)):
        figures.answered(IRIS, Outcome(outcome), version=version, seconds=seconds, queue_us=0, cold_start_us=0)
    found = series(figures)

    def calls(**labels: str) -> float:
        name = "roost_version_requests_total" if "version" in labels else "roost_requests_total"
        labels = {"model": "iris", "tenant": "acme", **labels}
        return found[" ".join([name, *(f"{key}={value}" for key, value in sorted(labels.items()))])]

    assert [calls(version="1", outcome=outcome) for outcome in ("ok", "model_error")] == [1, 0]
    assert [calls(version="2", outcome=outcome) for outcome in ("ok", "model_error")] == [1, 1]
    assert [calls(outcome=outcome) for outcome in ("ok", "model_error", "throttled")] == [2, 1, 1]
    assert found["roost_version_request_duration_seconds_sum model=iris tenant=acme version=2"] == pytest.approx(0.202)
    assert found["roost_request_duration_seconds_sum model=iris tenant=acme"] == pytest.approx(0.802)
    assert found["roost_request_duration_seconds_bucket le=0.005 model=iris tenant=acme"] == 1
    assert not [name for name in found if "version=0" in name], (
        "no version was chosen: it is in the model's series only"
    )
    kept.discard(2)
    left = series(figures)
    assert not [name for name in left if "version=2" in name]
    assert {name: value for name, value in left.items() if "version" not in name} == {
        name: value for name, value in found.items() if "version" not in name
    }, "what was counted of it stays counted"
    assert figures.metered_by_tenant() == {"acme": 4}


def test_errors_are_counted_by_code_and_limits_by_tenant_until_it_has_no_model():
    models = [IRIS]
    figures = PredictFigures(models=lambda: models)
    figures.failed("acme", Throttled("no", code="rate_limited", limit=1, used=1))
    figures.failed("acme", Unavailable("no", code="queue_full"))
    figures.failed("acme", ReplicaLost("gone"))
    figures.failed("acme", ReplicaLost("gone"))
    found = series(figures)
    assert found["roost_request_errors_total code=replica_lost"] == 2
    assert found["roost_request_errors_total code=queue_full"] == 1
    assert found["roost_request_errors_total code=rate_limited"] == 1
    assert found["roost_limits_hit_total limit=rate_limited tenant=acme"] == 1
    models.clear()
    assert not [name for name in series(figures) if "acme" in name]


def test_labels_cannot_break_a_line():
    figures = PredictFigures(models=lambda: [ServiceKey("acme", 'a"b\\c\nd')])
    (family,) = [
        f for f in text_string_to_metric_families(make_page(figures)().decode()) if f.name == "roost_inferences"
    ]
    assert family.samples[0].labels == {"tenant": "acme", "model": 'a"b\\c\nd'}


def test_an_empty_page_is_empty():
    assert Page().text() == b""


def stretch(replica: str, **parts: int | bool | str) -> ResourceUsage:
    return ResourceUsage(
        source="s", id="i", kind=ResourceKind.REPLICA, start=NOW, end=NOW + timedelta(seconds=1), tenant="acme",
        model="iris", version=1, replica=replica, **parts,
    )  # fmt: skip


def test_cold_starts_are_told_by_part_although_their_stretches_are_cut():
    figures = ColdStartFigures()
    figures.told(stretch("a", schedule_us=2_000_000, pull_us=3_000_000))
    figures.told(stretch("b", schedule_us=9_000_000, load_us=1, idle_us=1))  # nobody's call woke it
    figures.told(stretch("a", pull_us=1_000_000, load_us=500_000, active_us=1, cold_starts=1))
    figures.told(stretch("a", active_us=1))
    figures.told(stretch("c", schedule_us=5))
    figures.told(stretch("c", schedule_us=5, final=True))  # it never became ready
    found = series(figures)
    sums = {
        part: found[f"roost_cold_start_part_duration_seconds_sum part={part}"] for part in ("schedule", "pull", "load")
    }
    assert sums == {"schedule": 2.0, "pull": 4.0, "load": 0.5}
    assert found["roost_cold_start_part_duration_seconds_count part=pull"] == 1


def test_replicas_are_held_by_state_and_class_as_long_as_their_model_is_there():
    models = [IRIS]
    figures = HeldFigures(models=lambda: models)
    figures.told(stretch("a", setup_us=2_000_000, resource_class="cpu-1"))
    figures.told(stretch("a", active_us=500_000, idle_us=250_000, reserved_us=125_000, resource_class="cpu-1"))
    figures.told(stretch("b", active_us=1_000_000, resource_class="gpu-1"))
    figures.told(replace(stretch("", byte_seconds=7), kind=ResourceKind.STORAGE))
    name = "roost_replica_held_seconds_total model=iris resource_class={} state={} tenant=acme"
    cpu = {"setup": 2.0, "active": 0.5, "idle": 0.25, "reserved": 0.125}
    gpu = {"setup": 0.0, "active": 1.0, "idle": 0.0, "reserved": 0.0}
    assert series(figures) == {name.format("cpu-1", state): seconds for state, seconds in cpu.items()} | {
        name.format("gpu-1", state): seconds for state, seconds in gpu.items()
    }
    models.clear()
    assert series(figures) == {}


def test_upload_checks_are_read_at_each_scrape():
    checks = {"ok": 1}
    figures = UploadFigures(checks)
    assert series(figures) == {"roost_upload_checks_total result=ok": 1}
    checks["too_slow"] = 2
    assert series(figures)["roost_upload_checks_total result=too_slow"] == 2


async def test_quotas_are_told_by_the_gateway_that_leads_and_only_where_there_is_a_limit(tmp_path):
    leads = [True]

    async def storage() -> dict[str, int]:
        return {"acme": 250}

    async with gateway_parts(tmp_path) as parts:
        await parts.add_tenant("acme", models=4, storage_bytes=1000)
        await parts.add_tenant("free", models=0, storage_bytes=0)
        await parts.serve(IRIS)
        figures = QuotaFigures(directory=parts.directory, storage=storage, leads=lambda: leads[0])
        assert series(figures) == {}
        await figures.look()
        assert series(figures) == {
            "roost_quota_used_ratio quota=models tenant=acme": 0.25,
            "roost_quota_used_ratio quota=storage tenant=acme": 0.25,
            "roost_stored_bytes tenant=acme": 250,
            "roost_stored_bytes tenant=free": 0,
        }
        leads[0] = False
        await figures.look()
        assert series(figures) == {}


def test_a_replica_keeps_its_number_and_a_new_one_takes_the_lowest_that_is_free():
    first = numbered({}, [10, 11, 12])
    assert first == {10: 0, 11: 1, 12: 2}
    second = numbered(first, [11, 12, 13, 14])
    assert second == {11: 1, 12: 2, 13: 0, 14: 3}
    assert resident_bytes(2**22 + 1) == 0, "there is no such process"


def test_a_reason_that_a_replica_made_up_makes_no_series():
    setbacks = Setbacks()
    setbacks.add("OutOfMemory", "m", 0.0)
    for number in range(30):
        setbacks.add(f"Made{'x' * number}", "m", 0.0)
        setbacks.ended(f"Up{'x' * number}")
    assert setbacks.failed_starts == {"OutOfMemory": 1, OTHER: 30}
    assert setbacks.restarts == {OTHER: 30}


def page(cpu: dict[str, float]) -> str:
    labels = 'tenant="acme",model="iris",revision="iris-00001"'
    lines = ["roost_node_cores 4", "roost_requests_in_flight 2"]
    lines += [f"roost_replicas_{name}{{{labels}}} {len(cpu)}" for name in ("wanted", "ready", "starting")]
    lines.append(f"roost_queue_length{{{labels}}} 3")
    for replica, seconds in cpu.items():
        own = f'{labels},replica="{replica}"'
        lines += [
            f"roost_replica_cpu_seconds_total{{{own}}} {seconds}",
            f"roost_replica_requested_cores{{{own}}} 1",
            f"roost_replica_memory_bytes{{{own}}} 1000",
        ]
    return "\n".join(lines) + "\n"


def test_status_is_processor_time_used_over_requested_and_over_the_node():
    before, after = series_of(page({"0": 10.0, "1": 50.0})), series_of(page({"0": 11.0, "1": 0.5, "2": 0.25}))
    document = status_of(before, after, seconds=2.0)
    assert document["node"] == {
        "cores": 4.0, "cores_used": 0.875, "cpu_use": 0.219, "replica_memory_bytes": 3000, "requests_in_flight": 2,
    }  # fmt: skip
    assert [(one["replica"], one["cpu_use"]) for one in document["replicas"]] == [("0", 0.5), ("1", 0.25), ("2", 0.125)]
    assert document["revisions"] == [
        {
            "tenant": "acme", "model": "iris", "revision": "iris-00001",
            "replicas_wanted": 3, "replicas_ready": 3, "replicas_starting": 3, "queued": 3,
        }
    ]  # fmt: skip


def test_status_where_replicas_run_elsewhere_has_no_processor_figures():
    elsewhere = series_of("roost_requests_in_flight 0\n")
    document = status_of(elsewhere, elsewhere, seconds=1.0)
    assert document["node"]["cpu_use"] is None
    assert document["replicas"] == document["revisions"] == []
