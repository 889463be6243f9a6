"""What a connection may send, and how slowly: uvicorn and its parser put no bound on a head, nor on how long it takes.

A head has a largest size and a time to be complete, a body a longest silence. One look a second at every connection
keeps the times, so that a call pays nothing for them. What is no HTTP is refused in the words of every other error.
"""

from collections.abc import Iterable
from typing import Any

import httptools
import orjson

from roost_gateway.http import OneWriteProtocol
from roost_gateway.request_ids import request_id_from
from roost_gateway.settings import LimitSettings

HEAD_BYTES = 64 * 1024
"""Request line and headers: the engine's link carries no more than a mebibyte of them."""

_LINGER_S = 1.0
"""A connection that is closed with unread bytes is reset, and the client may never see why it was refused."""

_PHRASES = {400: b"Bad Request", 431: b"Request Header Fields Too Large"}
_OF_UPGRADES = frozenset({b"connection", b"upgrade", b"http2-settings"})


class _NoCycle:
    """Stands for a request that has no head yet; uvicorn then takes nothing for its body."""

    response_complete = True


class GuardedProtocol(OneWriteProtocol):
    """One connection. `check` must be called about once a second."""

    def __init__(self, *arguments: Any, **how: Any) -> None:
        super().__init__(*arguments, **how)
        self._complete: list[tuple[bytes, bytes]] | None = None
        """The headers of the last request whose head is complete: uvicorn begins each request with a new list."""
        self._head_since: float | None = None
        self._head_bytes = 0
        """Of the pieces before the one that is being parsed."""
        self._piece_bytes = 0
        self._heard_at = 0.0
        self._too_large = False
        self._refused = False
        self._cycle_before: Any = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._head_since = self._heard_at = self.loop.time()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        self._heard_at = self.loop.time()
        self._feed(data)

    def check(self, now: float, limits: LimitSettings) -> None:
        """Close a connection that takes too long; `now` is the loop's time."""
        if self._refused or self.transport.is_closing() or self.flow.read_paused:
            return
        if self._head_since is not None:
            if now - self._head_since > limits.head_s:
                self._refuse(400, "head_timeout", f"the request's head was not complete within {limits.head_s:g} s")
        elif self._waits_for_body() and now - self._heard_at > limits.body_idle_s:
            self._refuse(400, "body_timeout", f"no byte of the body came for {limits.body_idle_s:g} s")

    def _waits_for_body(self) -> bool:
        cycle = self.cycle
        if cycle is None or cycle.response_complete or not cycle.more_body:
            return False
        return not cycle.waiting_for_100_continue  # such a client waits for us

    # Parsing

    def _feed(self, data: bytes) -> None:
        self._piece_bytes = len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._go_on_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            if self._too_large:
                self._refuse_head()
            else:
                self._refuse(400, "bad_http", "this is not a well-formed HTTP/1.1 request")
        else:
            if self.headers is not self._complete:
                self._wait_for_head()

    def on_headers_complete(self) -> None:
        if self._head_bytes + self._piece_bytes > HEAD_BYTES and self._head_size() > HEAD_BYTES:
            self._too_large = True
            raise ValueError("too large")  # ends the parsing
        self._complete, self._head_since, self._head_bytes = self.headers, None, 0
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            self._cycle_before, self.cycle = self.cycle, _NoCycle()  # type: ignore[assignment]
        else:
            super().on_headers_complete()

    def _wait_for_head(self) -> None:
        """A head has begun and is not complete. Where in its first piece it begins is not told; that counts as nothing."""
        if self._head_since is None:
            self._head_since = self._heard_at
            return
        self._head_bytes += self._piece_bytes
        if self._head_bytes > HEAD_BYTES:
            self._refuse_head()

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _go_on_without_upgrade(self, rest: bytes) -> None:
        """Answer in HTTP/1.1, as RFC 9110 (7.8) lets a server that knows no other protocol.

        The parser takes what follows an upgrade for that other protocol and would lose the body; clients that offer
        HTTP/2 with every request do send one.
        """
        self.cycle = self._cycle_before
        line = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        kept = [pair for pair in self.headers if pair[0] not in _OF_UPGRADES]
        if not self.parser.should_keep_alive():
            kept.append((b"connection", b"close"))
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._feed(line + b"".join(b"%b: %b\r\n" % pair for pair in kept) + b"\r\n" + rest)

    def _refuse_head(self) -> None:
        self._refuse(431, "head_too_large", f"the request's head is larger than {HEAD_BYTES} bytes")

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Say why and close. While an answer is under way nothing is said: it would be taken for that answer."""
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        if not self._may_answer():
            self.transport.close()
            return
        request_id = request_id_from(self.headers or ())
        body = orjson.dumps({"error": message, "code": code, "request_id": request_id})
        self.transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nx-request-id: %b\r\n"
            b"connection: close\r\n\r\n%b" % (status, _PHRASES[status], len(body), request_id.encode(), body)
        )
        self.transport.write_eof()
        self.loop.call_later(_LINGER_S, self.transport.close)
        if self.cycle is not None:  # the application is told at once
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _may_answer(self) -> bool:
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return True
        return self._waits_for_body() and not cycle.response_started


def check_all(connections: Iterable[Any], now: float, limits: LimitSettings) -> None:
    """`GuardedProtocol.check` for each of a server's connections."""
    for connection in list(connections):
        connection.check(now, limits)
