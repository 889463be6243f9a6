"""A proxy in front of an HTTP server that does to chosen requests what services and networks do: a test tool.

    with FaultProxy(server.url) as proxy:
        proxy.faults.append(Fault("GET", answer=(503, "SlowDown")))     the next GET is answered so
        proxy.faults.append(Fault("PUT", reset_after=1000, times=2))    the next two PUTs lose their connection
Requests that no fault is for go through as they are; `requests` lists all of them as (method, path with query), `headers`
what came with each, names in lower case.
"""

import http.client
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

_HOP = {"connection", "transfer-encoding", "keep-alive"}


@dataclass
class Fault:
    method: str
    path: str = ""
    """What the path with its query must contain."""
    times: int = 1
    answer: tuple[int, str] | None = None
    """Status and S3 error code, in place of the server's answer."""
    reset_after: int | None = None
    """Of the server's answer, these bytes of its body arrive; then the connection is reset."""
    silent: bool = False
    """Nothing is answered until the client leaves."""
    stall_after: int | None = None
    """Of the server's answer, these bytes of its body arrive; then nothing more."""
    lose_answer: bool = False
    """The server does it, and its answer never arrives."""
    whole: bool = False
    """The server is not told that a part is enough."""


class FaultProxy:
    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        assert parts.hostname is not None
        assert parts.port is not None
        self.upstream = (parts.hostname, parts.port)
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def take(self, method: str, path: str) -> Fault | None:
        self.requests.append((method, path))
        for fault in self.faults:
            if fault.times and fault.method == method and fault.path in path:
                fault.times -= 1
                return fault
        return None

    def count(self, method: str, path: str = "") -> int:
        return sum(one == method and path in other for one, other in self.requests)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    proxy: FaultProxy

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is what half of the faults are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.proxy.headers.append({name.lower(): value for name, value in self.headers.items()})
        fault = self.server.proxy.take(self.command, self.path)
        if fault is not None and fault.silent:
            self._wait_until_gone()
        elif fault is not None and fault.answer is not None:
            self._answer(*fault.answer)
        else:
            self._pass_on(body, fault)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do  # noqa: N815 - http.server's names

    def log_message(self, *_: object) -> None:
        """The tests say what matters."""

    def _answer(self, status: int, code: str) -> None:
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>made by a test</Message></Error>".encode()
        self.send_response(status)
        self.send_header("content-type", "application/xml")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def _pass_on(self, body: bytes, fault: Fault | None) -> None:
        upstream = http.client.HTTPConnection(*self.server.proxy.upstream, timeout=30)
        kept_back = _HOP | {"expect"} | ({"range"} if fault is not None and fault.whole else set())
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in kept_back:
                    upstream.putheader(name, value)
            upstream.endheaders(body)
            answer = upstream.getresponse()
            if fault is not None and fault.lose_answer:
                answer.read()
                self._reset()
                return
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in _HOP:
                    self.send_header(name, value)
            self.end_headers()
            self._send_body(answer, fault)
        finally:
            upstream.close()

    def _send_body(self, answer: http.client.HTTPResponse, fault: Fault | None) -> None:
        sent = 0
        for piece in _pieces(answer):
            limit = None if fault is None else fault.reset_after if fault.reset_after is not None else fault.stall_after
            if limit is not None and sent + len(piece) > limit:
                self.wfile.write(piece[: limit - sent])
                self.wfile.flush()
                if fault is not None and fault.stall_after is not None:
                    self._wait_until_gone()
                self._reset()
                return
            self.wfile.write(piece)
            sent += len(piece)

    def _wait_until_gone(self) -> None:
        self.connection.settimeout(0.05)
        while not self.server.proxy.closing.is_set():
            try:
                if not self.connection.recv(65536):
                    break
            except TimeoutError:
                continue
        self.close_connection = True

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True


def _pieces(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    while piece := answer.read(65536):
        yield piece
