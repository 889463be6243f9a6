"""Roll-ups: the sums of each hour (UTC) of a tenant's usage, so that a month can be rated without reading all its events.

A roll-up is a cache, never the truth: it can be thrown away, and is made again with the same numbers. An hour that is behind
has a mark, written by whoever adds usage to it, in the same transaction; `usage_between` reads such hours from the events
themselves. So its answer is the sum of the events, always. Functions of a connection; they speak SQLite and PostgreSQL.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, delete, func, select

from roost_platform.database.money_tables import call_hours, dirty_hours
from roost_platform.domain.hours import HOUR, hour_of
from roost_platform.domain.usage import Outcome
from roost_platform.metering.hour_sums import (
    CALL_HOURS,
    KINDS,
    RESOURCE_HOURS,
    Kind,
    Sums,
    add_up,
    roll_up,
    sum_events,
    sum_hours,
    used_hours,
)
from roost_platform.metering.recording import mark_dirty

__all__ = [
    "CallSum", "ResourceSum", "RolledUp", "UsageSums", "ahead", "holds", "mark_dirty", "rebuild", "refresh", "usage_between",
]  # fmt: skip

_END_OF_TIME = datetime(9999, 12, 31, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class CallSum:
    """Sums over the calls of a model's version that ended in one way, corrections included: so they may be negative."""

    model: str
    version: int
    outcome: Outcome
    requests: int
    rows: int
    compute_us: int
    queue_us: int
    cold_starts: int
    """Calls that waited for a replica to wake."""
    cold_start_us: int
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, slots=True)
class ResourceSum:
    """Sums over what a model's version held of one class; storage and checks have none (""). As `ResourceUsage`."""

    model: str
    version: int
    resource_class: str
    setup_us: int
    active_us: int
    idle_us: int
    reserved_us: int
    cold_starts: int
    pull_us: int
    schedule_us: int
    load_us: int
    byte_seconds: int
    job_us: int


@dataclass(frozen=True, slots=True)
class UsageSums:
    """Ordered by their keys; sums of nothing are left out."""

    calls: tuple[CallSum, ...]
    resources: tuple[ResourceSum, ...]


def usage_between(connection: Connection, tenant: str, start: datetime, end: datetime) -> UsageSums:
    """What a tenant used in [start, end): calls by the time of their answer, stretches by their start.

    To be asked in one state of the database (`Database.read`) where calls and resources must be of the same moment.
    """
    calls, resources = (_sums(connection, kind, tenant, start, end) for kind in (CALL_HOURS, RESOURCE_HOURS))
    return UsageSums(
        tuple(
            CallSum(model, version, Outcome(outcome), *amounts) for (model, version, outcome), amounts in calls.items()
        ),
        tuple(ResourceSum(*keys, *amounts) for keys, amounts in resources.items()),
    )


@dataclass(frozen=True, slots=True)
class RolledUp:
    """An hour of a tenant that was behind."""

    tenant: str
    hour: datetime
    more_calls: int
    """Calls that the roll-up did not have before."""


def refresh(connection: Connection, limit: int, *, before: datetime | None = None) -> list[RolledUp]:
    """Roll up as many hours that are behind, the oldest first. To be run by `Database.write`, until it finds none.

    `before`: only hours that begin before it; the one that is running would be behind again at once. Hours to which
    somebody is adding right now are left for the next time.
    """
    row = dirty_hours.c
    query = select(row.kind, row.tenant, row.hour).order_by(row.hour, row.tenant, row.kind).limit(limit)
    if before is not None:
        query = query.where(row.hour < before)
    marked = connection.execute(query.with_for_update(skip_locked=True)).all()
    return [_make_up(connection, KINDS[kind], tenant, hour) for kind, tenant, hour in marked]


def rebuild(connection: Connection, start: datetime, end: datetime) -> int:
    """Throw away the roll-ups of all hours that [start, end) touches, and make them again from the events.

    Returns how many hours of tenants those were. One transaction: of a busy ledger, a day at a time.
    """
    first, last = hour_of(start), _next_full_hour(end)
    count = 0
    for kind in KINDS.values():
        hours = used_hours(connection, kind, first, last)
        mark_dirty(connection, kind.name, hours)  # from here on, who adds usage waits until this is done
        for tenant, hour in sorted(hours):
            _make_up(connection, kind, tenant, hour)
        count += len(hours)
    return count


def ahead(connection: Connection, after: datetime) -> int:
    """How many calls the ledger holds whose time is after this one: some clock is wrong.

    Such hours have not been rolled up yet, so their marks tell where to look.
    """
    row = dirty_hours.c
    query = select(row.tenant).where(row.kind == CALL_HOURS.name, row.hour >= hour_of(after)).distinct()
    tenants = connection.scalars(query).all()
    found = (usage_between(connection, tenant, after + datetime.resolution, _END_OF_TIME).calls for tenant in tenants)
    return sum(call.requests for calls in found for call in calls)


def holds(connection: Connection, tenant: str, start: datetime, end: datetime) -> bool:
    """Whether a tenant's roll-ups of [start, end) say the same as the events. To be asked in one state of the database."""
    return all(
        _sums(connection, kind, tenant, start, end) == add_up([sum_events(connection, kind, tenant, start, end)])
        for kind in KINDS.values()
    )


def _make_up(connection: Connection, kind: Kind, tenant: str, hour: datetime) -> RolledUp:
    """The mark goes first: whoever adds usage after this waits, and then marks the hour again."""
    row = dirty_hours.c
    connection.execute(delete(dirty_hours).where(row.kind == kind.name, row.tenant == tenant, row.hour == hour))
    before = _calls(connection, kind, tenant, hour)
    roll_up(connection, kind, tenant, hour)
    return RolledUp(tenant, hour, _calls(connection, kind, tenant, hour) - before)


def _calls(connection: Connection, kind: Kind, tenant: str, hour: datetime) -> int:
    if kind is not CALL_HOURS:
        return 0
    row = call_hours.c
    query = select(func.coalesce(func.sum(row.requests), 0)).where(row.tenant == tenant, row.hour == hour)
    return int(connection.scalar(query) or 0)


def _sums(connection: Connection, kind: Kind, tenant: str, start: datetime, end: datetime) -> Sums:
    first, last = _next_full_hour(start), hour_of(end)
    if first >= last:
        return add_up([sum_events(connection, kind, tenant, start, end)])
    pieces = [sum_events(connection, kind, tenant, a, b) for a, b in ((start, first), (last, end)) if a < b]
    at = first
    for a, b in _behind(connection, kind, tenant, first, last):
        if at < a:
            pieces.append(sum_hours(connection, kind, tenant, at, a))
        pieces.append(sum_events(connection, kind, tenant, a, b))
        at = b
    if at < last:
        pieces.append(sum_hours(connection, kind, tenant, at, last))
    return add_up(pieces)


def _behind(
    connection: Connection, kind: Kind, tenant: str, start: datetime, end: datetime
) -> Iterator[tuple[datetime, datetime]]:
    """The hours in [start, end) whose roll-ups are behind, those that follow each other as one stretch; in order."""
    row = dirty_hours.c
    query = select(row.hour).where(row.kind == kind.name, row.tenant == tenant, row.hour >= start, row.hour < end)
    stretch: tuple[datetime, datetime] | None = None
    for hour in connection.scalars(query.order_by(row.hour)).all():
        if stretch is not None and hour != stretch[1]:
            yield stretch
            stretch = None
        stretch = (hour if stretch is None else stretch[0], hour + HOUR)
    if stretch is not None:
        yield stretch


def _next_full_hour(at: datetime) -> datetime:
    """The moment itself where it is one."""
    hour = hour_of(at)
    return hour if hour == at else hour + HOUR
