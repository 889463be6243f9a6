"""The prediction path: authenticate, route, admit, lease, send, meter, answer.

Plain ASGI. Bodies pass through as bytes; everything needed is in memory. Each step is cheap because it runs for every
call: what is the same for many calls (a path, a key) is looked up, not computed again.
"""

import asyncio
import logging
from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple

import orjson
from starlette.types import Message, Receive, Send

from roost_gateway.access.authentication import Authenticator
from roost_gateway.access.directory import Directory
from roost_gateway.access.principals import Principal
from roost_gateway.access.routes import Route
from roost_gateway.errors import INTERNAL, answer_of
from roost_gateway.log_context import trace_of
from roost_gateway.predict.access_log import AccessLog
from roost_gateway.predict.bodies import ClientGone, read_body
from roost_gateway.predict.figures import PredictFigures
from roost_gateway.predict.forwarded import with_forwarding
from roost_gateway.predict.headers import Incoming, Pair, sort_headers
from roost_gateway.predict.lane import Lane
from roost_gateway.predict.metadata import describe
from roost_gateway.predict.meter import CLIENT_GONE, Measured
from roost_gateway.predict.paths import Ask, Paths, Target
from roost_gateway.predict.steps import NO_MODEL, Answer, Steps, answer_from
from roost_gateway.predict.streamed import StreamedCall
from roost_gateway.predict.traces import Traces
from roost_gateway.predict.watch import Watch
from roost_gateway.settings import LimitSettings
from roost_platform.domain.errors import RoostError
from roost_platform.domain.services import RevisionKey
from roost_platform.domain.tenants import Scope
from roost_platform.engines.port import Engine, UpstreamRequest, UpstreamResponse
from roost_platform.metering.journal import Journal

logger = logging.getLogger(__name__)


class Asgi(NamedTuple):
    """What the server hands over with a request."""

    scope: Message
    receive: Receive
    send: Send
    arrived: float
    """Seconds of `perf_counter`."""


class PredictApp:
    """ASGI application for everything under /t/{tenant}."""

    def __init__(
        self,
        *,
        directory: Directory,
        authenticator: Authenticator,
        engine: Engine,
        journal: Journal,
        figures: PredictFigures,
        limits: LimitSettings,
        serving: Callable[[], bool],
        stalled_s: float = 600.0,
        access: AccessLog | None = None,
        traces: Traces | None = None,
    ) -> None:
        """`stalled_s`: a client that takes nothing of a streamed answer for so long is gone."""
        self._directory = directory
        self._authenticator = authenticator
        self._engine = engine
        self._figures = figures
        self._limits = limits
        self._serving = serving
        self._stalled_s = stalled_s
        self._paths = Paths()
        self._steps = Steps(directory=directory, journal=journal, figures=figures, access=access, traces=traces)
        self.watch = Watch()
        self.taps = self._steps.taps
        self.lane = Lane(steps=self._steps, paths=self._paths, authenticator=authenticator, engine=engine)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        arrived = perf_counter()
        incoming = sort_headers(scope["headers"])
        request_id = self._steps.request_id(incoming)
        try:
            if b"%2f" in scope.get("raw_path", b"").lower():
                raise NO_MODEL  # an encoded slash is none: a second reading is how traversals get past checks
            target = self._paths.parse(scope["path"])
            principal = self._authenticator.identify(incoming.authorization, scope["query_string"])
            if principal.tenant != target.tenant:
                raise NO_MODEL
            if target.ask is Ask.INFER:
                if scope["method"] != "POST":
                    await _refuse_method(send, b"POST", request_id)
                    return
                answer = await self._predict(
                    target, principal, incoming, request_id, Asgi(scope, receive, send, arrived)
                )
                if answer is not None:
                    await _send(send, *answer, request_id)
            elif scope["method"] not in ("GET", "HEAD"):
                await _refuse_method(send, b"GET, HEAD", request_id)
            else:
                await self._describe(target, principal, request_id, send)
        except RoostError as error:
            await _send(send, *answer_of(error, request_id), request_id)
        except Exception:
            logger.exception("prediction_failed", extra={"request_id": request_id})
            await _send(send, *answer_of(INTERNAL, request_id), request_id)

    async def _describe(self, target: Target, principal: Principal, request_id: str, send: Send) -> None:
        principal.require(Scope.READ)
        route = self._steps.route(target) if target.model else None
        routes = [] if target.model else self._directory.routes_of(target.tenant)
        status, document = describe(target, route, routes, serving=self._serving())
        await _send(send, status, [(b"content-type", b"application/json")], orjson.dumps(document), request_id)

    async def _predict(
        self, target: Target, principal: Principal, incoming: Incoming, request_id: str, asgi: Asgi
    ) -> Answer | None:
        """The answer, metered; None when the client did not wait for it, or has had it already."""
        principal.require(Scope.PREDICT)
        route = self._steps.route(target)
        self._steps.require_room()
        measured = self._steps.begin(target, 0, request_id, perf_counter())
        if self._steps.traces is not None:
            measured.trace = self._steps.traces.begin(incoming.forwarded, target.inner, asgi.arrived)
            if measured.trace is not None:
                measured.trace.step("authenticate", asgi.arrived)
        self._figures.inflight += 1
        try:
            if self._engine.streams:
                streamed = await self._stream(target, route, incoming, measured, asgi)
                if streamed is None:
                    return None
                status, headers, body = streamed
            else:
                status, headers, body = await self._answer(target, route, incoming, measured, asgi.receive)
        except (ClientGone, asyncio.CancelledError):
            # In the second case the watch saw the client leave, and the slot is on its way back.
            if not measured.journalled:
                await self._finish(route, measured, CLIENT_GONE, measured.bytes_out)
            return None
        except RoostError as error:
            self._figures.failed(target.tenant, error)
            status, headers, body = answer_of(error, request_id)
        except Exception:
            logger.exception("prediction_failed", extra=measured.about() | trace_of(incoming.forwarded))
            status, headers, body = answer_of(INTERNAL, request_id)
        finally:
            self._figures.inflight -= 1
        if measured.journalled:  # what failed came after the end of an answer that was streamed
            return None
        await self._finish(route, measured, status, len(body))
        self._steps.show(route, measured, headers, body)
        return status, headers, body

    async def _stream(
        self, target: Target, route: Route, incoming: Incoming, measured: Measured, asgi: Asgi
    ) -> Answer | None:
        call = StreamedCall(
            steps=self._steps,
            engine=self._engine,
            watch=self.watch,
            measured=measured,
            receive=asgi.receive,
            send=asgi.send,
            limit=self._limits.request_bytes,
            stalled_s=self._stalled_s,
        )
        client, scheme = asgi.scope.get("client"), asgi.scope.get("scheme", "http")
        headers = with_forwarding(incoming.forwarded, client=client and client[0], scheme=scheme)
        return await call.run(target, route, incoming, headers)

    async def _answer(
        self, target: Target, route: Route, incoming: Incoming, measured: Measured, receive: Receive
    ) -> Answer:
        revision = route.revision_for(target.version, incoming)
        measured.chose(revision.version)
        began, trace = perf_counter(), measured.trace
        gate = self._steps.enter(target.tenant)
        try:
            if trace is not None:
                trace.step("admit", began)
                began = perf_counter()
            pieces, measured.bytes_in = await read_body(
                receive,
                declared=incoming.content_length,
                limit=self._limits.request_bytes,
            )
            if trace is not None:
                trace.step("receive", began)
            request = UpstreamRequest("POST", target.inner, incoming.forwarded, pieces, measured.request_id)
            deadline = asyncio.get_running_loop().time() + route.service.scaling.timeout_s
            response = await self._send_upstream(
                RevisionKey(route.key, revision.name), deadline, request, measured, receive
            )
        finally:
            gate.leave()
        return answer_from(response, measured)

    async def _send_upstream(
        self, key: RevisionKey, deadline: float, request: UpstreamRequest, measured: Measured, receive: Receive
    ) -> UpstreamResponse:
        task = asyncio.current_task()
        assert task is not None
        self.watch.enter(task, receive)
        began, trace = perf_counter(), measured.trace
        try:
            async with self._engine.lease(key, deadline) as upstream:
                measured.queue_us, measured.cold_start_us = upstream.queue_us, upstream.cold_start_us
                if trace is not None:
                    trace.step("queue", began)
                    trace.woke(began, upstream.cold_start_us)
                    request = request._replace(headers=trace.send(request.headers))
                measured.sent = request
                return await upstream.send(request)
        finally:
            self.watch.leave(task)

    async def _finish(self, route: Route, measured: Measured, status: int, bytes_out: int) -> None:
        """Returns when the event is durable. Raises StorageFull when it cannot be: then nothing may be answered."""
        await self._steps.journal(measured, status, bytes_out)
        self._steps.count(route, measured)


async def _refuse_method(send: Send, allowed: bytes, request_id: str) -> None:
    document = {"error": "this method is not allowed here", "code": "method_not_allowed", "request_id": request_id}
    headers = [(b"content-type", b"application/json"), (b"allow", allowed)]
    await _send(send, 405, headers, orjson.dumps(document), request_id)


async def _send(
    send: Send, status: int, headers: list[Pair], body: bytes | bytearray | memoryview, request_id: str
) -> None:
    headers = [pair for pair in headers if pair[0] != b"content-length"]
    headers += [(b"content-length", str(len(body)).encode()), (b"x-request-id", request_id.encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
