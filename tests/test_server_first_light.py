"""The whole path over HTTP on a real server: upload, predict, sleep, wake, new version, rollback, delete, bill."""

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

import models_for_tests as models
from http_raw import Answer, Connection, request
from roost_process import RoostProcess, refusal_of, until

PARALLEL = 50


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with RoostProcess(tmp_path_factory.mktemp("first-light")) as server:
        yield server
        assert server.stop() == 0


def body_of(datatype: str, *values: float) -> bytes:
    tensor = {"name": "x", "datatype": datatype, "shape": [len(values)], "data": list(values)}
    return json.dumps({"inputs": [tensor]}).encode()


def infer_bytes(key: str, model: str, body: bytes, version: int | None = None, tenant: str = "acme") -> bytes:
    named = f"/versions/{version}" if version else ""
    line = f"POST /t/{tenant}/v2/models/{model}{named}/infer HTTP/1.1".encode()
    return request(b"content-length: %d" % len(body), line=line, key=key, body=body)


def infer(server: RoostProcess, key: str, model: str, body: bytes, version: int | None = None, **how: str) -> Answer:
    with Connection(server.port, timeout=60) as connection:
        connection.send(infer_bytes(key, model, body, version, **how))
        return connection.answer()


def data_of(answer: Answer) -> list[float]:
    assert answer.status == 200, answer
    (output,) = json.loads(answer.body)["outputs"]
    return output["data"]


class Load:
    """Calls one after another on a few connections, each answered before the next, until told to stop."""

    def __init__(self, server: RoostProcess, data: bytes, threads: int = 4) -> None:
        self.answers: list[Answer] = []
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(threads)
        self._runs = [self._pool.submit(self._run, server, data) for _ in range(threads)]

    def _run(self, server: RoostProcess, data: bytes) -> None:
        with Connection(server.port, timeout=60) as connection:
            while not self._stop.is_set():
                connection.send(data)
                self.answers.append(connection.answer())

    def stop(self) -> None:
        self._stop.set()
        for run in self._runs:
            run.result()
        self._pool.shutdown()


@contextmanager
def load(server: RoostProcess, data: bytes) -> Iterator[Load]:
    running = Load(server, data)
    try:
        yield running
    finally:
        running.stop()


def test_two_models_sleep_and_are_woken_by_fifty_calls_at_once_and_the_bill_is_exact(server, tmp_path):
    key = server.make_tenant("acme")
    server.deploy(key, "copy", models.identity(tmp_path / "copy.onnx", "FP32"), window=6)
    server.deploy(key, "inverse", models.infinite(tmp_path / "inverse.onnx"), window=6)
    assert data_of(infer(server, key, "copy", body_of("FP32", 4, 8))) == [4, 8]
    assert data_of(infer(server, key, "inverse", body_of("FP32", 4, 8))) == [0.25, 0.125]
    with server.client(key) as client:
        assert {m["model"]: m["state"] for m in client.models()["models"]} == {"copy": "ready", "inverse": "ready"}

        until(lambda: not server.replicas(), within=30, what="sleep")
        assert {m["model"]: m["state"] for m in client.models()["models"]} == {"copy": "asleep", "inverse": "asleep"}
        for model in ("copy", "inverse"):
            for revision in client.status(model)["revisions"]:
                assert (revision["ready"], revision["replicas_ready"]) == ("True", 0)

        barrier = threading.Barrier(PARALLEL)

        def first_call(number: int) -> None:
            model, value = ("copy", "inverse")[number % 2], 2.0 ** (number % 7)
            with Connection(server.port, timeout=60) as connection:
                barrier.wait()
                connection.send(infer_bytes(key, model, body_of("FP32", value)))
                assert data_of(connection.answer()) == [value if model == "copy" else 1 / value]

        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(first_call, range(PARALLEL)))

        usage = client.usage(group_by="model,outcome")
        assert {(row["model"], row["outcome"]): row["requests"] for row in usage["rows"]} == {
            ("copy", "ok"): 1 + PARALLEL // 2,
            ("inverse", "ok"): 1 + PARALLEL // 2,
        }
        assert usage["total"]["cold_starts"] >= 2
        statement = client.statement(f"{datetime.now(UTC):%Y-%m}")
        assert statement["charged_calls"] == sum(statement["calls"].values()) == PARALLEL + 2
    assert server.figures()["roost_activations_total", frozenset()] >= 2


def test_k22_k24_a_new_version_takes_over_under_load_without_a_failed_call_and_a_broken_one_never(server, tmp_path):
    key = server.make_tenant("k24")
    first, second = models.identity(tmp_path / "1.onnx", "FP32"), models.infinite(tmp_path / "2.onnx")
    call = body_of("FP32", 4)
    server.deploy(key, "m", first, min_scale=1)

    with load(server, infer_bytes(key, "m", call, tenant="k24")) as running:
        until(lambda: len(running.answers) > 50)
        version = server.deploy(key, "m", second)
        settled = len(running.answers)
        until(lambda: len(running.answers) > settled + 50)
    assert version["version"] == 2
    answered = [data_of(answer) for answer in running.answers]
    assert answered[:50] == [[4]] * 50
    assert answered[settled + 10 :] == [[0.25]] * len(answered[settled + 10 :])
    assert Counter(map(tuple, answered)).keys() == {(4,), (0.25,)}

    # Both versions answer when named, whatever the traffic.
    for number, value in ((1, 4), (2, 0.25)):
        assert data_of(infer(server, key, "m", call, number, tenant="k24")) == [value]
    with server.client(key) as client:
        # Back in one call.
        with load(server, infer_bytes(key, "m", call, tenant="k24")) as running:
            begin = time.monotonic()
            client.rollback("m", 1)
            assert data_of(infer(server, key, "m", call, tenant="k24")) == [4]
            assert time.monotonic() - begin < 1
        assert {answer.status for answer in running.answers} <= {200}

        # The same bytes again are the same version; with its file damaged on the disk, a new revision of it fails.
        digest = client.version("m", 2)["digest"]
        for file in server.data.rglob("*"):
            if digest in str(file) and file.is_file():
                file.chmod(0o600)
                file.write_bytes(bytes(file.stat().st_size))
        with load(server, infer_bytes(key, "m", call, tenant="k24")) as running:
            again = client.upload("m", second, options={"max-batch-size": 2})
            assert again["version"] == 2
            until(lambda: revision_of(client, again["revision"])["state"] != "deploying")
            settled = len(running.answers)
            until(lambda: len(running.answers) > settled + 20)
        broken = revision_of(client, again["revision"])
        assert (broken["state"], broken["ready"], broken["reason"]) == ("failed", "False", "LoadFailed")
        assert broken["message"]
        assert str(server.data) not in json.dumps(broken), "no path reaches a tenant"
        assert {tuple(data_of(answer)) for answer in running.answers} == {(4,)}
        assert [target["version"] for target in client.model("m")["traffic"]] == [1]
        assert refusal_of(lambda: client.rollback("m", 9)).status == 404


def revision_of(client, name: str) -> dict:
    return next(r for r in client.status("m")["revisions"] if r["name"] == name)


def test_k4_a_deleted_model_answers_what_it_has_begun_and_is_not_found_at_once(server, tmp_path):
    key = server.make_tenant("k4")
    server.deploy(key, "slow", models.slow_loop(tmp_path / "slow.onnx"), timeout=45)
    tensor = {"name": "trips", "datatype": "INT64", "shape": [1]}
    quick, long = ({"inputs": [{**tensor, "data": [trips]}]} for trips in (1, 200_000))
    with Connection(server.port, timeout=60) as connection, server.client(key) as client:
        connection.send(infer_bytes(key, "slow", json.dumps(long).encode(), tenant="k4"))
        until(lambda: server.figures()["roost_requests_in_flight", frozenset()] == 1)
        with ThreadPoolExecutor(1) as pool:
            deletion = pool.submit(client.delete_model, "slow")
            until(lambda: client.models() == {"models": []}, within=1)
            assert infer(server, key, "slow", json.dumps(quick).encode(), tenant="k4").status == 404
            assert not deletion.done(), "it waits for the call"
            answer = connection.answer()
            assert answer.status == 200
            assert json.loads(answer.body)["outputs"][0]["shape"] == [64, 64]
            deletion.result()
        until(lambda: not server.replicas("slow"), within=2)
        assert client.models() == {"models": []}
        # Its usage outlives it.
        outcomes = client.usage(group_by="outcome")["rows"]
        assert {row["outcome"]: row["requests"] for row in outcomes}["ok"] == 1
    assert not [labels for name, labels in server.figures() if ("model", "slow") in labels], "nor does its name stay"


def test_s23_a_call_that_fails_inside_names_nothing_of_ours(server, tmp_path):
    key = server.make_tenant("s23")
    server.deploy(key, "table", models.fails_on_negative(tmp_path / "t.onnx"))
    bad = json.dumps({"inputs": [{"name": "index", "datatype": "INT64", "shape": [1], "data": [99]}]}).encode()
    answer = infer(server, key, "table", bad, tenant="s23")
    document = json.loads(answer.body)
    assert (answer.status, document["code"]) == (422, "model_error")
    assert document["request_id"] == answer.headers["x-request-id"]
    for ours in (str(server.data), "/work", "Traceback", "site-packages", ".py", "onnxruntime_src"):
        assert ours not in answer.body.decode()


def test_k14_a_replica_killed_in_a_call_fails_that_call_only_and_is_replaced(server, tmp_path):
    key = server.make_tenant("k14")
    server.deploy(key, "slow", models.slow_loop(tmp_path / "slow.onnx"), min_scale=1)
    server.deploy(key, "copy", models.identity(tmp_path / "copy.onnx", "FP32"), min_scale=1)
    tensor = {"name": "trips", "datatype": "INT64", "shape": [1]}
    long, short = (json.dumps({"inputs": [{**tensor, "data": [n]}]}).encode() for n in (3_000_000, 1))
    with load(server, infer_bytes(key, "copy", body_of("FP32", 4), tenant="k14")) as others:
        with Connection(server.port, timeout=60) as connection:
            connection.send(infer_bytes(key, "slow", long, tenant="k14"))
            time.sleep(0.2)  # so that it runs
            os.kill(server.replicas("slow")[0].pid, signal.SIGKILL)
            answer = connection.answer()
        begin = time.monotonic()
        document = json.loads(answer.body)
        assert (answer.status, document["code"], document["retryable"]) == (502, "replica_lost", True)
        assert document["request_id"] == answer.headers["x-request-id"]
        assert infer(server, key, "slow", short, tenant="k14").status == 200
        assert time.monotonic() - begin < 2
    assert {answer.status for answer in others.answers} == {200}
    with server.client(key) as client:
        rows = client.usage(model="slow", group_by="outcome")["rows"]
    assert {row["outcome"]: row["billed_requests"] for row in rows} == {"platform_error": 0, "ok": 1}
