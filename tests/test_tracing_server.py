"""Traces on a real server, sent to a real OTLP receiver: one trace from the gateway to the model, whatever became of the call."""

import json
import subprocess
import sys
import time

import httpx
import pytest

import models_for_tests as models
from otlp_sink import Sink, SinkSpan, otlp_sink
from roost_process import RoostProcess, until

BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0, 0, 0, 0]}]}
PATH = "/t/acme/v2/models/adds/infer"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def settings(sink: Sink, **more: str) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.url, "OTEL_BSP_SCHEDULE_DELAY": "50"} | more


@pytest.fixture(scope="module")
def sink():
    with otlp_sink() as made:
        yield made


@pytest.fixture(scope="module")
def server(tmp_path_factory, sink):
    folder = tmp_path_factory.mktemp("traces")
    with RoostProcess(folder, **settings(sink), ROOST_ACCESS_LOG="1") as server:
        server.key = server.make_tenant()
        server.deploy(server.key, "adds", models.add_one(folder / "m.onnx"))
        server.deploy(server.key, "fails", models.fails_on_small(folder / "f.onnx"))
        server.http = httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {server.key}"}, timeout=60)
        yield server
        server.http.close()
        assert server.stop() == 0
        assert not server.events("prediction_failed")


def traced(server, sink: Sink, *, path: str = PATH, status: int = 200, request_id: str, **how) -> dict[str, SinkSpan]:
    """The spans of one call."""
    headers = {"x-request-id": request_id} | how.pop("headers", {})
    if "content" not in how:
        how["json"] = how.get("json", BODY)
    response = server.http.post(path, headers=headers, **how)
    assert response.status_code == status, response.text
    assert not [name for name in response.headers if name.startswith("roost-")], "figures are not the client's"
    until(lambda: sink.trace_of(request_id), what="the trace")
    return sink.trace_of(request_id)


def root_of(spans: dict[str, SinkSpan]) -> SinkSpan:
    (root,) = [span for span in spans.values() if span.kind == 2]
    return root


def check_tree(spans: dict[str, SinkSpan]) -> None:
    """Parents as they should be, nothing outside of its parent."""
    root = root_of(spans)
    inside = {"decode", "run", "encode"}
    for name, span in spans.items():
        assert span.trace_id == root.trace_id
        assert span.start_ns <= span.end_ns, name
        if span is not root:
            parent = spans["transport"] if name in inside else root
            assert span.parent == parent.id, name
            assert parent.start_ns <= span.start_ns, name
            assert span.end_ns <= parent.end_ns + 1_000_000, name


def test_a_warm_call(server, sink):
    traced(server, sink, request_id="first")
    warm = traced(server, sink, request_id="warm")
    expected = {"authenticate", "queue", "admit", "transport", "decode", "run", "encode", "record"}
    assert set(warm) == expected | {"POST /t/{tenant}/v2/models/{model}/infer"}
    check_tree(warm)
    root = root_of(warm)
    assert root.parent == ""
    assert root.attributes == {
        "http.request.method": "POST", "http.route": "/t/{tenant}/v2/models/{model}/infer",
        "http.response.status_code": 200, "roost.tenant": "acme", "roost.model": "adds", "roost.version": 1,
        "roost.request_id": "warm", "roost.outcome": "ok", "roost.rows": 1,
    }  # fmt: skip
    assert root.resource["service.name"] == "roost-gateway"
    assert abs(root.start_ns - time.time_ns()) < 60e9
    text = str(warm)
    assert server.key not in text
    (line,) = [line for line in server.events("predicted") if line["http.request.id"] == "warm"]
    assert line["trace.id"] == root.trace_id


def test_a_caller_s_trace_goes_on(server, sink):
    spans = traced(server, sink, request_id="child", headers={"traceparent": PARENT, "tracestate": "a=b"})
    root = root_of(spans)
    assert (root.trace_id, root.parent) == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    check_tree(spans)
    server.http.post(PATH, json=BODY, headers={"traceparent": PARENT[:-1] + "0", "x-request-id": "unsampled"})
    again = traced(server, sink, request_id="after", headers={"traceparent": "00-nonsense"})
    assert root_of(again).parent == ""
    assert not sink.trace_of("unsampled")


@pytest.mark.parametrize(
    ("path", "body", "route"),
    [
        ("/t/acme/v2/models/adds/versions/1/infer", BODY, "/t/{tenant}/v2/models/{model}/versions/{version}/infer"),
        ("/t/acme/v1/models/adds:predict", {"instances": [[0, 0, 0, 0]]}, "/t/{tenant}/v1/models/{model}:predict"),
    ],
)
def test_every_way_to_ask(server, sink, path: str, body: dict, route: str):
    spans = traced(server, sink, path=path, json=body, request_id=f"way-{path[-5:-1]}".replace("/", "-"))
    assert root_of(spans).attributes["http.route"] == route
    assert {"decode", "run", "encode"} <= set(spans)
    check_tree(spans)


def test_the_slow_lane(server, sink):
    """A body that comes in pieces is not for the fast one."""

    def pieces():
        whole = json.dumps(BODY).encode()
        yield whole[:10]
        time.sleep(0.05)
        yield whole[10:]

    spans = traced(server, sink, request_id="pieces", content=pieces())
    assert {"authenticate", "admit", "receive", "queue", "transport", "run", "record"} <= set(spans)
    assert spans["receive"].end_ns - spans["receive"].start_ns > 40e6
    check_tree(spans)


def test_calls_that_fail(server, sink):
    broken = traced(server, sink, request_id="broken", status=400, content=b"{")
    assert root_of(broken).attributes["roost.outcome"] == "client_error"
    assert "run" not in broken
    small = {"inputs": [BODY["inputs"][0] | {"data": [-5, 0, 0, 0]}]}
    failed = traced(server, sink, request_id="failed", status=422, path="/t/acme/v2/models/fails/infer", json=small)
    assert root_of(failed).attributes["roost.outcome"] == "model_error"
    assert "run" in failed
    with server.client(server.operator_key) as client:
        client.set_quota("acme", {"requests_per_second": 1, "burst": 1})
    until(lambda: server.http.post(PATH, json=BODY).status_code == 429, what="refused")
    refused = traced(server, sink, request_id="refused", status=429)
    with server.client(server.operator_key) as client:
        client.set_quota("acme", {"requests_per_second": 1000, "burst": 1000})
    assert "transport" not in refused
    assert root_of(refused).attributes["roost.outcome"] == "throttled"
    assert not root_of(refused).failed
    figures = server.figures()
    assert figures["roost_trace_spans_total", frozenset({("result", "exported")})] > 30
    assert figures["roost_trace_spans_total", frozenset({("result", "dropped")})] == 0


def test_waking_is_a_span_and_an_event(server, sink):
    server.kill()
    server.start()
    cold = traced(server, sink, request_id="woken")
    check_tree({name: span for name, span in cold.items() if name != "activate"})
    root, activate = root_of(cold), cold["activate"]
    assert activate.parent == root.id
    assert root.events["cold_start"]["roost.cold_start_us"] > 0
    assert activate.end_ns <= cold["transport"].start_ns + 1_000_000


def test_a_collector_that_hangs_or_is_gone_holds_nobody_up(tmp_path):
    with RoostProcess(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", OTEL_BSP_SCHEDULE_DELAY="20",
                      OTEL_BSP_MAX_QUEUE_SIZE="20", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="10") as server:  # fmt: skip
        server.key = server.make_tenant()
        server.deploy(server.key, "adds", models.add_one(tmp_path / "m.onnx"))
        with httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {server.key}"}) as http:
            for _ in range(20):
                assert http.post(PATH, json=BODY).status_code == 200
        assert server.figures()["roost_trace_spans_total", frozenset({("result", "dropped")})] > 100
        assert server.stop(within=20) == 0


@pytest.mark.parametrize(
    "environment",
    [
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
        {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
    ],
)
def test_nobody_asked(tmp_path, environment):
    with RoostProcess(tmp_path, **environment) as server:
        assert not [name for name, _ in server.figures() if name.startswith("roost_trace")]


def test_who_does_not_ask_pays_for_no_sdk():
    code = "import sys, roost_gateway.main; print('opentelemetry.sdk' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER must be otlp or none"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "must be http/protobuf"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_BSP_MAX_QUEUE_SIZE": "-1"}, "OTEL_BSP_*: max_queue_size must be"),
    ],
)
def test_what_cannot_be_is_said_at_the_start(tmp_path, environment, sentence: str):
    server = RoostProcess(tmp_path, **environment)
    process = server.spawn()
    assert process.wait(30) == 1
    assert sentence in server.log_tail()
