"""HTTP/1.1 as bytes on a socket: for what no client library would send."""

import socket
from dataclasses import dataclass
from typing import Self

ADD_ONE = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[1,2,3,4]}]}'
"""A call of the model `add_one`."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


def request(
    *headers: bytes,
    line: bytes = b"POST /t/acme/v2/models/one/infer HTTP/1.1",
    key: str | None = None,
    body: bytes = b"",
    host: bool = True,
    end: bytes = b"\r\n",
) -> bytes:
    lines = [line] + ([b"host: roost"] if host else []) + ([f"authorization: Bearer {key}".encode()] if key else [])
    return end.join([*lines, *headers, b"", b""]) + body


class Connection:
    """A socket to the server; reads answers one by one."""

    def __init__(self, port: int, *, timeout: float = 10) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self._rest = b""

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def try_to_send(self, data: bytes) -> None:
        """As much as the server takes before it closes."""
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return

    def answer(self) -> Answer:
        """The next whole answer."""
        while b"\r\n\r\n" not in self._rest:
            self._read_more()
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        length = int(headers.get("content-length", 0))
        while len(self._rest) < length:
            self._read_more()
        body, self._rest = self._rest[:length], self._rest[length:]
        return Answer(int(status.split()[1]), headers, body)

    def is_closed(self) -> bool:
        """Whether the server closes without another byte. Waits for it as long as for an answer."""
        if self._rest:
            return False
        try:
            return self._socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def closes_within(self, seconds: float) -> bool:
        """Whether the server has closed by then; what it says before is dropped."""
        before = self._socket.gettimeout()
        self._socket.settimeout(seconds)
        try:
            while self._socket.recv(1 << 20):
                pass
        except (TimeoutError, BlockingIOError):
            return False
        except ConnectionResetError:
            return True
        finally:
            self._socket.settimeout(before)
        return True

    def close(self) -> None:
        self._socket.close()

    def _read_more(self) -> None:
        data = self._socket.recv(1 << 20)
        if not data:
            raise ConnectionResetError(f"closed after {self._rest!r}")
        self._rest += data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
