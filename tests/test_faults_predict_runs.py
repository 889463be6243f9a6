"""Predictions that end in other ways than well: clients that leave (P13), models that fail (P15, S30), crowds (P16)."""

import asyncio
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import models_for_tests as models
from faulty_calls import assert_refused, request, tensor
from http_raw import ADD_ONE, Connection
from http_raw import request as raw_request
from roost_process import RoostProcess, until

ENDLESS = 10**12
LOOP = b"POST /t/acme/v2/models/loop/infer HTTP/1.1"
COLUMNS = "request_id, outcome, status, compute_us > 0, bytes_in, model"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    with RoostProcess(folder, ROOST_LOCAL_QUEUE_DEPTH="300") as server:
        server.key = server.make_tenant(concurrent_requests=1000)
        files = {
            "one": models.add_one(folder / "one.onnx"),
            "loop": models.slow_loop(folder / "loop.onnx"),
            "pick": models.fails_on_negative(folder / "pick.onnx"),
            "alloc": models.allocates(folder / "alloc.onnx"),
        }
        for name, file in files.items():
            batch = {"max_batch_size": 8} if name == "pick" else {}
            alone = {"container_concurrency": 1} if name != "pick" else {}
            server.deploy(server.key, name, file, min_scale=1, max_scale=1, **alone, **batch)
        yield server
        assert server.stop() == 0
        assert not server.events("prediction_failed")


def integers(name: str, *values: int) -> bytes:
    return request({"name": name, "datatype": "INT64", "shape": [len(values)], "data": list(values)})


def post(server: RoostProcess, model: str, body: bytes, **more: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {server.key}", "content-type": "application/json"} | more.pop("headers", {})
    return httpx.post(f"{server.url}/t/acme/v2/models/{model}/infer", content=body, headers=headers, timeout=60)


def in_flight(server: RoostProcess) -> float:
    return sum(value for (name, _), value in server.figures().items() if name == "roost_requests_in_flight")


def send(connection: Connection, server: RoostProcess, name: str, body: bytes, *, whole: bool = True) -> None:
    headers = (b"content-type: application/json", b"content-length: %d" % len(body), f"x-request-id: {name}".encode())
    data = raw_request(*headers, line=LOOP, key=server.key, body=body)
    connection.send(data if whole else data[:-5])


def test_p13_clients_that_leave_free_their_slot_and_are_recorded_once_by_the_written_rule(server: RoostProcess):
    for _ in range(5):  # so that it is known for slow, and runs where it can be ended
        assert post(server, "loop", integers("trips", 3000)).status_code == 200
    pid = server.replicas("loop")[0].pid
    with Connection(server.port) as early:  # small enough to be looked at only when it is whole
        send(early, server, "before-small", integers("trips", 1), whole=False)
    with Connection(server.port) as early:
        send(early, server, "before", integers("trips", 1) + b" " * 100_000, whole=False)
        until(lambda: in_flight(server) == 1, what="half a body at the gateway")
    until(lambda: in_flight(server) == 0, what="the end of the call that was given up before its body was whole")

    with Connection(server.port) as running, Connection(server.port) as waiting:
        send(running, server, "during", integers("trips", ENDLESS))
        until(lambda: in_flight(server) == 1, what="a run")
        send(waiting, server, "queued", integers("trips", ENDLESS))
        until(lambda: in_flight(server) == 2, what="a call in the queue")
        waiting.close()
        until(lambda: in_flight(server) == 1, what="the end of the call in the queue")
    until(lambda: in_flight(server) == 0, what="the end of the run that nobody waits for")

    with Connection(server.port) as late:
        send(late, server, "after", integers("trips", 10))
        until(lambda: in_flight(server) == 0 and outcome_of(server, "after"), what="an answer that nobody read")

    assert post(server, "loop", integers("trips", 3)).status_code == 200, "the only slot is free again"
    assert server.replicas("loop")[0].pid == pid, "runs were ended, not their process"
    rows = {row[0]: row[1:4] for row in server.shipped_ledger(server.key, COLUMNS) if row[5] == "loop"}
    assert rows["before"] == ("cancelled", 499, 0)
    assert rows.get("before-small", ("cancelled", 499, 0)) == ("cancelled", 499, 0)
    assert rows["during"][:2] == rows["queued"][:2] == ("cancelled", 499)
    assert rows["after"] == ("ok", 200, 1)
    names = Counter(row[0] for row in server.ledger())
    assert names["before-small"] <= 1
    assert all(names[name] == 1 for name in ("before", "during", "queued", "after"))


def outcome_of(server: RoostProcess, name: str) -> list[Any]:
    return [row for row in server.shipped_ledger(server.key) if row[0] == name]


def test_p13_five_hundred_clients_that_leave_at_any_moment_leave_nothing_behind(server: RoostProcess):
    body = integers("trips", 300)  # about 2 ms
    whole = raw_request(b"content-length: %d" % len(body), line=LOOP, key=server.key, body=body)
    before = len(server.shipped_ledger(server.key))
    for moment in range(500):
        with Connection(server.port) as connection:
            connection.send(whole[: len(whole) if moment % 2 else moment % len(whole)])
            if moment % 3 == 0 and moment % 2:
                assert connection.answer().status == 200
    until(lambda: in_flight(server) == 0, what="nobody waits")
    assert post(server, "loop", integers("trips", 3)).status_code == 200
    rows = server.shipped_ledger(server.key, COLUMNS)[before:]
    assert {row[1:3] for row in rows} <= {("ok", 200), ("cancelled", 499)}
    assert len({row[0] for row in rows}) == len(rows) <= 501


@contextmanager
def neighbours(server: RoostProcess) -> Iterator[list[int]]:
    """Somebody calls another model all the while; every answer must be right."""
    stop, statuses = threading.Event(), []

    def call() -> None:
        with httpx.Client(headers={"authorization": f"Bearer {server.key}"}, timeout=60) as client:
            while not stop.is_set():
                response = client.post(f"{server.url}/t/acme/v2/models/one/infer", content=ADD_ONE)
                right = response.status_code == 200 and response.json()["outputs"][0]["data"] == [2, 3, 4, 5]
                statuses.append(response.status_code if right else -response.status_code)

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield statuses
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert set(statuses) == {200}


def test_p15_a_model_that_raises_says_so_and_serves_on(server: RoostProcess):
    pid = server.replicas("pick")[0].pid
    with neighbours(server):
        refused = post(server, "pick", integers("index", 0, 7), headers={"x-request-id": "raises"})
        assert_refused(refused, 422, says="Gather")
        assert refused.json()["code"] == "model_error"
        assert post(server, "pick", integers("index", 2, 0)).json()["outputs"][0]["data"] == [30, 10]
    assert server.replicas("pick")[0].pid == pid
    rows = {row[0]: row[1:4] for row in server.shipped_ledger(server.key, COLUMNS)}
    assert rows["raises"] == ("model_error", 422, 1), "it was computed, so it is charged"


def test_p15_an_input_that_needs_more_memory_than_there_is(server: RoostProcess):
    with neighbours(server):
        for size in (2**50, 2**60):
            response = post(server, "alloc", integers("size", size), headers={"x-request-id": f"memory-{size}"})
            assert_refused(response, 502)
            assert response.json()["code"] == "out_of_memory"
        assert post(server, "alloc", integers("size", 3)).json()["outputs"][0]["data"] == [0, 0, 0]
        for size in (-5, 2**62, 2**63 - 1):
            assert_refused_somehow(post(server, "alloc", integers("size", size)))
    outcomes = {row[0]: row[1] for row in server.shipped_ledger(server.key)}
    assert outcomes[f"memory-{2**50}"] == "platform_error", "not charged"


def assert_refused_somehow(response: httpx.Response) -> None:
    """Sizes that no tensor can have: whether the model or the memory refuses them is ONNX Runtime's affair."""
    assert (response.status_code, response.json()["code"]) in [
        (422, "model_error"), (400, "invalid_input"), (502, "out_of_memory"),
    ], response.content  # fmt: skip


def test_p15_a_segfault_fails_what_ran_in_it_and_nobody_else(server: RoostProcess):
    (replica,) = server.replicas("loop")
    with (
        neighbours(server) as statuses,
        Connection(server.port, timeout=30) as running,
        Connection(server.port, timeout=30) as waiting,
    ):
        send(running, server, "segfault", integers("trips", ENDLESS))
        until(lambda: in_flight_of(server, "loop") == 0 and busy(replica.pid), what="a run")
        send(waiting, server, "behind-it", integers("trips", 5))
        until(lambda: in_flight_of(server, "loop") == 1, what="a call in the queue behind it")
        until(lambda: len(statuses) > 3, what="neighbours that are served")
        os.kill(replica.pid, signal.SIGSEGV)  # what a kernel that reads beyond its memory gets
        answer = running.answer()
        document = json.loads(answer.body)
        assert (answer.status, document["code"], document["retryable"]) == (502, "replica_lost", True)
        assert waiting.answer().status == 200, "it was not sent yet, so it waits for the next replica"
    assert [process.pid for process in server.replicas("loop")] != [replica.pid]
    rows = {row[0]: row[1:3] for row in server.shipped_ledger(server.key)}
    assert (rows["segfault"], rows["behind-it"]) == (("platform_error", 502), ("ok", 200))


def in_flight_of(server: RoostProcess, model: str) -> float:
    """Calls that wait in the model's queue."""
    found = server.figures().items()
    return sum(v for (name, labels), v in found if name == "roost_queue_length" and ("model", model) in labels)


def busy(pid: int) -> bool:
    """Whether a process has a thread that runs."""
    return any(
        (task / "stat").read_text().rpartition(")")[2].split()[0] == "R" for task in Path(f"/proc/{pid}/task").iterdir()
    )


async def test_s30_a_bad_row_in_a_batch_fails_alone_and_good_ones_are_exact(server: RoostProcess):
    limits = httpx.Limits(max_connections=8)
    headers = {"authorization": f"Bearer {server.key}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, limits=limits, timeout=60) as client:
        for _ in range(30):
            wanted = [[0], [1], [9], [2, 0], [0, 1, 2, 2], [-4], [1, 1], [2]]
            bodies = [integers("index", *rows) for rows in wanted]
            answers = await asyncio.gather(*(client.post("/t/acme/v2/models/pick/infer", content=b) for b in bodies))
            for rows, answer in zip(wanted, answers, strict=True):
                if max(rows) > 2 or min(rows) < -3:
                    assert_refused(answer, 422)
                else:
                    assert answer.json()["outputs"][0]["data"] == [10 * (row + 1) for row in rows]
    figures = [row for row in server.shipped_ledger(server.key, "model, rows, outcome") if row[0] == "pick"]
    assert Counter(figures)["pick", 4, "ok"] == 30


async def test_p16_a_thousand_at_the_same_moment_one_at_a_time(server: RoostProcess):
    """Depth 300: each gets its own right answer, or is told at once that the queue is full; none is lost."""

    async def call(number: int) -> str:
        body = request(tensor(data=[number] * 4))
        reader, writer = connections[number]
        head = b"content-length: %d" % len(body), b"content-type: application/json"
        line = b"POST /t/acme/v2/models/one/infer HTTP/1.1"
        writer.write(raw_request(*head, line=line, key=server.key, body=body))
        answer_head = await reader.readuntil(b"\r\n\r\n")
        length = int(answer_head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        document = json.loads(await reader.readexactly(length))
        if answer_head.startswith(b"HTTP/1.1 200 "):
            assert document["outputs"][0]["data"] == [number + 1] * 4
            return "ok"
        assert answer_head.startswith(b"HTTP/1.1 503 "), (answer_head, document)
        assert b"retry-after: " in answer_head
        return document["code"]

    before = len(server.shipped_ledger(server.key))
    connections = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(1000)]
    answers = Counter(await asyncio.gather(*map(call, range(1000))))
    for _, writer in connections:
        writer.close()
    assert set(answers) <= {"ok", "queue_full"}
    assert answers["ok"] >= 300
    assert answers.total() == 1000
    rows = server.shipped_ledger(server.key)[before:]
    assert (
        Counter(row[1:3] for row in rows)
        == Counter({("ok", 200): answers["ok"], ("platform_error", 503): answers["queue_full"]}) - Counter()
    )
