"""Request bodies at the edge: how much, how slowly, and what becomes of one that nobody wants.

An answer that is given before the whole body arrived must still reach the client. A server that closes at once makes
the kernel reset the connection, and the client, busy sending, may never see why. So the answer goes out whole, with
`Connection: close`, and then a bounded amount of the body is read and thrown away before the connection ends.
"""

import asyncio
from contextlib import suppress

from starlette.types import Message, Receive, Scope, Send

from roost_platform.domain.errors import InvalidRequest, TooLarge

SCOPE_KEY = "roost.body"

JSON_LIMIT = 1024 * 1024
"""Bytes of a body that is read into memory."""
_LINGER_BYTES = 64 * 1024 * 1024
_LINGER_S = 5.0


class Body:
    """The body of one request: `receive` for the application, `linger` for what it left unread."""

    def __init__(self, scope: Scope, receive: Receive, *, idle_s: float) -> None:
        headers = dict(scope["headers"])
        self._receive = receive
        self._idle_s = idle_s
        self._declared = _declared_length(headers.get(b"content-length"))
        self._asks_first = b"expect" in headers
        self._limit: int | None = JSON_LIMIT
        self._seen = 0
        self._begun = False
        self.finished = b"transfer-encoding" not in headers and not self._declared
        """No more of the body will come: it was read to its end, there is none, or the client is gone."""

    def lift_limit(self) -> None:
        """For a handler that streams and counts for itself."""
        self._limit = None

    async def receive(self) -> Message:
        """The next ASGI message. Raises TooLarge over the limit, InvalidRequest when the client fell silent."""
        if self._limit is not None and (self._declared or 0) > self._limit:
            raise _too_large(self._limit)
        if self.finished:
            return await self._receive()
        try:
            async with asyncio.timeout(self._idle_s):
                message = await self._next()
        except TimeoutError:
            raise InvalidRequest(f"no part of the body came for {self._idle_s:g} s", code="body_stalled") from None
        if self._limit is not None and self._seen > self._limit:
            raise _too_large(self._limit)
        return message

    async def linger(self) -> None:
        """Read on and throw away, so much and so long as is fair to a client that is still sending."""
        if self._asks_first and not self._begun:
            return  # it waits for `100 Continue`, got the answer instead, and sends nothing
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                end = self._seen + _LINGER_BYTES
                while not self.finished and self._seen < end:
                    await self._next()

    async def _next(self) -> Message:
        self._begun = True
        message = await self._receive()
        self._seen += len(message.get("body", b""))
        self.finished = not message.get("more_body", False)
        return message


class LingeringSend:
    """`send` for an answer that may come before its request was read."""

    def __init__(self, body: Body, send: Send) -> None:
        self._body = body
        self._send = send
        self._early = False
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self._early = not self._body.finished
            if self._early:
                message = {**message, "headers": [*message.get("headers", []), (b"connection", b"close")]}
        elif self._early and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._body.linger()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)


def _declared_length(value: bytes | None) -> int | None:
    return int(value) if value is not None and value.isdigit() else None


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body is larger than {limit} bytes", code="body_too_large")
