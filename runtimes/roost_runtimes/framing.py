"""What a connection may send, and how slowly: uvicorn and its parser put no bound on a head, nor on how long it takes.

A head has a largest size and a time to be complete, a body a longest silence; what llhttp lets pass and RFC 9110 and
9112 do not is refused. One look a second at every connection keeps the times, so that a call pays nothing for them.

The gateway and the runtime each have this file, word for word: neither may import the other, and the two must agree on
where a request ends.
"""

import re
from collections.abc import Iterable
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 64 * 1024
"""Request line and headers, and again trailers: the engine's link carries no more than a mebibyte of them."""

_LINGER_S = 1.0
"""A connection that is closed with unread bytes is reset, and the client may never see why it was refused."""
_ANSWERED_S = 5.0
"""How long the rest of a body is read and thrown away after its request was answered."""

_PHRASES = {400: b"Bad Request", 431: b"Request Header Fields Too Large"}
_OF_UPGRADES = frozenset({b"connection", b"upgrade", b"http2-settings"})

_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~-]*)(?::[0-9]*)?")
_ABSOLUTE = re.compile(rb"(?i:https?)://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~-]+)(?::[0-9]*)?(?=[/?]|\Z)")


class NotHttp(ValueError):
    """Ends the parsing: httptools passes it on as an error of its own."""


class _NoCycle:
    """Stands for a request that has no head yet; uvicorn then takes nothing for its body."""

    response_complete = True


class Guard(HttpToolsProtocol):
    """One connection. `check` must be called about once a second; `refusal` makes the body of what is said at the end."""

    def __init__(self, *arguments: Any, **how: Any) -> None:
        super().__init__(*arguments, **how)
        self._trailers: list[tuple[bytes, bytes]] | None = None
        """Where headers go once the head is complete; uvicorn begins each request with a list of its own."""
        self._in_body = False
        self._brought_body = False
        self._head_since: float | None = None
        self._head_bytes = 0
        """Of the pieces before the one that is being parsed: of a head, or of a body's framing."""
        self._piece_bytes = 0
        self._heard_at = 0.0
        self._answered_at: float | None = None
        self._too_large = False
        self._refused = False
        self._cycle_before: Any = None

    def refusal(self, code: str, message: str) -> tuple[bytes, bytes]:
        """Further header lines, each with its CR LF, and the JSON body of a refusal."""
        raise NotImplementedError

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._head_since = self._heard_at = self.loop.time()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        self._heard_at = self.loop.time()
        was_in_body, heads, self._brought_body = self._in_body, self._trailers, False
        self._feed(data)
        if self._refused:
            return
        if self._in_body:
            if not self._brought_body and was_in_body:
                self._count_head()
        elif self.headers is not self._trailers or (heads is self._trailers and not was_in_body):
            self._wait_for_head()

    def check(self, now: float, *, head_s: float, body_idle_s: float) -> None:
        """Close a connection that takes too long; `now` is the loop's time."""
        if self._refused or self.transport.is_closing() or self.flow.read_paused:
            return
        if self._head_since is not None:
            if now - self._head_since > head_s:
                self._refuse(400, "head_timeout", f"the request's head was not complete within {head_s:g} s")
        elif self._in_body:
            self._check_body(now, body_idle_s)

    def _check_body(self, now: float, idle_s: float) -> None:
        cycle = self.cycle
        if cycle is not None and cycle.response_complete:
            if self._answered_at is None:
                self._answered_at = now
            elif now - self._answered_at > _ANSWERED_S:
                self.transport.close()
        elif now - self._heard_at > idle_s and not (cycle is not None and cycle.waiting_for_100_continue):
            self._refuse(400, "body_timeout", f"no byte of the body came for {idle_s:g} s")

    # Parsing

    def _feed(self, data: bytes) -> None:
        self._piece_bytes = len(data)
        pieces: list[bytes | memoryview] = [data]  # the next one last
        while pieces:
            piece = pieces.pop()
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade as upgrade:
                pieces += (memoryview(piece)[upgrade.args[0] :], self._begin_again_without_upgrade())
            except httptools.HttpParserError:
                if self._too_large:
                    self._refuse_head()
                else:
                    self._refuse(400, "bad_http", "this is not a well-formed HTTP/1.1 request")
                return

    def on_headers_complete(self) -> None:
        headers = self.headers
        if self._head_bytes + self._piece_bytes > HEAD_BYTES and _size(headers) + len(self.url) > HEAD_BYTES:
            self._too_large = True
            raise NotHttp
        check_fields(self.parser.get_http_version(), headers)
        self.url = origin_form(self.parser.get_method(), self.url)
        self._in_body, self._head_since, self._answered_at, self._head_bytes = True, None, None, 0
        if self.parser.should_upgrade():
            self._cycle_before, self.cycle = self.cycle, _NoCycle()  # type: ignore[assignment]
        else:
            super().on_headers_complete()
            self.headers = self._trailers = []  # so that trailers never pass for headers

    def on_body(self, body: bytes) -> None:
        self._brought_body, self._head_bytes = True, 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._trailers and _size(self._trailers) > HEAD_BYTES:
            self._too_large = True
            raise NotHttp
        self._in_body, self._head_bytes = False, 0
        super().on_message_complete()

    def _wait_for_head(self) -> None:
        """A head has begun and is not complete. Where in its first piece it begins is not told; that counts as nothing."""
        if self._head_since is None:
            self._head_since = self._heard_at
        else:
            self._count_head()

    def _count_head(self) -> None:
        """One more piece that brought neither a request nor a part of a body."""
        self._head_bytes += self._piece_bytes
        if self._head_bytes > HEAD_BYTES:
            self._refuse_head()

    def _begin_again_without_upgrade(self) -> bytes:
        """The head for a new parser, to answer in HTTP/1.1, as RFC 9110 (7.8) lets a server that knows no other protocol.

        The parser takes what follows an upgrade for that other protocol and would lose the body; clients that offer
        HTTP/2 with every request do send one. So the new parser is given the same head without the offer.
        """
        self.cycle = self._cycle_before
        line = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        kept = [pair for pair in self.headers if pair[0] not in _OF_UPGRADES]
        if not self.parser.should_keep_alive():
            kept.append((b"connection", b"close"))
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return line + b"".join(b"%b: %b\r\n" % pair for pair in kept) + b"\r\n"

    # Refusing

    def _refuse_head(self) -> None:
        self._refuse(431, "head_too_large", f"the request's head is larger than {HEAD_BYTES} bytes")

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Say why and close. While an answer is owed nothing is said, as it would be taken for that answer."""
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        if self._owes_answer():
            if self._in_body:
                self.transport.close()
            else:
                self.cycle.keep_alive = False  # what came whole is answered, then the connection ends
            return
        more, body = self.refusal(code, message)
        self.transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%bconnection: close\r\n\r\n%b"
            % (status, _PHRASES[status], len(body), more, body)
        )
        self.transport.write_eof()
        self.loop.call_later(_LINGER_S, self.transport.close)
        if self.cycle is not None:  # the application is told at once
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _owes_answer(self) -> bool:
        """Whether requests before the refused one are not answered yet, or its own answer has begun."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return False
        return bool(self.pipeline) or not self._in_body or cycle.response_started


def check_fields(version: str, headers: list[tuple[bytes, bytes]]) -> None:
    """`headers` have lower-case names; a Content-Length loses the spaces around it.

    Raises NotHttp for what the parser lets pass: another version than 1.0 and 1.1, a Host that is missing, repeated or
    malformed, a Transfer-Encoding other than chunked.
    """
    hosts = 0
    for at, (name, value) in enumerate(headers):
        if name == b"host":
            hosts += 1
            if _HOST.fullmatch(value) is None:
                raise NotHttp
        elif name == b"transfer-encoding":
            if version != "1.1" or value.lower() != b"chunked":
                raise NotHttp
        elif name == b"content-length" and not value.isdigit():  # the parser has seen that it is one
            headers[at] = (name, value.strip())
    if not (hosts == 1 and version == "1.1") and not (hosts <= 1 and version == "1.0"):
        raise NotHttp


def origin_form(method: bytes, target: bytes) -> bytes:
    """The target as path and query. Raises NotHttp for one that is none here."""
    if b"#" in target or method == b"CONNECT":
        raise NotHttp
    if target[:1] == b"/" or (target == b"*" and method == b"OPTIONS"):
        return target
    absolute = _ABSOLUTE.match(target)
    if absolute is None:
        raise NotHttp
    rest = target[absolute.end() :]
    return rest if rest[:1] == b"/" else b"/" + rest


def check_all(connections: Iterable[Any], now: float, *, head_s: float, body_idle_s: float) -> None:
    """`Guard.check` for each of a server's connections."""
    for connection in list(connections):
        connection.check(now, head_s=head_s, body_idle_s=body_idle_s)


def _size(headers: list[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) + 4 for name, value in headers)
