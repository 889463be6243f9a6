"""uvicorn's HTTP/1.1 protocol with four short cuts, since a small model's run takes less than what surrounds it.

- One write: uvicorn writes the head of an answer when the application starts it and the body when that comes; on an event
  loop that writes at once, those are two system calls and two packets for every small answer.
- The fast lane: the task of a POST with a small body begins when the body is in, and not at all when the lane takes it.
- Large bodies reach the application in the pieces that they came in.
- Known heads: a client repeats itself. When a request comes in one piece whose head is, byte for byte, one that this
  connection's parser has read before, reading it again would say the same.
"""

import asyncio
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from roost_gateway.http_bodies import BodyReader
from roost_gateway.http_transport import GatheringTransport
from roost_gateway.predict.headers import Incoming, sort_headers
from roost_gateway.predict.lane import Lane, LaneCall
from roost_gateway.predict.paths import PREFIX
from roost_gateway.predict.steps import Answer

_LANE_BYTES = 1 << 16
"""Larger bodies are read by the application, which bounds them."""
_KNOWN_HEADS = 16
_KNOWN_BYTES = 2048
_WITH_BODIES = frozenset({"POST", "PUT", "PATCH"})
_END_OF_HEAD = b"\r\n\r\n"
_LEAVE_S = 0.5
"""At shutdown, so long an idle connection may bring one more request: closed at once, it would cross one on its way."""


class _Nobody:
    """Stands for the event that tells an application of its client: there is none."""

    def set(self) -> None:
        return


class LaneCycle:
    """A request in the lane, as uvicorn and the guard look at it. One serves all of a connection, one after the other."""

    __slots__ = ("disconnected", "keep_alive", "response_complete", "response_started")
    more_body = False
    waiting_for_100_continue = False
    message_event = _Nobody()

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.keep_alive = True
        self.disconnected = self.response_started = self.response_complete = False


class LaneProtocol(HttpToolsProtocol):
    """HttpToolsProtocol on a transport that gathers what is written within one turn of the event loop."""

    def __init__(self, *arguments: Any, lane: Lane, **how: Any) -> None:
        super().__init__(*arguments, **how)
        self._lane = lane
        self._held: tuple[RequestResponseCycle, ASGIApp, Incoming] | None = None
        """A request whose body is still coming, and that may be one for the lane."""
        self._reader: BodyReader | None = None
        self._call: LaneCall | None = None
        self._between = True
        """The parser has read whole requests only."""
        self._piece = b""
        """What is being parsed, when it begins with a request."""
        self._known: dict[bytes, tuple[str, bytes, Incoming]] = {}
        self._lane_cycle = LaneCycle()
        self._idle_since = 0.0
        """When the last answer was complete, in the loop's time."""
        self._leaving = False
        """The next answer is the last one, and says so."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(GatheringTransport(transport, self.loop))  # type: ignore[arg-type]

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._held = None
        if self._call is not None:
            self._call.leave()

    def shutdown(self) -> None:
        """The server stops: finish what there is, and tell the client with the next answer not to come again."""
        self._leaving = True
        if self.cycle is not None and not self.cycle.response_complete:
            super().shutdown()
        else:
            self.loop.call_later(_LEAVE_S, self._leave)

    def _leave(self) -> None:
        if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()

    # A request that the parser reads.

    def on_message_begin(self) -> None:
        self._between = False
        super().on_message_begin()

    def on_body(self, body: bytes) -> None:
        reader = self._reader
        if reader is None or reader.cycle is not self.cycle:
            super().on_body(body)
        elif not self.cycle.response_complete:
            reader.feed(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._between = True
        held, self._held = self._held, None
        if held is not None:
            self._begin(*held)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGIApp) -> None:  # type: ignore[override]
        scope = cycle.scope
        cycle.keep_alive = cycle.keep_alive and not self._leaving
        if scope["method"] == "POST" and scope["path"].startswith(PREFIX) and not cycle.waiting_for_100_continue:
            incoming = sort_headers(scope["headers"])
            if self._may_be_for_lane(scope, incoming):
                if cycle.more_body:
                    self._held = (cycle, app, incoming)
                else:
                    self._begin(cycle, app, incoming)
                return
        if cycle.more_body and scope["method"] in _WITH_BODIES:
            app = self._with_reader(cycle, app)
        super()._start_asgi_task(cycle, app)  # type: ignore[arg-type]

    def _may_be_for_lane(self, scope: Any, incoming: Incoming) -> bool:
        """A small body of a known length, of someone who may call: a refusal must not wait for the body."""
        length = incoming.length
        if length is None or length > _LANE_BYTES or b"%" in scope["raw_path"]:
            return False
        return self._lane.welcomes(scope["path"], scope["query_string"], incoming)

    def _with_reader(self, cycle: RequestResponseCycle, app: ASGIApp) -> ASGIApp:
        reader = self._reader = BodyReader(cycle, self.flow)

        async def run(scope: Scope, _: Receive, send: Send) -> None:
            try:
                await app(scope, reader.receive, send)
            finally:
                if self._reader is reader:
                    self._reader = None

        return run

    def _begin(self, cycle: RequestResponseCycle, app: ASGIApp, incoming: Incoming) -> None:
        path, query = cycle.scope["path"], cycle.scope["query_string"]
        body = bytes(cycle.body)

        def on_answer(answer: Answer, request_id: str) -> None:
            self._call = None
            self._answer(cycle, answer, request_id)
            self.on_response_complete()

        call = self._lane.take(path, query, incoming, body, on_answer)
        if call is None:
            super()._start_asgi_task(cycle, app)  # type: ignore[arg-type]
            return
        self._call = call
        if cycle.keep_alive:
            self._remember(body, (path, query, incoming))

    def check_idle(self, now: float) -> None:
        """Close a connection on which nothing was asked for long; `now` is the loop's time."""
        idle = self._between and not self.pipeline and self.cycle is not None and self.cycle.response_complete
        if idle and now - self._idle_since > self.timeout_keep_alive and not self.transport.is_closing():
            self.transport.close()

    # A request whose head is known.

    def _remember(self, body: bytes, what: tuple[str, bytes, Incoming]) -> None:
        """Know this head again, if it and its body were all of the piece that is being parsed."""
        piece = self._piece
        head = len(piece) - len(body)
        if head <= _KNOWN_BYTES and piece.find(_END_OF_HEAD) == head - len(_END_OF_HEAD) and piece.endswith(body):
            if len(self._known) >= _KNOWN_HEADS:
                self._known.clear()
            self._known[piece[:head]] = what

    def take_known(self, data: bytes) -> bool:
        """Put the request into the lane, if `data` is one whose head is known, and the lane takes it."""
        cycle = self.cycle
        if self._leaving or not self._between or self.pipeline or not (cycle is None or cycle.response_complete):
            self._piece = b""
            return False
        self._piece = data
        head = data.find(_END_OF_HEAD) + len(_END_OF_HEAD)
        known = self._known.get(data[:head])
        if known is None:
            return False
        path, query, incoming = known
        if len(data) - head != incoming.length:
            return False
        call = self._lane.take(path, query, incoming, data[head:], self._answer_known)
        if call is None:
            return False
        self._call = call
        self.cycle = self._lane_cycle  # type: ignore[assignment]
        self._lane_cycle.begin()
        return True

    def _answer_known(self, answer: Answer, request_id: str) -> None:
        self._call = None
        self._answer(self._lane_cycle, answer, request_id)
        self.on_response_complete()

    def _answer(self, cycle: RequestResponseCycle | LaneCycle, answer: Answer, request_id: str) -> None:
        status, headers, body = answer
        content = [STATUS_LINE[status]]
        for name, value in (*self.server_state.default_headers, *headers):
            content += (name, b": ", value, b"\r\n")
        close = b"" if cycle.keep_alive else b"connection: close\r\n"
        content.append(b"content-length: %d\r\nx-request-id: %b\r\n%b\r\n" % (len(body), request_id.encode(), close))
        self.transport.write_whole(content, body)  # type: ignore[attr-defined]
        cycle.response_started = cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()

    def on_response_complete(self) -> None:
        """As uvicorn has it, but without a timer per answer: `check_idle` looks for those that stay idle."""
        self.server_state.total_requests += 1
        self._idle_since = self.loop.time()
        if self.transport.is_closing():
            return
        if self.pipeline:
            self.flow.resume_reading()
            self._start_asgi_task(*self.pipeline.pop())  # type: ignore[arg-type]
        elif self.flow.read_paused:
            self.flow.resume_reading()
