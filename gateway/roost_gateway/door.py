"""The one ASGI application: predictions, probes and metrics, and behind them the control API."""

import ipaddress
from collections.abc import Callable

import orjson
from starlette.types import ASGIApp, Receive, Scope, Send

from roost_gateway.access.authentication import Authenticator
from roost_gateway.health import Readiness
from roost_gateway.metrics.page import CONTENT_TYPE
from roost_gateway.predict.paths import PREFIX
from roost_gateway.request_ids import SCOPE_KEY, request_id_from
from roost_platform.domain.errors import RoostError

_JSON = b"application/json"


class Door:
    """Sends each request to its part by path."""

    def __init__(
        self,
        *,
        predict: ASGIApp,
        api: ASGIApp,
        authenticator: Authenticator,
        metrics_page: Callable[[], bytes],
        ready: Callable[[], Readiness],
    ) -> None:
        self._predict = predict
        self._api = api
        self._authenticator = authenticator
        self._metrics_page = metrics_page
        self._ready = ready

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        if path.startswith(PREFIX):
            await self._predict(scope, receive, send)
        elif path in ("/livez", "/readyz") or (path == "/metrics" and self._may_see_metrics(scope)):
            if scope["method"] in ("GET", "HEAD"):
                await _answer(scope, send, *self._look(path))
            else:
                await _refuse_method(scope, send)
        else:
            await self._api(scope, receive, send)

    def _look(self, path: str) -> tuple[int, bytes, bytes]:
        """Status, content type and body of what probes and Prometheus ask for."""
        if path == "/metrics":
            return 200, CONTENT_TYPE, self._metrics_page()
        if path == "/livez":
            return 200, _JSON, orjson.dumps({"status": "ok"})
        readiness = self._ready()
        return (200 if readiness.ready else 503), _JSON, orjson.dumps(readiness.to_json())

    def _may_see_metrics(self, scope: Scope) -> bool:
        client = scope.get("client")
        if client and ipaddress.ip_address(client[0]).is_loopback:
            return True
        try:
            keys = [value for name, value in scope["headers"] if name == b"authorization"]
            return self._authenticator.identify(keys).operator
        except RoostError:
            return False


async def _refuse_method(scope: Scope, send: Send) -> None:
    document = {"error": "this method is not allowed here", "code": "method_not_allowed"}
    document["request_id"] = scope[SCOPE_KEY] = request_id_from(scope["headers"])
    await _answer(scope, send, 405, _JSON, orjson.dumps(document), (b"allow", b"GET, HEAD"))


async def _answer(
    scope: Scope, send: Send, status: int, content_type: bytes, body: bytes, *more: tuple[bytes, bytes]
) -> None:
    request_id = scope.get(SCOPE_KEY) or request_id_from(scope["headers"])
    headers = [
        (b"content-type", content_type),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", request_id.encode()),
        *more,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
