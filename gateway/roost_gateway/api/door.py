"""The door of the control API: raw ASGI around FastAPI.

Who knocks is known from the headers, before a byte of the body is read and before any route is looked at; and whatever
goes wrong inside, the answer is one of ours.
"""

import logging
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from roost_gateway.access.authentication import Authenticator
from roost_gateway.api.bodies import SCOPE_KEY as BODY_KEY
from roost_gateway.api.bodies import Body, LingeringSend
from roost_gateway.errors import INTERNAL, answer_of, status_of
from roost_gateway.request_ids import SCOPE_KEY as REQUEST_ID_KEY
from roost_platform.domain.errors import InvalidRequest, RoostError

PRINCIPAL_KEY = "roost.principal"

_GUARDED = "/api/"
_LONGEST_QUERY = 8192

log = logging.getLogger(__name__)


class Door:
    """ASGI middleware: authenticates everything under `/api/`, bounds bodies, and answers every error."""

    def __init__(self, app: ASGIApp, *, authenticator: Authenticator, body_idle_s: float) -> None:
        """`body_idle_s`: longest silence inside a request's body."""
        self._app = app
        self._authenticator = authenticator
        self._body_idle_s = body_idle_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = Body(scope, receive, idle_s=self._body_idle_s)
        scope[BODY_KEY] = body
        answer = LingeringSend(body, send)
        try:
            if scope["path"].startswith(_GUARDED):
                self._admit(scope)
            await self._app(scope, body.receive, answer)
        except ClientDisconnect:
            return  # nobody is there to be answered
        except RoostError as error:
            if answer.started:
                raise
            _log_cause(scope, error)
            await _send_error(scope, answer, error)
        except Exception:
            log.exception("request_failed", extra={"request_id": scope[REQUEST_ID_KEY], "method": scope["method"]})
            if answer.started:
                raise
            await _send_error(scope, answer, INTERNAL)

    def _admit(self, scope: Scope) -> None:
        authorization = [value for name, value in scope["headers"] if name == b"authorization"]
        query: bytes = scope["query_string"]
        scope[PRINCIPAL_KEY] = self._authenticator.identify(authorization, query[:_LONGEST_QUERY])
        if b"%" in scope.get("raw_path", b""):
            raise InvalidRequest("no path here needs an escape: names are lower-case letters, digits and hyphens")
        if len(query) > _LONGEST_QUERY:
            raise InvalidRequest(f"the query is longer than {_LONGEST_QUERY} bytes")
        names = [name for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True)]
        for name in names:
            if names.count(name) > 1:
                raise InvalidRequest(f"{name[:64]!r} is in the query more than once", field=name[:64])


def _log_cause(scope: Scope, error: RoostError) -> None:
    """A client is told that a disk or a database does not work; the operator, why."""
    if error.__cause__ is not None and status_of(error) >= 500:
        extra = {"code": error.code, "cause": repr(error.__cause__)[:300], "request_id": scope[REQUEST_ID_KEY]}
        log.warning("request_refused", extra=extra)


async def _send_error(scope: Scope, send: Send, error: RoostError) -> None:
    status, headers, content = answer_of(error, scope[REQUEST_ID_KEY])
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content if scope["method"] != "HEAD" else b""})
