"""A whole gateway on a real Ray Serve of this machine. Run by `make test-ray`, not with the other tests: Ray takes its time."""

import asyncio
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

import models_for_tests as models
from engine_harness import KEY
from free_ports import free_port
from ray_harness import RayHarness
from roost_platform.domain.services import RevisionKey
from roost_process import Process, RoostProcess, descendants, until

BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0, 0, 0, 0]}]}
_START_S = 120.0
one_server = pytest.mark.xdist_group("one server")
"""Where tests run in several processes these stay together."""


class RayRoost(RoostProcess):
    """`roost serve --engine ray`, with a Ray of its own unless `address` names another."""

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

    def log_in(self) -> None:
        if not hasattr(self, "key"):
            self.key = self.make_tenant()
        self.http = httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {self.key}"}, timeout=120)

    def pids(self, beginning: str) -> list[int]:
        """Processes of its own Ray that are called so."""
        assert self.process is not None
        return called(descendants(self.process.pid), beginning)


def called(processes: list[Process], beginning: str) -> list[int]:
    found = []
    for process in processes:
        try:
            command = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")[0]
        except OSError:
            continue
        if command.startswith(beginning.encode()) or command.endswith(b"/" + beginning.encode()):
            found.append(process.pid)
    return found


@contextmanager
def running(folder: Path, **environment: str) -> Iterator[RayRoost]:
    server = RayRoost(folder, **environment)
    server.spawn()
    try:
        server.wait_until_ready()
        server.log_in()
        yield server
        server.http.close()
        assert server.stop(within=90) == 0
    finally:
        if server.process is not None and server.process.poll() is None:
            server.process.kill()


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    with running(tmp_path_factory.mktemp("ray")) as server:
        yield server


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


@one_server
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


@one_server
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


@one_server
def test_calls_go_straight_to_a_replica_which_stays_while_it_is_called(server, tmp_path):
    """Serve's autoscaler has to see requests that do not come through its proxy, or it puts a busy model to sleep."""
    deploy(server, "busy", models.add_one(tmp_path / "m.onnx"), window=6)
    assert call(server, "busy").status_code == 200
    until(lambda: awake(server, "busy") == 1, within=30, what="seen awake")
    (replica,) = server.pids("ray::ServeReplica:")
    proxy = _cpu_s(*server.pids("ray::ProxyActor"))
    with calls(server, "busy") as answers:
        time.sleep(20)  # three windows
    assert {status for _, status in answers} == {200}
    assert server.pids("ray::ServeReplica:") == [replica]
    assert _cpu_s(*server.pids("ray::ProxyActor")) - proxy < 0.001 * len(answers), "it has seen none of them"
    assert server.http.delete("/api/v1/models/busy").status_code == 204


def _cpu_s(pid: int) -> float:
    """Seconds of computing of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@one_server
@pytest.mark.timeout(300)
@pytest.mark.parametrize("victim", ["ray::ServeReplica:", "ray::ProxyActor", "ray::ServeController", "gcs_server"])
def test_what_dies_comes_back_and_only_calls_in_flight_fail(server, tmp_path, victim: str):
    """With the head all of Ray is started anew, and those who call meanwhile wait for it."""
    model = victim.removeprefix("ray::").rstrip(":").lower().replace("_", "-")
    deploy(server, model, models.add_one(tmp_path / "m.onnx"), **{"min-scale": 1})
    gateway = server.process.pid
    with calls(server, model) as answers:
        until(lambda: len(answers) > 5, within=60, what="calls")
        (pid, *_) = server.pids(victim)
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        until(lambda: server.pids(victim) and pid not in server.pids(victim), within=90, what=f"another {victim}")
        back = time.monotonic()
        until(lambda: [s for at, s in answers if at > back][-5:] == [200] * 5, within=90, what="answers again")
    failed = [status for _, status in answers if status != 200]
    assert set(failed) <= {502, 503}, Counter(failed)
    after = [status for at, status in answers if at > max(back, killed) + 15]
    assert set(after) <= {200}, Counter(after)
    assert (server.process.pid, server.process.poll()) == (gateway, None), "the gateway lives on"
    assert server.http.delete(f"/api/v1/models/{model}").status_code == 204


@pytest.mark.parametrize(
    "proxy",
    [
        {"ROOST_RAY_INGRESS": "proxy"},
        {"ROOST_RAY_INGRESS": "proxy", "RAY_SERVE_ENABLE_HA_PROXY": "1", "ROOST_RAY_OPEN_NETWORK": "true"},
    ],
    ids=["python", "haproxy"],
)
def test_through_serves_own_proxies(tmp_path, proxy):
    with running(tmp_path, **proxy) as server:
        deploy(server, "adds", models.add_one(tmp_path / "m.onnx"), window=6)
        assert [call(server, "adds").json()["outputs"][0]["data"] for _ in range(3)] == [[1, 1, 1, 1]] * 3
        assert bool(server.pids("haproxy")) == ("RAY_SERVE_ENABLE_HA_PROXY" in proxy)
        until(lambda: awake(server, "adds") == 0, within=120, what="asleep")
        assert call(server, "adds").status_code == 200, "woken through it"


DIRECT = {"RAY_SERVE_ENABLE_DIRECT_INGRESS": "1", "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2"}
TOKEN = {"RAY_AUTH_MODE": "token"}
HERE = {"PYTHONPATH": str(Path(__file__).parent)}
"""Where replicas find the model that behaves as told."""


class Head:
    """A Ray of somebody's on this machine: `ray start --head`."""

    def __init__(self, folder: Path) -> None:
        port = next(port for port in iter(free_port, None) if port >= 20_000)  # below are those of Ray's workers
        self.address = f"127.0.0.1:{port}"
        self._log = folder / "head.log"

    def start(self, *, cpus: int = 2) -> None:
        port = self.address.rpartition(":")[2]
        self._nodes = [self._start("--head", f"--port={port}", f"--num-cpus={cpus}", "--include-dashboard=false")]

    def add_node(self, cpus: int) -> None:
        """Another machine, as far as Ray knows."""
        until(lambda: "Ray runtime started" in self._log.read_text(), within=60, what="the head")
        self._nodes.append(self._start(f"--address={self.address}", f"--num-cpus={cpus}"))

    def _start(self, *options: str) -> subprocess.Popen[bytes]:
        command = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats", *options]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [*command, f"--object-store-memory={100 * 1024**2}"],
                stdout=log,
                stderr=log,
                env=os.environ | DIRECT | TOKEN,
            )

    def kill(self) -> None:
        left = [process for node in self._nodes for process in descendants(node.pid)]
        for process in left:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        for node in self._nodes:
            node.kill()
            node.wait()
        until(lambda: not any(process.lives() for process in left), within=30, what="the end of the head")

    def pids(self, beginning: str) -> list[int]:
        return called([process for node in self._nodes for process in descendants(node.pid)], beginning)


@pytest.mark.timeout(400)
def test_on_a_ray_of_somebodys_models_outlive_the_gateway_and_the_gateway_outlives_the_ray(tmp_path):
    head = Head(tmp_path)
    head.start()
    try:
        environment = {"ROOST_RAY_ADDRESS": head.address, "ROOST_SERVICE_SECRET_KEY": "0" * 64}
        server = RayRoost(tmp_path, **environment)
        server.spawn()
        server.wait_until_ready()
        server.log_in()
        deploy(server, "stays", models.add_one(tmp_path / "m.onnx"), **{"min-scale": 1})
        assert call(server, "stays").status_code == 200
        (replica,) = head.pids("ray::ServeReplica:")
        server.kill()
        server.spawn()
        server.wait_until_ready()
        until(lambda: awake(server, "stays") == 1, within=60, what="taken over")
        assert call(server, "stays").status_code == 200
        assert head.pids("ray::ServeReplica:") == [replica]
        head.kill()
        head.start()
        until(lambda: head.pids("ray::ServeReplica:"), within=180, what="the model on the new Ray")
        until(lambda: call(server, "stays").status_code == 200, within=120, what="answers again")
        assert server.http.delete("/api/v1/models/stays").status_code == 204
        until(lambda: not head.pids("ray::ServeReplica:"), within=60, what="nothing left on it")
        assert server.stop(within=90) == 0
    finally:
        if server.process is not None and server.process.poll() is None:
            server.process.kill()
        head.kill()


@pytest.mark.timeout(300)
async def test_what_replicas_print_on_other_machines_is_shown(tmp_path):
    """The head has no room for a replica; another node has."""
    head = Head(tmp_path)
    head.start(cpus=0)
    harness = RayHarness(address=head.address)
    try:
        await asyncio.to_thread(head.add_node, cpus=2)
        await harness.start(tmp_path)
        revision = harness.install(answer=1, says="a line of its own")
        await harness.apply(revision, min_scale=1)
        await harness.until_ready(revision)
        output = functools.partial(harness.engine.output, RevisionKey(KEY, revision.name))
        await harness.until(lambda: [line.text for line in output()] == ["a line of its own"])
        assert (await harness.call(revision))["answer"] == 1
        await harness.engine.delete(KEY)
        await harness.stop()
    finally:
        head.kill()
