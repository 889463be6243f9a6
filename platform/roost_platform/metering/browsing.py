"""The ledger page by page: the calls, corrections and stretches that a sum is made of, each with what it adds to it.

By time; a page begins behind a `Place`, however much is added meanwhile. Functions of a connection.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Column, Connection, Table, and_, or_, select, tuple_
from sqlalchemy.sql.elements import ColumnElement

from roost_platform.database.money_tables import resource_usage, usage_corrections
from roost_platform.database.tables import usage_events


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page ended: the order in which events are told."""

    time: datetime
    rank: int
    """Of the kind of event, which decides between those of one moment."""
    source: str
    key: str | int
    """The sequence of a call, the id of others."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is summed: a tenant's, in [start, end)."""

    tenant: str
    model: str
    start: datetime
    end: datetime
    amount: str
    """The column that is added up; rows in which it is 0 add nothing and are left out."""
    outcomes: Collection[str] | None = None
    """Of calls; None = any. """
    resource_class: str | None = None
    """Of stretches; None = any."""


@dataclass(frozen=True, slots=True)
class Event:
    """One row, and what it adds."""

    place: Place
    kind: str
    """`call`, `correction`, or the kind of a stretch."""
    quantity: int
    row: dict[str, Any]
    """All of its columns."""


@dataclass(frozen=True, slots=True)
class _Origin:
    table: Table
    time: Column[Any]
    key: Column[Any]
    rank: int


_CALLS = _Origin(usage_events, usage_events.c.time, usage_events.c.sequence, 0)
_CORRECTIONS = _Origin(usage_corrections, usage_corrections.c.time, usage_corrections.c.id, 1)
_STRETCHES = _Origin(resource_usage, resource_usage.c.start, resource_usage.c.id, 0)


def browse_calls(connection: Connection, wanted: Wanted, *, after: Place | None, limit: int) -> list[Event]:
    """Calls of the ledger, and corrections of them."""
    return _pages(connection, (_CALLS, _CORRECTIONS), wanted, after, limit)


def browse_stretches(connection: Connection, wanted: Wanted, *, after: Place | None, limit: int) -> list[Event]:
    """Stretches in which something was held."""
    return _pages(connection, (_STRETCHES,), wanted, after, limit)


def _pages(
    connection: Connection, origins: tuple[_Origin, ...], wanted: Wanted, after: Place | None, limit: int
) -> list[Event]:
    found = [event for origin in origins for event in _page(connection, origin, wanted, after, limit)]
    # Within one table the database's order stays: it compares text in a way of its own.
    return sorted(found, key=lambda event: (event.place.time, event.place.rank))[:limit]


def _page(connection: Connection, origin: _Origin, wanted: Wanted, after: Place | None, limit: int) -> list[Event]:
    column = origin.table.c
    query = select(origin.table).where(
        column.tenant == wanted.tenant,
        column.model == wanted.model,
        origin.time >= wanted.start,
        origin.time < wanted.end,
        column[wanted.amount] != 0,
    )
    if wanted.outcomes is not None:
        query = query.where(column.outcome.in_(sorted(wanted.outcomes)))
    if wanted.resource_class is not None:
        query = query.where(column.resource_class == wanted.resource_class)
    if after is not None:
        query = query.where(_behind(origin, after))
    rows = connection.execute(query.order_by(origin.time, column.source, origin.key).limit(limit)).mappings()
    return [_event(origin, wanted, dict(row)) for row in rows]


def _behind(origin: _Origin, place: Place) -> ColumnElement[bool]:
    if origin.rank < place.rank:
        return origin.time > place.time
    if origin.rank > place.rank:
        return origin.time >= place.time
    same = tuple_(origin.table.c.source, origin.key) > tuple_(place.source, place.key)
    return or_(origin.time > place.time, and_(origin.time == place.time, same))


def _event(origin: _Origin, wanted: Wanted, row: dict[str, Any]) -> Event:
    place = Place(row[origin.time.name], origin.rank, row["source"], row[origin.key.name])
    kind = "call" if origin is _CALLS else "correction" if origin is _CORRECTIONS else row["kind"]
    return Event(place, kind, int(row[wanted.amount]), row)
