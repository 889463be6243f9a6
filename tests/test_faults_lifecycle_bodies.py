"""Large bodies, a reader that crawls and headers as they came, through a real server (K25, K28)."""

import hashlib
import json
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import models_for_tests as models
from http_raw import ADD_ONE, Connection, request
from roost_process import RoostProcess

FLOATS = 16_000_000
TENSOR = 4 * FLOATS  # 64 MB
CRAWL_S = 4
MIB = 1024**2


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with RoostProcess(tmp_path_factory.mktemp("bodies")) as server:
        server.key = server.make_tenant()
        folder = tmp_path_factory.mktemp("models")
        server.deploy(server.key, "copy", models.identity(folder / "copy.onnx", "FP32"), min_scale=1)
        server.deploy(server.key, "one", models.add_one(folder / "one.onnx"), min_scale=1)
        yield server
        assert server.stop() == 0


def peak_bytes(pid: int) -> int:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def call_of(tensor: bytes, key: str) -> bytes:
    described = {"name": "x", "datatype": "FP32", "shape": [len(tensor) // 4]}
    head = json.dumps(
        {
            "inputs": [{**described, "parameters": {"binary_data_size": len(tensor)}}],
            "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
        }
    ).encode()
    headers = (
        b"content-type: application/octet-stream",
        b"inference-header-content-length: %d" % len(head),
        b"content-length: %d" % (len(head) + len(tensor)),
    )
    return request(*headers, line=b"POST /t/acme/v2/models/copy/infer HTTP/1.1", key=key, body=head + tensor)


def test_k28_64_megabytes_up_and_a_reader_of_a_kilobyte_a_second_down(server):
    """The reader crawls for some seconds, in place of the eighteen hours that all of it would take, then reads the rest."""
    tensor = os.urandom(1 << 20) * (TENSOR >> 20) + bytes(TENSOR % (1 << 20))
    before = peak_bytes(server.process.pid)
    others: list[int] = []
    crawling = threading.Event()
    crawling.set()

    def other_calls() -> None:
        data = request(b"content-length: %d" % len(ADD_ONE), key=server.key, body=ADD_ONE)
        with Connection(server.port, timeout=60) as connection:
            while crawling.is_set():
                connection.send(data)
                answer = connection.answer()
                assert json.loads(answer.body)["outputs"][0]["data"] == [2, 3, 4, 5]
                others.append(answer.status)

    with ThreadPoolExecutor(1) as pool, socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(60)
        slow.connect(("127.0.0.1", server.port))
        calls = pool.submit(other_calls)
        try:
            slow.sendall(call_of(tensor, server.key))
            received = slow.recv(1024)
            answered_before = len(others)
            for _ in range(CRAWL_S):
                time.sleep(1)  # this is the reader's pace
                received += slow.recv(1024)
            during = len(others) - answered_before
        finally:
            crawling.clear()
        calls.result()
        head, _, body = received.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().lower().split("\r\n")[1:])
        assert head.startswith(b"HTTP/1.1 200 "), head
        left = int(headers["content-length"]) - len(body)
        pieces = [body]
        while left:
            pieces.append(slow.recv(min(left, 1 << 20)))
            assert pieces[-1], "it was cut off"
            left -= len(pieces[-1])
    grown = peak_bytes(server.process.pid) - before
    print(
        f"{len(others)} other calls, {during} of them while the reader crawled; the peak grew by {grown / MIB:.0f} MiB"
    )
    document = b"".join(pieces)
    json_length = int(headers["inference-header-content-length"])
    assert json.loads(document[:json_length])["outputs"][0]["shape"] == [FLOATS]
    assert hashlib.sha256(document[json_length:]).digest() == hashlib.sha256(tensor).digest()
    assert set(others) == {200}
    assert during > 0, "others were answered meanwhile"
    assert grown <= 2.2 * TENSOR, "two buffers, and some room for what the allocator keeps"


def test_k25_a_call_with_headers_for_others_and_of_users_is_answered_like_any_other(server):
    headers = (
        b"content-length: %d" % len(ADD_ONE),
        b"K-Network-Probe: activator",
        b"Knative-Serving-Revision: anothers-00001",
        b"User-Agent: kube-probe/1.30",
        b"X-Roost-Anything: 1",
        b"Roost-Service-Secret: guess",
        b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        b'X-User: \xe9\xff\x80 tab\tand "quotes"',
        b"Forwarded: for=192.0.2.60;proto=http",
    )
    with Connection(server.port) as connection:
        for _ in range(2):
            connection.send(request(*headers, key=server.key, body=ADD_ONE))
            answer = connection.answer()
            assert answer.status == 200, answer
            assert json.loads(answer.body)["outputs"][0]["data"] == [2, 3, 4, 5]
            assert not [name for name in answer.headers if name.startswith(("k-", "knative-", "x-roost", "roost-"))]
