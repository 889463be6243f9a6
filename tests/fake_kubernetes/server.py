"""A fake Kubernetes API server: real HTTP, real semantics, in the test's own event loop.

    async with FakeKubernetes() as api:
        ...a client at api.url with the bearer token api.token...
        api.objects("Pod")                          what is stored, as copies
        api.fail(503, verb="patch", times=2)        and the other faults below

Requests go through the door as they would in a cluster: token, fault, discovery, verb, admission, store.
"""

import asyncio
import secrets
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from aiohttp import web

from fake_kubernetes.admission import BUILT_IN
from fake_kubernetes.errors import Refused
from fake_kubernetes.faults import Fault, Faults
from fake_kubernetes.inside import Inside
from fake_kubernetes.knative_webhook import knative_webhook
from fake_kubernetes.registry import Registry
from fake_kubernetes.requests import Asked, discovery, parse
from fake_kubernetes.store import Store
from fake_kubernetes.verbs import Verbs
from fake_kubernetes.watching import Watch, line, wait

_ADMISSIONS = (*BUILT_IN, knative_webhook)


class FakeKubernetes(Inside):
    """`history` events are kept for watches; bookmarks go out each `bookmark_s` seconds and at the end of a watch.

    `anonymous`: no token is asked for; kubectl sends none without TLS.
    """

    def __init__(self, *, history: int = 10_000, bookmark_s: float = 60.0, anonymous: bool = False) -> None:
        store = Store(history)
        super().__init__(store, Registry(store, _ADMISSIONS))
        self.token = secrets.token_hex(8)
        self.asked: list[Asked] = []
        """Every request that got past the token, oldest first: what an account must be allowed to do."""
        self.faults = Faults()
        self.log_of: Callable[[str, str, bool], str | None] = lambda *_: None
        """Gives the log of a pod, or of its container before its restart; a kubelet puts itself here."""
        self.life_of: Callable[[str, str, bool], int] = lambda *_: 0
        """Gives which life of the pod's container that log is of: 0 is its first."""
        self._verbs = Verbs(self)
        self._bookmark_s = bookmark_s
        self._anonymous = anonymous
        self._tokens = {self.token}
        self._watches: set[Watch] = set()
        self._transports: set[asyncio.Transport] = set()
        self._stack = AsyncExitStack()
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=8 * 1024**2)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0)
        await self._runner.setup()
        self._stack.push_async_callback(self._runner.cleanup)
        await self._listen()
        for name in ("default", "kube-system", "knative-serving"):
            self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _listen(self) -> None:
        self._site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await self._site.start()
        assert self._site._server is not None
        self._port = self._site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]

    # Faults.

    def fail(
        self, status: int, *, times: int = 1, retry_after_s: int | None = None, verb: str = "", resource: str = ""
    ) -> None:
        """Answer so instead of doing it: 500, 409, 429 with a Retry-After …"""
        self.faults.pending.append(Fault(times, status, retry_after_s, verb=verb, resource=resource))

    def slow(self, seconds: float, *, times: int = 1, verb: str = "", resource: str = "") -> None:
        self.faults.pending.append(Fault(times, delay_s=seconds, verb=verb, resource=resource))

    def cut(self, *, done: bool, times: int = 1, verb: str = "", resource: str = "") -> None:
        """Break the connection, before anything is done or when it is done and not yet told."""
        self.faults.pending.append(Fault(times, cut="after" if done else "before", verb=verb, resource=resource))

    async def vanish(self) -> None:
        """Refuse connections and break those there are."""
        await self._site.stop()
        self.drop_connections()

    async def come_back(self) -> None:
        await self._listen()

    def drop_connections(self) -> None:
        for transport in list(self._transports):
            transport.abort()

    def stall_watches(self) -> None:
        """From now on no byte goes out on a watch, new ones included; they stay open."""
        self.faults.stalled = True

    def resume_watches(self) -> None:
        self.faults.stalled = False
        self._store.wake()

    def replay(self, count: int) -> None:
        """Send the last events once more to all watches, as a restored or stale server may."""
        for watch in self._watches:
            for event in self._store.last_events(count):
                watch.extra += watch.told(event)
        self._store.wake()

    def bookmark(self) -> None:
        """Send a bookmark now to all watches that take them."""
        for watch in self._watches:
            if watch.bookmarks:
                watch.extra.append(watch.bookmark())
        self._store.wake()

    def forget_history(self) -> None:
        """What happened so far cannot be watched from: 410 for every resourceVersion before now."""
        self._store.forget()

    def expire_watches(self) -> None:
        """End the open watches with a 410 event."""
        for watch in self._watches:
            watch.extra.append(
                line("ERROR", Refused(410, "The resourceVersion for the provided watch is too old.").status())
            )
        self._store.wake()

    def expire_token(self) -> str:
        """Refuse the token in use; returns the next one."""
        self._tokens.clear()
        self.token = secrets.token_hex(8)
        self._tokens.add(self.token)
        return self.token

    @property
    def watching(self) -> list[str]:
        """The kinds that are being watched now."""
        return sorted(watch.kind.kind for watch in self._watches)

    # Requests.

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        transport = request.transport
        assert isinstance(transport, asyncio.Transport)
        self._transports.add(transport)
        try:
            return await self._authenticated(request)
        except Refused as refused:
            return _refusal(refused)
        finally:
            self._transports = {t for t in self._transports if not t.is_closing()}

    async def _authenticated(self, request: web.Request) -> web.StreamResponse:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        known = self._anonymous or (scheme.lower() == "bearer" and token in self._tokens)
        if not known and request.path != "/version":
            raise Refused(401, "Unauthorized")
        found = discovery(request.path)
        if found is not None:
            return web.json_response(found)
        query = dict(request.query)
        asked = parse(request.method, request.path, query)
        self.asked.append(asked)
        fault = self.faults.next_for(asked)
        if fault is not None:
            await asyncio.sleep(fault.delay_s)
            if fault.cut == "before":
                return _broken(request)
            if fault.status:
                raise _Failed(fault)
        if asked.verb == "watch":
            return await self._watch(request, asked, query)
        answer = await self._verbs.answer(request, asked, query)
        self._soon()
        return _broken(request) if fault is not None and fault.cut == "after" else answer

    async def _watch(self, request: web.Request, asked: Asked, query: dict[str, str]) -> web.StreamResponse:
        watch = self._verbs.watch(asked, query)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        reader = self._store.reader()
        self._watches.add(watch)
        try:
            await self._stream(watch, response, reader, float(query.get("timeoutSeconds", "1800")))
        except Refused as refused:
            await response.write(line("ERROR", refused.status()))
        finally:
            self._watches.discard(watch)
            self._store.leave(reader)
        await response.write_eof()
        return response

    async def _stream(self, watch: Watch, response: web.StreamResponse, reader: asyncio.Event, seconds: float) -> None:
        clock = asyncio.get_running_loop().time
        end, next_bookmark = clock() + seconds, clock() + self._bookmark_s
        while (now := clock()) < end:
            if not self.faults.stalled:
                for data in watch.step():
                    await response.write(data)
                    if data.startswith(b'{"type": "ERROR"'):
                        return
                if watch.bookmarks and now >= next_bookmark:
                    next_bookmark = now + self._bookmark_s
                    await response.write(watch.bookmark())
            await wait(reader, min(end, next_bookmark if watch.bookmarks else end) - now)
        if watch.bookmarks and not self.faults.stalled:
            await response.write(watch.bookmark())

    def _soon(self) -> None:
        """Let the garbage collector run when this answer is on its way, as it does in a cluster: not at once."""
        asyncio.get_running_loop().call_soon(self.settle)


class _Failed(Refused):
    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.status, "a fault that the test asked for")
        if fault.retry_after_s is not None:
            self.details = {"retryAfterSeconds": fault.retry_after_s}


def _refusal(refused: Refused) -> web.Response:
    wait_s = refused.details.get("retryAfterSeconds")
    headers = {} if wait_s is None else {"Retry-After": str(wait_s)}
    return web.json_response(refused.status(), status=refused.code, headers=headers)


def _broken(request: web.Request) -> web.Response:
    """Breaks the connection under the request; the answer goes nowhere."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()
