"""A gateway as a process, over HTTP to a real runtime as a process: K28 and P13 where requests travel as they come."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import models_for_tests as models
from http_raw import Connection, request
from test_faults_lifecycle_bodies import TENSOR, call_of, peak_bytes
from test_runtimes_server import serving

MIB = 1024**2
SECRET = "s3cret-of-the-service"
SMALL = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[4],"data":[1,2,3,4]}]}'
LINE = b"POST /t/acme/v2/models/copy/infer HTTP/1.1"


@dataclass
class Gateway:
    process: subprocess.Popen[bytes]
    port: int
    key: str

    def end(self) -> list[list]:
        """The outcomes that it has journalled, in order."""
        out, _ = self.process.communicate(timeout=30)
        return json.loads(out)


@contextmanager
def gateway(folder: Path, url: str) -> Iterator[Gateway]:
    command = [sys.executable, str(Path(__file__).with_name("streaming_gateway.py")), str(folder), url, SECRET]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield Gateway(process, **json.loads(process.stdout.readline()))
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=30)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory) -> Iterator[str]:
    file = models.identity(tmp_path_factory.mktemp("model") / "copy.onnx", "FP32")
    options = ("--model", str(file), "--name", "copy", "--max-body-bytes", str(80 * MIB), "--slots", "2")
    with serving(*options, ROOST_SERVICE_SECRET=SECRET) as (_, address):
        yield f"http://{address}"


@pytest.fixture
def made(tmp_path, runtime) -> Iterator[Gateway]:
    with gateway(tmp_path, runtime) as running:
        yield running


def small(key: str) -> bytes:
    return request(b"content-length: %d" % len(SMALL), line=LINE, key=key, body=SMALL)


def test_k28_64_megabytes_up_and_a_reader_of_a_kilobyte_a_second_down_take_no_memory(made: Gateway):
    """The reader crawls for some seconds, in place of the eighteen hours that all of it would take, then reads the rest."""
    tensor = os.urandom(1 << 20) * (TENSOR >> 20) + bytes(TENSOR % (1 << 20))
    with Connection(made.port) as connection:
        connection.send(small(made.key))
        assert json.loads(connection.answer().body)["outputs"][0]["data"] == [1, 2, 3, 4]
    before = peak_bytes(made.process.pid)
    statuses: list[int] = []
    crawling = threading.Event()
    crawling.set()

    def others() -> None:
        with Connection(made.port, timeout=60) as connection:
            while crawling.is_set():
                connection.send(small(made.key))
                statuses.append(connection.answer().status)

    with ThreadPoolExecutor(1) as pool, socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(60)
        slow.connect(("127.0.0.1", made.port))
        calls = pool.submit(others)
        try:
            slow.sendall(call_of(tensor, made.key))
            received = slow.recv(1024)
            answered_before = len(statuses)
            for _ in range(3):
                time.sleep(1)  # this is the reader's pace
                received += slow.recv(1024)
            during = len(statuses) - answered_before
        finally:
            crawling.clear()
        calls.result()
        while b"\r\n\r\n" not in received:
            received += slow.recv(1024)
        head, _, body = received.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().lower().split("\r\n")[1:])
        assert head.startswith(b"HTTP/1.1 200 "), head
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        pieces, left = [body], int(headers["content-length"]) - len(body)
        while left:
            pieces.append(slow.recv(min(left, 1 << 20)))
            assert pieces[-1], "it was cut off"
            left -= len(pieces[-1])
    grown = peak_bytes(made.process.pid) - before
    print(f"{len(statuses)} other calls, {during} while the reader crawled; the peak grew by {grown / MIB:.1f} MiB")
    json_length = int(headers["inference-header-content-length"])
    assert hashlib.sha256(b"".join(pieces)[json_length:]).digest() == hashlib.sha256(tensor).digest()
    assert set(statuses) == {200}
    assert during > 0, "others were answered meanwhile"
    assert grown < 16 * MIB, "a few pieces, and what a megabyte of reading ahead takes: nothing of the 64"
    outcomes = made.end()
    assert outcomes == [["ok", 200]] * len(outcomes)
    assert len(outcomes) == len(statuses) + 2


def test_p13_clients_that_leave_at_any_moment_leave_nothing_behind(made: Gateway):
    large = call_of(bytes(8 * MIB), made.key)
    for number in range(24):
        with Connection(made.port) as connection:
            connection.try_to_send(large[: len(large) * number // 20])
            if number > 20:  # these leave while their answer comes
                connection._socket.recv(1 << (number - 10))
    with Connection(made.port) as connection:
        connection.send(small(made.key))
        assert connection.answer().status == 200
    outcomes = made.end()
    assert {tuple(outcome) for outcome in outcomes} <= {("ok", 200), ("cancelled", 499)}
    assert outcomes.count(["cancelled", 499]) >= 15
    assert len(outcomes) <= 25


def test_chunked_compressed_and_refused_bodies_are_the_runtimes_to_judge(made: Gateway):
    with Connection(made.port) as connection:
        half = len(SMALL) // 2
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (SMALL[:half], SMALL[half:])) + b"0\r\n\r\n"
        connection.send(request(b"transfer-encoding: chunked", line=LINE, key=made.key, body=chunks))
        assert json.loads(connection.answer().body)["outputs"][0]["data"] == [1, 2, 3, 4]
        connection.send(request(b"content-length: 2", b"x-request-id: mine", line=LINE, key=made.key, body=b"{]"))
        refused = connection.answer()
        document = json.loads(refused.body)
        assert (refused.status, document["request_id"]) == (400, "mine")
        connection.send(request(b"content-length: 2", b"content-type: text/html", line=LINE, key=made.key, body=b"{}"))
        assert connection.answer().status == 415
        gone = LINE.replace(b"copy", b"gone")
        connection.send(request(b"content-length: 2", line=gone, key=made.key, body=b"{}"))
        assert connection.answer().status == 404
    assert made.end() == [["ok", 200], ["client_error", 400], ["client_error", 415]]
