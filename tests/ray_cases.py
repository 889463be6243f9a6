"""A whole gateway on a real Ray Serve of this machine. Run by `make test-ray`, not with the other tests: Ray takes its time."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

import models_for_tests as models
from free_ports import free_port
from roost_process import RoostProcess, until

BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0, 0, 0, 0]}]}
_START_S = 120.0


class RayRoost(RoostProcess):
    """`roost serve --engine ray`, with a Ray of its own."""

    def __init__(self, folder: Path, **environment: str) -> None:
        ports = {"ROOST_INTERNAL_PORT": str(free_port()), "ROOST_RAY_HTTP_PORT": str(free_port())}
        ray = {"ROOST_ENGINE": "ray", "ROOST_RAY_CPUS": "2", "ROOST_RAY_REPLICA_CPUS": "0.1"}
        super().__init__(folder, **ports, **ray, **environment)

    def wait_until_ready(self) -> None:
        def ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.log_tail()
            return self.answers_ready()

        until(ready, within=_START_S, what="the server with its Ray")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ray")
    server = RayRoost(folder)
    server.spawn()
    try:
        server.wait_until_ready()
        server.key = server.make_tenant()
        server.http = httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {server.key}"}, timeout=120)
        yield server
        server.http.close()
        assert server.stop(within=90) == 0
    finally:
        if server.process is not None and server.process.poll() is None:
            server.process.kill()


def deploy(server: RayRoost, model: str, file: Path, **options) -> None:
    with server.client(server.key) as client:
        version = client.upload(model, file, options=options)["version"]
        until(lambda: client.version(model, version)["state"] != "deploying", within=120, what=f"{model} deployed")
        assert client.version(model, version)["state"] == "ready", client.version(model, version)


def call(server: RayRoost, model: str, version: int | None = None) -> httpx.Response:
    named = "" if version is None else f"/versions/{version}"
    return server.http.post(f"/t/acme/v2/models/{model}{named}/infer", json=BODY)


def awake(server: RayRoost, model: str) -> int:
    revisions = server.http.get(f"/api/v1/models/{model}/status").json()["revisions"]
    return sum(revision["replicas_ready"] for revision in revisions)


def pids(beginning: str) -> list[int]:
    """Processes that Ray has named so."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if command.startswith(beginning.encode()):
            found.append(int(folder.name))
    return found


@contextmanager
def calls(server: RayRoost, model: str) -> Iterator[list[tuple[float, int]]]:
    """Two callers without end; yields when each call was answered, and how."""
    answers: list[tuple[float, int]] = []
    over = threading.Event()

    def work() -> None:
        with httpx.Client(base_url=server.url, headers=server.http.headers, timeout=120) as http:
            while not over.is_set():
                status = http.post(f"/t/acme/v2/models/{model}/infer", json=BODY).status_code
                answers.append((time.monotonic(), status))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_from_upload_to_a_metered_answer_to_sleep_and_awake_again(server, tmp_path):
    deploy(server, "adds", models.add_one(tmp_path / "m.onnx"), window=6)
    answer = call(server, "adds")
    assert (answer.status_code, answer.json()["outputs"][0]["data"]) == (200, [1, 1, 1, 1])
    until(lambda: awake(server, "adds") == 0, within=120, what="asleep")
    assert call(server, "adds").status_code == 200
    until(lambda: awake(server, "adds") == 1, within=20, what="seen awake")
    with server.client(server.key) as client:
        usage = client.usage(group_by="model")
    (row,) = [row for row in usage["rows"] if row["model"] == "adds"]
    assert (row["requests"], row["billed_requests"], row["cold_starts"]) == (2, 2, 1)

    def held() -> int:
        with server.client(server.key) as client:
            rows = client.usage(group_by="model")["resources"]["rows"]
        return sum(row["provisioned_us"] for row in rows if row["model"] == "adds")

    until(held, within=60, what="provisioned seconds in the ledger")
    lines = server.http.get("/api/v1/models/adds/logs").text
    assert server.http.delete("/api/v1/models/adds").status_code == 204
    assert call(server, "adds").status_code == 404
    assert isinstance(lines, str)


def test_splits_named_versions_and_rollback(server, tmp_path):
    deploy(server, "two", models.add_one(tmp_path / "1.onnx"), **{"min-scale": 1})
    deploy(server, "two", models.adds(tmp_path / "2.onnx", 2), traffic="false")
    assert server.http.put("/api/v1/models/two/traffic", json={"split": {"1": 50, "2": 50}}).status_code == 200
    seen = Counter(call(server, "two").json()["outputs"][0]["data"][0] for _ in range(20))
    assert seen == {1: 10, 2: 10}
    assert call(server, "two", 2).json()["outputs"][0]["data"][0] == 2
    assert server.http.post("/api/v1/models/two/rollback", json={"version": 1}).status_code == 200
    assert {call(server, "two").json()["outputs"][0]["data"][0] for _ in range(5)} == {1}
    assert server.http.delete("/api/v1/models/two").status_code == 204


@pytest.mark.parametrize("victim", ["ray::ServeReplica:", "ray::ProxyActor", "ray::ServeController"])
def test_what_dies_comes_back_and_only_calls_in_flight_fail(server, tmp_path, victim: str):
    model = victim.removeprefix("ray::").rstrip(":").lower()
    deploy(server, model, models.add_one(tmp_path / "m.onnx"), **{"min-scale": 1})
    with calls(server, model) as answers:
        until(lambda: len(answers) > 5, within=60, what="calls")
        (pid, *_) = pids(victim)
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        until(lambda: pids(victim) and pid not in pids(victim), within=60, what=f"another {victim}")
        back = time.monotonic()
        until(lambda: [s for at, s in answers if at > back][-5:] == [200] * 5, within=60, what="answers again")
    failed = [status for _, status in answers if status != 200]
    assert set(failed) <= {502, 503}, Counter(failed)
    after = [status for at, status in answers if at > max(back, killed) + 15]
    assert set(after) <= {200}, Counter(after)
    assert server.http.delete(f"/api/v1/models/{model}").status_code == 204


@pytest.mark.timeout(400)
def test_a_head_that_dies_takes_its_gateway_along_and_both_come_back_with_all_models(server, tmp_path):
    """Ray ends the process of a driver whose head is gone. Whoever runs the server starts it again; this would tell if Ray learnt better."""
    deploy(server, "outlives", models.add_one(tmp_path / "m.onnx"), **{"min-scale": 1})
    (gcs,) = [pid for folder in Path("/proc").glob("[0-9]*") if _is_gcs(pid := int(folder.name))]
    os.kill(gcs, signal.SIGKILL)
    assert server.process is not None
    assert server.process.wait(120) != 0
    until(
        lambda: not (pids("ray::ServeReplica:") or pids("ray::ProxyActor")), within=60, what="the end of its processes"
    )
    server.spawn()
    server.wait_until_ready()
    until(lambda: call(server, "outlives").status_code == 200, within=180, what="answers again")
    assert server.http.delete("/api/v1/models/outlives").status_code == 204


def _is_gcs(pid: int) -> bool:
    try:
        return b"gcs_server" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
    except OSError:
        return False
