"""A prediction whose bodies pass through as they come, for an engine that streams.

    client ─ piece ─▶ gateway ─ piece ─▶ ingress        no piece is read before the one before it has gone on,
    client ◀─ piece ─ gateway ◀─ piece ─ ingress        in both directions: who is slow makes the other side wait

Small answers and refusals come whole and are left to the application. A large one is sent on from here, inside its
lease. The call is journalled before the end of the answer leaves: its last piece where the length is known, else the mark
that ends it. So no client has a whole answer that was not metered. An answer that breaks is cut off, never ended.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from time import perf_counter
from typing import Any

from starlette.types import Receive, Send

from roost_gateway.access.routes import Route
from roost_gateway.errors import status_of
from roost_gateway.predict.bodies import ClientGone, Upload, check_length
from roost_gateway.predict.headers import Incoming, Pair
from roost_gateway.predict.meter import Measured
from roost_gateway.predict.paths import Target
from roost_gateway.predict.steps import Answer, Steps, answer_from, head_from
from roost_gateway.predict.taps import KEPT_BYTES
from roost_gateway.predict.watch import Watch, cancel_on_disconnect
from roost_platform.domain.errors import RoostError, StorageFull
from roost_platform.domain.services import RevisionKey
from roost_platform.engines.port import Engine, UpstreamRequest, UpstreamResponse

logger = logging.getLogger(__name__)


class StreamedCall:
    """One call. `run` gives the answer to be metered and sent; None when it was, as far as it went."""

    def __init__(
        self,
        *,
        steps: Steps,
        engine: Engine,
        watch: Watch,
        measured: Measured,
        receive: Receive,
        send: Send,
        limit: int,
        stalled_s: float,
    ) -> None:
        """`limit`: bytes of a request's body. `stalled_s`: a client that takes no piece of its answer for so long is
        gone; while it is waited for, a replica waits, too.
        """
        self._steps = steps
        self._engine = engine
        self._watch = watch
        self._measured = measured
        self._receive = receive
        self._send = send
        self._limit = limit
        self._stalled_s = stalled_s
        self._upload = Upload(self._receive_piece, limit=limit, on_end=self._uploaded)
        self._task: asyncio.Task[Any] | None = None
        self._watched = False
        self._answering = False
        self._listener: asyncio.Task[None] | None = None

    async def run(self, target: Target, route: Route, incoming: Incoming, headers: list[Pair]) -> Answer | None:
        """`headers` go on to the replica. Raises RoostError or ClientGone when nothing was answered yet."""
        measured = self._measured
        revision = route.revision_for(target.version, incoming)
        measured.chose(revision.version)
        began = perf_counter()
        gate = self._steps.enter(target.tenant)
        try:
            if measured.trace is not None:
                measured.trace.step("admit", began)
            check_length(incoming.content_length, self._limit)
            self._task = asyncio.current_task()
            if self._steps.taps.wanted(route.key):
                self._upload.keep(KEPT_BYTES)
            await self._upload.begin()
            if measured.trace is not None:
                headers = measured.trace.send(headers)
            request = UpstreamRequest(
                "POST", target.inner, headers, self._upload, measured.request_id, length=incoming.length
            )
            deadline = asyncio.get_running_loop().time() + route.service.scaling.timeout_s
            return await self._exchange(route, RevisionKey(route.key, revision.name), deadline, request)
        finally:
            self._unwatch()
            measured.bytes_in = self._upload.size
            gate.leave()

    async def _exchange(
        self, route: Route, key: RevisionKey, deadline: float, request: UpstreamRequest
    ) -> Answer | None:
        measured, began = self._measured, perf_counter()
        async with self._engine.lease(key, deadline) as upstream:
            measured.sent = request
            try:
                response = await upstream.send(request)
            finally:
                measured.queue_us, measured.cold_start_us = upstream.queue_us, upstream.cold_start_us
                if measured.trace is not None:
                    measured.trace.step("queue", began, began + upstream.queue_us / 1e6)
                    measured.trace.woke(began, upstream.cold_start_us)
            if not isinstance(response.body, AsyncIterator):
                return answer_from(response, measured)
            await self._pass_on(route, response, response.body)
            return None

    # The client may leave at any time. While its body comes, that is what tells; from then on somebody has to listen.

    async def _receive_piece(self) -> Any:
        message = await self._receive()
        if message["type"] == "http.disconnect" and self._answering:
            assert self._task is not None
            self._task.cancel()
        return message

    def _uploaded(self) -> None:
        if self._answering:
            self._listen()
        else:
            assert self._task is not None
            self._watched = True
            self._watch.enter(self._task, self._receive)

    def _listen(self) -> None:
        assert self._task is not None
        self._listener = asyncio.get_running_loop().create_task(cancel_on_disconnect(self._task, self._receive))

    def _unwatch(self) -> None:
        if self._watched:
            assert self._task is not None
            self._watched = False
            self._watch.leave(self._task)
        if self._listener is not None:
            self._listener.cancel()
            self._listener = None

    # The answer

    async def _pass_on(self, route: Route, response: UpstreamResponse, pieces: AsyncIterator[bytes]) -> None:
        measured = self._measured
        self._answering = True
        if self._watched:  # an answer on its way must not go on for a tenth of a second to nobody
            self._unwatch()
            self._listen()
        status = response.status
        try:
            last = await self._send_pieces(response, pieces)
        except RoostError as error:
            status, last = status_of(error), None
            self._steps.figures.failed(measured.tenant, error)
            self._tell_cut(error.code)
        except ClientGone:
            raise
        except Exception:
            logger.exception("prediction_failed", extra={"request_id": measured.request_id})
            status, last = 500, None
        self._unwatch()  # who leaves from now on has been answered
        with suppress(asyncio.CancelledError):  # the server goes down; the call is written and must not be twice
            await self._end(route, status, list(response.headers), last)

    async def _end(self, route: Route, status: int, headers: list[Pair], last: bytes | None) -> None:
        """Write the call down, then send what is left; None = cut the answer off."""
        measured = self._measured
        measured.bytes_in = self._upload.size
        try:
            await self._steps.journal(measured, status, measured.bytes_out)
        except StorageFull as error:
            self._tell_cut(error.code)
            return
        self._steps.count(route, measured)
        if last is not None:
            await self._send({"type": "http.response.body", "body": last})
        self._steps.show(route, measured, headers, None)

    async def _send_pieces(self, response: UpstreamResponse, pieces: AsyncIterator[bytes]) -> bytes:
        """Send the head and all but the end; returns what is left to send."""
        measured, length = self._measured, response.length
        headers = head_from(response, measured)
        if length is not None:
            headers.append((b"content-length", b"%d" % length))
        headers.append((b"x-request-id", measured.request_id.encode()))
        await self._send({"type": "http.response.start", "status": response.status, "headers": headers})
        last = b""
        async for piece in pieces:
            measured.bytes_out += len(piece)
            if measured.bytes_out == length:
                last = piece
            else:
                await self._send_piece(piece)
        return last

    async def _send_piece(self, piece: bytes) -> None:
        try:
            async with asyncio.timeout(self._stalled_s):
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        except TimeoutError as error:
            self._tell_cut("reader_stalled")
            raise ClientGone from error

    def _tell_cut(self, code: str) -> None:
        """The server closes a connection whose answer is not complete."""
        logger.warning("answer_cut_off", extra={"request_id": self._measured.request_id, "code": code})
