"""Bodies on their way from the parser to the application."""

from collections import deque

from starlette.types import Message
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

_WAITING_BYTES = 1 << 20
"""Of a body that the application has not asked for yet; the client then has to wait."""
_SMALL_PIECE_BYTES = 4096


class BodyReader:
    """A large body on its way to the application: in the pieces that the parser makes, which nobody copies again."""

    def __init__(self, cycle: RequestResponseCycle, flow: FlowControl) -> None:
        self.cycle = cycle
        self._flow = flow
        self._pieces: deque[bytes] = deque()
        self._small = bytearray()
        """Small pieces that came after those."""
        self._waiting_bytes = 0

    def feed(self, piece: bytes) -> None:
        if len(piece) < _SMALL_PIECE_BYTES:
            self._small += piece  # a body of a million chunks must not become a million objects
        else:
            self._end_small()
            self._pieces.append(piece)
        self._waiting_bytes += len(piece)
        if self._waiting_bytes > _WAITING_BYTES:
            self._flow.pause_reading()
        self.cycle.message_event.set()

    async def receive(self) -> Message:
        """ASGI's."""
        while not self._waiting_bytes:
            message = await self.cycle.receive()
            if not self._waiting_bytes or message["type"] != "http.request":
                return message  # type: ignore[return-value]
        if not self._pieces:
            self._end_small()
        piece = self._pieces.popleft()
        self._waiting_bytes -= len(piece)
        if self._waiting_bytes <= _WAITING_BYTES:
            self._flow.resume_reading()
        more = self.cycle.more_body or self._waiting_bytes > 0
        return {"type": "http.request", "body": piece, "more_body": more}

    def _end_small(self) -> None:
        if self._small:
            self._pieces.append(bytes(self._small))
            self._small.clear()
