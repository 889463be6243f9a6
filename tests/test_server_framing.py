"""Unusual and very large requests that are HTTP (P11, S23): a real server, raw sockets. What is none: test_http_framing."""

import json
from pathlib import Path

import pytest

import models_for_tests as models
from http_raw import ADD_ONE, Connection, request
from roost_process import RoostProcess

LENGTH = b"content-length: %d" % len(ADD_ONE)
CHUNKED = b"transfer-encoding: chunked"
IN_CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(ADD_ONE), ADD_ONE)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("framing")
    limits = {"BODY_IDLE_S": "1", "HEAD_S": "2", "REQUEST_BYTES": str(4 << 20)}
    with RoostProcess(folder, **{f"ROOST_LIMIT_{name}": value for name, value in limits.items()}) as server:
        server.key = server.make_tenant()
        server.deploy(server.key, "one", models.add_one(folder / "one.onnx"), min_scale=1)
        yield server
        assert server.stop() == 0
        assert not server.events("prediction_failed")


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ([LENGTH], ADD_ONE),
        ([CHUNKED], IN_CHUNKS),
        ([CHUNKED], IN_CHUNKS.replace(b"\r\n", b";name=value\r\n", 1)),
        ([LENGTH, b"connection: upgrade, http2-settings", b"upgrade: h2c", b"http2-settings: AAMAAABk"], ADD_ONE),
        ([LENGTH, b"connection: upgrade", b"upgrade: websocket"], ADD_ONE),
        ([CHUNKED, b"connection: upgrade", b"upgrade: h2c"], IN_CHUNKS),
        ([b"content-length: 00%d" % len(ADD_ONE)], ADD_ONE),
    ],
    ids=[
        "length",
        "chunked",
        "chunk extension",
        "offers h2c",
        "offers websocket",
        "offers h2c, chunked",
        "leading zeros",
    ],
)
def test_what_is_well_formed_is_answered_and_the_connection_goes_on(server, headers, body):
    with Connection(server.port) as connection:
        for _ in range(2):
            connection.send(request(*headers, key=server.key, body=body))
            answer = connection.answer()
            assert answer.status == 200, answer
            assert json.loads(answer.body)["outputs"][0]["data"] == [2, 3, 4, 5]


def test_requests_sent_together_are_answered_in_order(server):
    numbers = range(20)
    calls = [request(LENGTH, b"x-request-id: r%d" % n, key=server.key, body=ADD_ONE) for n in numbers]
    with Connection(server.port) as connection:
        connection.send(b"".join(calls) + request(line=b"GET /livez HTTP/1.1"))
        assert [connection.answer().headers["x-request-id"] for _ in numbers] == [f"r{n}" for n in numbers]
        assert connection.answer().status == 200


def test_a_request_that_comes_byte_by_byte_is_answered(server):
    data = request(LENGTH, b"connection: upgrade", b"upgrade: h2c", key=server.key, body=ADD_ONE)
    with Connection(server.port) as connection:
        for at in range(len(data)):
            connection.send(data[at : at + 1])
        assert connection.answer().status == 200


@pytest.mark.parametrize("size", [70_000, 1_100_000, 20_000_000])
def test_p11_a_head_that_is_too_large_is_refused_and_harms_no_replica(server, size):
    before = [process.pid for process in server.replicas("one")]
    with Connection(server.port) as connection:
        connection.try_to_send(request(b"x-a: " + b"a" * size, LENGTH, key=server.key, body=ADD_ONE))
        try:
            answer = connection.answer()
        except ConnectionResetError:  # it closed while we were still sending
            assert size > 1_000_000
        else:
            assert (answer.status, json.loads(answer.body)["code"]) == (431, "head_too_large")
            assert connection.is_closed()
    assert [process.pid for process in server.replicas("one")] == before


def test_p11_many_headers_and_long_paths_are_taken_or_refused_clearly(server):
    with Connection(server.port) as connection:
        connection.send(request(*(b"x-%d: 1" % n for n in range(200)), LENGTH, key=server.key, body=ADD_ONE))
        assert connection.answer().status == 200
        for path in (b"/t/acme/v2/" + b"a" * 10_000, b"//t/acme/v2", b"/t/acme/./v2", b"/t/acme/v2/models/one/infer/"):
            connection.send(request(line=b"GET " + path + b" HTTP/1.1", key=server.key))
            answer = connection.answer()
            assert answer.status == 404, path
            assert json.loads(answer.body)["code"] == "not_found"


def test_s23_three_megabytes_in_chunks_of_a_byte_cost_no_memory(server):
    def resident() -> int:
        with Path(f"/proc/{server.process.pid}/statm").open() as file:
            return int(file.read().split()[1]) * 4096

    pieces = b"1\r\nx\r\n" * 300_000
    before = resident()
    with Connection(server.port, timeout=60) as connection:
        connection.send(request(CHUNKED, key=server.key))
        for _ in range(10):
            connection.send(pieces)
        connection.send(b"0\r\n\r\n")
        answer = connection.answer()
    assert (answer.status, json.loads(answer.body)["code"]) == (400, "invalid_json")
    assert resident() - before < 64 << 20


def test_a_body_over_the_limit_is_refused_before_it_is_sent(server):
    with Connection(server.port) as connection:
        connection.send(request(b"content-length: %d" % ((4 << 20) + 1), b"expect: 100-continue", key=server.key))
        answer = connection.answer()
        assert (answer.status, json.loads(answer.body)["code"]) == (413, "body_too_large")


def test_a_chunked_body_over_the_limit_is_refused_when_it_passes_it(server):
    with Connection(server.port) as connection:
        connection.send(request(CHUNKED, key=server.key))
        connection.try_to_send((b"100000\r\n" + b"x" * 0x100000 + b"\r\n") * 5 + b"0\r\n\r\n")
        assert connection.answer().status == 413
