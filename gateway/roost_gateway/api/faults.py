"""FastAPI's own refusals in our words, and the error bodies in the OpenAPI document."""

import re
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from roost_gateway.errors import answer_of
from roost_gateway.request_ids import SCOPE_KEY as REQUEST_ID_KEY
from roost_platform.domain.errors import InvalidRequest, NotFound, RoostError

_MEANING = {
    400: "The request is malformed; `field` names the part at fault.",
    401: "No key, or one that is not valid.",
    403: "The key is valid but lacks the scope.",
    404: "Not yours, or absent: the two look the same.",
    409: "It contradicts what is there.",
    413: "Over the size limit.",
    415: "A body of a kind that is not taken here.",
    422: "The model is not acceptable; `error` says why.",
    429: "Over a quota or a rate; `Retry-After` says when to come back.",
    503: "Not now; `Retry-After` says when to come back.",
    507: "The disk is full.",
}

_NAME = re.compile(r"[\w-]+")


class ErrorBody(BaseModel):
    """The body of every error."""

    error: str = Field(description="What went wrong, a sentence for people.", examples=["no such model"])
    code: str = Field(description="A stable word for programs.", examples=["not_found"])
    field: str | None = Field(default=None, description="The part of the request at fault, where there is one.")
    limit: float | None = Field(default=None, description="With 429: what the quota allows, in its own unit.")
    used: float | None = Field(default=None, description="With 429: how much of it is in use.")
    reset: float | None = Field(
        default=None, description="With 429: seconds until there is room again; null when time alone makes none."
    )
    request_id: str = Field(
        description="As in `X-Request-Id`; it finds the call in the log.", examples=["5f0c6a1e9d3b4c7f8a2e1d0b9c8f7a6e"]
    )


def faults(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for these statuses, beside 400, 401 and 503 which every route has."""
    return {
        status: {"model": ErrorBody, "description": _MEANING[status]} for status in sorted({400, 401, 503, *statuses})
    }


def install(app: FastAPI) -> None:
    """Make FastAPI answer its own errors with our body."""
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_http)


def explain(errors: Sequence[Any]) -> InvalidRequest:
    """The first of pydantic's findings as our error; never echoes the value that was sent."""
    first = errors[0]
    # The names in pydantic's path that are none of the client's stand for how it checks, which is nobody's business.
    path = [str(part) for part in first["loc"] if isinstance(part, int) or _NAME.fullmatch(part)]
    field = ".".join(path[1:])[:64] or path[0]
    if first["type"] == "json_invalid":
        return InvalidRequest("the body is not valid JSON", code="invalid_json", field="body")
    if first["type"] == "extra_forbidden":
        return InvalidRequest(f"unknown field {field!r}", field=field)
    if first["type"] == "missing":
        what = "a JSON body with Content-Type application/json" if field == "body" else field
        return InvalidRequest(f"{what} is missing", field=field)
    return InvalidRequest(f"{field}: {first['msg'][:1].lower()}{first['msg'][1:]}", field=field)


async def _answer_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _response(request, explain(error.errors()))


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, RoostError):  # raised while FastAPI read the body, and wrapped by it
        raise error.__cause__
    if error.status_code == 404:
        return _response(request, NotFound("there is nothing at this path"))
    if error.status_code == 405:
        refused = RoostError("this path does not take that method", code="method_not_allowed")
        return _response(request, refused, status=405, headers=_allowed(request) or error.headers)
    return _response(request, InvalidRequest("the body cannot be read as JSON", code="invalid_json", field="body"))


def _allowed(request: Request) -> dict[str, str]:
    """The `Allow` header with all that the path takes: each of its routes knows only its own."""
    route = request.scope.get("route")
    operations = request.app.openapi()["paths"].get(getattr(route, "path", None), {})
    return {"allow": ", ".join(sorted(operations)).upper()} if operations else {}


def _response(request: Request, error: RoostError, *, status: int | None = None, headers: Any = None) -> Response:
    chosen, pairs, content = answer_of(error, request.scope[REQUEST_ID_KEY])
    response = Response(content, status_code=status or chosen, headers=headers)
    response.raw_headers = [*(p for p in response.raw_headers if p[0] != b"content-length"), *pairs]
    return response
