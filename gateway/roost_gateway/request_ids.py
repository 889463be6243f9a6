"""`X-Request-Id`: every answer carries one, the client's own where it is well formed.

Raw ASGI, so that the prediction path and the control API share it. The id lies in the scope under `SCOPE_KEY`.
"""

import re
import secrets
from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from roost_gateway.log_context import log_with, trace_of

HEADER = b"x-request-id"
SCOPE_KEY = "roost.request_id"

_WELL_FORMED = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


def is_well_formed(value: bytes) -> bool:
    """Whether a client's id may be kept: short, and safe in a header and a log line."""
    return _WELL_FORMED.fullmatch(value) is not None


def request_id_from(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The client's request id when it sent one well-formed id, else a new one (16 random bytes in hexadecimal)."""
    values = [value for name, value in headers if name == HEADER]
    if len(values) == 1 and is_well_formed(values[0]):
        return values[0].decode("ascii")
    return secrets.token_hex(16)


class RequestIds:
    """ASGI middleware: accepts or makes the request id, and puts it on the answer.

    An id that an outer instance chose is kept, so wrapping twice does no harm.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or SCOPE_KEY in scope:
            await self._app(scope, receive, send)
            return
        request_id = request_id_from(scope["headers"])
        scope[SCOPE_KEY] = request_id
        log_with({"request_id": request_id, **trace_of(scope["headers"])})

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [pair for pair in message.get("headers", []) if pair[0] != HEADER]
                message = {**message, "headers": [*kept, (HEADER, request_id.encode())]}
            await send(message)

        await self._app(scope, receive, send_with_id)
