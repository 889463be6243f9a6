"""What is summed by the hour: the two kinds of usage, the columns of each, and the SQL that sums them.

Functions of a connection; they speak SQLite and PostgreSQL. `hours.py` decides what is read from where.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Dialect,
    Select,
    Table,
    case,
    delete,
    func,
    insert,
    literal,
    select,
    union_all,
)
from sqlalchemy.sql.elements import ColumnElement

from roost_platform.database.money_tables import call_hours, resource_hours, resource_usage, usage_corrections
from roost_platform.database.tables import UtcTime, usage_events
from roost_platform.domain.hours import HOUR
from roost_platform.metering.recording import CALLS
from roost_platform.metering.resources import RESOURCES

Sums = dict[tuple[Any, ...], list[int]]
"""By the keys of a kind: its amounts, in their order."""
_HALF = 2**32


@dataclass(frozen=True, slots=True)
class Origin:
    """A table that amounts come from, and which of its columns."""

    table: Table
    time: Column[Any]
    """Decides the hour."""
    amounts: Mapping[str, ColumnElement[Any]]
    """Those that it has; of the others it has none."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of usage: where it is, and what of it is rolled up into which table."""

    name: str
    """As `dirty_hours` calls it."""
    rolled_up: Table
    keys: tuple[str, ...]
    amounts: tuple[str, ...]
    origins: tuple[Origin, ...]


def _amounts(table: Table, keys: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(column.name for column in table.c if column.name not in ("tenant", "hour", *keys))


def _of_calls() -> Kind:
    keys = ("model", "version", "outcome")
    amounts = _amounts(call_hours, keys)
    event, corrected = usage_events.c, usage_corrections.c
    woken = case((event.cold_start_us > 0, event.requests), else_=0)
    events = {name: woken if name == "cold_starts" else event[name] for name in amounts}
    corrections = {name: corrected[name] for name in amounts if name in corrected}
    origins = (
        Origin(usage_events, event.time, events),
        Origin(usage_corrections, corrected.time, corrections),
    )
    return Kind(CALLS, call_hours, keys, amounts, origins)


def _of_resources() -> Kind:
    keys = ("model", "version", "resource_class")
    amounts = _amounts(resource_hours, keys)
    stretch = resource_usage.c
    origin = Origin(resource_usage, stretch.start, {name: stretch[name] for name in amounts})
    return Kind(RESOURCES, resource_hours, keys, amounts, (origin,))


CALL_HOURS = _of_calls()
RESOURCE_HOURS = _of_resources()
KINDS: Mapping[str, Kind] = {kind.name: kind for kind in (CALL_HOURS, RESOURCE_HOURS)}


def sum_events(connection: Connection, kind: Kind, tenant: str, start: datetime, end: datetime) -> Sums:
    """The sums of a tenant's events in [start, end), from the events themselves."""
    found: Sums = {}
    for origin in kind.origins:
        keys = [origin.table.c[key] for key in kind.keys]
        query = select(*keys, *_whole_sums(kind, origin.amounts)).group_by(*keys)
        _add(found, _read(connection, kind, query.where(*_within(origin, tenant, start, end))))
    return found


def sum_hours(connection: Connection, kind: Kind, tenant: str, start: datetime, end: datetime) -> Sums:
    """The sums of the roll-ups of the hours that begin in [start, end)."""
    row = kind.rolled_up.c
    keys = [row[key] for key in kind.keys]
    query = select(*keys, *_whole_sums(kind, {name: row[name] for name in kind.amounts})).group_by(*keys)
    return _read(connection, kind, query.where(row.tenant == tenant, row.hour >= start, row.hour < end))


def add_up(pieces: Iterable[Sums]) -> Sums:
    """All together, without groups in which everything is 0; ordered by their keys."""
    found: Sums = {}
    for piece in pieces:
        _add(found, piece)
    return {keys: found[keys] for keys in sorted(found) if any(found[keys])}


def roll_up(connection: Connection, kind: Kind, tenant: str, hour: datetime) -> None:
    """Make the roll-up of one hour anew, from the events."""
    row = kind.rolled_up.c
    connection.execute(delete(kind.rolled_up).where(row.tenant == tenant, row.hour == hour))
    parts = [_plain(kind, origin, tenant, hour) for origin in kind.origins]
    events = (union_all(*parts) if len(parts) > 1 else parts[0]).subquery()
    keys = [events.c[key] for key in kind.keys]
    sums = [func.sum(events.c[name]) for name in kind.amounts]
    query = select(literal(tenant), literal(hour, UtcTime()), *keys, *sums).group_by(*keys)
    connection.execute(insert(kind.rolled_up).from_select(["tenant", "hour", *kind.keys, *kind.amounts], query))


def used_hours(connection: Connection, kind: Kind, start: datetime, end: datetime) -> set[tuple[str, datetime]]:
    """The tenants and hours that have events, or a roll-up, in [start, end); both ends are full hours."""
    row = kind.rolled_up.c
    queries = [select(row.tenant, row.hour).where(row.hour >= start, row.hour < end).distinct()]
    for origin in kind.origins:
        hour = full_hour(connection.dialect, origin.time)
        query = select(origin.table.c.tenant, hour).where(origin.time >= start, origin.time < end)
        queries.append(query.distinct())
    return {(tenant, hour) for query in queries for tenant, hour in connection.execute(query)}


def full_hour(dialect: Dialect, time: ColumnElement[Any]) -> ColumnElement[Any]:
    """The full hour of UTC that a time lies in, as it is stored."""
    if dialect.name == "postgresql":
        return func.date_trunc("hour", time, "UTC", type_=UtcTime())
    return func.strftime("%Y-%m-%d %H:00:00.000000", time, type_=UtcTime())


def _plain(kind: Kind, origin: Origin, tenant: str, hour: datetime) -> Select[Any]:
    """One hour's rows of a table, with all the columns of the kind."""
    keys = [origin.table.c[key] for key in kind.keys]
    amounts = [origin.amounts.get(name, literal(0)).label(name) for name in kind.amounts]
    return select(*keys, *amounts).where(*_within(origin, tenant, hour, hour + HOUR))


def _within(origin: Origin, tenant: str, start: datetime, end: datetime) -> tuple[ColumnElement[bool], ...]:
    return origin.table.c.tenant == tenant, origin.time >= start, origin.time < end


def _whole_sums(kind: Kind, amounts: Mapping[str, ColumnElement[Any]]) -> list[ColumnElement[Any]]:
    """Two for each amount, its upper and its lower half.

    A few terabytes over a month are more byte-seconds than SQLite's sum can hold (2^63).
    """
    sums: list[ColumnElement[Any]] = []
    for name in kind.amounts:
        amount = amounts.get(name)
        if amount is None:
            sums += [literal(0), literal(0)]
        elif name == "byte_seconds":
            sums += [func.sum(amount // _HALF), func.sum(amount % _HALF)]
        else:
            sums += [literal(0), func.sum(amount)]
    return sums


def _read(connection: Connection, kind: Kind, query: Select[Any]) -> Sums:
    width = len(kind.keys)
    return {
        tuple(row[:width]): [
            int(upper) * _HALF + int(lower) for upper, lower in zip(row[width::2], row[width + 1 :: 2], strict=True)
        ]
        for row in connection.execute(query)
    }


def _add(to: Sums, more: Sums) -> None:
    for keys, amounts in more.items():
        before = to.get(keys) or [0] * len(amounts)
        to[keys] = [a + b for a, b in zip(before, amounts, strict=True)]
