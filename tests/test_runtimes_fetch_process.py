"""A runtime as a container's process: told by its environment what to serve, it fetches, serves, or says why not."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

import models_for_tests as models
from artifact_parts import IRIS, SECRETS, path_of, serving_artifacts
from roost_platform.registry.store import DiskStore
from s3_faults import Fault, FaultProxy
from s3_parts import digest_of
from test_runtimes_server import Server, row

SLEEPER = json.dumps({"answer": 7}).encode()


@pytest.fixture(scope="module")
def add_one(tmp_path_factory) -> bytes:
    return models.add_one(tmp_path_factory.mktemp("models") / "m.onnx").read_bytes()


@pytest.fixture
def proxy(add_one, tmp_path) -> Iterator[FaultProxy]:
    """A door whose service has two versions: a model that adds one, and one that sleeps."""
    store = DiskStore(tmp_path / "data")
    for content in (add_one, SLEEPER):
        (tmp_path / "staged").write_bytes(content)
        store.put(tmp_path / "staged", digest_of(content))
    with serving_artifacts(store, {IRIS: [add_one, SLEEPER]}) as url, FaultProxy(url) as running:
        yield running


def contract(proxy: FaultProxy, content: bytes, **changes: str) -> dict[str, str]:
    """The environment of a container."""
    environment = {
        "ROOST_MODEL_NAME": "iris",
        "ROOST_MODEL_VERSION": "3",
        "ROOST_ARTIFACT_URL": proxy.url + path_of(content),
        "ROOST_ARTIFACT_DIGEST": digest_of(content),
        "ROOST_ARTIFACT_SIZE": str(len(content)),
        "ROOST_SERVICE_SECRET": SECRETS.of(IRIS),
        "ROOST_SLOTS": "2",
        "ROOST_MAX_BATCH_SIZE": "1",
        "ROOST_MAX_BODY_BYTES": "1000000",
    }
    return environment | changes


@contextmanager
def started(environment: dict[str, str], *arguments: str) -> Iterator[Server]:
    server = Server(*arguments, **environment)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
        server.process.communicate(timeout=30)


def test_the_environment_alone_says_what_to_serve(proxy, add_one, tmp_path):
    folder = tmp_path / "model"
    with started(contract(proxy, add_one, ROOST_MODEL_FOLDER=str(folder)), "--name", "iris") as server:
        address = server.wait_for("listening")["address"]
        assert server.wait_for("model_ready")["version"] == "3"
        secret = {"roost-service-secret": SECRETS.of(IRIS)}
        answer = httpx.post(f"http://{address}/v2/models/iris/infer", json=row(), headers=secret)
        assert answer.json()["outputs"][0]["data"] == [2, 3, 4, 5]
        large = httpx.post(f"http://{address}/v2/models/iris/infer", content=b" " * 1_000_001, headers=secret)
        assert large.status_code == 413
        assert httpx.post(f"http://{address}/v2/models/iris/infer", json=row()).status_code == 401
        assert server.end() == 0
    assert [f.name for f in folder.iterdir()] == [digest_of(add_one)]


def test_what_the_command_line_says_goes_first(proxy, add_one, tmp_path):
    (tmp_path / "other.onnx").write_bytes(add_one)
    flags = ("--model", str(tmp_path / "other.onnx"), "--version", "9", "--max-body-bytes", "10")
    with started(contract(proxy, SLEEPER), *flags) as server:
        address = server.wait_for("listening")["address"]
        assert server.wait_for("model_ready")["version"] == "9"
        secret = {"roost-service-secret": SECRETS.of(IRIS)}
        assert httpx.post(f"http://{address}/v2/models/m/infer", json=row(), headers=secret).status_code == 413
    assert proxy.requests == []


def test_another_factory_opens_the_file(proxy):
    with started(contract(proxy, SLEEPER, ROOST_MODEL_FACTORY="sleeper_model:SleeperModel")) as server:
        address = server.wait_for("listening")["address"]
        server.wait_for("model_ready")
        body = {"inputs": [{"name": "seconds", "datatype": "FP32", "shape": [1], "data": [0]}]}
        secret = {"roost-service-secret": SECRETS.of(IRIS)}
        answer = httpx.post(f"http://{address}/v2/models/m/infer", json=body, headers=secret).json()
        assert answer["outputs"][0]["data"] == [7]


def test_while_the_file_comes_it_lives_and_is_not_ready_and_a_sigterm_ends_it_at_once(proxy, add_one, tmp_path):
    proxy.faults.append(Fault("GET", stall_after=10))
    folder = tmp_path / "model"
    with started(contract(proxy, add_one, ROOST_MODEL_FOLDER=str(folder))) as server:
        address = server.wait_for("listening")["address"]
        while not list(folder.glob("*.part")):
            time.sleep(0.01)
        assert httpx.get(f"http://{address}/v2/health/live").status_code == 200
        assert httpx.get(f"http://{address}/v2/health/ready").status_code == 503
        loading = httpx.post(f"http://{address}/v2/models/m/infer", json=row())
        assert (loading.status_code, loading.json()["code"]) == (503, "loading")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=10) == 0
    assert list(folder.iterdir()) == []


def test_a_sigterm_before_it_listens_ends_it_too(proxy, add_one):
    """As the first process of a container it would not hear a signal that nothing listens for."""
    proxy.faults.append(Fault("GET", silent=True))
    with started(contract(proxy, add_one)) as server:
        while not proxy.requests:
            time.sleep(0.001)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=10) == 0


def test_a_sigterm_while_a_model_loads_ends_it_at_once(tmp_path):
    (tmp_path / "slow").write_text(json.dumps({"load_s": 600}))
    with started({}, "--model", str(tmp_path / "slow"), "--model-factory", "sleeper_model:SleeperModel") as server:
        server.wait_for("listening")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=10) == 0


@pytest.mark.parametrize(
    ("changes", "reason", "detail"),
    [
        ({"ROOST_ARTIFACT_DIGEST": "0" * 64}, "wrong_digest", "has sha256"),
        ({"ROOST_ARTIFACT_SIZE": "10"}, "wrong_digest", "longer than 10 bytes"),
        ({"ROOST_ARTIFACT_URL": "nonsense"}, "artifact_unreachable", "no http or https URL"),
        ({"ROOST_MODEL_FACTORY": "no.such:Thing"}, "runtime_missing", "no.such:Thing cannot be imported"),
    ],
)
def test_what_cannot_be_served_ends_the_process_with_a_plain_line(proxy, add_one, changes, reason, detail):
    with started(contract(proxy, add_one, **changes)) as server:
        line = server.wait_for("model_failed")
        assert line["reason"] == reason
        assert detail in line["detail"]
        assert "exception" not in line
        assert server.process.wait(timeout=30) == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ROOST_ARTIFACT_URL": ""}, "--model and --artifact-url"),
        ({"ROOST_ARTIFACT_DIGEST": "xyz"}, "--artifact-digest"),
        ({"ROOST_ARTIFACT_SIZE": "many"}, "--artifact-size"),
        ({"ROOST_SLOTS": "0"}, "--slots"),
        ({"PORT": "http"}, "--port"),
    ],
)
def test_an_environment_that_makes_no_sense_is_refused(proxy, add_one, changes, said):
    with started(contract(proxy, add_one, **changes)) as server:
        _, said_by_it = server.process.communicate(timeout=30)
        assert said in said_by_it
        assert server.process.returncode == 2
