"""What the tests of streamed predictions share: a far side that does as it is told, and the real gateway before it."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway_parts import IRIS, gateway_parts
from predict_parts import LeasingEngine, PredictPath, assert_every_call_ended
from roost_gateway.predict.app import PredictApp
from roost_gateway.predict.figures import PredictFigures
from roost_gateway.predict.traces import Traces
from roost_gateway.server import make_server
from roost_gateway.settings import LimitSettings
from roost_platform.domain.services import RevisionKey
from roost_platform.engines.knative.ingress import Ingress
from roost_platform.engines.port import Upstream
from roost_platform.metering.journal import Journal

HOST = "v1-iris.roost-acme.svc.cluster.local"
SECRET = "the-service-secret"
FIGURES = b"roost-compute-us: 1500\r\nroost-queue-us: 5\r\nroost-rows: 3\r\n"


def answer(body: bytes = b"{}", *, status: str = "200 OK", headers: bytes = FIGURES) -> bytes:
    """A whole HTTP/1.1 answer, by default a replica's."""
    return b"HTTP/1.1 %b\r\ncontent-length: %d\r\n%b\r\n%b" % (status.encode(), len(body), headers, body)


class Call:
    """One request as the far side sees it."""

    def __init__(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.head = head
        self.line, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
        self.pairs = [tuple(line.split(b": ", 1)) for line in lines]
        self.reader = reader
        self.writer = writer

    def header(self, name: bytes) -> bytes | None:
        values = [value for key, value in self.pairs if key == name]
        assert len(values) <= 1, f"{name!r} more than once"
        return values[0] if values else None

    async def body(self) -> bytes:
        """All of it."""
        length = self.header(b"Content-Length")
        if length is not None:
            return await self.reader.readexactly(int(length))
        assert self.header(b"Transfer-Encoding") == b"chunked"
        pieces = []
        while piece := await self.chunk():
            pieces.append(piece)
        return b"".join(pieces)

    async def chunk(self) -> bytes:
        """The next chunk; empty = the last."""
        size = int(await self.reader.readline(), 16)
        piece = await self.reader.readexactly(size)
        assert await self.reader.readexactly(2) == b"\r\n"
        return piece

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """End the connection with a reset."""
        self.writer.transport.abort()

    async def gone(self) -> None:
        """Wait until the other side has closed the connection."""
        with contextlib.suppress(OSError):
            while await self.reader.read(1 << 16):
                pass


Handler = Callable[[Call], Awaitable[None]]


class FarSide:
    """A server on raw sockets: whatever stands at the ingress's address. Serves each request with `handler`."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.calls: list[Call] = []
        self.connections = 0
        self.errors: list[BaseException] = []
        self.url = ""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                call = Call(await reader.readuntil(b"\r\n\r\n"), reader, writer)
                self.calls.append(call)
                await self.handler(call)
                if writer.is_closing():
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # the gateway hung up
        except Exception as error:  # noqa: BLE001 - the test is told at the end
            self.errors.append(error)
        finally:
            writer.close()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["FarSide"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20)
        host, port = server.sockets[0].getsockname()
        self.url = f"http://{host}:{port}"
        try:
            yield self
        finally:
            server.close()
            for call in self.calls:
                call.writer.transport.abort()
            await server.wait_closed()
        assert not self.errors, self.errors


class StreamingEngine(LeasingEngine):
    """Every revision is behind one ingress."""

    streams = True

    def __init__(self, ingress: Ingress, secret: str) -> None:
        super().__init__()
        self.secret = secret
        self.ingress = ingress
        self.asleep = False

    def lease(self, revision: RevisionKey, deadline: float) -> AbstractAsyncContextManager[Upstream]:
        return self.ingress.lease(host=HOST, secret=self.secret, deadline=deadline, asleep=self.asleep)


@dataclass
class StreamedPath(PredictPath):
    """The prediction path over a real ingress client, behind the real HTTP server."""

    port: int = 0


@asynccontextmanager
async def streamed_path(
    folder: Path,
    url: str,
    *,
    model: str = "iris",
    secret: str = SECRET,
    journal_limit: int = 1 << 30,
    limits: Any = None,
    stalled_s: float = 600.0,
    traces: Traces | None = None,
    **ingress: Any,
) -> AsyncIterator[StreamedPath]:
    """A gateway with tenant acme and its model, whose replicas are behind `url`."""
    way = Ingress(url=url, **ingress)
    await way.start()
    engine = StreamingEngine(way, secret)
    async with gateway_parts(folder, engine=engine) as parts:
        directory = parts.directory
        figures = PredictFigures(models=lambda: [route.key for route in directory.routes()])
        key = await parts.add_tenant("acme")
        await parts.serve(type(IRIS)("acme", model))
        journal = Journal(folder / "journal", source="test", limit_bytes=journal_limit)
        limits = LimitSettings(**(limits or {}))
        app = PredictApp(
            directory=directory,
            authenticator=parts.authenticator,
            engine=engine,
            journal=journal,
            figures=figures,
            limits=limits,
            serving=lambda: True,
            stalled_s=stalled_s,
            traces=traces,
        )
        listener = socket.create_server(("127.0.0.1", 0))
        server = make_server(app, lane=app.lane, grace_s=1, limits=limits)
        tasks = [asyncio.create_task(app.watch.run()), asyncio.create_task(server.serve(sockets=[listener]))]
        try:
            yield StreamedPath(
                app, parts, engine, journal, figures, key, folder / "journal", port=listener.getsockname()[1]
            )
        finally:
            server.should_exit = True
            await tasks[1]
            tasks[0].cancel()
            journal.close()
            await way.stop()
        assert_every_call_ended(folder / "journal")


class Client:
    """A connection to the gateway, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers of the answer."""
        raw = await self.reader.readuntil(b"\r\n\r\n")
        status, *lines = raw.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        return int(status.split()[1]), dict(line.split(": ", 1) for line in lines)

    async def rest(self) -> bytes:
        """Everything until the connection ends."""
        return await self.reader.read(-1)

    def leave(self) -> None:
        self.writer.transport.abort()


@asynccontextmanager
async def client_of(path: StreamedPath, *, receive_buffer: int | None = None) -> AsyncIterator[Client]:
    plain = socket.socket()
    if receive_buffer is not None:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    plain.setblocking(False)
    await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", path.port))
    reader, writer = await asyncio.open_connection(sock=plain, limit=1 << 16)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


def post(path: StreamedPath, *headers: bytes, length: int | None, body: bytes = b"", model: str = "iris") -> bytes:
    """A prediction as it goes over the wire; `length` None = chunked, and `body` is what begins it."""
    framing = b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length
    lines = [
        b"POST /t/acme/v2/models/%b/infer HTTP/1.1" % model.encode(),
        b"host: roost.example:8000",
        b"authorization: Bearer " + path.secret.encode(),
        framing,
        *headers,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def until(condition: Callable[[], bool]) -> None:
    """Poll another connection's state; the test's own time limit bounds it."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


async def standstill(value: Callable[[], int]) -> int:
    """What it is once it has not changed for a moment: whoever moves it has to wait for somebody."""
    before = -1
    while before != (before := value()):  # noqa: ASYNC110
        await asyncio.sleep(0.2)
    return before
