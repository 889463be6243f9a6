"""The serving core on real ONNX models: routes, secret, figures, errors, content types."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import orjson
import pytest

import models_for_tests as models
from roost_runtimes.core import Core, Request
from roost_runtimes.model import ModelError
from roost_runtimes.onnx_model import OnnxModel
from runtime_cores import Gauge, ask, document, get, infer_request, outputs


@pytest.fixture
def core(tmp_path: Path) -> Core:
    core = Core(OnnxModel(models.add_one(tmp_path / "m.onnx"), name="m", version="3"), run_us=10)
    core.warm_up()
    return core


def test_an_infer_is_answered_with_names_and_exact_figures(core: Core):
    answer = ask(core, infer_request([[1, 2, 3, 4], [5, 6, 7, 8]], id="abc"))
    assert document(answer) == {
        "model_name": "m",
        "model_version": "3",
        "id": "abc",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 4], "data": [2, 3, 4, 5, 6, 7, 8, 9]}],
    }
    assert answer.rows == 2
    assert answer.compute_us >= 1
    assert answer.queue_us >= 0
    assert core.busy_us == answer.compute_us
    assert core.inflight == 0


@pytest.mark.parametrize("path", ["/v2/models/m/infer", "/v2/models/m/versions/3/infer", "/v2/models/%6D/infer?a=b"])
def test_paths_of_the_model_are_served(core: Core, path):
    request = infer_request([[1, 2, 3, 4]])
    request.path = path
    assert ask(core, request).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v2/models/other/infer", 404),
        ("POST", "/v2/models/m/versions/2/infer", 404),
        ("POST", "/v2/models/m/infer/", 404),
        ("POST", "/v2//models/m/infer", 404),
        ("POST", "/v2/./models/m/infer", 404),
        ("POST", "/v2/models/%256D/infer", 404),
        ("POST", "/v2%2Fmodels/m/infer", 404),
        ("GET", "/", 404),
        ("GET", "/v2/repository/index", 404),
        ("GET", "/" + "a" * 10_000, 414),
        ("GET", "/v2/models/m/infer", 405),
        ("HEAD", "/v2/models/m/infer", 405),
        ("PUT", "/v2/models/m/infer", 405),
        ("POST", "/v2/health/live", 405),
        ("DELETE", "/v2/models/m", 405),
    ],
)
def test_other_paths_and_methods_are_refused_in_json(core: Core, method, path, status):
    answer = ask(core, Request(method, path, {}))
    assert answer.status == status
    assert {"error", "code"} <= document(answer).keys()
    if status == 405:
        assert dict(answer.headers)["allow"] in {"GET", "POST"}


def test_metadata_and_health_are_what_the_protocols_say(core: Core):
    assert document(get(core, "/v2/health/live")) == {"live": True}
    assert document(get(core, "/v2/health/ready")) == {"ready": True}
    assert document(get(core, "/v2")).keys() == {"name", "version", "extensions"}
    assert document(get(core, "/v2/models/m")) == {
        "name": "m",
        "versions": ["3"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
    }
    assert document(get(core, "/v2/models/m/ready")) == {"name": "m", "ready": True}
    assert document(get(core, "/v1/models/m")) == {"name": "m", "ready": True}
    assert document(get(core, "/v1/models")) == {"models": ["m"]}


def test_it_is_not_ready_before_the_warm_up_nor_while_draining(tmp_path):
    core = Core(OnnxModel(models.add_one(tmp_path / "m.onnx"), name="m", version="1"), run_us=10)
    assert get(core, "/v2/health/ready").status == 503
    assert get(core, "/v2/models/m/ready").status == 503
    core.warm_up()
    assert get(core, "/v2/health/ready").status == 200
    core.draining = True
    assert get(core, "/v2/health/ready").status == 503
    assert get(core, "/v2/health/live").status == 200
    assert ask(core, infer_request([[1, 2, 3, 4]])).status == 200


def test_the_secret_is_asked_of_everything_but_probes(tmp_path):
    core = Core(OnnxModel(models.add_one(tmp_path / "m.onnx"), name="m", version="1"), run_us=10, secret="s3cret")
    core.warm_up()
    for wrong in ({}, {"roost-service-secret": "S3cret"}, {"roost-service-secret": "s3crét"}):
        for request in (infer_request([[1, 2, 3, 4]], headers=wrong), Request("GET", "/metrics", wrong)):
            answer = ask(core, request)
            assert (answer.status, document(answer)["code"]) == (401, "unauthenticated")
    right = {"roost-service-secret": "s3cret"}
    assert ask(core, infer_request([[1, 2, 3, 4]], headers=right)).status == 200
    assert ask(core, Request("GET", "/metrics", right)).status == 200
    assert get(core, "/v2/health/live").status == get(core, "/v2/health/ready").status == 200


def test_metrics_count_requests_under_our_names_and_tritons(core: Core):
    ask(core, infer_request([[1, 2, 3, 4], [1, 2, 3, 4]]))
    ask(core, infer_request([1]))
    page = b"".join(get(core, "/metrics").body).decode()
    for line in (
        'roost_runtime_requests_total{model="m",outcome="ok",version="3"} 1.0',
        'roost_runtime_requests_total{model="m",outcome="client_error",version="3"} 1.0',
        'nv_inference_request_success{model="m",version="3"} 1.0',
        'nv_inference_request_failure{model="m",version="3"} 1.0',
        'nv_inference_count{model="m",version="3"} 2.0',
        'nv_inference_exec_count{model="m",version="3"} 1.0',
        'roost_runtime_compute_seconds_bucket{le="+Inf",model="m",version="3"} 1.0',
    ):
        assert line in page.splitlines()


def test_a_failing_run_is_the_models_error_without_internals(tmp_path):
    model = OnnxModel(models.fails_on_mismatch(tmp_path / "m.onnx"), name="m", version="1")
    core = Core(model, run_us=10)
    core.warm_up()
    body = orjson.dumps(
        {
            "inputs": [
                {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2]},
                {"name": "shape", "datatype": "INT64", "shape": [1], "data": [7]},
            ]
        }
    )
    answer = ask(core, Request("POST", "/v2/models/m/infer", {}, body))
    assert (answer.status, document(answer)["code"]) == (422, "model_error")
    message = document(answer)["error"]
    assert "Reshape" in message
    assert "requested shape:{7}" in message
    assert not any(part in message for part in ("/", "::", ".h", "onnxruntime", "ONNXRuntime"))
    assert answer.compute_us >= 1


def test_running_out_of_memory_is_said_so(tmp_path):
    core = Core(OnnxModel(models.allocates(tmp_path / "m.onnx"), name="m", version="1"), run_us=10)
    answer = ask(core, infer_request([2**45], tensor="size", datatype="INT64"))
    assert (answer.status, document(answer)["code"]) == (502, "out_of_memory")


def test_a_wrong_rank_of_a_scalar_input_is_not_fatal(tmp_path):
    core = Core(OnnxModel(models.scalar_input(tmp_path / "m.onnx"), name="m", version="1"), run_us=10)
    answer = ask(core, infer_request([5], shape=[]))
    assert outputs(answer) == {"y": [6]}
    assert document(answer)["outputs"][0]["shape"] == []
    assert answer.rows == 1


def test_an_output_can_be_left_out(tmp_path):
    core = Core(OnnxModel(models.iris_like(tmp_path / "m.onnx"), name="m", version="1"), run_us=10)
    answer = ask(core, infer_request([[5.1, 3.5, 1.4, 0.2]], tensor="input", outputs=[{"name": "label"}]))
    assert outputs(answer) == {"label": [0]}


def test_an_unreadable_model_is_refused_without_its_path(tmp_path):
    path = tmp_path / "secret-place.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(ModelError) as caught:
        OnnxModel(path, name="m", version="1")
    assert "secret-place" not in caught.value.message
    assert str(tmp_path) not in caught.value.message


def test_warm_up_learns_the_run_time_and_survives_a_refusal(tmp_path):
    quick = Core(OnnxModel(models.add_one(tmp_path / "a.onnx"), name="m", version="1"))
    quick.warm_up()
    assert quick.run_us >= 1
    refusing = Core(OnnxModel(models.fails_on_mismatch(tmp_path / "b.onnx"), name="m", version="1"))
    refusing.warm_up()
    assert refusing.ready


def test_until_a_run_needs_one_the_process_has_a_single_thread(tmp_path):
    """Which is what lets it be forked."""
    path = models.add_one(tmp_path / "m.onnx")
    code = f"""
import os, orjson
from roost_runtimes.core import Core, Request
from roost_runtimes.onnx_model import OnnxModel
from roost_runtimes.rehearsal import rehearse
rehearse(OnnxModel, requests=3)
core = Core(OnnxModel({str(path)!r}, name="m", version="1"), run_us=10)
core.warm_up()
tensor = {{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}}
answers = []
core.submit(Request("POST", "/v2/models/m/infer", {{}}, orjson.dumps({{"inputs": [tensor]}})), answers.append)
core.pump()
print(answers[0].status, len(os.listdir("/proc/self/task")))
"""
    quiet = os.environ | {"ORT_DISABLE_TELEMETRY": "1", "OPENBLAS_NUM_THREADS": "1"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=quiet)
    assert result.stdout.split() == ["200", "1"]


class Raising(Gauge):
    def run(self, feeds, outputs=None, control=None):
        raise KeyError("a bug at /usr/lib/secret")


def test_a_bug_fails_its_own_request_and_says_nothing(caplog):
    answer = ask(Core(Raising(), run_us=10), infer_request([1.0]))
    assert (answer.status, document(answer)["code"]) == (500, "internal")
    assert "secret" not in document(answer)["error"]
    assert "request_failed" in caplog.messages


def test_serving_inline_starts_no_thread(core: Core):
    before = threading.active_count()
    for _ in range(20):
        assert ask(core, infer_request([[1, 2, 3, 4]])).status == 200
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        (None, 200),  # as the Triton client
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("Application/JSON; charset=UTF-8", 200),
        ("application/octet-stream", 200),
        ("application/x-www-form-urlencoded", 200),  # as curl -d
        ("text/plain", 415),
        ("", 415),
        ("application/json; charset=utf-16", 415),
        ("application/xml", 415),
        ("multipart/form-data; boundary=" + "x" * 1000, 415),
        ("application/x-python-pickle", 415),
        ("application/json, application/json", 415),
    ],
)
def test_content_types(core: Core, content_type, status):
    headers = {} if content_type is None else {"content-type": content_type}
    answer = ask(core, infer_request([[1, 2, 3, 4]], headers=headers))
    assert answer.status == status


def test_infinite_values_are_null(tmp_path):
    core = Core(OnnxModel(models.infinite(tmp_path / "m.onnx"), name="m", version="1"), run_us=10)
    assert outputs(ask(core, infer_request([0.0, 2.0]))) == {"y": [None, 0.5]}


def test_a_model_whose_input_no_array_can_have_loads_and_refuses_what_comes(tmp_path):
    """Its shape overflows what numpy takes: nothing can be tried ahead, and nobody can call it, but it harms nothing."""
    path = models.identity(tmp_path / "m.onnx", "FP32", (2**40, 2**20))
    core = Core(OnnxModel(path, name="m", version="1"), slots=1)
    core.warm_up()
    assert core.ready
    refused = ask(core, infer_request([1.0]))
    assert refused.status == 400
