"""The fast lane on a real server: requests whose heads repeat on one connection, and everything that may change between two.

The lane is chosen by timing and by bytes, so each test says what must hold of the answers whichever way a request took.
"""

import json
import random
import threading

import numpy as np
import pytest

import models_for_tests as models
from http_raw import ADD_ONE, Connection, request
from roost_process import RoostProcess, until

INFER = b"POST /t/acme/v2/models/%b/infer HTTP/1.1"
JSON = b"content-type: application/json"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lane")
    with RoostProcess(folder) as server:
        server.key = server.make_tenant()
        server.deploy(server.key, "one", models.add_one(folder / "one.onnx"), min_scale=1)
        server.deploy(server.key, "slow", models.slow_loop(folder / "slow.onnx"), min_scale=1)
        server.deploy(server.key, "same", models.identity(folder / "same.onnx", "FP32"), min_scale=1)
        yield server
        assert server.stop() == 0
        assert not server.events("prediction_failed")


def call(first: int, *headers: bytes, key: str, model: bytes = b"one") -> bytes:
    """A call of `add_one` with a body as long as those with another digit."""
    body = ADD_ONE.replace(b"[1,2,3,4]", b"[%d,2,3,4]" % first)
    length = b"content-length: %d" % len(body)
    return request(JSON, length, *headers, line=INFER % model, key=key, body=body)


def loops(trips: int, *headers: bytes, key: str) -> bytes:
    """A call that runs for `trips` / 150,000 seconds; all have the same length."""
    body = (b'{"inputs":[{"name":"trips","datatype":"INT64","shape":[1],"data":[%d]}]}' % trips).ljust(100)
    return request(JSON, b"content-length: 100", *headers, line=INFER % b"slow", key=key, body=body)


def first_of(connection: Connection) -> float:
    """What the next answer says was the first number, plus one."""
    answer = connection.answer()
    assert answer.status == 200, answer
    document = json.loads(answer.body)
    assert document["outputs"][0]["data"][1:] == [3, 4, 5]
    return document["outputs"][0]["data"][0]


def test_repeated_heads_give_each_body_its_own_answer_and_its_own_usage_event(server):
    with Connection(server.port) as connection:
        ids = []
        for number in (1, 2, 9, 5, 5):
            connection.send(call(number, key=server.key))
            answer = connection.answer()
            assert json.loads(answer.body)["outputs"][0]["data"] == [number + 1, 3, 4, 5]
            ids.append(answer.headers["x-request-id"])
    assert len(set(ids)) == 5
    events = server.shipped_ledger(server.key, "request_id, outcome, status, bytes_in, rows")
    assert [event for event in events if event[0] in ids] == [(one, "ok", 200, len(ADD_ONE), 1) for one in ids]


def test_a_known_head_whose_body_comes_later_or_in_bits_is_read_as_ever(server):
    with Connection(server.port) as connection:
        for number in (1, 2):
            connection.send(call(number, key=server.key))
            assert first_of(connection) == number + 1
        whole = call(7, key=server.key)
        cuts = [len(whole) - len(ADD_ONE), len(whole) - 1, 1, 40]
        for cut in cuts:
            connection.send(whole[:cut])
            connection.send(whole[cut:])
            assert first_of(connection) == 8
        connection.send(whole)
        assert first_of(connection) == 8


def test_requests_sent_ahead_are_answered_in_order(server):
    with Connection(server.port) as connection:
        connection.send(call(1, key=server.key))
        assert first_of(connection) == 2
        connection.send(b"".join(call(number, key=server.key) for number in (1, 2, 3, 4, 5)))
        assert [first_of(connection) for _ in range(5)] == [2, 3, 4, 5, 6]
        connection.send(call(6, key=server.key))
        connection.send(call(7, key=server.key) + call(8, key=server.key))
        assert [first_of(connection) for _ in range(3)] == [7, 8, 9]


def test_a_request_with_a_known_head_waits_for_the_one_before_it(server):
    with Connection(server.port) as connection:
        connection.send(call(1, key=server.key))
        assert first_of(connection) == 2
        connection.send(loops(100_000, key=server.key))
        connection.send(call(3, key=server.key))
        assert connection.answer().status == 200
        assert first_of(connection) == 4


def test_a_known_head_is_no_key(server):
    with server.client(server.key) as client:
        made = client.create_key("short-lived", ["predict"])
    with Connection(server.port) as connection:
        for number in (1, 2):
            connection.send(call(number, key=made["secret"]))
            assert first_of(connection) == number + 1
        with server.client(server.key) as client:
            client.revoke_key(made["id"])
        connection.send(call(3, key=made["secret"]))
        refused = connection.answer()
        assert (refused.status, json.loads(refused.body)["code"]) == (401, "unauthenticated")
        connection.send(call(4, key=server.key))
        assert first_of(connection) == 5


def test_a_known_head_reaches_the_version_that_serves_now_and_nothing_once_the_model_is_gone(server, tmp_path):
    server.deploy(server.key, "changing", models.add_one(tmp_path / "v1.onnx"), min_scale=1)
    with Connection(server.port) as connection:

        def version() -> str:
            connection.send(call(1, key=server.key, model=b"changing"))
            answer = connection.answer()
            assert answer.status == 200, answer
            return json.loads(answer.body)["model_version"]

        assert [version(), version()] == ["1", "1"]
        server.deploy(server.key, "changing", models.identity(tmp_path / "v2.onnx", "FP32", ("N", 4)), min_scale=1)
        until(lambda: version() == "2", what="version 2 answering")
        with server.client(server.key) as client:
            client.delete_model("changing")
        connection.send(call(1, key=server.key, model=b"changing"))
        gone = connection.answer()
        assert (gone.status, json.loads(gone.body)["code"]) == (404, "not_found")


def test_the_rate_limit_holds_for_known_heads(server, tmp_path):
    key = server.make_tenant("slowly", requests_per_second=1, burst=3)
    server.deploy(key, "one", models.add_one(tmp_path / "one.onnx"), min_scale=1)
    with Connection(server.port) as connection:
        line = INFER.replace(b"acme", b"slowly") % b"one"
        statuses = []
        for _ in range(8):
            body = b"content-length: %d" % len(ADD_ONE)
            connection.send(request(JSON, body, line=line, key=key, body=ADD_ONE))
            statuses.append(connection.answer().status)
    assert statuses[:3] == [200, 200, 200]
    assert statuses.count(429) >= 4, statuses


def test_a_connection_that_is_to_close_is_closed_after_the_answer(server):
    with Connection(server.port) as connection:
        connection.send(call(1, b"connection: close", key=server.key))
        assert first_of(connection) == 2
        assert connection.is_closed()


@pytest.mark.parametrize("warmed", [False, True])
def test_a_client_that_leaves_is_metered_once_and_gives_its_slot_back(server, warmed):
    mine = f"x-request-id: left-{warmed}".encode()
    with Connection(server.port) as connection:
        if warmed:
            connection.send(loops(1, mine, key=server.key))
            assert connection.answer().status == 200
        connection.send(loops(10**12, mine, key=server.key))
        until(lambda: in_flight(server) == 1, what="the call under way")
    until(lambda: in_flight(server) == 0, what="the slot given back")
    events = server.shipped_ledger(server.key, "request_id, outcome, status")
    left = [event[1:] for event in events if event[0] == f"left-{warmed}"]
    assert left == [("ok", 200)] * warmed + [("cancelled", 499)]


def in_flight(server) -> float:
    return server.figures()["roost_requests_in_flight", frozenset()]


def test_sigterm_lets_a_call_with_a_known_head_finish(tmp_path):
    with RoostProcess(tmp_path) as server:
        key = server.make_tenant()
        server.deploy(key, "slow", models.slow_loop(tmp_path / "slow.onnx"), min_scale=1)
        with Connection(server.port, timeout=60) as connection:
            connection.send(loops(1, key=key))
            assert connection.answer().status == 200
            connection.send(loops(300_000, key=key))
            until(lambda: in_flight(server) == 1, what="the call under way")
            status: list[int] = []
            stopping = threading.Thread(target=lambda: status.append(server.stop()))
            stopping.start()
            answer = connection.answer()
            assert (answer.status, answer.headers.get("connection")) == (200, "close"), (answer.body, server.log_tail())
            assert json.loads(answer.body)["model_name"] == "slow"
            stopping.join()
            assert status == [0]


@pytest.mark.parametrize("sizes", [(1, 7), (1, 6000), (5000, 200_000), (300_000, 600_000)])
def test_a_large_body_in_chunks_of_any_size_arrives_whole(server, sizes):
    chance = random.Random(str(sizes))
    numbers = np.arange(200_000 if sizes[0] > 1 else 20_000, dtype=np.float32)
    tensor = {"name": "x", "shape": [len(numbers)], "datatype": "FP32"}
    tensor["parameters"] = {"binary_data_size": numbers.nbytes}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    rest, chunks = head + numbers.tobytes(), []
    while rest:
        cut = chance.randint(*sizes)
        chunks.append(b"%x\r\n%b\r\n" % (len(rest[:cut]), rest[:cut]))
        rest = rest[cut:]
    with Connection(server.port, timeout=60) as connection:
        lengths = b"inference-header-content-length: %d" % len(head)
        for _ in range(2):
            connection.send(
                request(b"transfer-encoding: chunked", lengths, line=INFER % b"same", key=server.key)
                + b"".join(chunks)
                + b"0\r\n\r\n"
            )
            answer = connection.answer()
            assert answer.status == 200, answer.body
            split = int(answer.headers["inference-header-content-length"])
            assert np.array_equal(np.frombuffer(answer.body[split:], np.float32), numbers)
