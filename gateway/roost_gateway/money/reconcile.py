"""Reconciling: whether counters, journal, ledger, roll-ups, statements and replicas tell the same story of a period."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection, func, select

from roost_gateway.money.checks import calls, hours, replicas, statements
from roost_gateway.money.checks.check import Check, Checking, Inquiry, ThisRun, Verdict
from roost_gateway.predict.figures import PredictFigures
from roost_platform.billing.prices import PriceBooks
from roost_platform.database.connection import Database
from roost_platform.database.money_tables import call_hours, resource_hours
from roost_platform.domain.errors import InvalidRequest
from roost_platform.domain.hours import hour_of
from roost_platform.metering.journal import Journal
from roost_platform.metering.progress import first_use, users

CHECKS: Sequence[Checking] = (
    calls.counters,
    calls.taken_on,
    calls.balances,
    calls.completed,
    calls.unknown,
    calls.sequences,
    calls.journal,
    calls.conflicts,
    hours.call_roll_ups,
    hours.resource_roll_ups,
    replicas.outbox,
    replicas.states,
    replicas.chains,
    statements.documents,
    statements.calls,
    statements.rated_again,
)
"""In the order in which usage travels."""

_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_AHEAD = timedelta(days=366)
"""No usage, and no month, is told of so far ahead."""


def run_of(journal: Journal, figures: PredictFigures) -> ThisRun:
    """What a gateway's journal and its metrics count."""
    intents = journal.intents
    return ThisRun(
        source=journal.source,
        opened=lambda: intents.opened,
        unstored=lambda: intents.unstored,
        in_flight=lambda: figures.inflight,
        answered=figures.metered_by_tenant,
    )


@dataclass(frozen=True, slots=True)
class Report:
    start: datetime
    end: datetime
    made_at: datetime
    checks: tuple[Check, ...]

    @property
    def differs(self) -> int:
        """How many checks found a difference."""
        return sum(1 for check in self.checks if check.verdict is Verdict.DIFFERS)


class Reconciliation:
    """Of one gateway: it sees its own counters and files, and of other gateways what they have written down."""

    def __init__(
        self,
        *,
        database: Database,
        journal: Path,
        outbox: Path,
        books: PriceBooks,
        run: ThisRun,
        drain: Callable[[], Awaitable[None]],
        clock: Callable[[], datetime],
        checks: Sequence[Checking] = CHECKS,
    ) -> None:
        """`journal` and `outbox` are this gateway's folders; `drain` brings what lies there into the database."""
        self._database = database
        self._journal = journal
        self._outbox = outbox
        self._books = books
        self._run = run
        self._drain = drain
        self._clock = clock
        self._checks = checks

    async def reconcile(self, start: datetime, end: datetime) -> Report:
        """Make every check over [start, end), one after the other. Raises InvalidRequest, Unavailable."""
        if end <= start:
            raise InvalidRequest("to must be later than from", field="to")
        now = self._clock()
        first = _clamped(start, _BEGINNING, now + _AHEAD)
        last = _clamped(end, first, now + _AHEAD)
        inquiry = Inquiry(
            database=self._database,
            start=first,
            end=last,
            begin=await self._database.read(_begin, first, last),
            now=now,
            journal=self._journal,
            outbox=self._outbox,
            books=self._books,
            run=self._run,
            drain=self._drain,
        )
        return Report(start, end, now, tuple([await check(inquiry) for check in self._checks]))


def _clamped(at: datetime, low: datetime, high: datetime) -> datetime:
    return min(max(at, low), high)


def _begin(connection: Connection, start: datetime, end: datetime) -> datetime:
    """When the first tenant used anything in the period, or the first roll-up there is of; the end without any."""
    uses = (first_use(connection, tenant, start) for tenant in users(connection))
    rolled_up = (
        connection.scalar(select(func.min(table.c.hour)).where(table.c.hour >= hour_of(start)))
        for table in (call_hours, resource_hours)
    )
    return min((time for time in (*uses, *rolled_up, end) if time is not None), default=end)
