"""uvicorn's HTTP/1.1 protocol, with the head and the body of an answer leaving in one write.

uvicorn writes the head when the application starts its answer and the body when that comes; on an event loop that writes
at once, those are two system calls and two packets for every small answer, which is a good part of what it costs.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_JOIN_BYTES = 1 << 16


class OneWriteProtocol(HttpToolsProtocol):
    """HttpToolsProtocol on a transport that gathers what is written within one turn of the event loop."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_GatheringTransport(transport, self.loop))  # type: ignore[arg-type]


class _GatheringTransport:
    """Delegates everything but writing."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pieces: list[bytes | bytearray | memoryview] = []
        # Asked for with every request: found here, they do not take the way through `__getattr__`.
        self.is_closing = transport.is_closing
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._pieces:
            self._loop.call_soon(self._flush)
        self._pieces.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def write_eof(self) -> None:
        self._flush()
        self._transport.write_eof()

    def _flush(self) -> None:
        pieces = self._pieces
        if not pieces:
            return
        self._pieces = []
        if self._transport.is_closing():
            return
        if sum(map(len, pieces)) <= _JOIN_BYTES:
            self._transport.write(b"".join(pieces))
        else:
            for piece in pieces:  # what is large is not copied once more
                self._transport.write(piece)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
