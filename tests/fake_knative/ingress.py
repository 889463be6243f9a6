"""The data plane on one port: ingress, activator and queue-proxy, as a request meets them one after the other."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

from aiohttp import ClientConnectorError, ClientError, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, web

from fake_knative.activator import QueueFull
from fake_knative.kubelet import RunningPod
from fake_knative.revisions import RunningRevision

_HOP_BY_HOP = {
    *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer"),
    *("transfer-encoding", "upgrade"),
}
_PRUNED = {"knative-serving-revision", "knative-serving-namespace", "k-proxy-request"}


class Ingress:
    """Routes by Host. `find` gives a revision at work, `wake` is called for each request in and out."""

    def __init__(
        self, *, find: Callable[[str, str], RunningRevision | None], counted: Callable[[RunningRevision, int], None]
    ) -> None:
        self._find, self._counted = find, counted
        self._routes: dict[tuple[str, str], dict[str, list[tuple[str, int]]]] = {}
        self.url = ""
        self.seen: list[list[tuple[bytes, bytes]]] = []
        """Headers of the requests as they came in, oldest first; names in lower case."""

    async def start(self) -> None:
        self._session = ClientSession(
            connector=TCPConnector(limit=0, force_close=True),
            timeout=ClientTimeout(total=None),
            auto_decompress=False,
            cookie_jar=DummyCookieJar(),
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
        )
        app = web.Application(client_max_size=0)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, backlog=2048)
        await site.start()
        assert site._server is not None
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[attr-defined]

    async def stop(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    def program(self, namespace: str, service: str, hosts: dict[str, list[tuple[str, int]]]) -> None:
        """Send requests for these hosts of a service to these revisions, by percents; its other hosts are forgotten."""
        self._routes[namespace, service] = hosts

    def keep_only(self, services: set[tuple[str, str]]) -> None:
        """Forget the hosts of all others."""
        for gone in set(self._routes) - services:
            del self._routes[gone]

    def _targets(self, host: str) -> tuple[str, list[tuple[str, int]]]:
        for (namespace, _), hosts in self._routes.items():
            if host in hosts:
                return namespace, hosts[host]
        return "", []

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append([(name.lower(), value) for name, value in request.raw_headers])
        host = request.headers.get("Host", "").partition(":")[0].lower()
        namespace, targets = self._targets(host)
        if not targets:
            return web.Response(status=404, headers={"Server": "envoy"})
        name = random.choices([n for n, _ in targets], [percent for _, percent in targets])[0]
        revision = self._find(namespace, name)
        if revision is None:
            return web.Response(status=404, text="revision not found\n")
        if "K-Network-Probe" in request.headers:
            return web.Response(status=400, text="unexpected probe header value\n")
        self._counted(revision, 1)
        try:
            return await self._within_time(request, revision)
        finally:
            self._counted(revision, -1)

    async def _within_time(self, request: web.Request, revision: RunningRevision) -> web.StreamResponse:
        response = web.StreamResponse()
        try:
            async with asyncio.timeout(revision.policy.timeout_s):
                try:
                    pod = await revision.activator.pod()
                except QueueFull:
                    return web.Response(status=503, text="pending request queue full\n")
                with revision.activator.inside(pod):
                    return await self._through(request, pod, response)
        except TimeoutError:
            if response.prepared:
                return _cut(request, response)
            return web.Response(status=504, text="request timeout")

    async def _through(self, request: web.Request, pod: RunningPod, response: web.StreamResponse) -> web.StreamResponse:
        try:
            async with self._session.request(
                request.method,
                pod.url + request.raw_path,
                headers=_onward(request),
                data=_body(request) if request.can_read_body else None,
                allow_redirects=False,
            ) as answer:
                response.set_status(answer.status)
                for key, value in answer.headers.items():
                    if key.lower() not in _HOP_BY_HOP:
                        response.headers.add(key, value)
                response.headers.setdefault("Server", "envoy")
                await response.prepare(request)
                async for piece in answer.content.iter_any():
                    await response.write(piece)
                await response.write_eof()
                return response
        except ClientConnectorError:
            return web.Response(status=502, text=f"dial tcp {pod.url[7:]}: connect: connection refused\n")
        except ClientError:
            return _cut(request, response) if response.prepared else web.Response(status=502, text="EOF\n")


def _onward(request: web.Request) -> list[tuple[str, str]]:
    """The request's headers as a pod sees them."""
    peer = request.remote or "127.0.0.1"
    headers = [(k, v) for k, v in request.headers.items() if k.lower() not in _HOP_BY_HOP | _PRUNED]
    given = dict(request.headers)
    forwarded = ", ".join(filter(None, (request.headers.get("X-Forwarded-For"), peer)))
    headers = [(k, v) for k, v in headers if k.lower() not in ("x-forwarded-for", "x-forwarded-proto", "forwarded")]
    headers += [("X-Forwarded-For", forwarded), ("X-Forwarded-Proto", "http")]
    headers.append(("Forwarded", f"for={peer};host={given.get('Host', '')};proto=http"))
    if "X-Request-Id" not in request.headers:
        headers.append(("X-Request-Id", f"{random.getrandbits(128):032x}"))
    return headers


async def _body(request: web.Request) -> AsyncIterator[bytes]:
    async for piece in request.content.iter_any():
        yield piece


def _cut(request: web.Request, response: web.StreamResponse) -> Any:
    """The answer had begun: all that is left is to break off."""
    if request.transport is not None:
        request.transport.abort()
    return response
