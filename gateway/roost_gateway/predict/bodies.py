"""Request bodies within their limit: read whole, in the pieces they came in, or handed on as they come.

Silence is bounded by `http_guard`.
"""

from collections.abc import Callable
from typing import Self

from starlette.types import Receive

from roost_platform.domain.errors import InvalidRequest, TooLarge


class ClientGone(Exception):
    """The client closed the connection; nobody is left to answer."""


def check_length(declared: bytes | None, limit: int) -> None:
    """Raises TooLarge before anything is read when the declared length says so, InvalidRequest for no length."""
    if declared is not None:
        if not declared.isdigit():
            raise InvalidRequest("Content-Length must be a number", field="Content-Length")
        if int(declared) > limit:
            raise _too_large(limit)


async def read_body(receive: Receive, *, declared: bytes | None, limit: int) -> tuple[list[bytes], int]:
    """The body's pieces and their sum in bytes. Raises what `check_length` does, TooLarge, ClientGone."""
    check_length(declared, limit)
    pieces: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body, more = message.get("body", b""), message.get("more_body", False)
        size += len(body)
        if size > limit:
            raise _too_large(limit)
        if body:
            pieces.append(body)
    return pieces, size


class Upload:
    """A body as it comes, for who sends it on: one piece at a time, and none but the first is read before it is asked for.

    Raises TooLarge when it passes the limit, ClientGone. `on_end` is called once all of it has come.
    """

    def __init__(self, receive: Receive, *, limit: int, on_end: Callable[[], None]) -> None:
        self.size = 0
        """Bytes that have come so far."""
        self._receive = receive
        self._limit = limit
        self._on_end = on_end
        self._more = True
        self._first: bytes | None = None
        self._kept: list[bytes] | None = None
        self._keep_bytes = 0

    def keep(self, limit: int) -> None:
        """Keep the body, too, when it has no more bytes than that."""
        self._kept, self._keep_bytes = [], limit

    @property
    def kept(self) -> list[bytes] | None:
        """All of the body in pieces; None when it was not to be kept, was too large, or has not come whole."""
        return None if self._more else self._kept

    async def begin(self) -> None:
        """Wait for the first piece. A small body is then in, and who waits for a replica can listen for the client."""
        self._first = await anext(self, None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        while self._more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            piece: bytes = message.get("body", b"")
            self.size += len(piece)
            if self.size > self._limit:
                raise _too_large(self._limit)
            self._more = message.get("more_body", False)
            if not self._more:
                self._on_end()
            if self._kept is not None:
                self._kept.append(piece)
                if self.size > self._keep_bytes:
                    self._kept = None
            if piece:
                return piece
        raise StopAsyncIteration


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body is larger than {limit} bytes", code="body_too_large")
