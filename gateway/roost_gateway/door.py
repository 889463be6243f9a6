"""The one ASGI application: predictions, probes and metrics, and behind them the control API."""

import ipaddress
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from roost_gateway.access.authentication import Authenticator
from roost_gateway.metrics import CONTENT_TYPE
from roost_gateway.predict.paths import PREFIX
from roost_platform.domain.errors import RoostError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]


class Door:
    """Sends each request to its part by path."""

    def __init__(
        self,
        *,
        predict: App,
        api: App,
        authenticator: Authenticator,
        metrics_page: Callable[[], bytes],
        ready: Callable[[], bool],
    ) -> None:
        self._predict = predict
        self._api = api
        self._authenticator = authenticator
        self._metrics_page = metrics_page
        self._ready = ready

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        if path.startswith(PREFIX):
            await self._predict(scope, receive, send)
        elif path == "/livez":
            await _answer(send, 200, b"application/json", b'{"status":"ok"}')
        elif path == "/readyz":
            ready = self._ready()
            document = {"status": "ok" if ready else "not ready"}
            await _answer(send, 200 if ready else 503, b"application/json", json.dumps(document).encode())
        elif path == "/metrics" and self._may_see_metrics(scope):
            await _answer(send, 200, CONTENT_TYPE, self._metrics_page())
        else:
            await self._api(scope, receive, send)

    def _may_see_metrics(self, scope: Message) -> bool:
        client = scope.get("client")
        if client and ipaddress.ip_address(client[0]).is_loopback:
            return True
        try:
            keys = [value for name, value in scope["headers"] if name == b"authorization"]
            return self._authenticator.identify(keys).operator
        except RoostError:
            return False


async def _answer(send: Send, status: int, content_type: bytes, body: bytes) -> None:
    headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
