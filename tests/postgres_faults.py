"""A proxy in front of PostgreSQL that does what networks do: a test tool.

with PostgresProxy(server.port) as proxy:
    proxy.slow_s = 10                    every answer takes so much longer
    proxy.cut_at_commit("lost")          the next COMMIT never reaches the server, and the connection is gone
    proxy.cut_at_commit("done")          the server commits, and its answer never arrives
    proxy.reset()                        all connections are reset
    proxy.refusing = True                and new ones closed at once
"""

import selectors
import socket
import struct
import threading
import time
from contextlib import suppress
from typing import Self

_RESET = struct.pack("ii", 1, 0)
_AT_ONCE = 65536


class PostgresProxy:
    def __init__(self, upstream: int) -> None:
        self.slow_s = 0.0
        self.refusing = False
        self.commits_cut = 0
        self._upstream = upstream
        self._how = ""
        self._links: set[_Link] = set()
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.05)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept)

    def cut_at_commit(self, how: str) -> None:
        assert how in ("lost", "done")
        self._how = how

    def reset(self) -> None:
        for link in list(self._links):
            link.reset()

    def take_commit(self) -> str:
        """What to do to this COMMIT: only the first one is cut."""
        how, self._how = self._how, ""
        self.commits_cut += bool(how)
        return how

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            client.setblocking(True)
            if self.refusing:
                client.close()
                continue
            try:
                link = _Link(self, client, socket.create_connection(("127.0.0.1", self._upstream)))
            except OSError:  # the server is away
                client.close()
                continue
            self._links.add(link)
            threading.Thread(target=self._serve, args=(link,), daemon=True).start()

    def _serve(self, link: "_Link") -> None:
        try:
            with suppress(OSError):
                link.run()
        finally:
            self._links.discard(link)
            link.close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()
        self._listener.close()
        self.reset()


class _Link:
    """One connection, both of its halves."""

    def __init__(self, proxy: PostgresProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server

    def run(self) -> None:
        """Carry bytes until one side is gone."""
        with selectors.DefaultSelector() as both:
            both.register(self._client, selectors.EVENT_READ)
            both.register(self._server, selectors.EVENT_READ)
            while True:
                for key, _ in both.select():
                    data = key.fileobj.recv(_AT_ONCE)  # type: ignore[union-attr]
                    if not data or not self._carry(data, from_client=key.fileobj is self._client):
                        return

    def _carry(self, data: bytes, *, from_client: bool) -> bool:
        if not from_client:
            time.sleep(self._proxy.slow_s)
            self._client.sendall(data)
            return True
        how = self._proxy.take_commit() if b"COMMIT" in data else ""
        if how != "lost":
            self._server.sendall(data)
        if how == "done":
            self._server.recv(_AT_ONCE)  # it has answered: it is done
        return not how

    def reset(self) -> None:
        with suppress(OSError):
            self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._client.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._client.close()
        self._server.close()
