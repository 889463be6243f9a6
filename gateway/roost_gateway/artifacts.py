"""The internal door: a replica elsewhere fetches the file it is to serve, by digest, with its service's secret.

    GET, HEAD /internal/artifacts/{tenant}/{model}/{digest}     Authorization: Bearer <service secret>

Everything it needs but the bytes is in memory, so that replicas start while the database is away. It is for the internal
listener only, and everything else is 404 there.
"""

import asyncio
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

from roost_gateway.access.directory import Directory
from roost_gateway.errors import Header, answer_of, body_of
from roost_gateway.request_ids import request_id_from
from roost_platform.domain.errors import InvalidRequest, NotFound, RoostError, Unauthenticated, Unavailable
from roost_platform.domain.service_secrets import ServiceSecrets
from roost_platform.domain.services import ServiceKey
from roost_platform.registry.finishing import Threads
from roost_platform.registry.store import ArtifactReader, ArtifactStore

logger = logging.getLogger(__name__)

_PATH = re.compile(rb"/internal/artifacts/([a-z0-9-]{1,63})/([a-z0-9-]{1,63})/([0-9a-f]{64})")
_RANGE = re.compile(rb"bytes=([0-9]{1,15})-([0-9]{0,15})")
_BEARER = b"bearer "


@dataclass(frozen=True, slots=True)
class DownloadLimits:
    at_once: int = 32
    """Downloads under way; each holds a thread while it reads, and two chunks."""
    wait_s: float = 10.0
    """How long the next one waits for its turn before it is told to come again."""
    chunk_bytes: int = 256 * 1024
    send_s: float = 20.0
    """How long one chunk may take to leave: a slower reader is cut off, and may go on where it was with a range."""
    least_bytes_s: int = 256 * 1024
    """What a reader must take on average, after the first minute."""
    redirect_s: int = 60
    """How long a URL of the store is good for."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What was asked for, and is known to exist."""

    digest: str
    size: int
    """Of the whole artifact."""
    start: int
    end: int
    """The byte after the last one."""

    @property
    def partial(self) -> bool:
        return self.end - self.start != self.size

    @property
    def headers(self) -> list[Header]:
        headers = [
            (b"content-type", b"application/octet-stream"),
            (b"content-length", b"%d" % (self.end - self.start)),
            (b"etag", b'"%b"' % self.digest.encode()),
            (b"accept-ranges", b"bytes"),
        ]
        if self.partial:
            headers.append((b"content-range", b"bytes %d-%d/%d" % (self.start, self.end - 1, self.size)))
        return headers


class ArtifactDoor:
    """An ASGI application. `redirect`: send replicas to the store itself, where it can make URLs for that."""

    def __init__(
        self,
        *,
        directory: Directory,
        secrets: ServiceSecrets,
        store: ArtifactStore,
        redirect: bool = False,
        limits: DownloadLimits | None = None,
    ) -> None:
        self._directory = directory
        self._secrets = secrets
        self._store = store
        self._redirect = redirect
        self._limits = limits or DownloadLimits()
        self._turns = asyncio.Semaphore(self._limits.at_once)
        self._threads = Threads(self._limits.at_once, name="downloads")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request_id = request_id_from(scope["headers"])
        answer = _Answer(send, request_id)
        try:
            wanted = self._find(scope)
            if scope["method"] == "HEAD":
                await answer.whole(206 if wanted.partial else 200, wanted.headers)
            elif self._redirect and (url := await self._url(wanted.digest)) is not None:
                await answer.whole(
                    307, [(b"location", url), (b"cache-control", b"no-store"), (b"content-length", b"0")]
                )
            else:
                await self._send(wanted, answer, receive)
        except _Unsatisfiable as error:
            body = body_of(error, request_id)
            size = (b"content-range", b"bytes */%d" % error.size)
            await answer.whole(416, [(b"content-type", b"application/json"), _length(body), size], body)
        except RoostError as error:
            if answer.begun:  # returning without the rest cuts the connection, which says it all
                logger.warning("artifact_cut_off", extra={"request_id": request_id, "reason": error.code})
                return
            status, headers, body = answer_of(error, request_id)
            await answer.whole(status, headers, body)

    def _find(self, scope: Scope) -> _Wanted:
        """Raises NotFound, the same whether something is absent or not this service's; Unauthenticated; _Unsatisfiable."""
        match = _PATH.fullmatch(scope["raw_path"])
        if match is None or scope["method"] not in ("GET", "HEAD"):
            raise _not_found()
        key = ServiceKey(match[1].decode(), match[2].decode())
        if not self._secrets.matches(key, _bearer_of(scope)):
            raise Unauthenticated("the service's secret is missing or wrong")
        digest = match[3].decode()
        size = self._size_of(key, digest)
        if size is None:
            raise _not_found()
        start, end = _range_of(scope, size)
        return _Wanted(digest, size, start, end)

    def _size_of(self, key: ServiceKey, digest: str) -> int | None:
        """None unless a revision of this model has these bytes."""
        route = self._directory.route(key.tenant, key.model)
        records = route.records if route is not None else ()
        return next((r.revision.size for r in records if r.revision.digest == digest), None)

    async def _url(self, digest: str) -> bytes | None:
        url = await self._threads.run(self._store.presign, digest, seconds=self._limits.redirect_s)
        return None if url is None else url.encode("ascii")

    async def _send(self, wanted: _Wanted, answer: "_Answer", receive: Receive) -> None:
        try:
            async with asyncio.timeout(self._limits.wait_s):
                await self._turns.acquire()
        except TimeoutError:
            raise Unavailable("too many replicas fetch their models", code="artifact_busy", retry_after_s=1) from None
        leaving = asyncio.create_task(_until_gone(receive))
        try:
            reader = await self._threads.run(self._store.open, wanted.digest, wanted.start)
            try:
                if reader.size != wanted.size:
                    raise _damaged(wanted)
                await answer.begin(206 if wanted.partial else 200, wanted.headers)
                await self._copy(wanted, reader, answer, gone=leaving.done)
            finally:
                await self._threads.run(reader.close)
        finally:
            self._turns.release()
            leaving.cancel()

    async def _copy(
        self, wanted: _Wanted, reader: ArtifactReader, answer: "_Answer", *, gone: Callable[[], bool]
    ) -> None:
        left = wanted.end - wanted.start
        clock = asyncio.get_running_loop().time
        end = clock() + 60 + left / self._limits.least_bytes_s
        while left and not gone():
            chunk = await self._threads.run(reader.read, min(left, self._limits.chunk_bytes))
            if not chunk:
                raise _damaged(wanted)
            left -= len(chunk)
            try:
                async with asyncio.timeout(min(self._limits.send_s, end - clock())):
                    await answer.more(chunk, last=not left)
            except TimeoutError:
                raise Unavailable("the reader is too slow", code="slow_reader") from None


class _Answer:
    """One answer on its way; it carries the request's id."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id.encode()
        self.begun = False

    async def begin(self, status: int, headers: list[Header]) -> None:
        self.begun = True
        headers = [*headers, (b"x-request-id", self._request_id)]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def more(self, chunk: bytes, *, last: bool) -> None:
        await self._send({"type": "http.response.body", "body": chunk, "more_body": not last})

    async def whole(self, status: int, headers: list[Header], body: bytes = b"") -> None:
        await self.begin(status, headers)
        await self.more(body, last=True)


class _Unsatisfiable(InvalidRequest):
    def __init__(self, size: int) -> None:
        super().__init__("the file is not that long", code="invalid_range")
        self.size = size


def _range_of(scope: Scope, size: int) -> tuple[int, int]:
    """The first byte and the one after the last; all of it where there is no range, or one that is of no use here."""
    ranges = [value for name, value in scope["headers"] if name == b"range"]
    match = _RANGE.fullmatch(ranges[0]) if len(ranges) == 1 else None
    if match is None:
        return 0, size
    start = int(match[1])
    end = min(int(match[2]) + 1, size) if match[2] else size
    if start >= end:
        raise _Unsatisfiable(size)
    return start, end


def _bearer_of(scope: Scope) -> bytes:
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(values) != 1 or values[0][: len(_BEARER)].lower() != _BEARER:
        return b""
    return bytes(values[0][len(_BEARER) :])


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _not_found() -> NotFound:
    return NotFound("there is nothing here")


def _damaged(wanted: _Wanted) -> Unavailable:
    logger.error("artifact_damaged", extra={"digest": wanted.digest, "size": wanted.size})
    return Unavailable("the stored file of this version is damaged", code="artifact_damaged")


def _length(body: bytes) -> Header:
    return b"content-length", b"%d" % len(body)
