"""HTTP/1.1 connections for one server: a request's bytes out, a status in. As little work in between as can be.

A load tester that spends its time on headers measures itself. So requests are bytes that were made beforehand, and of an
answer only the status and where it ends are kept; llhttp (through geventhttpclient) does the reading, so framing is right.
"""

from contextlib import suppress
from select import POLLIN
from socket import IPPROTO_TCP, TCP_NODELAY
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import gevent.ssl
from gevent import Timeout
from gevent import socket as gsocket
from gevent.monkey import get_original
from geventhttpclient.response import HTTPParseError, HTTPResponse

_READ_BYTES = 65536
_TRUST_S = 1.0
"""A connection that was idle for longer is looked at first: servers close what is idle, and then a request would be lost."""


class Refused(Exception):
    """There is no whole answer; the text is the class of error, as records have it."""


class _Answer(HTTPResponse):  # type: ignore[misc]  # the library has no types that mypy reads
    """Of an answer, only its status and its end. Its size is counted."""

    size = 0

    def _on_header_field(self, string: str) -> None:
        pass

    def _on_header_value(self, string: str) -> None:
        pass

    def _on_body(self, buf: bytearray) -> None:
        self.size += len(buf)


class Connections:
    """To one server, kept open from request to request; as many as there are requests in flight."""

    def __init__(self, url: str, *, timeout_s: float = 60.0) -> None:
        """Raises ValueError for another URL than http://host[:port] or https://…, OSError when the name is not known."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"{url!r} is no http or https URL")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        self.host = parts.netloc.rpartition("@")[2]
        """What the Host header says."""
        self._name = parts.hostname
        self._tls = gevent.ssl.create_default_context() if parts.scheme == "https" else None
        # Looked up once: a look-up for each connection would be measured as the server's time.
        self._addresses: list[Any] = gsocket.getaddrinfo(parts.hostname, port, type=gsocket.SOCK_STREAM)
        self._timeout_s = timeout_s
        self._idle: list[tuple[Any, float]] = []

    def exchange(self, request: bytes) -> tuple[int, int]:
        """Send it, and wait for the whole answer: its status, and the bytes of its body. Raises Refused.

        Nothing is sent twice: a request whose connection broke may have been carried out.
        """
        connection = None
        try:
            with Timeout(self._timeout_s):
                connection = self._take() or self._open()
                connection.sendall(request)
                answer = _Answer("POST")
                while not answer.message_complete or answer.get_code() < 200:  # 1xx comes before the answer proper
                    data = connection.recv(_READ_BYTES)
                    if data:
                        answer.feed(data)
                    else:
                        _feed_end(answer)
        except BaseException as error:
            if connection is not None:
                connection.close()
            if isinstance(error, Timeout):
                raise Refused("timeout") from error
            if isinstance(error, HTTPParseError):
                raise Refused("protocol") from error
            if isinstance(error, OSError):
                raise Refused(_class_of(error)) from error
            raise
        if answer.should_keep_alive():
            self._idle.append((connection, monotonic()))
        else:
            connection.close()
        return answer.get_code(), answer.size

    def close(self) -> None:
        while self._idle:
            self._idle.pop()[0].close()

    def _take(self) -> Any:
        """The one that was used last, so that the others may fall asleep; None when all are busy."""
        while self._idle:
            connection, since = self._idle.pop()
            if monotonic() - since < _TRUST_S or not _ended(connection):
                return connection
            connection.close()
        return None

    def _open(self) -> Any:
        """Of several addresses (`localhost` has two), the first that answers; it is the first from then on."""
        for index, address in enumerate(self._addresses):
            try:
                connection = self._open_to(*address)
            except ConnectionRefusedError:
                if index == len(self._addresses) - 1:
                    raise
            else:
                self._addresses.insert(0, self._addresses.pop(index))
                return connection
        raise AssertionError("there is one address or more")

    def _open_to(self, family: int, kind: int, protocol: int, _: str, address: Any) -> Any:
        connection = gsocket.socket(family, kind, protocol)
        try:
            connection.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
            connection.connect(address)
            if self._tls is not None:
                return self._tls.wrap_socket(connection, server_hostname=self._name)
        except BaseException:
            connection.close()
            raise
        return connection


def _class_of(error: OSError) -> str:
    if isinstance(error, gevent.ssl.SSLError):
        return "tls"
    return "refused" if isinstance(error, ConnectionRefusedError) else "connection"


def _feed_end(answer: _Answer) -> None:
    """The server has closed; that is how an answer without a length ends. Raises Refused for half an answer."""
    with suppress(HTTPParseError):
        answer.feed(b"")
    if not answer.message_complete:
        raise Refused("connection")


def _ended(connection: Any) -> bool:
    """Whether the server has closed an idle connection: there is something to read where nothing is due."""
    poll = get_original("select", "poll")()  # gevent's own would let other greenlets run
    poll.register(connection.fileno(), POLLIN)
    return bool(poll.poll(0))
