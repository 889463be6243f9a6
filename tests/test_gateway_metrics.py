"""The metrics page: it parses, it holds what it promises, its figures are right, and it is not everybody's."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway_parts import IRIS, OPERATOR_KEY
from predict_parts import PredictPath, predict_path
from roost_gateway.door import Door
from roost_gateway.metrics.engine import EngineFiguresCollector
from roost_gateway.metrics.histograms import LATENCY_S, Histogram
from roost_gateway.metrics.journal import JournalFiguresCollector
from roost_gateway.metrics.page import make_page
from roost_platform.domain.errors import Unavailable
from roost_platform.metering.auditing import Auditor
from roost_platform.metering.settling import Settler
from roost_platform.metering.shipper import Shipper

PROMISED = {
    "roost_requests": "counter",
    "roost_request_duration_seconds": "histogram",
    "roost_queue_duration_seconds": "histogram",
    "roost_cold_start_duration_seconds": "histogram",
    "roost_requests_in_flight": "gauge",
    "roost_replicas_wanted": "gauge",
    "roost_replicas_ready": "gauge",
    "roost_queue_length": "gauge",
    "roost_activations": "counter",
    "roost_journal_events": "counter",
    "roost_journal_failures": "counter",
    "roost_journal_sync_failures": "counter",
    "roost_journal_damaged_lines": "counter",
    "roost_journal_lag_bytes": "gauge",
    "roost_ledger_events": "counter",
    "roost_ledger_repeated": "counter",
    "roost_ledger_conflicts": "counter",
    "roost_ledger_gaps": "gauge",
    "roost_calls_opened": "counter",
    "roost_calls_unstored": "counter",
    "roost_calls_unknown": "counter",
    "roost_calls_unaccounted": "gauge",
}


@pytest.fixture
async def path(tmp_path):
    async with predict_path(tmp_path) as made:
        yield made


def page_of(path: PredictPath) -> str:
    shipper = Shipper(journal_folder=path.folder, database=path.parts.database)
    database, clock = path.parts.database, path.parts.clock
    journal = JournalFiguresCollector(
        journal=path.journal,
        shipper=shipper,
        settler=Settler(journal_folder=path.folder, database=database, clock=clock),
        auditor=Auditor(database=database, clock=clock),
    )
    return make_page(path.figures, EngineFiguresCollector(path.engine), journal)().decode()


def samples(path: PredictPath) -> dict[str, float]:
    families = text_string_to_metric_families(page_of(path))
    return {
        sample.name + "".join(f" {k}={v}" for k, v in sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


async def test_the_page_holds_every_promised_series_with_help_and_type(path: PredictPath):
    await path.call()
    families = {family.name: family for family in text_string_to_metric_families(page_of(path))}
    assert {name: families[name].type for name in PROMISED} == PROMISED
    assert all(family.documentation for family in families.values())
    assert all(name.startswith("roost_") for name in families)


async def test_the_figures_are_those_of_the_calls(path: PredictPath):
    for _ in range(3):
        await path.call()
    path.engine.refuse_lease = Unavailable("no", retry_after_s=1)
    await path.call()
    found = samples(path)
    assert found["roost_requests_total model=iris outcome=ok tenant=acme"] == 3
    assert found["roost_requests_total model=iris outcome=platform_error tenant=acme"] == 1
    assert found["roost_request_duration_seconds_count model=iris tenant=acme"] == 4
    assert found["roost_request_duration_seconds_bucket le=+Inf model=iris tenant=acme"] == 4
    assert found["roost_queue_duration_seconds_count"] == 4
    assert found["roost_cold_start_duration_seconds_count model=iris tenant=acme"] == 3
    assert found["roost_cold_start_duration_seconds_sum model=iris tenant=acme"] == pytest.approx(3 * 30e-6)
    assert found["roost_requests_in_flight"] == 0
    assert found["roost_journal_events_total"] == 4
    assert found["roost_journal_lag_bytes"] == sum(file.stat().st_size for file in path.folder.glob("*.jsonl")) > 0
    assert found["roost_ledger_events_total"] == 0


async def test_s31_names_of_strangers_make_no_series(path: PredictPath):
    for number in range(50):
        await path.call(f"/t/acme/v2/models/absent-{number}/infer")
        await path.call(f"/t/nobody-{number}/v2/models/iris/infer")
        await path.call(secret="wrong")
    assert "absent" not in page_of(path)
    assert "nobody" not in page_of(path)


async def test_the_series_of_a_deleted_model_go(path: PredictPath):
    await path.call()
    assert 'model="iris"' in page_of(path)
    path.parts.directory.remove_route(IRIS)
    assert 'model="iris"' not in page_of(path)
    assert samples(path)["roost_queue_duration_seconds_count"] == 1, "the sums over all models do not run back"


def test_a_histograms_buckets_are_cumulative_and_their_ends_belong_to_them():
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 1.0, 7.0):
        histogram.observe(seconds)
    assert histogram.cumulative() == [("0.1", 2), ("1.0", 4), ("+Inf", 5)]
    assert histogram.total == pytest.approx(8.65)
    assert list(LATENCY_S) == sorted(set(LATENCY_S))


async def ask_door(path: PredictPath, client: tuple[str, int] | None, *keys: str) -> int:
    seen = []

    async def api(scope, receive, send):
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive():
        raise AssertionError("nobody reads a body here")

    async def send(message):
        seen.append(message)

    door = Door(
        predict=path.app,
        api=api,
        authenticator=path.parts.authenticator,
        metrics_page=lambda: b"page",
        ready=lambda: path.serving,
    )
    headers = [(b"authorization", f"Bearer {key}".encode()) for key in keys]
    scope = {
        "type": "http", "method": "GET", "path": "/metrics", "headers": headers, "client": client, "query_string": b"",
    }  # fmt: skip
    await door(scope, receive, send)
    return seen[0]["status"]


async def test_the_page_is_for_the_operator_and_for_this_machine(path: PredictPath):
    away = ("192.0.2.7", 1)
    assert await ask_door(path, ("127.0.0.1", 1)) == 200
    assert await ask_door(path, ("::1", 1)) == 200
    assert await ask_door(path, away) == 404
    assert await ask_door(path, None) == 404
    assert await ask_door(path, away, path.secret) == 404, "a tenant's key shows nothing of the others"
    assert await ask_door(path, away, OPERATOR_KEY) == 200
    assert await ask_door(path, away, OPERATOR_KEY, OPERATOR_KEY) == 404
