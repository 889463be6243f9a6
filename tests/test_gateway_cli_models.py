"""The `roost` commands about models and money: what they send and what they print."""

import json
import re
import subprocess
from datetime import UTC, datetime

import pytest

from recording_server import Command, serving
from roost_gateway.cli.logs import moment
from roost_gateway.cli.samples import curl_line, sample_body

IRIS = {
    "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 4]}],
    "outputs": [{"name": "label", "datatype": "INT64", "shape": [-1]}],
}


@pytest.fixture
def server():
    with serving() as recording:
        yield recording


@pytest.fixture
def roost(server, tmp_path):
    return Command(server.url, tmp_path)


def version_document(server, **changes):
    return {
        "tenant": "acme",
        "model": "iris",
        "version": 1,
        "digest": "ab" * 32,
        "size": 19_200,
        "signature": IRIS,
        "revision": "iris-00001",
        "state": "ready",
        "reason": "",
        "created_at": "2026-11-22T10:00:00+00:00",
        "url": f"{server.url}/t/acme/v2/models/iris",
        "predict_url": f"{server.url}/t/acme/v2/models/iris/infer",
    } | changes


@pytest.fixture
def onnx_file(tmp_path):
    file = tmp_path / "iris.onnx"
    file.write_bytes(b"model" * 1000)
    return str(file)


# Deploying


def test_deploy_uploads_waits_and_prints_a_call_ready_to_paste(server, roost, onnx_file):
    server.on("POST /api/v1/models/iris/versions", version_document(server, state="deploying"), status=201)
    server.on("GET /api/v1/models/iris/versions/1", version_document(server, state="deploying"))
    server.on("GET /api/v1/models/iris/versions/1", version_document(server))
    result = roost("deploy", "iris", onnx_file, "--min-scale", "1", "--scale", "window=30")
    assert result.exit_code == 0
    assert server.asked[0].query == {"min-scale": "1", "window": "30"}
    assert "iris version 1 is ready" in result.stdout
    assert "[-1, 4]" in result.stdout
    assert f"curl -s {server.url}/t/acme/v2/models/iris/infer" in result.stdout
    assert '"$ROOST_API_KEY"' not in result.stdout  # it is inside the quoted header
    assert "Bearer $ROOST_API_KEY" in result.stdout


def test_deploy_with_json_prints_the_version_and_keeps_progress_off_stdout(server, roost, onnx_file):
    server.on("POST /api/v1/models/iris/versions", version_document(server))
    result = roost("deploy", "iris", onnx_file, "--json")
    assert json.loads(result.stdout) == version_document(server)
    assert "uploaded" in result.stderr


def test_deploy_no_wait_returns_while_the_version_is_deploying(server, roost, onnx_file):
    server.on("POST /api/v1/models/iris/versions", version_document(server, state="deploying"), status=201)
    result = roost("deploy", "iris", onnx_file, "--no-wait")
    assert (result.exit_code, len(server.asked)) == (0, 1)


def test_a_version_that_fails_is_told_with_its_reason_and_last_log_lines(server, roost, onnx_file):
    failed = version_document(server, state="failed", reason="out of memory while loading")
    server.on("POST /api/v1/models/iris/versions", failed, status=201)
    line = {"time": "2026-11-23T08:00:00.000001Z", "revision": "iris-00001", "version": 1, "replica": "7"}
    server.on("GET /api/v1/models/iris/logs", line | {"text": "loading \x1b[31m"})
    result = roost("deploy", "iris", onnx_file)
    assert result.exit_code == 1
    assert "out of memory while loading" in result.stderr
    assert "  loading " in result.stderr
    assert "\x1b" not in result.output


@pytest.mark.parametrize(
    ("reason", "next_step"),
    [
        ("QuotaExceeded: no room for a replica", "roost tenant set-quota"),
        ("ImageMissing: the image cannot be pulled", "operator's to mend"),
        ("ExitedAtStart: the process exited with status 1", "deploy a corrected file"),
    ],
)
def test_who_can_mend_a_failed_version_is_told_what_to_do(server, roost, onnx_file, reason, next_step):
    server.on("POST /api/v1/models/iris/versions", version_document(server, state="failed", reason=reason), status=201)
    server.on("GET /api/v1/models/iris/logs", {"text": "loading"})
    result = roost("deploy", "iris", onnx_file, "--runtime", "onnx-gpu")
    assert next_step in result.stderr.splitlines()[-1]
    assert server.asked[0].query == {"runtime": "onnx-gpu"}


def test_sample_bodies_follow_the_signature():
    signature = {
        "inputs": [
            {"name": "ids", "datatype": "INT64", "shape": [-1, 3]},
            {"name": "text", "datatype": "BYTES", "shape": []},
            {"name": "mask", "datatype": "BOOL", "shape": [2]},
        ],
        "outputs": [],
    }
    assert sample_body(signature) == {
        "inputs": [
            {"name": "ids", "datatype": "INT64", "shape": [1, 3], "data": [0, 0, 0]},
            {"name": "text", "datatype": "BYTES", "shape": [], "data": [""]},
            {"name": "mask", "datatype": "BOOL", "shape": [2], "data": [False, False]},
        ]
    }


def test_a_large_sample_body_goes_through_a_pipe():
    image = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3, 224, 224]}], "outputs": []}
    line = curl_line(model="vision", predict_url="http://h/infer", signature=image)
    assert line.startswith("roost predict vision --sample | curl ")
    assert len(line) < 200


def test_tensor_names_cannot_break_out_of_the_curl_line(server):
    hostile = {"inputs": [{"name": "'; echo injected; '", "datatype": "FP32", "shape": [1]}], "outputs": []}
    line = curl_line(model="m", predict_url="http://h/infer", signature=hostile)
    shown = subprocess.run(
        ["sh", "-c", f"curl() {{ printf '%s\\n' \"$@\"; }}; {line}"], check=False, capture_output=True, text=True
    )
    assert json.loads(shown.stdout.splitlines()[-1]) == sample_body(hostile)


# Models


def test_predict_posts_standard_input_and_prints_the_answer(server, roost):
    server.on("GET /api/v1/models/iris", {"tenant": "acme"})
    server.on("POST /t/acme/v2/models/iris/infer", {"outputs": [{"data": [1]}]})
    result = roost("predict", "iris", "--data", "-", stdin='{"inputs": []}')
    assert json.loads(result.stdout) == {"outputs": [{"data": [1]}]}
    assert server.asked[1].json == {"inputs": []}


def test_predict_sample_prints_a_body_for_the_latest_version(server, roost):
    server.on("GET /api/v1/models/iris", {"tenant": "acme", "latest_version": 1})
    server.on("GET /api/v1/models/iris/versions/1", version_document(server))
    assert json.loads(roost("predict", "iris", "--sample").stdout) == sample_body(IRIS)


def test_models_and_status_show_replicas_and_traffic(server, roost):
    traffic = [{"revision": "iris-00002", "version": 2, "percent": 100}]
    model = {"tenant": "acme", "model": "iris", "created_at": "2026-11-22T10:00:00Z", "traffic": traffic}
    model |= {"latest_version": 2, "state": "asleep", "replicas_ready": 0, "replicas_wanted": 0, "url": "http://h/iris"}
    revision = {"name": "iris-00002", "version": 2, "state": "ready", "ready": "True", "reason": "", "message": ""}
    revision |= {"replicas_wanted": 3, "replicas_ready": 1, "log": ["[bold]started"]}
    revision["load"] = {"queued": 17, "in_flight": 29, "average_stable": 1.25, "panicking": True}
    server.on("GET /api/v1/models", {"models": [model]})
    scaling = {"min-scale": 0, "target": None}
    status = {"tenant": "acme", "model": "iris", "state": "waking", "traffic": traffic, "scaling": scaling}
    server.on("GET /api/v1/models/iris/status", status | {"revisions": [revision]})
    listing = roost("models").stdout
    assert all(part in listing for part in ("iris", "asleep", "v2 100 %", "0/0", "http://h/iris"))
    shown = roost("status", "iris").stdout
    assert all(part in shown for part in ("waking", "iris-00002", "1/3", "[bold]started", "min-scale=0"))
    assert re.search(r"1/3 +17 +29 +1\.25 panic", shown)


def test_scale_sends_numbers_and_puts_an_empty_value_back_to_the_default(server, roost):
    server.on("PATCH /api/v1/models/iris/scaling", {"scaling": {"min-scale": 1}})
    result = roost("scale", "iris", "min-scale=1", "target=0.5", "metric=rps", "window=")
    assert server.asked[0].json == {"min-scale": 1, "target": 0.5, "metric": "rps", "window": None}
    assert "min-scale=1" in result.stdout


def test_delete_with_yes_does_not_ask(server, roost):
    server.on("DELETE /api/v1/models/iris", status=204)
    assert roost("delete", "iris", "--yes").exit_code == 0


@pytest.mark.parametrize(
    ("since", "after"),
    [
        ("90s", "2026-11-23T07:58:30+00:00"),
        ("10m", "2026-11-23T07:50:00+00:00"),
        ("2h", "2026-11-23T06:00:00+00:00"),
        ("1d", "2026-11-22T08:00:00+00:00"),
        ("2026-11-22", "2026-11-22T00:00:00+00:00"),
        (None, None),
    ],
)
def test_since_is_a_time_or_how_long_ago(since, after):
    assert moment(since, datetime(2026, 11, 23, 8, tzinfo=UTC)) == after


def test_logs_are_a_line_each_for_people_and_for_programs(server, roost):
    line = {"time": "2026-11-23T08:00:00.000001Z", "revision": "iris-00001", "version": 1, "replica": "7"}
    server.on("GET /api/v1/models/iris/logs", line | {"text": "loaded \x1b[31m"})
    shown = roost("logs", "iris", "--replica", "7", "-n", "5")
    assert shown.stdout == "2026-11-23 08:00:00Z  iris-00001  7  loaded \N{REPLACEMENT CHARACTER}[31m\n"
    assert server.asked[0].query == {"limit": "5", "replica": "7"}
    told = roost("logs", "iris", "--json")
    assert [json.loads(text) for text in told.stdout.splitlines()] == [line | {"text": "loaded \x1b[31m"}]
