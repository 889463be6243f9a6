"""For engines on a cluster: the gateway's internal listener, as far as a replica asks it for its artifact."""

from types import TracebackType
from typing import Self

from aiohttp import web

from roost_platform.domain.service_secrets import ServiceSecrets
from roost_platform.domain.services import ServiceKey


class ArtifactServer:
    """Serves what is in `artifacts` (by digest) to whoever shows the secret of the service it asks for."""

    def __init__(self, secrets: ServiceSecrets, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._secrets, self._host, self._port = secrets, host, port
        self.artifacts: dict[str, bytes] = {}

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self._port}"

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/internal/artifacts/{tenant}/{model}/{digest}", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        assert site._server is not None
        self._port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        key = ServiceKey(request.match_info["tenant"], request.match_info["model"])
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not self._secrets.matches(key, given.encode()):
            return web.Response(status=401)
        found = self.artifacts.get(request.match_info["digest"])
        return web.Response(status=404) if found is None else web.Response(body=found)
