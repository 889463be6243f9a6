"""Reading a request's body: whole, in the pieces it came in, within a limit. Silence is bounded by `http_guard`."""

from starlette.types import Receive

from roost_platform.domain.errors import InvalidRequest, TooLarge


class ClientGone(Exception):
    """The client closed the connection; nobody is left to answer."""


async def read_body(receive: Receive, *, declared: bytes | None, limit: int) -> tuple[list[bytes], int]:
    """The body's pieces and their sum in bytes.

    Raises TooLarge (before reading when the declared length says so), InvalidRequest for no length, ClientGone.
    """
    if declared is not None:
        if not declared.isdigit():
            raise InvalidRequest("Content-Length must be a number", field="Content-Length")
        if int(declared) > limit:
            raise _too_large(limit)
    pieces: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body, more = message.get("body", b""), message.get("more_body", False)
        size += len(body)
        if size > limit:
            raise _too_large(limit)
        if body:
            pieces.append(body)
    return pieces, size


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body is larger than {limit} bytes", code="body_too_large")
