"""A request on its way to the ingress: its headers as they were, its body as it comes, without being gathered."""

import asyncio
from collections.abc import AsyncIterator

from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_writer import StreamWriter
from aiohttp.payload import Payload

from roost_platform.engines.knative.patience import Patience
from roost_platform.engines.port import Headers, UpstreamRequest

_KEPT_BYTES = 1 << 16
"""A body up to this size is kept until it is answered, so that it can be sent again when nobody has got it."""
_OURS = frozenset({b"host", b"connection", b"content-length", b"transfer-encoding", b"x-request-id"})
_OF_THE_PROXY = b"x-envoy-"
"""Tell the ingress to repeat requests, among other things; nobody outside may."""


class Outgoing(Payload):
    """Written by aiohttp, with its backpressure: a piece is asked for when the one before has gone."""

    def __init__(self, request: UpstreamRequest, patience: Patience) -> None:
        super().__init__(None)
        body = request.body
        self.failure: Exception | None = None
        """What the body itself raised: the client left, or sent too much."""
        self.sent = False
        """All of it was written."""
        self._patience = patience
        self.users, raw = _sort(request.headers)
        """The client's headers, as text; those that are no UTF-8 are added as they are when the head is written."""
        self._raw = b"".join(b"%b: %b\r\n" % pair for pair in raw)
        self._transport: asyncio.WriteTransport | None = None
        self._source: AsyncIterator[bytes] | None = None
        self._taken = False
        if isinstance(body, AsyncIterator):
            self._source, self._kept, self._size = body, [], request.length
        else:
            self._kept = [*body]
            self._size = sum(map(len, body))

    @property
    def repeatable(self) -> bool:
        """Whether it can be sent once more, from its first byte."""
        return self._source is None or not self._taken

    def let_go(self, *, abort: bool) -> None:
        """Have no more to do with the connection. `abort`: close it now, so that whoever is at its other end learns that
        nobody waits any more; an orderly end would come after all that was written, which may never be taken.
        """
        transport, self._transport = self._transport, None
        if abort and transport is not None:
            transport.abort()

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        self.sent = False
        self._transport = writer.transport  # kept here: aiohttp forgets it when it closes, and closes in order only
        if self._raw:
            self._add_raw(writer)
        for piece in self._kept:
            await writer.write(piece)
        if self._source is not None:
            await self._write_from(self._source, writer)
        self.sent = True

    def _add_raw(self, writer: AbstractStreamWriter) -> None:
        """The writer knows UTF-8 only; it keeps the head until the first piece comes."""
        assert isinstance(writer, StreamWriter)
        head = writer._headers_buf  # noqa: SLF001
        assert head is not None, "nothing is written yet"
        writer._headers_buf = head[:-2] + self._raw + head[-2:]  # noqa: SLF001

    async def _write_from(self, source: AsyncIterator[bytes], writer: AbstractStreamWriter) -> None:
        kept: list[bytes] | None = []
        size = 0
        while True:
            piece = await self._next(source)
            if piece is None:
                break
            size += len(piece)
            if kept is not None and size <= _KEPT_BYTES:
                kept.append(piece)
            else:
                kept = None
            await writer.write(piece)
        if kept is not None:
            self._source, self._kept = None, kept

    async def _next(self, source: AsyncIterator[bytes]) -> bytes | None:
        self._taken = True
        try:
            with self._patience.paused():
                return await anext(source, None)
        except Exception as error:
            self.failure = error
            raise

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        raise TypeError("a body that streams is no text")


def _sort(headers: Headers) -> tuple[list[tuple[str, str]], list[tuple[bytes, bytes]]]:
    """What aiohttp can write byte for byte, and what not. What is the gateway's to say is left out."""
    texts: list[tuple[str, str]] = []
    raw: list[tuple[bytes, bytes]] = []
    for name, value in headers:
        if name in _OURS or name.startswith(_OF_THE_PROXY):
            continue
        try:
            texts.append((name.decode("ascii"), value.decode("utf-8")))
        except UnicodeDecodeError:
            raw.append((name, value))
    return texts, raw
