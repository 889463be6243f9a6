"""The one table from domain errors to HTTP status codes, and the one shape of an error's body.

The prediction path and the control API both answer through `answer_of`, so a client meets one kind of error only.
"""

import math
from typing import Any

import orjson

from roost_platform.domain import errors

Header = tuple[bytes, bytes]

STATUS_OF: dict[type[errors.RoostError], int] = {
    errors.InvalidRequest: 400,
    errors.Unauthenticated: 401,
    errors.PermissionDenied: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.LengthRequired: 411,
    errors.TooLarge: 413,
    errors.UnsupportedMedia: 415,
    errors.ModelRejected: 422,
    errors.ModelFailed: 422,
    errors.Throttled: 429,
    errors.ReplicaLost: 502,
    errors.Unavailable: 503,
    errors.DeadlineExceeded: 504,
    errors.StorageFull: 507,
}
_RETRY_LATER = (errors.Throttled, errors.Unavailable)

INTERNAL = errors.RoostError("something went wrong on our side; the request id helps us to find it", code="internal")
"""What a client is told of an error nobody foresaw; the log has the rest."""


def status_of(error: errors.RoostError) -> int:
    """The HTTP status of an error; the nearest class in the table decides, 500 when there is none."""
    for kind in type(error).__mro__:
        if kind in STATUS_OF:
            return STATUS_OF[kind]
    return 500


def body_of(error: errors.RoostError, request_id: str) -> bytes:
    """The JSON body of an error: `error`, `code`, `field` where there is one, at a quota `limit`, `used` and `reset`
    (seconds), `request_id`.
    """
    document: dict[str, Any] = {"error": error.message, "code": error.code}
    if error.field is not None:
        document["field"] = error.field
    if isinstance(error, errors.ReplicaLost):
        document["retryable"] = True
    if isinstance(error, errors.Throttled):
        reset = error.reset_s
        document |= {"limit": error.limit, "used": error.used, "reset": reset and math.ceil(reset * 1000) / 1000}
    document["request_id"] = request_id
    return orjson.dumps(_encodable(document))


def headers_of(error: errors.RoostError) -> list[Header]:
    """Headers beside content type and length: when to come back, and how to authenticate."""
    headers: list[Header] = []
    if isinstance(error, _RETRY_LATER):
        # Whole seconds, and never 0: a client that obeys must not come back in a busy loop.
        headers.append((b"retry-after", str(max(1, math.ceil(error.retry_after_s or 1))).encode()))
    if isinstance(error, errors.Unauthenticated):
        headers.append((b"www-authenticate", b"Bearer"))
    return headers


def answer_of(error: errors.RoostError, request_id: str) -> tuple[int, list[Header], bytes]:
    """Status, all headers (lower case) and body of the answer to a failed request."""
    body = body_of(error, request_id)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *headers_of(error),
    ]
    return status_of(error), headers, body


def _encodable(document: dict[str, Any]) -> dict[str, Any]:
    """Text that a client sent may hold lone surrogates, which no UTF-8 body can carry; they become `?`."""
    return {
        key: value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
        for key, value in document.items()
    }
