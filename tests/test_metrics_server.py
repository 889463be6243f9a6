"""The metrics page of a live server and of a replica against docs/metrics.md, and `roost status` of the whole machine."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from urllib3 import request

import models_for_tests as models
from prometheus_fetch import program
from prometheus_server import needs_promtool
from roost_gateway.client import ApiError
from roost_process import RoostProcess
from roost_runtimes.figures import Figures
from roost_runtimes.metrics import metrics_page

DOCUMENT = Path(__file__).parent.parent / "docs" / "metrics.md"
BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}).encode()


class Row(NamedTuple):
    kind: str
    labels: frozenset[str]


def documented(*, runtime: bool) -> dict[str, Row]:
    text = DOCUMENT.read_text("utf-8")
    found = re.findall(r"^\| `(\w+)` \| (\w+) \|([a-z_, ]*)\| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE)
    assert len(found) == text.count("\n| `roost_") + text.count("\n| `nv_"), "every row is whole"
    rows = {
        name: Row(kind, frozenset(filter(None, labels.replace(" ", "").split(",")))) for name, kind, labels, *_ in found
    }
    assert len(rows) == len(found), "no series is there twice"
    return {name: row for name, row in rows.items() if name.startswith(("roost_runtime_", "nv_")) is runtime}


def families_of(page: str) -> dict[str, Metric]:
    """By the name that queries use: counters end in _total."""
    families = text_string_to_metric_families(page)
    return {family.name + ("_total" if family.type == "counter" else ""): family for family in families}


def assert_as_documented(page: str, rows: dict[str, Row]) -> None:
    found = families_of(page)
    assert {name: family.type for name, family in found.items()} == {name: row.kind for name, row in rows.items()}
    for name, family in found.items():
        labels = {frozenset(sample.labels) - {"le"} for sample in family.samples}
        assert labels <= {rows[name].labels}, name
        assert family.documentation, name


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    traces = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}  # nobody is there: they are counted all the same
    with RoostProcess(tmp_path_factory.mktemp("metrics"), **traces) as server:
        yield server
        assert server.stop() == 0


@pytest.fixture(scope="module")
def key(server, tmp_path_factory):
    secret = server.make_tenant(requests_per_second=0.001, burst=3)
    folder = tmp_path_factory.mktemp("models")
    server.deploy(secret, "iris", models.add_one(folder / "iris.onnx"))
    return secret


def page_of(server: RoostProcess) -> str:
    return request("GET", f"{server.url}/metrics").data.decode()


def test_the_page_is_what_the_document_says(server, key, tmp_path):
    with server.client(key) as client:
        for _ in range(3):
            client.predict("iris", BODY)
        with pytest.raises(ApiError) as refused:
            client.predict("iris", BODY)
        assert refused.value.status == 429
        whole = models.add_one(tmp_path / "broken.onnx")
        whole.write_bytes(whole.read_bytes()[:-20])
        with pytest.raises(ApiError):
            client.upload("broken", whole)
    page = page_of(server)
    assert_as_documented(page, documented(runtime=False))
    figures = server.figures()
    iris = frozenset({("tenant", "acme"), ("model", "iris")})
    assert figures["roost_requests_total", iris | {("outcome", "ok")}] == 3
    assert figures["roost_requests_total", iris | {("outcome", "throttled")}] == 1
    assert figures["roost_limits_hit_total", frozenset({("tenant", "acme"), ("limit", "rate_limited")})] == 1
    assert figures["roost_inferences_total", iris] == 3
    assert figures["roost_compute_seconds_total", iris] > 0
    assert figures["roost_added_duration_seconds_count", frozenset()] == 3
    assert figures["roost_upload_checks_total", frozenset({("result", "ok")})] == 1
    assert sum(value for (name, _), value in figures.items() if name == "roost_upload_checks_total") == 2
    replica = iris | {("revision", "iris-00001"), ("replica", "0")}
    assert figures["roost_replica_memory_bytes", replica] > 1e6
    assert figures["roost_replica_requested_cores", replica] == 1
    assert figures["roost_spare_processes", frozenset({("runtime", "onnx-cpu")})] >= 0
    assert figures["roost_autoscaler_panic", replica - {("replica", "0")}] in (0, 1)


@needs_promtool
def test_promtool_finds_nothing_to_say_about_the_page(server, key):
    done = subprocess.run(
        [str(program("promtool")), "check", "metrics"],
        input=page_of(server),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_status_without_a_model_shows_the_machine(server, key):
    command = [sys.executable, "-m", "roost_gateway", "status", "--url", server.url]
    environment = server.environment | {"ROOST_API_KEY": server.operator_key}
    text = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert re.match(
        r"\d+\.\d\d of \d+ cores \(\d+%\) and [\d.]+ MB are used by 1 replicas; 0 calls are under way\.\n", text
    )
    assert "acme/iris-00001/0" in text


def test_what_is_deleted_has_no_series(server, key):
    assert 'model="iris"' in page_of(server)
    with server.client(key) as client:
        client.delete_model("iris")
    assert "iris" not in page_of(server)


def test_a_replicas_own_page_is_what_the_document_says():
    page = metrics_page(Figures(), model="m", version="1", inflight=0)
    assert_as_documented(page.decode(), documented(runtime=True))
