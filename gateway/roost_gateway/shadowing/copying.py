"""Copying calls to a shadow: a tap that hands a request on to another version once its caller was answered.

    seen ─▶ its turn? ─▶ room? ─▶ a slot is free ─▶ sent ─▶ metered ─▶ compared
                                  ready, but busy ─▶ waits in a task (not where callers would wait behind it)
                                  asleep ─▶ dropped, or (asked for) woken

Nothing here is waited for by a caller. What there is no room for is dropped and counted.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial

from roost_gateway.predict.figures import PredictFigures
from roost_gateway.predict.meter import outcome_of
from roost_gateway.predict.taps import KEPT_BYTES, Seen
from roost_gateway.shadowing.counting import Comparing, Pair, Sums
from roost_gateway.shadowing.judging import Answered
from roost_platform.domain.errors import RoostError, StorageFull, Unavailable
from roost_platform.domain.services import RevisionKey, ServiceKey
from roost_platform.domain.shadows import ShadowSums
from roost_platform.domain.usage import BILLED_OUTCOMES, Outcome
from roost_platform.engines.port import Engine, UpstreamRequest, UpstreamResponse
from roost_platform.metering.journal import Journal

MOST_UNDER_WAY = 32
"""Copies of all models of a gateway together."""
MOST_BYTES = 256 * 1024
"""Of a request and its answer together."""


class Copier:
    """Sends copies, meters them and has them compared. One of a gateway; on the event loop's thread."""

    def __init__(
        self,
        *,
        engine: Engine,
        journal: Journal,
        figures: PredictFigures,
        comparing: Comparing,
        totals: Counter[tuple[ServiceKey, str]],
        dropped: Counter[tuple[ServiceKey, str]],
    ) -> None:
        """`totals` and `dropped`: counts by model and result, or reason, for the metrics page."""
        self._engine = engine
        self._journal = journal
        self._figures = figures
        self._comparing = comparing
        self._totals = totals
        self._dropped = dropped
        self._under_way = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def copy(self, call: Seen, sums: Sums) -> None:
        """Send a copy of a call whose bodies are there, or drop it."""
        why = self._begin(call, sums)
        if why is not None:
            self.drop(sums, why)

    def drop(self, sums: Sums, why: str) -> None:
        def add(found: ShadowSums) -> None:
            found.dropped[why] += 1

        sums.count(add)
        self._dropped[sums.key, why] += 1

    def stop(self) -> None:
        """Wait for no slot any more. What was sent is metered when it is answered."""
        for task in self._tasks:
            task.cancel()

    def _begin(self, call: Seen, sums: Sums) -> str | None:
        """Why there is no copy; None when there is one."""
        if _size(call) > MOST_BYTES:
            return "large"
        if self._under_way >= MOST_UNDER_WAY or self._journal.backlog.full:
            return "full"
        try:
            revision = RevisionKey(call.route.key, call.route.for_version(sums.shadow.plan.to).name)
        except RoostError:
            return "not_deployed"
        return self._send_to(revision, call, sums)

    def _send_to(self, revision: RevisionKey, call: Seen, sums: Sums) -> str | None:
        plan, route = sums.shadow.plan, call.route
        copy = _Copy(call, sums)
        deadline = asyncio.get_running_loop().time() + route.service.scaling.timeout_s
        slot = self._engine.take_slot(revision, deadline)
        if slot is not None:
            slot.send(copy.request, partial(self._answered, copy))
            self._under_way += 1
            return None
        if not (plan.wake or self._is_awake(revision)):
            return "asleep"
        if not self._engine.streams and any(target.revision == revision.name for target in route.service.traffic):
            return "busy"  # a copy that waits for a slot is one that callers wait behind
        self._under_way += 1
        task = asyncio.create_task(self._send(copy, revision, deadline))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return None

    def _is_awake(self, revision: RevisionKey) -> bool:
        figures = self._engine.figures_of(revision.service).get(revision.name)
        return figures is not None and figures.ready > 0

    async def _send(self, copy: "_Copy", revision: RevisionKey, deadline: float) -> None:
        outcome: UpstreamResponse | RoostError = Unavailable("the copy was given up")
        try:
            if not (copy.sums.shadow.plan.wake or self._is_awake(revision)):
                self.drop(copy.sums, "asleep")  # it fell asleep before this task's first turn
                return
            async with self._engine.lease(revision, deadline) as upstream:
                copy.queue_us, copy.cold_start_us = upstream.queue_us, upstream.cold_start_us
                outcome = await upstream.send(copy.request)
                copy.queue_us, copy.cold_start_us = upstream.queue_us, upstream.cold_start_us
                if isinstance(outcome.body, AsyncIterator):
                    outcome.body = await _whole(outcome.body)
        except RoostError as error:
            outcome = error
        finally:
            self._under_way -= 1
        self._came(copy, outcome)

    def _answered(self, copy: "_Copy", outcome: UpstreamResponse | RoostError) -> None:
        self._under_way -= 1
        self._came(copy, outcome)

    def _came(self, copy: "_Copy", outcome: UpstreamResponse | RoostError) -> None:
        """Meter what a model has computed; all else costs nobody anything, and is only counted."""
        if isinstance(outcome, RoostError):
            self._failed(copy, outcome.code)
        elif outcome_of(outcome.status) not in BILLED_OUTCOMES:
            self._failed(copy, f"status_{outcome.status}")
        else:
            answered = Answered(outcome.status, list(outcome.headers), bytes(outcome.body))  # type: ignore[arg-type]
            self._journal_copy(copy, outcome, len(answered.body))
            self._journal.written().then(partial(self._metered, copy, outcome, answered))

    def _journal_copy(self, copy: "_Copy", response: UpstreamResponse, bytes_out: int) -> None:
        key = copy.sums.key
        self._journal.append(
            time_us=time.time_ns() // 1000,
            tenant=key.tenant,
            model=key.model,
            version=copy.sums.shadow.plan.to,
            outcome=Outcome.SHADOW,
            status=response.status,
            compute_us=response.compute_us,
            queue_us=copy.queue_us + response.queue_us,
            cold_start_us=copy.cold_start_us,
            bytes_in=sum(map(len, copy.pieces)),
            bytes_out=bytes_out,
            rows=response.rows,
            request_id=copy.request.request_id,
        )

    def _metered(
        self, copy: "_Copy", response: UpstreamResponse, answered: Answered, error: StorageFull | None
    ) -> None:
        if error is not None:
            self._failed(copy, error.code)
            return
        self._figures.copied(copy.sums.key)

        def add(found: ShadowSums) -> None:
            found.answered += 1
            found.compute_us += response.compute_us
            found.served_us += copy.served_us

        copy.sums.count(add)
        self._totals[copy.sums.key, "answered"] += 1
        self._comparing.put(copy.sums, copy.pair(answered))

    def _failed(self, copy: "_Copy", code: str) -> None:
        def add(found: ShadowSums) -> None:
            found.failed[code] += 1

        copy.sums.count(add)
        self._totals[copy.sums.key, "failed"] += 1


class _Copy:
    """One copy under way, and the answer that its caller got."""

    __slots__ = ("_served", "_version", "cold_start_us", "pieces", "queue_us", "request", "served_us", "sums")

    def __init__(self, call: Seen, sums: Sums) -> None:
        assert call.request is not None
        assert call.answer is not None
        measured = call.measured
        self.sums = sums
        self.pieces = tuple(bytes(piece) for piece in call.request)
        self.request = UpstreamRequest("POST", call.path, call.headers, self.pieces, measured.request_id)
        self.queue_us = self.cold_start_us = 0
        self.served_us = measured.compute_us
        self._version = measured.version
        self._served = Answered(measured.status, call.answer_headers, bytes(call.answer))

    def pair(self, copied: Answered) -> Pair:
        return Pair(
            request_id=self.request.request_id,
            at=datetime.now(UTC),
            version=self._version,
            request=b"".join(self.pieces),
            served=self._served,
            copied=copied,
        )


class Mirror:
    """The tap of one model: whose turn it is."""

    def __init__(self, sums: Sums, copier: Copier) -> None:
        self.sums = sums
        self._copier = copier
        self._owed = 0

    def wants(self, key: ServiceKey) -> bool:
        return self._owed + self.sums.shadow.plan.percent >= 100

    def seen(self, call: Seen) -> None:
        """Copy every call whose turn it is, of those that left the choice of a version to the split, that a model
        answered, and that the shadow's version did not answer itself.
        """
        measured, plan = call.measured, self.sums.shadow.plan
        if measured.named or measured.version == plan.to or outcome_of(measured.status) not in BILLED_OUTCOMES:
            return
        self._owed += plan.percent
        if self._owed < 100:
            return
        if call.request is None or call.answer is None:
            if self._owed >= 200:  # not one that nobody had asked to keep, of several at a time
                self._owed -= 100
                self._copier.drop(self.sums, "streamed")
            return
        self._owed -= 100
        self._copier.copy(call, self.sums)


def _size(call: Seen) -> int:
    """Of both bodies, in bytes."""
    assert call.request is not None
    assert call.answer is not None
    return sum(map(len, call.request)) + len(call.answer)


async def _whole(pieces: AsyncIterator[bytes]) -> bytes:
    """An answer that streams. Raises Unavailable when it is larger than what is kept of those of callers."""
    body = bytearray()
    async for piece in pieces:
        body += piece
        if len(body) > KEPT_BYTES:
            raise Unavailable("the answer is too large to be compared", code="large_answer")
    return bytes(body)
