"""What every prediction does, whichever lane it takes: get an id, find its route, pass the gate, be metered and counted."""

import asyncio
import secrets
import time
from datetime import UTC, datetime
from functools import partial
from itertools import count
from time import perf_counter
from typing import cast

import orjson

from roost_gateway.access.directory import Directory
from roost_gateway.access.routes import Route
from roost_gateway.predict.access_log import AccessLog
from roost_gateway.predict.admission import Gate, require_budget
from roost_gateway.predict.figures import PredictFigures
from roost_gateway.predict.headers import Incoming, Pair
from roost_gateway.predict.meter import CLIENT_GONE, Measured, outcome_of
from roost_gateway.predict.paths import Target
from roost_gateway.predict.taps import Body, Taps, seen_of
from roost_gateway.predict.traces import Traces
from roost_gateway.request_ids import is_well_formed
from roost_platform.domain.errors import NotFound, StorageFull
from roost_platform.engines.port import UpstreamResponse
from roost_platform.metering.journal import Journal
from roost_platform.metering.syncer import Turn

Answer = tuple[int, list[Pair], Body]

ANSWER_HEADERS = frozenset(
    {b"content-type", b"content-encoding", b"inference-header-content-length", b"vary", b"retry-after", b"allow"}
)
"""What passes from a replica to the client; figures and server headers do not."""
NO_MODEL = NotFound("no such model")


class Steps:
    """All on the event loop's thread, all in memory."""

    def __init__(
        self,
        *,
        directory: Directory,
        journal: Journal,
        figures: PredictFigures,
        access: AccessLog | None = None,
        traces: Traces | None = None,
    ) -> None:
        self.figures = figures
        self.traces = traces
        self._access = access
        self.taps = Taps()
        self._directory = directory
        self._journal = journal
        self._open = journal.intents.open
        self._backlog = journal.backlog
        self._gates: dict[str, Gate] = {}
        self._id_prefix = secrets.token_hex(6)
        self._ids = count()

    def request_id(self, incoming: Incoming) -> str:
        """The client's own where it is well formed, else a new one."""
        given = incoming.request_id
        if given is not None and is_well_formed(given):
            return given.decode("ascii")
        return f"{self._id_prefix}-{next(self._ids):x}"

    def route(self, target: Target) -> Route:
        """Raises NotFound."""
        route = self._directory.route(target.tenant, target.model)
        if route is None:
            raise NO_MODEL
        return route

    def require_room(self) -> None:
        """Raises Unavailable while too much usage waits for the database. Before anything is metered: it would add to it."""
        self._backlog.require_room()

    def enter(self, tenant: str) -> Gate:
        """Pass the tenant's gate, as far as this gateway's share goes; its `leave` must follow.

        Raises Throttled, NotFound, Unavailable.
        """
        if self._backlog.full:
            self._backlog.require_room()
        gate = self._gates.get(tenant)
        if gate is None:
            gate = self._gates[tenant] = Gate()
        share = self._directory.share(tenant)
        if share is None:
            raise NO_MODEL
        cap = self._directory.caps.get(tenant)
        if cap is not None:
            require_budget(cap, datetime.now(UTC))
        gate.enter(share, asyncio.get_running_loop().time())
        return gate

    def begin(self, target: Target, version: int, request_id: str, started: float) -> Measured:
        """Take the call on: from here it is metered, whatever becomes of it, and `journal` must follow.

        Before anything is done for it. `version` is 0 while none is chosen. Raises StorageFull.
        """
        intent = self._open(target.tenant, target.model, version, request_id)
        measured = Measured(target, request_id, started, intent)
        measured.version = version
        return measured

    def journal(self, measured: Measured, status: int, bytes_out: int) -> Turn:
        """Write the call down, once. Nothing may be answered before the turn is settled, and nothing if that fails."""
        measured.status, measured.bytes_out, measured.journalled = status, bytes_out, True
        intent, measured.intent = measured.intent, None
        self._journal.append(
            time_us=time.time_ns() // 1000,
            tenant=measured.tenant,
            model=measured.model,
            version=measured.version,
            outcome=outcome_of(status),
            status=status,
            compute_us=measured.compute_us,
            queue_us=measured.queue_us,
            cold_start_us=measured.cold_start_us,
            bytes_in=measured.bytes_in,
            bytes_out=bytes_out,
            rows=measured.rows,
            request_id=measured.request_id,
            intent=intent,
        )
        turn = self._journal.written()
        if measured.trace is not None:
            turn.then(partial(_end_trace, measured, perf_counter()))
        return turn

    def count(self, route: Route, measured: Measured) -> None:
        """Add a call that was journalled to the figures."""
        self.figures.answered(
            route.key,
            outcome_of(measured.status),
            version=measured.version,
            seconds=perf_counter() - measured.started,
            queue_us=measured.queue_us,
            cold_start_us=measured.cold_start_us,
            compute_us=measured.compute_us,
            rows=measured.rows,
        )
        if self._access is not None:
            self._access.answered(measured)

    def show(self, route: Route, measured: Measured, headers: list[Pair], body: Body | None) -> None:
        """Let the model's taps see a call that was metered, soon: its answer leaves first. None = the body streamed past.

        Of calls that no replica was asked for, only those that the platform failed: a version that gets no replica fails them.
        """
        taps = self.taps.of(route.key)
        if taps and measured.status != CLIENT_GONE and (measured.sent is not None or measured.status >= 500):
            seen = seen_of(route, measured, measured.sent, headers, body)
            asyncio.get_running_loop().call_soon(self.taps.show, taps, seen)


def answer_from(response: UpstreamResponse, measured: Measured) -> Answer:
    """A replica's whole answer as the client gets it; takes over the replica's figures."""
    headers = head_from(response, measured)
    body = cast("Body", response.body)
    if response.status >= 400:
        return response.status, headers, _with_request_id(body, measured.request_id)
    return response.status, headers, body


def head_from(response: UpstreamResponse, measured: Measured) -> list[Pair]:
    """Headers of the replica's answer, as the client gets them; takes over the replica's figures."""
    measured.compute_us, measured.rows = response.compute_us, response.rows
    measured.queue_us += response.queue_us
    if measured.trace is not None:
        measured.trace.answered(response.headers, queue_us=response.queue_us, compute_us=response.compute_us)
    return [pair for pair in response.headers if pair[0] in ANSWER_HEADERS]


def _end_trace(measured: Measured, since: float, error: StorageFull | None) -> None:
    if measured.trace is not None:
        measured.trace.end(measured.summary() if error is None else measured.summary()._replace(status=507), since)


def _with_request_id(body: Body, request_id: str) -> bytes:
    """A replica's error, which does not know the id, in the shape of all errors."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return bytes(body)
    return orjson.dumps({**document, "request_id": request_id}) if isinstance(document, dict) else bytes(body)
