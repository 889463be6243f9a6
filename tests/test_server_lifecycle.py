"""Start, stop and being one of one (L7, L8, S1, S2, L12): the process as an operator meets it."""

import asyncio
import json
import resource
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import models_for_tests as models
from http_raw import ADD_ONE, Answer, Connection, request
from roost_process import RoostProcess, descendants, until, wait_until_gone

LENGTH = b"content-length: %d" % len(ADD_ONE)
TRIPS_A_SECOND = 100_000  # of the model slow_loop, roughly


@pytest.fixture
def server(tmp_path):
    server = RoostProcess(tmp_path)
    yield server
    server.end()


def call(key: str, *headers: bytes) -> bytes:
    return request(LENGTH, *headers, key=key, body=ADD_ONE)


def long_call(key: str, seconds: float) -> bytes:
    tensor = {"name": "trips", "datatype": "INT64", "shape": [1], "data": [int(seconds * TRIPS_A_SECOND)]}
    body = json.dumps({"inputs": [tensor]}).encode()
    line = b"POST /t/acme/v2/models/slow/infer HTTP/1.1"
    return request(b"content-length: %d" % len(body), line=line, key=key, body=body)


def run_to_the_end(server: RoostProcess, *arguments: str) -> tuple[int, str]:
    """Exit status and output of another start with the same settings."""
    command = [sys.executable, "-m", "roost_gateway", "serve", *arguments]
    ended = subprocess.run(command, env=server.environment, check=False, capture_output=True, text=True, timeout=30)
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_l7_a_stop_under_load_answers_what_it_has_taken_and_leaves_nothing(server, tmp_path, number):
    server.start()
    key = server.make_tenant()
    server.deploy(key, "one", models.add_one(tmp_path / "one.onnx"))
    server.deploy(key, "slow", models.slow_loop(tmp_path / "slow.onnx"))
    children = server.children()
    acknowledged: list[str] = []
    broken: list[Answer] = []

    def client(name: int) -> None:
        """Calls until its connection is closed, which may only happen between two calls that were answered."""
        n = 0
        with Connection(server.port, timeout=30) as connection:
            while True:
                n += 1
                try:
                    connection.send(call(key, f"x-request-id: c{name}-{n}".encode()))
                    answer = connection.answer()
                except (ConnectionResetError, BrokenPipeError):
                    return
                (acknowledged if answer.status == 200 else broken).append(answer.headers["x-request-id"])
                if answer.headers.get("connection") == "close":
                    return

    with Connection(server.port, timeout=30) as slow, ThreadPoolExecutor(4) as pool:
        slow.send(long_call(key, 1.0))
        clients = [pool.submit(client, name) for name in range(4)]
        until(lambda: len(acknowledged) > 20)
        server.signal(number)
        answer = slow.answer()
        for one in clients:
            one.result()
    assert server.process.wait(30) == 0, server.log_tail()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert not broken
    wait_until_gone(children, 1)
    with server.start().client(key) as client:  # and the next one finds all of it
        total = client.usage()["total"]
        assert total["requests"] >= len(acknowledged) + 1
    ledger = {row[0] for row in server.ledger()}
    assert set(acknowledged) <= ledger
    assert server.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_l7_a_second_signal_of_either_kind_ends_at_once(server, tmp_path, number):
    server.start()
    key = server.make_tenant()
    server.deploy(key, "slow", models.slow_loop(tmp_path / "slow.onnx"))
    children = server.children()
    with Connection(server.port, timeout=30) as slow:
        slow.send(long_call(key, 20))
        until(lambda: server.figures()["roost_requests_in_flight", frozenset()] == 1)
        server.signal(signal.SIGTERM)
        until(lambda: not server.answers_ready())  # the first one was heard
        begin = time.monotonic()
        server.signal(number)
        assert server.process.wait(10) == 1, server.log_tail()
        assert time.monotonic() - begin < 5
    wait_until_gone(children, 1)
    assert server.start().stop() == 0


def test_l7_a_call_longer_than_the_grace_is_cut_off(tmp_path):
    server = RoostProcess(tmp_path, ROOST_GRACE_S="1", ROOST_LOCAL_DRAIN_S="1")
    try:
        server.start()
        key = server.make_tenant()
        server.deploy(key, "slow", models.slow_loop(tmp_path / "slow.onnx"))
        with Connection(server.port, timeout=30) as slow:
            slow.send(long_call(key, 60))
            until(lambda: server.figures()["roost_requests_in_flight", frozenset()] == 1)
            begin = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - begin < 8
    finally:
        server.end()


def test_a_stop_while_it_starts_ends_it(server):
    process = server.spawn()
    until(lambda: any(child.name == "roost:zygote" for child in descendants(process.pid)))
    server.signal(signal.SIGTERM)
    assert process.wait(10) in (0, -signal.SIGTERM)
    assert not descendants(process.pid)


def test_l8_a_second_process_on_the_folder_says_so_and_ends(server):
    server.start()
    status, output = run_to_the_end(server, "--port", "0")
    assert status == 1
    assert f"another Roost (process {server.process.pid}) already uses this data folder" in output
    assert "Traceback" not in output
    assert server.answers_ready(), "the first one is not harmed"


def test_l5_a_port_in_use_says_so_and_ends(server, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, output = run_to_the_end(server, "--port", str(port))
    assert status == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in output
    assert "--port" in output
    assert "Traceback" not in output
    assert not (server.data / "roost.db").exists(), "nothing was begun"


def test_s2_an_open_address_without_a_key_is_refused(server):
    del server.environment["ROOST_OPERATOR_KEY"]
    for host in ("0.0.0.0", "::"):
        status, output = run_to_the_end(server, "--host", host, "--port", "0")
        assert status == 1
        assert f"refusing to listen on {host} without an operator key: set ROOST_OPERATOR_KEY" in output
    assert not server.data.exists()


def test_settings_that_are_wrong_are_named(server):
    server.environment["ROOST_LOCAL_SPARES"] = "many"
    status, output = run_to_the_end(server, "--port", "0")
    assert (status, "ROOST_LOCAL_SPARES" in output) == (2, True)
    server.environment["ROOST_LOCAL_SPARES"] = "1"
    server.environment["ROOST_OPERATOR_KEY"] = "short-but-secret"
    status, output = run_to_the_end(server, "--port", "0")
    assert (status, "ROOST_OPERATOR_KEY" in output) == (2, True)
    assert "short-but-secret" not in output


def test_a_data_folder_that_cannot_be_used_is_said(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    status, output = run_to_the_end(server, "--port", "0", "--data", str(tmp_path / "file"))
    assert status == 1
    assert "data folder" in output
    assert "Traceback" not in output


def test_s1_no_route_tells_anything_without_a_key(server):
    server.start()
    from urllib3 import PoolManager

    pool = PoolManager(retries=False)
    document = pool.request("GET", f"{server.url}/openapi.json").json()
    names = {"tenant": "acme", "model": "one", "key_id": "x", "number": "1", "month": "2026-11"}
    asked = 0
    for path, methods in document["paths"].items():
        if not path.startswith("/api/"):
            continue
        filled = path
        for part in [p for p in path.split("/") if p.startswith("{")]:
            filled = filled.replace(part, names.get(part.strip("{}"), "x"))
        for method in methods:
            answer = pool.request(method.upper(), f"{server.url}{filled}", body=b"{}")
            assert (answer.status, answer.json()["code"]) == (401, "unauthenticated"), (method, path)
            asked += 1
    assert asked >= 20


def test_probes_and_metrics_answer_and_only_to_get(server):
    server.start()
    with Connection(server.port) as connection:

        def ask(path: str, method: str = "GET") -> Answer:
            connection.send(request(b"x-request-id: mine", line=f"{method} {path} HTTP/1.1".encode()))
            answer = connection.answer()
            assert answer.headers["x-request-id"] == "mine"
            return answer

        well = {"status": "ok"}
        parts = {name: {"state": "ok"} for name in ("serving", "usage", "database")}
        for path, body in (("/livez", well), ("/readyz", well | {"parts": parts})):
            answer = ask(path)
            assert (answer.status, json.loads(answer.body)) == (200, body)
            refused = ask(path, "POST")
            assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")
            assert json.loads(refused.body)["code"] == "method_not_allowed"
        answer = ask("/metrics")
        assert (answer.status, answer.headers["content-type"].split(";")[0]) == (200, "text/plain")
        assert ask("/nothing").status == 404


def test_l12_a_disk_that_is_full_for_usage_refuses_calls_and_charges_none_of_them(server, tmp_path):
    """A file size limit on the live server stands for the full disk; it is lifted as a full disk is cleared."""
    server.start()
    key = server.make_tenant()
    server.deploy(key, "one", models.add_one(tmp_path / "one.onnx"), min_scale=1)
    pid = server.process.pid
    answered: list[str] = []
    refused: list[Answer] = []
    with Connection(server.port, timeout=30) as connection:

        def one_call(number: int) -> None:
            connection.send(call(key, b"x-request-id: call-%d" % number))
            answer = connection.answer()
            if answer.status == 200:
                answered.append(answer.headers["x-request-id"])
            else:
                refused.append(answer)

        for number in range(50):
            one_call(number)
        assert len(answered) == 50
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        for number in range(50, 100):
            one_call(number)
        assert len(refused) == 50
        assert {(answer.status, json.loads(answer.body)["code"]) for answer in refused} == {(507, "storage_full")}
        assert server.answers_ready()
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
        for number in range(100, 150):
            one_call(number)
    assert len(answered) == 100
    assert [row[0] for row in server.shipped_ledger(key)] == answered
    assert server.stop() == 0


async def test_a_client_that_leaves_is_metered_once_and_its_slot_is_free(server, tmp_path):
    """P13 over real sockets: clients that close while a model with one slot runs for them."""
    await asyncio.to_thread(server.start)
    key = server.make_tenant()
    await asyncio.to_thread(
        lambda: server.deploy(
            key, "slow", models.slow_loop(tmp_path / "slow.onnx"), container_concurrency=1, max_scale=1
        )
    )
    for _ in range(5):
        with Connection(server.port) as connection:
            connection.send(long_call(key, 30))
            await asyncio.sleep(0.1)
    with Connection(server.port, timeout=30) as connection:
        connection.send(long_call(key, 0.001))
        begin = time.monotonic()
        assert connection.answer().status == 200, "thirty seconds each were not waited for"
        assert time.monotonic() - begin < 5
    await asyncio.to_thread(until, lambda: server.figures()["roost_requests_in_flight", frozenset()] == 0)
    outcomes = [row[1] for row in server.shipped_ledger(key)]
    assert sorted(outcomes) == ["cancelled"] * 5 + ["ok"]


def test_a_replica_inherits_no_file_of_the_server(server, tmp_path):
    """Its log among them: what a replica says is the tenant's to read, and must not look like the server's own lines."""
    server.start()
    key = server.make_tenant()
    server.deploy(key, "one", models.add_one(tmp_path / "one.onnx"), min_scale=1)
    children = [c for c in server.children() if c.name.startswith("roost:") and c.name != "roost:zygote"]
    assert len(children) > 1
    for child in children:
        opened = {str(entry.readlink()) for entry in Path(f"/proc/{child.pid}/fd").iterdir()}
        assert not {name for name in opened if name.startswith("/")} - {"/dev/null"}, child
