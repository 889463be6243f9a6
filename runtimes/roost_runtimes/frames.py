"""The framed link: many requests in flight on one Unix socket, used where engine and replica share a machine.

A frame is a 16-byte little-endian header and two byte strings, `meta` and `body`:

    u8 kind · u8 (zero) · u16 status · u32 id · u32 length of meta · u32 length of body

Every REQUEST gets exactly one ANSWER with its id, also when it was cancelled (status 499), so that the sender knows when
its slot is free. Small frames of one event-loop turn leave in one write; large bodies are neither joined on the way out
nor copied on the way in. This is the only module of `roost_runtimes` that the platform imports: the format has one
meaning in one place.
"""

import asyncio
import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

Buffer = bytes | bytearray | memoryview

HEADER = struct.Struct("<BxHIII")
FIGURES = struct.Struct("<III")
"""First 12 bytes of an ANSWER's meta: compute µs, queue µs, rows; the rest is JSON, a list of header pairs."""

MAX_META_BYTES = 1 << 20
_BUFFER_BYTES = 1 << 18
_JOIN_BYTES = 1 << 14


class Kind(IntEnum):
    """What a frame means; the arrows say who sends it."""

    ASSIGN = 1
    """engine → replica, once: which model to serve; meta is a JSON object."""
    READY = 2
    """replica → engine: serving; meta is a JSON object of figures."""
    FAILED = 3
    """replica → engine: cannot serve, about to exit; meta is a JSON object with reason and message."""
    REQUEST = 4
    """engine → replica: meta is JSON [method, path, [[name, value], …]]."""
    ANSWER = 5
    """replica → engine: status, figures, headers, body."""
    CANCEL = 6
    """engine → replica: nobody waits for this id any more."""
    DRAIN = 7
    """engine → replica: nothing new will come; finish, then exit 0."""
    DRAINING = 8
    """replica → engine: was told to stop from outside; please drain me."""
    PING = 9
    """engine → replica: are you there?"""
    PONG = 10
    """replica → engine: yes."""


CANCELLED_STATUS = 499


class FrameProtocol(asyncio.BufferedProtocol):
    """Reads frames into `frame_received`, writes them with `send_frame`. One per connection."""

    max_body_bytes = (1 << 32) - 1
    """Of a frame received; the peer that announces a larger one is hung up on."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray(_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._large_view: memoryview | None = None  # a frame too big for the buffer, received in place
        self._large_filled = 0
        self._large_header: tuple[Any, ...] = ()
        self._out: list[Buffer] = []

    # What a subclass says.

    def frame_received(self, kind: int, status: int, frame_id: int, meta: Buffer, body: Buffer) -> None:
        """One whole frame. `body` is the receiver's to keep."""
        raise NotImplementedError

    def read_finished(self) -> None:
        """All frames of one read have been handed over."""

    # Writing.

    def send_frame(
        self, kind: int, frame_id: int = 0, meta: bytes = b"", body: Sequence[Buffer] = (), status: int = 0
    ) -> None:
        """Queue one frame; everything queued in this turn of the event loop leaves together."""
        size = sum(map(len, body)) if body else 0
        if not self._out:
            self._loop.call_soon(self.flush)
        self._out.append(HEADER.pack(kind, status, frame_id, len(meta), size))
        if meta:
            self._out.append(meta)
        if body:
            self._out.extend(body)

    def flush(self) -> None:
        """Write what is queued now, without waiting for the turn's end."""
        out, transport = self._out, self.transport
        if not out:
            return
        self._out = []
        if transport is None or transport.is_closing():
            return
        if sum(map(len, out)) <= _JOIN_BYTES * 4 or max(map(len, out)) <= _JOIN_BYTES:
            transport.write(b"".join(out))
        else:
            transport.writelines(out)

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self.transport = transport  # type: ignore[assignment]  # uvloop's transports are not subclasses

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._large_view is not None:
            return self._large_view[self._large_filled :]
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        large = self._large_view
        if large is not None:
            self._large_filled += nbytes
            if self._large_filled < len(large):
                return
            self._large_view = None
            self._finish_large(large)
        else:
            self._filled += nbytes
            self._parse()
        self.read_finished()

    def _parse(self) -> None:
        view, position, filled = self._view, 0, self._filled
        while filled - position >= 16:
            kind, status, frame_id, meta_size, body_size = HEADER.unpack_from(view, position)
            if meta_size > MAX_META_BYTES or body_size > self.max_body_bytes:
                self._refuse()
                return
            start = position + 16
            end = start + meta_size + body_size
            if end <= filled:
                split = start + meta_size
                self.frame_received(kind, status, frame_id, bytes(view[start:split]), bytes(view[split:end]))
                position = end
                continue
            if end - position > _BUFFER_BYTES // 2:
                self._begin_large((kind, status, frame_id, meta_size), meta_size + body_size, start, filled)
                return
            break
        if position:
            rest = filled - position
            view[:rest] = view[position:filled]
            self._filled = rest

    def _begin_large(self, header: tuple[Any, ...], size: int, start: int, filled: int) -> None:
        # Tensors stand at the end of a body: where that is aligned, arrays are read in place.
        before = -size % 16
        self._large_view = memoryview(bytearray(before + size))[before:]
        self._large_filled = filled - start
        self._large_view[: filled - start] = self._view[start:filled]
        self._large_header = header
        self._filled = 0

    def _finish_large(self, view: memoryview) -> None:
        kind, status, frame_id, meta_size = self._large_header
        self.frame_received(kind, status, frame_id, bytes(view[:meta_size]), view[meta_size:])

    def _refuse(self) -> None:
        self._filled = 0
        if self.transport is not None:
            self.transport.abort()
