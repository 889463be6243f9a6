"""The HTTP server as a process: real clients, probes, digest, secret, drain."""

import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

import models_for_tests as models
from roost_runtimes.datatypes import DATATYPES


class Server:
    """A runtime's process, and what it logs."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        command = [sys.executable, "-m", "roost_runtimes", "serve", "--host", "127.0.0.1", "--name", "m", *arguments]
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PORT": "0"} | environment
        )
        self.events: list[dict] = []

    def wait_for(self, event: str) -> dict:
        """The next log line of this event."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.events.append(json.loads(line))
            if self.events[-1]["message"] == event:
                return self.events[-1].get("roost", {}) | self.events[-1].get("labels", {})
        pytest.fail(f"no {event} in {self.events}")

    def end(self) -> int:
        """Terminate, and the exit status."""
        self.process.terminate()
        _, _ = self.process.communicate(timeout=30)
        return self.process.returncode


@contextmanager
def serving(*arguments: str, **environment: str) -> Iterator[tuple[Server, str]]:
    """A server that is ready, and its address."""
    server = Server(*arguments, **environment)
    try:
        address = server.wait_for("listening")["address"]
        server.wait_for("model_ready")
        yield server, address
    finally:
        if server.process.poll() is None:
            server.process.kill()
        server.process.communicate(timeout=30)


@pytest.fixture(scope="module")
def all_types(tmp_path_factory) -> Iterator[str]:
    path = models.all_types(tmp_path_factory.mktemp("models") / "m.onnx")
    with serving("--model", str(path), "--version", "4") as (_, address):
        yield address


@pytest.fixture(scope="module")
def add_one(tmp_path_factory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("models")
    path = models.add_one(folder / "model.onnx")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with serving("--model", str(folder), "--digest", digest, "--max-body-bytes", "1000000") as (_, address):
        yield address


def everything() -> dict[str, np.ndarray]:
    """Two values of each datatype, the extreme ones where there are such."""
    values = {}
    for name, datatype in DATATYPES.items():
        if name == "BYTES":
            values[name] = np.array(["grüß", ""], dtype=object)
        elif name == "BOOL":
            values[name] = np.array([True, False])
        else:
            info = np.finfo(datatype.numpy) if name.startswith("FP") else np.iinfo(datatype.numpy)
            values[name] = np.array([info.min, info.max], datatype.numpy)
    return values


@contextmanager
def client_of(address: str) -> Iterator[triton.InferenceServerClient]:
    client = triton.InferenceServerClient(address)
    try:
        yield client
    finally:
        client.close()


def test_the_triton_client_sees_a_live_server_and_its_model(all_types):
    with client_of(all_types) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("m")
        assert client.is_model_ready("m", "4")
        assert not client.is_model_ready("m", "5")
        assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
        metadata = client.get_model_metadata("m", "4")
        assert {one["name"]: one["datatype"] for one in metadata["inputs"]} == {f"in_{n}": n for n in DATATYPES}


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("as_binary", [True, False])
def test_every_datatype_makes_the_round_trip(all_types, as_binary, compression):
    inputs, requested = [], []
    for name, values in everything().items():
        binary = as_binary or name == "FP16"
        one = triton.InferInput(f"in_{name}", list(values.shape), name)
        inputs.append(one.set_data_from_numpy(values, binary_data=binary))
        requested.append(triton.InferRequestedOutput(f"out_{name}", binary_data=binary))
    with client_of(all_types) as client:
        result = client.infer(
            "m",
            inputs,
            outputs=requested,
            request_id="r1",
            request_compression_algorithm=compression,
            response_compression_algorithm=compression,
        )
    assert result.get_response()["id"] == "r1"
    assert result.get_response()["model_version"] == "4"
    for name, values in everything().items():
        got = result.as_numpy(f"out_{name}")
        if name == "BYTES":
            got = np.array([x.decode() if isinstance(x, bytes) else x for x in got], dtype=object)
        np.testing.assert_array_equal(got, values)


def test_the_triton_client_reads_our_errors(all_types):
    with client_of(all_types) as client, pytest.raises(InferenceServerException, match="'nope'"):
        client.infer("m", [triton.InferInput("nope", [1], "FP32").set_data_from_numpy(np.zeros(1, np.float32))])


def row(**changes):
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]} | changes]}


def test_a_plain_post_is_answered_with_figures_in_headers(add_one):
    form = {"content-type": "application/x-www-form-urlencoded"}
    answer = httpx.post(f"http://{add_one}/v2/models/m/infer", content=json.dumps(row()), headers=form)
    assert answer.status_code == 200
    assert answer.json()["outputs"][0]["data"] == [2, 3, 4, 5]
    assert int(answer.headers["roost-compute-us"]) >= 1
    assert int(answer.headers["roost-queue-us"]) >= 0
    assert answer.headers["roost-rows"] == "1"


def test_v1_and_metrics_are_served(add_one):
    assert httpx.post(f"http://{add_one}/v1/models/m:predict", json={"instances": [[1, 2, 3, 4]]}).json() == {
        "predictions": [[2, 3, 4, 5]]
    }
    assert "nv_inference_count" in httpx.get(f"http://{add_one}/metrics").text


def test_large_answers_are_compressed_and_large_binary_ones_arrive_whole(add_one):
    rows = 20_000
    raw = np.arange(rows * 4, dtype=np.float32)
    answer = httpx.post(
        f"http://{add_one}/v2/models/m/infer",
        content=raw.tobytes(),
        headers={"inference-header-content-length": "0", "accept-encoding": "identity"},
    )
    split = int(answer.headers["inference-header-content-length"])
    np.testing.assert_array_equal(np.frombuffer(answer.content[split:], np.float32), raw + 1)
    zipped = httpx.post(
        f"http://{add_one}/v2/models/m/infer", content=raw.tobytes(), headers={"inference-header-content-length": "0"}
    )
    assert zipped.headers["content-encoding"] == "gzip"
    assert zipped.content[split:] == answer.content[split:]


def test_bodies_over_the_limit_are_refused_however_they_come(add_one):
    url = f"http://{add_one}/v2/models/m/infer"
    large = b" " * 1_000_001
    statuses = [
        httpx.post(url, content=large).status_code,
        httpx.post(url, content=iter([large[:600_000], large[600_000:]])).status_code,
        httpx.post(url, content=gzip.compress(large), headers={"content-encoding": "gzip"}).status_code,
    ]
    assert statuses == [413] * 3
    twice = gzip.compress(gzip.compress(json.dumps(row()).encode()))
    assert httpx.post(url, content=twice, headers={"content-encoding": "gzip, gzip"}).status_code == 415
    assert httpx.post(url, content=b"x", headers={"content-encoding": "br"}).status_code == 415


def test_a_repeated_length_header_is_refused(add_one):
    body = json.dumps(row()).encode()
    twice = [("inference-header-content-length", str(len(body)))] * 2
    answer = httpx.post(f"http://{add_one}/v2/models/m/infer", content=body, headers=twice)
    assert answer.status_code == 400
    assert answer.json()["field"] == "inference-header-content-length"


def test_too_many_headers_and_odd_methods_are_refused(add_one):
    url = f"http://{add_one}/v2/models/m/infer"
    assert httpx.get(url, headers=[(f"h{i}", "1" * 1000) for i in range(70)]).status_code == 431
    assert httpx.put(url).status_code == 405
    assert httpx.head(url).status_code == 405
    assert httpx.post(f"http://{add_one}/v2/models/nope/infer").json()["code"] == "not_found"


def test_the_secret_comes_from_a_file_or_the_environment(tmp_path):
    path, file = models.add_one(tmp_path / "m.onnx"), tmp_path / "secret"
    file.write_text("hush\n")
    for arguments, environment in ((["--secret-file", str(file)], {}), ([], {"ROOST_SERVICE_SECRET": "hush"})):
        with serving("--model", str(path), *arguments, **environment) as (_, address):
            url = f"http://{address}/v2/models/m/infer"
            assert httpx.post(url, json=row()).status_code == 401
            assert httpx.post(url, json=row(), headers={"Roost-Service-Secret": "hush"}).status_code == 200
            assert httpx.get(f"http://{address}/v2/health/ready").json() == {"ready": True}


def test_a_unix_socket_is_ours_alone(tmp_path):
    path, socket = models.add_one(tmp_path / "m.onnx"), tmp_path / "s"
    with serving("--model", str(path), "--uds", str(socket)) as (server, _):
        assert socket.stat().st_mode & 0o777 == 0o600
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket))) as client:
            assert client.post("http://m/v2/models/m/infer", json=row()).status_code == 200
        assert server.end() == 0
    assert not socket.exists()


@pytest.mark.parametrize(
    ("content", "digest", "reason"),
    [(b"not a model", None, "model_error"), (b"x", "0" * 64, "wrong_digest"), (None, None, "not_found")],
)
def test_a_model_that_cannot_be_served_ends_the_process_with_a_reason(tmp_path, content, digest, reason):
    path = tmp_path / "m.onnx"
    if content is not None:
        path.write_bytes(content)
    server = Server("--model", str(path), *(["--digest", digest] if digest else []))
    assert server.wait_for("model_failed")["reason"] == reason
    line = server.events[-1]
    assert (line["event.action"], line["log.level"], line["service.name"]) == ("model_failed", "error", "roost-runtime")
    assert datetime.fromisoformat(line["@timestamp"]).tzinfo == UTC
    assert line["process.pid"] == server.process.pid
    server.process.communicate(timeout=30)
    assert server.process.returncode == 1


def loops(address: str, trips: int, answers: list, **options) -> threading.Thread:
    """Ask, from a thread, for so many loop trips."""
    body = {"inputs": [{"name": "trips", "datatype": "INT64", "shape": [1], "data": [trips]}]}

    def ask() -> None:
        answers.append(httpx.post(f"http://{address}/v2/models/m/infer", json=body, timeout=60, **options))

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


def in_flight(address: str) -> float:
    page = httpx.get(f"http://{address}/metrics").text
    (line,) = [line for line in page.splitlines() if line.startswith("roost_runtime_inflight_requests{")]
    return float(line.rpartition(" ")[2])


def wait_until(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def slow_start(address: str) -> None:
    """A first slow run moves the model off the event loop, so that health checks go on being answered."""
    answers: list[httpx.Response] = []
    loops(address, 50_000, answers).join()
    assert answers[0].status_code == 200


def test_sigterm_finishes_what_runs_and_serves_late_arrivals(tmp_path):
    path = models.slow_loop(tmp_path / "m.onnx")
    with serving("--model", str(path)) as (server, address):
        slow_start(address)
        answers: list[httpx.Response] = []
        first = loops(address, 200_000, answers)
        wait_until(lambda: in_flight(address) == 1)
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("draining")
        assert httpx.get(f"http://{address}/v2/health/ready").status_code == 503
        assert httpx.get(f"http://{address}/v2/health/live").status_code == 200
        late = loops(address, 10, answers)
        for thread in (first, late):
            thread.join()
        assert [answer.status_code for answer in answers] == [200, 200]
        assert server.process.wait(timeout=30) == 0


def test_a_client_that_leaves_ends_its_endless_run(tmp_path):
    path = models.slow_loop(tmp_path / "m.onnx")
    with serving("--model", str(path)) as (server, address):
        slow_start(address)
        body = {"inputs": [{"name": "trips", "datatype": "INT64", "shape": [1], "data": [2**62]}]}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"http://{address}/v2/models/m/infer", json=body, timeout=0.5)
        wait_until(lambda: in_flight(address) == 0)
        assert server.end() == 0


def test_a_wrong_command_line_is_refused():
    result = subprocess.run(
        [sys.executable, "-m", "roost_runtimes", "serve", "--model", "m", "--name", "m", "--slots", "0"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "--slots" in result.stderr


def test_importing_the_command_line_imports_nothing_heavy():
    code = "import sys, roost_runtimes.__main__; print([m for m in ('numpy', 'onnxruntime', 'uvicorn') if m in sys.modules])"
    assert Path(sys.executable).exists()
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"
