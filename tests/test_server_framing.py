"""Bytes on the wire that are not quite HTTP (S24), too slow (S27) or too many (P11, S23): a real server, raw sockets."""

import json
import random
import socket
import threading
import time
from pathlib import Path

import pytest

import models_for_tests as models
from http_raw import ADD_ONE, Connection, request
from roost_process import RoostProcess, until

LENGTH = b"content-length: %d" % len(ADD_ONE)
CHUNKED = b"transfer-encoding: chunked"
IN_CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(ADD_ONE), ADD_ONE)
INFER = b"POST /t/acme/v2/models/one/infer HTTP/1.1"


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


NOT_HTTP = {
    "CL and TE": ([LENGTH, CHUNKED], IN_CHUNKS),
    "TE and CL": ([CHUNKED, LENGTH], IN_CHUNKS),
    "two equal CLs": ([LENGTH, LENGTH], ADD_ONE),
    "two CLs": ([LENGTH, b"content-length: 5"], ADD_ONE),
    "list of CLs": ([LENGTH + b", 5"], ADD_ONE),
    "TE chunked, identity": ([b"transfer-encoding: chunked, identity"], IN_CHUNKS),
    "TE identity": ([b"transfer-encoding: identity"], IN_CHUNKS),
    "TE twice": ([CHUNKED, CHUNKED], IN_CHUNKS),
    "TE xchunked": ([b"transfer-encoding: xchunked"], IN_CHUNKS),
    "TE with a vertical tab": ([b"transfer-encoding: \x0bchunked"], IN_CHUNKS),
    "TE with a space before its colon": ([b"transfer-encoding : chunked"], IN_CHUNKS),
    "CL +5": ([b"content-length: +5"], b"abcde"),
    "CL -1": ([b"content-length: -1"], b""),
    "CL 0x10": ([b"content-length: 0x10"], b"x" * 16),
    "CL with a space inside": ([b"content-length: 7 5"], ADD_ONE),
    "CL empty": ([b"content-length:"], b""),
    "CL of 23 digits": ([b"content-length: 99999999999999999999999"], ADD_ONE),
    "bare LF inside the head": ([b"x-a: b\nx-c: d", LENGTH], ADD_ONE),
    "bare CR inside the head": ([b"x-a: b\rx-c: d", LENGTH], ADD_ONE),
    "NUL in a value": ([b"x-a: b\x00c", LENGTH], ADD_ONE),
    "folded line": ([b"x-a: b\r\n c", LENGTH], ADD_ONE),
    "space in a name": ([b"x a: b", LENGTH], ADD_ONE),
    "line without a colon": ([b"x-a", LENGTH], ADD_ONE),
    "chunks with bare LFs": ([CHUNKED], IN_CHUNKS.replace(b"\r\n", b"\n")),
    "chunk size +1": ([CHUNKED], b"+" + IN_CHUNKS),
    "chunk size 0x": ([CHUNKED], b"0x" + IN_CHUNKS),
    "chunk size over 64 bits": ([CHUNKED], b"f" * 17 + b"\r\n" + ADD_ONE),
    "chunk longer than it says": ([CHUNKED], b"2\r\n" + ADD_ONE + b"\r\n0\r\n\r\n"),
}
NO_REQUEST = {
    "bare LFs": request(LENGTH, end=b"\n", body=ADD_ONE),
    "unknown version": request(LENGTH, line=INFER[:-1] + b"2", body=ADD_ONE),
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "unknown method": request(LENGTH, line=b"BREW /t/acme/v2/models/one/infer HTTP/1.1", body=ADD_ONE),
    "CONNECT": request(line=b"CONNECT roost:80 HTTP/1.1"),
    "space in the path": request(LENGTH, line=b"POST /t/acme/v2 /models HTTP/1.1", body=ADD_ONE),
    "raw bytes in the path": request(line=b"GET /t/acme/\xc3\xa9 HTTP/1.1"),
    "TLS": bytes.fromhex("16030100c8010000c40303") + b"x" * 40,
    "zeros": b"\x00" * 100,
}


def assert_refused(server, data: bytes) -> None:
    with Connection(server.port) as connection:
        begin = time.monotonic()
        connection.send(data)
        answer = connection.answer()
        assert (answer.status, answer.headers["connection"]) == (400, "close")
        document = json.loads(answer.body)
        assert document["code"] == "bad_http"
        assert document["request_id"] == answer.headers["x-request-id"]
        assert connection.is_closed()
        assert time.monotonic() - begin < 5


@pytest.mark.parametrize("case", NOT_HTTP)
def test_s24_ambiguous_framing_is_refused_and_the_connection_closed(server, case):
    headers, body = NOT_HTTP[case]
    assert_refused(server, request(*headers, key=server.key, body=body))


@pytest.mark.parametrize("case", NO_REQUEST)
def test_s24_what_is_no_request_is_refused_and_the_connection_closed(server, case):
    assert_refused(server, NO_REQUEST[case])


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


def test_s24_random_damage_is_never_our_fault_and_never_hangs(server):
    """Each damaged request is followed by nothing: the server must answer or close by itself, or wait for more."""
    chance = random.Random(24)
    whole = request(LENGTH, b"connection: close", key=server.key, body=ADD_ONE)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(data))
            if chance.random() < 0.5:
                data[at] = chance.choice(b"\r\n\x00 :;,\xff0aG/%+")
            else:
                del data[at : at + chance.randint(1, 5)]
        with Connection(server.port) as connection:
            connection.send(data)
            connection._socket.shutdown(socket.SHUT_WR)  # no more will come, so even a short body has its end
            try:
                answer = connection.answer()
            except ConnectionResetError:
                continue
            assert answer.status < 500, (bytes(data), answer)


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


@pytest.mark.parametrize("sent", [b"", ADD_ONE[:10]], ids=["nothing", "a part"])
def test_s27_a_client_that_stops_in_its_body_is_let_go(server, sent):
    with Connection(server.port) as connection:
        connection.send(request(LENGTH, key=server.key, body=sent))
        answer = connection.answer()
        assert (answer.status, json.loads(answer.body)["code"]) == (400, "body_timeout")
        assert connection.is_closed()
    until(lambda: server.figures()["roost_requests_in_flight", frozenset()] == 0)


def test_s27_a_hundred_clients_that_send_nothing_or_dribble_are_let_go_and_others_are_served(server):
    silent = [Connection(server.port, timeout=15) for _ in range(50)]
    dribbling = [Connection(server.port, timeout=15) for _ in range(50)]
    stop = threading.Event()

    def dribble() -> None:
        for byte in request(LENGTH, key=server.key, body=ADD_ONE):
            for connection in dribbling:
                connection.try_to_send(bytes([byte]))
            if stop.wait(0.1):
                return

    thread = threading.Thread(target=dribble)
    thread.start()
    begin = time.monotonic()
    try:
        with Connection(server.port) as connection:
            while time.monotonic() - begin < 1.5:
                connection.send(request(LENGTH, key=server.key, body=ADD_ONE))
                assert connection.answer().status == 200
                time.sleep(0.05)
        for connection in silent + dribbling:
            answer = connection.answer()
            assert (answer.status, json.loads(answer.body)["code"]) == (400, "head_timeout")
        assert time.monotonic() - begin < 5
    finally:
        stop.set()
        thread.join()
        for connection in silent + dribbling:
            connection.close()
