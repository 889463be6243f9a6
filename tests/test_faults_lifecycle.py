"""The server's life under bad conditions, as a client sees it (K3, K13, K15, K26, K30, L3, L5): real processes, one try."""

import json
import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

import models_for_tests as models
from http_raw import ADD_ONE, Answer, Connection, request
from roost_process import RoostProcess, until, wait_until_gone

LENGTH = b"content-length: %d" % len(ADD_ONE)
TRIPS_A_SECOND = 100_000  # of the model slow_loop, roughly
STAGGERED = 6


@pytest.fixture
def server(tmp_path):
    server = RoostProcess(tmp_path)
    yield server
    server.end()


def infer(key: str, model: str, body: bytes = ADD_ONE) -> bytes:
    line = f"POST /t/acme/v2/models/{model}/infer HTTP/1.1".encode()
    return request(b"content-length: %d" % len(body), line=line, key=key, body=body)


def loop_call(key: str, trips: int) -> bytes:
    tensor = {"name": "trips", "datatype": "INT64", "shape": [1], "data": [trips]}
    return infer(key, "slow", json.dumps({"inputs": [tensor]}).encode())


def ask(server: RoostProcess, data: bytes, timeout: float = 60) -> Answer:
    with Connection(server.port, timeout=timeout) as connection:
        connection.send(data)
        return connection.answer()


def assert_added(answer: Answer) -> None:
    assert answer.status == 200, answer
    assert json.loads(answer.body)["outputs"][0]["data"] == [2, 3, 4, 5]


def in_flight(server: RoostProcess) -> float:
    return server.figures()["roost_requests_in_flight", frozenset()]


def answered(server: RoostProcess) -> float:
    return sum(value for (name, _), value in server.figures().items() if name == "roost_requests_total")


def test_k3_six_staggered_calls_finish_after_the_signal_and_the_process_follows(server, tmp_path):
    """The row's twelve seconds are about one here, its stagger of a second a tenth."""
    server.start()
    key = server.make_tenant()
    server.deploy(key, "slow", models.slow_loop(tmp_path / "slow.onnx"), container_concurrency=STAGGERED)
    children = server.children()

    def staggered(rank: int) -> tuple[Answer, float]:
        time.sleep(rank * 0.1)
        answer = ask(server, loop_call(key, TRIPS_A_SECOND + TRIPS_A_SECOND // 5))
        return answer, time.monotonic()

    with ThreadPoolExecutor(STAGGERED) as pool:
        calls = [pool.submit(staggered, rank) for rank in range(STAGGERED)]
        until(lambda: in_flight(server) == STAGGERED, within=30)
        server.signal(signal.SIGTERM)
        answers = [call.result() for call in calls]
    assert server.process.wait(30) == 0, server.log_tail()
    print(f"gone {time.monotonic() - max(end for _, end in answers):.3f} s after the last answer")
    assert {answer.status for answer, _ in answers} == {200}
    for answer, _ in answers:
        assert json.loads(answer.body)["outputs"][0]["shape"] == [64, 64]
    wait_until_gone(children, 1)


def test_k3_connections_that_are_kept_are_told_to_leave_and_none_is_cut(server, tmp_path):
    """Clients that call again and again through a stop: each gets an answer that says it is the last one."""
    server.start()
    key = server.make_tenant()
    server.deploy(key, "adder", models.add_one(tmp_path / "adder.onnx"), min_scale=1)

    def call_until_told() -> int:
        with Connection(server.port, timeout=60) as connection:
            answer, calls = None, 0
            while answer is None or answer.headers.get("connection") != "close":
                connection.send(infer(key, "adder"))
                answer = connection.answer()
                assert_added(answer)
                calls += 1
                time.sleep(0.01)  # so that the stop finds most connections idle
            return calls

    with ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(call_until_told) for _ in range(8)]
        until(lambda: answered(server) > 100, within=30)
        server.signal(signal.SIGTERM)
        assert all(client.result() > 1 for client in clients)
    assert server.process.wait(30) == 0, server.log_tail()


def test_k13_a_version_without_room_says_so_and_the_old_one_serves_on(tmp_path):
    server = RoostProcess(tmp_path, ROOST_LOCAL_MEMORY_BYTES="1")  # one replica, which is always admitted
    try:
        server.start()
        key = server.make_tenant()
        server.deploy(key, "one", models.add_one(tmp_path / "1.onnx"), min_scale=1)
        with server.client(key) as client:
            second = client.upload("one", models.infinite(tmp_path / "2.onnx"))

            def newest() -> dict:
                return next(r for r in client.status("one")["revisions"] if r["name"] == second["revision"])

            until(lambda: newest()["reason"] == "InsufficientCapacity")
            found = newest()
            assert (found["state"], found["ready"]) == ("deploying", "Unknown")
            assert "no memory or cores left" in found["message"]
            for _ in range(20):
                assert_added(ask(server, infer(key, "one")))
            client.set_scaling("one", {"min-scale": 0})
            until(lambda: newest()["state"] == "ready", within=30, what="the room of the old one")
        assert server.stop() == 0
    finally:
        server.end()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (
            request(
                b"connection: upgrade",
                b"upgrade: websocket",
                b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
                b"sec-websocket-version: 13",
                line=b"GET /t/acme/v2/models/one/infer HTTP/1.1",
            ),
            {401},
        ),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400}),
    ],
    ids=["websocket", "HTTP/2"],
)
def test_k26_what_speaks_another_protocol_is_told_in_ours(server, data, status):
    server.start()
    answer = ask(server, data)
    assert answer.status in status
    assert {"error", "code", "request_id"} <= json.loads(answer.body).keys()


def test_k26_grpc_and_websocket_with_a_key_get_a_clear_refusal(server, tmp_path):
    server.start()
    key = server.make_tenant()
    server.deploy(key, "one", models.add_one(tmp_path / "one.onnx"))
    upgrade = (b"connection: upgrade", b"upgrade: websocket", b"sec-websocket-version: 13")
    answer = ask(server, request(*upgrade, line=b"GET /t/acme/v2/models/one/infer HTTP/1.1", key=key))
    assert (answer.status, json.loads(answer.body)["code"]) == (405, "method_not_allowed")
    grpc = (b"content-type: application/grpc", b"te: trailers", b"content-length: 5")
    line = b"POST /inference.GRPCInferenceService/ModelInfer HTTP/1.1"
    answer = ask(server, request(*grpc, line=line, key=key, body=bytes(5)))
    assert answer.status in {404, 415}
    assert json.loads(answer.body)["error"]
    line = b"POST /t/acme/v2/models/one/infer HTTP/1.1"
    answer = ask(server, request(*grpc, line=line, key=key, body=bytes(5)))
    assert answer.status in {400, 415}
    assert json.loads(answer.body)["error"]
    assert_added(ask(server, infer(key, "one")))


def test_l3_a_killed_server_with_twenty_replicas_up_leaves_none_and_the_next_one_serves(server, tmp_path):
    server.start()
    key = server.make_tenant()
    server.deploy(key, "one", models.add_one(tmp_path / "one.onnx"), min_scale=20, max_scale=20)
    until(lambda: len(server.replicas("one")) == 20, within=60)
    before = server.kill()
    print(f"all gone after {wait_until_gone(before, 5):.3f} s")
    begin = time.monotonic()
    server.start()
    assert_added(ask(server, infer(key, "one")))
    print(f"serving after {time.monotonic() - begin:.3f} s")
    until(lambda: len(server.replicas("one")) == 20, within=60)
    assert not {process.pid for process in before if process.lives()}
    assert server.stop() == 0


def test_k15_a_replica_that_stands_still_is_replaced_once_long_before_its_calls_deadline(server, tmp_path):
    server.start()
    key = server.make_tenant()
    server.deploy(key, "one", models.add_one(tmp_path / "one.onnx"), min_scale=1, timeout=300)
    (replica,) = server.replicas("one")
    os.kill(replica.pid, signal.SIGSTOP)
    answer = ask(server, infer(key, "one"))
    document = json.loads(answer.body)
    assert (answer.status, document["code"], document["retryable"]) == (502, "replica_lost", True)
    wait_until_gone([replica], 5)
    assert_added(ask(server, infer(key, "one")))
    (lost,) = server.events("replica_lost")
    assert (lost["roost"]["pid"], lost["roost"]["reason"]) == (replica.pid, "Hung")
    assert len(server.replicas("one")) == 1
    assert server.stop() == 0


def test_k30_replicas_killed_one_by_one_under_load_lose_only_what_ran_on_them(server, tmp_path):
    server.start()
    key = server.make_tenant()
    options = {"min_scale": 3, "max_scale": 3, "container_concurrency": 1}
    server.deploy(key, "one", models.add_one(tmp_path / "one.onnx"), **options)
    until(lambda: len(server.replicas("one")) == 3)
    answers: list[Answer] = []
    rounds_left = threading.Event()
    rounds_left.set()

    def client() -> None:
        with Connection(server.port, timeout=60) as connection:
            while rounds_left.is_set():
                connection.send(infer(key, "one"))
                answers.append(connection.answer())

    killed = 0
    with ThreadPoolExecutor(6) as pool:
        clients = [pool.submit(client) for _ in range(6)]
        try:
            for _ in range(4):
                for replica in server.replicas("one"):
                    seen = len(answers)
                    until(lambda seen=seen: len(answers) > seen + 20)
                    os.kill(replica.pid, signal.SIGKILL)
                    killed += 1
                    until(lambda old=replica: not old.lives() and len(server.replicas("one")) == 3)
        finally:
            rounds_left.clear()
        for one in clients:
            one.result()
    assert killed == 12
    lost = [answer for answer in answers if answer.status != 200]
    for answer in answers:
        if answer.status == 200:
            assert_added(answer)
    for answer in lost:
        document = json.loads(answer.body)
        assert (answer.status, document["code"], document["retryable"]) == (502, "replica_lost", True)
    assert len(lost) <= killed, "each had one slot"
    outcomes = [row[2] for row in server.shipped_ledger(key)]
    assert (outcomes.count(200), outcomes.count(502)) == (len(answers) - len(lost), len(lost))
    assert server.stop() == 0


# L5: what the kernel refuses. A limit on a live process stands for a machine that has run out; it is lifted again.


def limited(pid: int, descriptors: int, then: Callable[[], None]) -> None:
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (descriptors, before[1]))
    try:
        then()
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def asleep_model(server: RoostProcess, tmp_path, name: str) -> str:
    """The tenant's key; the model sleeps, no process is kept ahead, and the journal is open."""
    server.start()
    key = server.make_tenant()
    server.deploy(key, name, models.add_one(tmp_path / f"{name}.onnx"), window=6)
    assert_added(ask(server, infer(key, name)))
    until(lambda: not server.replicas(name), within=30, what="sleep")
    return key


def assert_told(answer: Answer) -> None:
    assert answer.status == 503, answer
    document = json.loads(answer.body)
    assert (answer.status, document["code"]) in {(503, "fork_failed"), (503, "not_ready")}, document
    assert "no process could be started" in document["error"]
    assert answer.headers["retry-after"]
    assert "Traceback" not in answer.body.decode()


def test_l5_a_server_without_descriptors_says_so_and_recovers(tmp_path):
    server = RoostProcess(tmp_path, ROOST_LOCAL_SPARES="0")
    try:
        key = asleep_model(server, tmp_path, "one")
        with Connection(server.port, timeout=60) as connection:
            connection.send(infer(key, "missing"))
            assert connection.answer().status == 404  # so that this connection is there already

            def no_descriptors() -> None:
                for _ in range(3):
                    connection.send(infer(key, "one"))
                    assert_told(connection.answer())

            limited(server.process.pid, 4, no_descriptors)
        until(server.answers_ready, within=10)
        until(lambda: ask(server, infer(key, "one")).status == 200, within=20, what="recovery")
        assert_added(ask(server, infer(key, "one")))
        assert server.stop() == 0
    finally:
        server.end()


def test_l5_a_zygote_that_cannot_fork_is_told_and_recovers(tmp_path):
    """It is short of descriptors; short of processes, its fork fails on the same path."""
    server = RoostProcess(tmp_path, ROOST_LOCAL_SPARES="0")
    try:
        key = asleep_model(server, tmp_path, "one")
        server.deploy(key, "other", models.add_one(tmp_path / "other.onnx"), min_scale=1)
        others = server.replicas("other")
        (zygote,) = [child for child in server.children() if child.name == "roost:zygote"]

        def cannot_fork() -> None:
            for _ in range(3):
                assert_told(ask(server, infer(key, "one")))
                assert_added(ask(server, infer(key, "other")))

        limited(zygote.pid, 3, cannot_fork)
        assert zygote.lives()
        assert server.replicas("other") == others, "what runs is not touched"
        until(lambda: ask(server, infer(key, "one")).status == 200, within=20, what="recovery")
        assert_added(ask(server, infer(key, "one")))
        assert server.stop() == 0
    finally:
        server.end()
