"""Sends requests: wrk for throughput; plain sockets for latency, at a steady pace or all at once."""

import os
import random
import select
import shutil
import socket
import subprocess
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models import Body

_POST_LUA = Path(__file__).with_name("post.lua")
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Target:
    """Where a model answers."""

    port: int
    path: str
    headers: tuple[tuple[str, str], ...] = ()

    def request(self, body: Body) -> bytes:
        lines = [f"POST {self.path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", f"Content-Length: {len(body.content)}"]
        lines += [f"{name}: {value}" for name, value in (*self.headers, *body.headers)]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body.content


class WrongAnswer(Exception):
    """A contender did not answer, or not with what onnxruntime answers."""


class Connection:
    """A kept-alive connection with at most one request under way."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self.since = 0.0

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, request: bytes) -> None:
        self.socket.sendall(request)

    def receive(self) -> tuple[int, bytes] | None:
        """Read once: status and body when the answer is complete, else None. Raises WrongAnswer when it breaks off."""
        data = self.socket.recv(262_144)
        if not data:
            raise WrongAnswer("the connection was closed before an answer")
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return None
        start = head.lower().find(b"content-length:")
        if start < 0:
            raise WrongAnswer("an answer without Content-Length")
        length = int(head[start + 15 :].split(b"\r\n", 1)[0])
        if len(rest) < length:
            return None
        self._buffer = rest[length:]
        return int(head[9:12]), rest[:length]

    def call(self, request: bytes) -> tuple[bytes, float]:
        """One request: the answer's body and its milliseconds. Raises WrongAnswer unless the status is 200."""
        begun = time.perf_counter()
        self.send(request)
        while (answer := self.receive()) is None:
            pass
        took = (time.perf_counter() - begun) * 1e3
        if answer[0] != 200:
            raise WrongAnswer(f"status {answer[0]}: {answer[1][:300].decode(errors='replace')}")
        return answer[1], took

    def close(self) -> None:
        self.socket.close()


def call_once(target: Target, body: Body) -> tuple[bytes, float]:
    connection = Connection(target.port)
    try:
        return connection.call(target.request(body))
    finally:
        connection.close()


def at_once(targets: Sequence[Target], body: Body) -> list[tuple[bytes, float]]:
    """One request to each, all sent in one go over open connections: answers and milliseconds since the first send."""
    connections = [Connection(target.port) for target in targets]
    requests = [target.request(body) for target in targets]
    results: dict[int, tuple[bytes, float]] = {}
    poll = select.epoll()
    order = {connection.fileno(): index for index, connection in enumerate(connections)}
    for descriptor in order:
        poll.register(descriptor, select.EPOLLIN)
    try:
        begun = time.perf_counter()
        for connection, request in zip(connections, requests, strict=True):
            connection.send(request)
        while len(results) < len(targets):
            events = poll.poll(_TIMEOUT_S)
            if not events:
                raise WrongAnswer(f"{len(targets) - len(results)} of {len(targets)} requests got no answer")
            for descriptor, _ in events:
                index = order[descriptor]
                answer = connections[index].receive()
                if answer is not None:
                    if answer[0] != 200:
                        raise WrongAnswer(f"status {answer[0]}: {answer[1][:300].decode(errors='replace')}")
                    results[index] = answer[1], (time.perf_counter() - begun) * 1e3
    finally:
        poll.close()
        for connection in connections:
            connection.close()
    return [results[index] for index in range(len(targets))]


def paced(target: Target, body: Body, *, rate: float, seconds: float, connections: int = 64) -> list[float]:
    """Requests at random moments (Poisson) at `rate` per second, answered or not: sorted milliseconds of each.

    A request counts from the moment it was due, so that a server's pause is felt by all that fall into it. One that
    finds every connection busy waits, and that wait counts too. Connections come from `select`, whose timeout is exact
    to microseconds (those of poll and epoll are to milliseconds).
    """
    request = target.request(body)
    idle = deque(Connection(target.port) for _ in range(connections))
    everyone = list(idle)
    busy: set[Connection] = set()
    arrivals = random.Random(1)
    took: list[float] = []
    clock = time.perf_counter
    due = clock() + 0.01
    end = due + seconds
    try:
        while busy or due < end:
            now = clock()
            while due <= now and due < end and idle:
                connection = idle.popleft()
                connection.since = due
                connection.send(request)
                busy.add(connection)
                due += arrivals.expovariate(rate)
            wait = max(0.0, due - clock()) if due < end and idle else _TIMEOUT_S
            readable, _, _ = select.select(busy, (), (), wait)
            if not readable and wait == _TIMEOUT_S:
                raise WrongAnswer("no answer in time")
            for connection in readable:
                answer = connection.receive()
                if answer is not None:
                    if answer[0] != 200:
                        raise WrongAnswer(f"status {answer[0]}")
                    took.append((clock() - connection.since) * 1e3)
                    busy.discard(connection)
                    idle.append(connection)
    finally:
        for connection in everyone:
            connection.close()
    return sorted(took)


def require_wrk() -> None:
    if shutil.which("wrk") is None:
        raise SystemExit("the benchmark needs wrk: apt-get install wrk")


def wrk(target: Target, body: Body, *, connections: int, seconds: float) -> dict[str, float]:
    """A closed loop of one thread: answers, seconds, failures, p50_ms and p99_ms."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "30s", "-s", str(_POST_LUA)]
    for name, value in (*target.headers, *body.headers):
        command += ["-H", f"{name}: {value}"]
    command.append(f"http://127.0.0.1:{target.port}{target.path}")
    environment = os.environ | {"BENCH_BODY": str(body.file)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds + 60, check=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("figures "))
    names = ("answers", "seconds", "failures", "p50_ms", "p99_ms")
    return dict(zip(names, map(float, line.split()[1:]), strict=True))
