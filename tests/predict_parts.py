"""What the tests of the prediction path share: the real application on real parts, and an engine that answers by script."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from gateway_parts import IRIS, Parts, ScriptedEngine, gateway_parts
from roost_gateway.access.keys import NewKey
from roost_gateway.predict.app import PredictApp
from roost_gateway.predict.figures import PredictFigures
from roost_gateway.settings import LimitSettings
from roost_platform.domain.errors import DeadlineExceeded
from roost_platform.domain.services import RevisionKey
from roost_platform.domain.tenants import Scope
from roost_platform.domain.usage import UsageEvent
from roost_platform.engines.port import Upstream, UpstreamRequest, UpstreamResponse
from roost_platform.metering.files import REAL_FILES, Files
from roost_platform.metering.intents import read_intents
from roost_platform.metering.journal import Journal
from roost_platform.metering.lines import read_lines
from roost_platform.metering.segments import find_segments

Header = tuple[bytes, bytes]
Answerer = Callable[[UpstreamRequest], Awaitable[UpstreamResponse]]

INFER = "/t/acme/v2/models/iris/infer"
JSON = [(b"content-type", b"application/json")]
BODY = b'{"inputs":[]}'


def json_response(document: Any, status: int = 200, headers: Sequence[Header] = (), **figures: int) -> UpstreamResponse:
    return UpstreamResponse(status, [*JSON, *headers], json.dumps(document).encode(), **figures)


class LeasingEngine(ScriptedEngine):
    """Grants every lease at once, records what is sent, and answers with what `answer` makes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[RevisionKey, UpstreamRequest]] = []
        self.answer: Answerer = _well
        self.refuse_lease: Exception | None = None
        self.active = 0
        self.most_active = 0
        self.ended: list[str] = []
        """How each send ended: `answered`, or the name of the exception."""

    def lease(self, revision: RevisionKey, deadline: float) -> AbstractAsyncContextManager[Upstream]:
        return self._lease(revision, deadline)

    @asynccontextmanager
    async def _lease(self, revision: RevisionKey, deadline: float) -> AsyncIterator[Upstream]:
        if self.refuse_lease is not None:
            raise self.refuse_lease
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        try:
            yield _ScriptedUpstream(self, revision, deadline)
        finally:
            self.active -= 1


class _ScriptedUpstream(Upstream):
    def __init__(self, engine: LeasingEngine, revision: RevisionKey, deadline: float) -> None:
        self.queue_us, self.cold_start_us = 70, 30
        self._engine = engine
        self._revision = revision
        self._deadline = deadline

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        engine = self._engine
        engine.seen.append((self._revision, request))
        try:
            async with asyncio.timeout_at(self._deadline):
                response = await engine.answer(request)
        except TimeoutError:
            engine.ended.append("DeadlineExceeded")
            raise DeadlineExceeded("too slow") from None
        except BaseException as error:
            engine.ended.append(type(error).__name__)
            raise
        engine.ended.append("answered")
        return response


async def _well(request: UpstreamRequest) -> UpstreamResponse:
    return json_response({"model_name": "iris", "outputs": []}, compute_us=1500, queue_us=5, rows=3)


@dataclass
class Heard:
    """What a client hears."""

    status: int = 0
    headers: list[Header] = field(default_factory=list)
    body: bytes = b""

    def header(self, name: str) -> str | None:
        values = [value.decode() for key, value in self.headers if key == name.encode()]
        assert len(values) <= 1, f"{name} more than once"
        return values[0] if values else None

    def json(self) -> dict[str, Any]:
        document = json.loads(self.body)
        assert isinstance(document, dict)
        return document

    @property
    def refusal(self) -> tuple[int, str]:
        """Status and code; checks the shape that every error has."""
        document = self.json()
        at_a_quota = {"limit", "used", "reset"} if self.status == 429 else set()
        assert set(document) - {"field", "retryable"} == {"error", "code", "request_id"} | at_a_quota, document
        assert document["request_id"] == self.header("x-request-id")
        assert document["error"]
        return self.status, document["code"]


class Client:
    """Calls the application as an HTTP server would, one connection a call."""

    def __init__(self, app: PredictApp, secret: str | None) -> None:
        self._app = app
        self.secret = secret

    async def __call__(
        self,
        path: str = INFER,
        *,
        method: str = "POST",
        headers: Sequence[Header] = (),
        pieces: Sequence[bytes] = (BODY,),
        declared: bytes | None = b"",
        query: bytes = b"",
        secret: str | None = None,
        leave: asyncio.Event | None = None,
        stall: asyncio.Event | None = None,
    ) -> Heard:
        """`declared`: the content length; empty = the right one, None = chunked. After `pieces` the client waits for
        `stall` when given, then goes away without having sent the rest. `leave`: goes away when it is set."""
        secret = secret or self.secret
        sent = list(headers) + ([(b"authorization", f"Bearer {secret}".encode())] if secret else [])
        if declared is not None:
            sent.append((b"content-length", declared or str(sum(map(len, pieces))).encode()))
        scope = {
            "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": query,
            "headers": sent, "client": ("127.0.0.1", 1), "http_version": "1.1", "scheme": "http",
        }  # fmt: skip
        left = list(pieces) if method == "POST" else []
        heard = Heard()
        done = asyncio.Event()
        gone = leave or asyncio.Event()

        async def receive() -> dict[str, Any]:
            if left:
                piece = left.pop(0)
                return {"type": "http.request", "body": piece, "more_body": bool(left) or stall is not None}
            waits = [asyncio.create_task(each.wait()) for each in ((stall,) if stall else (done, gone))]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in waits:
                    each.cancel()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                assert not heard.status, "one answer"
                heard.status, heard.headers = message["status"], list(message["headers"])
            else:
                heard.body += bytes(message["body"])

        await self._app(scope, receive, send)
        done.set()
        if heard.status:
            assert heard.header("content-length") == str(len(heard.body))
            assert heard.header("x-request-id")
        return heard


@dataclass
class PredictPath:
    """The prediction path under test."""

    app: PredictApp
    parts: Parts
    engine: LeasingEngine
    journal: Journal
    figures: PredictFigures
    secret: str
    folder: Path
    serving: bool = True

    @property
    def call(self) -> Client:
        return Client(self.app, self.secret)

    async def key(self, *scopes: Scope, expires_at: datetime | None = None) -> NewKey:
        return await self.parts.keys.create("acme", name="another", scopes=frozenset(scopes), expires_at=expires_at)

    def events(self) -> list[UsageEvent]:
        """What was journalled so far."""
        rows = []
        for segment in find_segments(self.folder):
            found, damaged = read_lines(segment.path.read_bytes())
            assert not damaged
            rows += found
        return [UsageEvent(*row) for row in rows]

    def outcomes(self) -> list[tuple[str, int]]:
        return [(str(event.outcome), event.status) for event in self.events()]


@asynccontextmanager
async def predict_path(
    folder: Path, *, journal_limit: int = 1 << 30, files: Files = REAL_FILES, **limits: Any
) -> AsyncIterator[PredictPath]:
    """Tenant acme with the model iris in service."""
    engine = LeasingEngine()
    async with gateway_parts(folder, engine=engine) as parts:
        directory = parts.directory
        figures = PredictFigures(models=lambda: [route.key for route in directory.routes()])
        secret = await parts.add_tenant("acme")
        await parts.serve(IRIS)
        journal = Journal(folder / "journal", source="test", limit_bytes=journal_limit, files=files)
        app = PredictApp(
            directory=parts.directory,
            authenticator=parts.authenticator,
            engine=engine,
            journal=journal,
            figures=figures,
            limits=LimitSettings(**limits),
            serving=lambda: made.serving,
        )
        made = PredictPath(app, parts, engine, journal, figures, secret, folder / "journal")
        watching = asyncio.create_task(app.watch.run())
        try:
            yield made
        finally:
            watching.cancel()
            journal.close()
        assert_every_call_ended(folder / "journal")


def assert_every_call_ended(folder: Path) -> None:
    """Whatever became of its calls: all that were taken on were journalled, or refused since they could not be."""
    left = read_intents(folder / "test.open")
    assert left is not None
    rows = [row for segment in find_segments(folder) for row in read_lines(segment.path.read_bytes())[0]]
    requests = {row[1]: row[-1] for row in rows}  # by sequence: the last of the sums of a minute's refusals
    assert left.calls == ()
    assert left.opened == sum(requests.values()) + left.unstored
