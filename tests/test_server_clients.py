"""Clients that people already have, unmodified: tritonclient, curl, KServe's, Python's own, any that offers HTTP/2."""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

import models_for_tests as models
from http_raw import ADD_ONE
from roost_process import RoostProcess

WORK = Path(__file__).parent.parent / ".work"
KSERVE = "kserve==0.21.*"
CALLS = Path(__file__).parent / "kserve_calls.py"
ROWS = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clients")
    with RoostProcess(folder) as server:
        server.key = server.make_tenant()
        server.deploy(server.key, "one", models.add_one(folder / "one.onnx"))
        server.deploy(server.key, "text", models.strings(folder / "text.onnx"))
        yield server
        assert server.stop() == 0


@pytest.fixture
def client(server):
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}/t/acme") as client:
        yield client


@pytest.fixture
def headers(server):
    return {"Authorization": f"Bearer {server.key}"}


def tensor(name: str, array: np.ndarray, datatype: str, *, binary: bool) -> triton.InferInput:
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", [False, True, None])
def test_tritonclient_infers_in_json_and_binary(client, headers, binary_in, binary_out):
    outputs = None if binary_out is None else [triton.InferRequestedOutput("y", binary_data=binary_out)]
    inputs = [tensor("x", ROWS, "FP32", binary=binary_in)]
    result = client.infer("one", inputs, outputs=outputs, headers=headers, request_id="mine")
    assert np.array_equal(result.as_numpy("y"), ROWS + 1)
    assert result.get_response()["id"] == "mine"
    assert result.get_response()["model_version"] == "1"


@pytest.mark.parametrize("binary", [False, True])
def test_tritonclient_sends_and_gets_text(client, headers, binary):
    words = np.array([b"", "grüße".encode(), b"plain"], np.object_)
    result = client.infer("text", [tensor("text", words, "BYTES", binary=binary)], headers=headers)
    assert result.as_numpy("same").tolist() == words.tolist()


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_tritonclient_compresses_both_ways(client, headers, algorithm):
    rows = np.ones((1000, 4), np.float32)
    how = {"request_compression_algorithm": algorithm, "response_compression_algorithm": algorithm}
    result = client.infer("one", [tensor("x", rows, "FP32", binary=True)], headers=headers, **how)
    assert np.array_equal(result.as_numpy("y"), rows + 1)


def test_tritonclient_infers_beside_itself_and_by_version(server, headers):
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}/t/acme", concurrency=8) as client:
        pending = [
            client.async_infer("one", [tensor("x", ROWS + n, "FP32", binary=True)], headers=headers, model_version="1")
            for n in range(50)
        ]
        for n, one in enumerate(pending):
            assert np.array_equal(one.get_result().as_numpy("y"), ROWS + n + 1)


def test_tritonclient_asks_for_health_and_metadata(client, headers):
    assert client.is_server_live(headers=headers)
    assert client.is_server_ready(headers=headers)
    assert client.is_model_ready("one", headers=headers)
    assert client.is_model_ready("one", "1", headers=headers)
    assert not client.is_model_ready("absent", headers=headers)
    assert not client.is_model_ready("one", "2", headers=headers)
    assert not client.is_server_live(), "without a key there is nothing to see"
    assert client.get_server_metadata(headers=headers)["extensions"] == ["binary_tensor_data"]
    assert client.get_model_metadata("one", headers=headers) == {
        "name": "one",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
    }


@pytest.mark.parametrize("binary", [False, True])
def test_tritonclient_shows_our_errors_as_sentences(client, headers, binary):
    def message_of(model, inputs, **how):
        with pytest.raises(InferenceServerException) as raised:
            client.infer(model, inputs, **how)
        assert (raised.value.status() or "")[:1] == "4"
        return raised.value.message()

    good = [tensor("x", ROWS, "FP32", binary=binary)]
    assert "x" in message_of("one", [tensor("z", ROWS, "FP32", binary=binary)], headers=headers)
    assert "FP32" in message_of("one", [tensor("x", ROWS.astype(np.float64), "FP64", binary=binary)], headers=headers)
    assert message_of("absent", good, headers=headers) == "no such model"
    assert "Authorization: Bearer" in message_of("one", good)
    assert message_of("one", good, headers=headers, model_version="9") == "no such version"


def curl(*arguments: str) -> tuple[int, dict]:
    found = subprocess.run(
        ["curl", "--silent", "--show-error", "--max-time", "20", "--write-out", "\n%{http_code}", *arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    body, _, status = found.stdout.rpartition("\n")
    return int(status), json.loads(body)


@pytest.mark.parametrize(
    "how",
    [
        (),
        ("-H", "Content-Type: application/json"),
        ("-H", "Content-Type: application/json; charset=utf-8"),
        ("-H", "Transfer-Encoding: chunked"),
        ("-H", "Expect: 100-continue"),
        ("--http1.0",),
        ("--http2",),
        ("--compressed",),
    ],
    ids=lambda how: " ".join(how) or "as in the README",
)
def test_curl_calls_a_model(server, how):
    data = ADD_ONE.decode()
    authorization = f"Authorization: Bearer {server.key}"
    status, document = curl(f"{server.url}/t/acme/v2/models/one/infer", "-H", authorization, "-d", data, *how)
    assert status == 200, document
    assert document["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [1, 4], "data": [2, 3, 4, 5]}]


def test_curl_is_told_what_is_wrong(server):
    url, data = f"{server.url}/t/acme/v2/models/one/infer", ADD_ONE.decode()
    authorization = f"Authorization: Bearer {server.key}"
    assert curl(url, "-d", data)[0] == 401
    assert curl(url, "-H", authorization)[1]["code"] == "method_not_allowed"
    assert curl(url, "-H", authorization, "-d", data, "-H", "Content-Type: text/plain")[0] == 415
    assert curl(url, "-H", authorization, "-d", "{")[1]["code"] == "invalid_json"


def test_the_standard_library_calls_a_model(server):
    call = urllib.request.Request(
        f"{server.url}/t/acme/v1/models/one:predict",
        data=b'{"instances": [[1, 2, 3, 4]]}',
        headers={"Authorization": f"Bearer {server.key}"},
    )
    with urllib.request.urlopen(call, timeout=20) as answer:
        assert json.load(answer) == {"predictions": [[2, 3, 4, 5]]}


@pytest.fixture(scope="session")
def kserve_python():
    """An interpreter with kserve, whose pins contradict ours, in an environment of its own that is kept."""
    folder = WORK / "kserve-venv"
    python, done = folder / "bin" / "python", folder / "installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", folder], check=True)
        pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--quiet", "--no-compile", KSERVE], check=True)
        done.touch()
    return python


@pytest.mark.timeout(400)  # the first run downloads 450 MB
def test_kserves_client_calls_a_model(server, kserve_python):
    command = [kserve_python, CALLS, f"{server.url}/t/acme", server.key, "one"]
    found = subprocess.run(command, check=False, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    seen = json.loads(found.stdout.splitlines()[-1])
    status, message = seen.pop("error")
    assert status == 400
    assert "'x'" in message, "our sentence reaches the person"
    assert seen == {
        "server live": True,
        "server ready": True,
        "model ready": True,
        "absent ready": False,
        "json": ["json", "one", [[2, 3, 4, 5]]],
        "binary": ["binary", "one", [[2, 3, 4, 5]]],
        "v1 live": True,
        "v1 model ready": True,
        "v1": {"predictions": [[2, 3, 4, 5]]},
    }
