"""The balance of a gateway's run: every call it took on was completed, could not be stored, or is unknown. And nothing is missing.

    opened = completed (requests in the ledger) + unstored (answered 507) + unknown (under way when it died; never charged)

Decisions are pure; functions of a connection ask and write. They speak SQLite and PostgreSQL.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select, update

from roost_platform.database.money_tables import sources, unknown_calls
from roost_platform.database.tables import usage_events
from roost_platform.metering.intents import Left, OpenCall
from roost_platform.metering.line_sql import insert_for
from roost_platform.metering.lines import EPOCH

SLICE = 250_000
"""Sequence numbers that one query counts: some tenths of a second."""
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Balance:
    """The calls of one run, as they are written down in its row."""

    source: str
    opened: int
    completed: int
    unstored: int
    unknown: int

    @property
    def unaccounted(self) -> int:
        """Calls of which nobody can tell what became; less than 0: calls that nobody took on. 0 is well."""
        return self.opened - self.completed - self.unstored - self.unknown


@dataclass(frozen=True, slots=True)
class Counted:
    """Events of a source in the ledger."""

    events: int = 0
    requests: int = 0
    """More than events: one may stand for the refusals of a minute."""

    def __add__(self, other: "Counted") -> "Counted":
        return Counted(self.events + other.events, self.requests + other.requests)


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of a run that is closed."""

    source: str
    missing: int
    """Sequence numbers below the last one that the ledger does not hold: usage that was lost."""
    unaccounted: int

    @property
    def well(self) -> bool:
        return not self.missing and not self.unaccounted


def judge(row: Balance, counted: Counted, last: int) -> Finding:
    """`counted`: its events in the ledger now; `last`: the highest sequence among them, -1 without any."""
    now = Balance(row.source, row.opened, counted.requests, row.unstored, row.unknown)
    return Finding(row.source, last + 1 - counted.events, now.unaccounted)


def slices(last: int, length: int = SLICE) -> Sequence[range]:
    """The sequence numbers 0 to `last`, in pieces."""
    return [range(start, min(start + length, last + 1)) for start in range(0, last + 1, length)]


def begin_source(connection: Connection, source: str, *, started_at: datetime) -> None:
    """Write down that this run takes calls on. Once more does no harm."""
    row = {"source": source, "started_at": started_at, "opened": 0, "completed": 0, "unstored": 0, "unknown": 0}
    connection.execute(insert_for(connection.dialect)(sources).values(row).on_conflict_do_nothing())


def close_source(
    connection: Connection, left: Left, *, completed: int, unknown: Collection[OpenCall], closed_at: datetime
) -> bool:
    """Write down how a run ended, and its unknown calls. False when that was done before; nothing changes then."""
    begin_source(connection, left.source, started_at=EPOCH + timedelta(microseconds=left.started_us))
    row = sources.c
    closing = (
        update(sources)
        .where(row.source == left.source, row.closed_at.is_(None))
        .values(
            closed_at=closed_at,
            opened=left.opened,
            completed=completed,
            unstored=left.unstored,
            unknown=len(unknown),
        )
    )
    if not connection.execute(closing).rowcount:
        return False
    if unknown:
        calls = [_unknown_row(left.source, call) for call in unknown]
        connection.execute(insert_for(connection.dialect)(unknown_calls).on_conflict_do_nothing(), calls)
    return True


def requests_of(connection: Connection, source: str, sequences: Iterable[int]) -> dict[int, int]:
    """Requests by sequence, of those that the ledger holds."""
    event, wanted = usage_events.c, sorted(set(sequences))
    found: dict[int, int] = {}
    for start in range(0, len(wanted), _AT_ONCE):
        part = wanted[start : start + _AT_ONCE]
        query = select(event.sequence, event.requests).where(event.source == source, event.sequence.in_(part))
        found |= {sequence: requests for sequence, requests in connection.execute(query)}  # noqa: C416 (rows are no pairs)
    return found


def last_sequence(connection: Connection, source: str) -> int:
    """The highest in the ledger; -1 without any."""
    query = select(func.max(usage_events.c.sequence)).where(usage_events.c.source == source)
    last = connection.scalar(query)
    return -1 if last is None else int(last)


def count_events(connection: Connection, source: str, sequences: range) -> Counted:
    """Events whose sequence is in a range, which should be no longer than SLICE."""
    event = usage_events.c
    query = select(func.count(), func.coalesce(func.sum(event.requests), 0)).where(
        event.source == source, event.sequence >= sequences.start, event.sequence < sequences.stop
    )
    events, requests = connection.execute(query).one()
    return Counted(int(events), int(requests))


def closed_since(connection: Connection, since: datetime) -> list[Balance]:
    """The runs that were closed at or after a time, in the order of that."""
    row = sources.c
    query = select(row.source, row.opened, row.completed, row.unstored, row.unknown)
    return [Balance(*each) for each in connection.execute(query.where(row.closed_at >= since).order_by(row.closed_at))]


def _unknown_row(source: str, call: OpenCall) -> dict[str, object]:
    return {
        "source": source,
        "number": call.number,
        "time": EPOCH + timedelta(microseconds=call.time_us),
        "tenant": call.tenant,
        "model": call.model,
        "version": call.version,
        "request_id": call.request_id,
    }
