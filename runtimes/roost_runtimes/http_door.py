"""The HTTP door: a raw ASGI application in front of the core."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from roost_runtimes.content import fold_headers, too_large
from roost_runtimes.core import Answer, Core, Limits, Request, Ticket
from roost_runtimes.errors import RequestError
from roost_runtimes.messages import error_answer, json_answer
from roost_runtimes.tensors import Buffer

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_JOIN_BELOW = 1 << 16
_HEALTH = "/v2/health/"


class _Gone(Exception):
    """The client went away before its request was whole."""


class HttpDoor:
    """Reads requests, hands them to the core, writes its answers. Until `core` is set it answers probes only."""

    def __init__(self, limits: Limits) -> None:
        self.core: Core | None = None
        self.active = 0
        """Requests being read, computed or answered; probes do not count."""
        self.last_active = 0.0
        """When the last of them began or ended, in seconds of the loop's clock."""
        self._limits = limits

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        assert scope["type"] == "http", "the server is told to speak HTTP only"
        path = scope["raw_path"].decode("latin-1")
        if path.startswith(_HEALTH):
            await self._serve(scope, path, receive, send)
            return
        clock = asyncio.get_running_loop().time
        self.active += 1
        self.last_active = clock()
        try:
            await self._serve(scope, path, receive, send)
        finally:
            self.active -= 1
            self.last_active = clock()

    async def _serve(self, scope: Mapping[str, Any], path: str, receive: Receive, send: Send) -> None:
        try:
            request = Request(scope["method"], path, _headers(scope))
            request.body = await self._body(request.headers, receive)
            answer = await self._answer(request, receive)
        except RequestError as error:
            answer = error_answer(error)
        except _Gone:
            return
        if answer is not None:
            closing = self.core is not None and self.core.draining
            await _write(answer, send, closing=closing)

    async def _body(self, headers: Mapping[str, str], receive: Receive) -> Buffer:
        """The whole body; refused before it is read when its announced length says so."""
        limit = self._limits.body_bytes
        announced = headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > limit:
            raise too_large(limit)
        pieces: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            piece = message.get("body", b"")
            size += len(piece)
            if size > limit:
                raise too_large(limit)
            if not message.get("more_body", False):
                return b"".join((*pieces, piece)) if pieces else piece
            pieces.append(piece)

    async def _answer(self, request: Request, receive: Receive) -> Answer | None:
        """The core's answer; None when the client left meanwhile, whose request is then cancelled."""
        core = self.core
        if core is None:
            return _answer_loading(request)
        answers: list[Answer] = []
        ticket = core.submit(request, answers.append)
        if not answers:
            core.pump()
        if answers:
            return answers[0]
        assert ticket is not None, "what has no ticket was answered"
        return await self._wait(core, ticket, receive)

    async def _wait(self, core: Core, ticket: Ticket, receive: Receive) -> Answer | None:
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        ticket.done = answered.set_result
        left = asyncio.ensure_future(receive())
        try:
            await asyncio.wait((answered, left), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:  # by a server around this door, which tells in this way that the client has gone
            left.cancel()
            core.cancel(ticket)
            raise
        if answered.done():
            left.cancel()
            with suppress(asyncio.CancelledError):
                await left
            return answered.result()
        core.cancel(ticket)
        await answered  # the slot stays taken, and the request active, until the run has ended
        return None


def _headers(scope: Mapping[str, Any]) -> dict[str, str]:
    return fold_headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])


def _answer_loading(request: Request) -> Answer:
    if request.path == "/v2/health/live":
        return json_answer({"live": True})
    if request.path == "/v2/health/ready":
        return json_answer({"ready": False}, 503)
    error = RequestError("the model is being loaded", status=503, code="loading", headers=(("retry-after", "1"),))
    return error_answer(error)


async def _write(answer: Answer, send: Send, *, closing: bool) -> None:
    size = sum(map(len, answer.body))
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
    headers.append((b"content-length", b"%d" % size))
    # On every answer, also a refusal: they tell the gateway that it was a replica that spoke, and no proxy on the way.
    headers += (
        (b"roost-compute-us", b"%d" % answer.compute_us),
        (b"roost-queue-us", b"%d" % answer.queue_us),
        (b"roost-rows", b"%d" % answer.rows),
    )
    headers += ((name.encode(), value.encode()) for name, value in answer.told())
    if closing:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    # Small pieces leave in one write, large ones are not copied into one.
    pieces = [b"".join(answer.body)] if size <= _JOIN_BELOW else answer.body
    for piece in pieces[:-1]:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": pieces[-1], "more_body": False})
