"""Adding to the ledger, which takes each (source, sequence) once, for ever. Functions of a connection.

The sums of a minute's refusals come several times, each time with more calls; the one with the most stays. Anything else that
comes again must be what is there, or it is put aside (`conflicts.py`). The hours that are added to are marked in the same
transaction: their roll-ups are behind.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Dialect
from sqlalchemy.exc import DBAPIError

from roost_platform.database.money_tables import dirty_hours
from roost_platform.database.tables import usage_events
from roost_platform.domain.usage import UsageEvent
from roost_platform.metering.conflicts import AMOUNTS, SAME, find_in_lines, find_in_rows, put_aside
from roost_platform.metering.line_rows import insert_rows
from roost_platform.metering.line_sql import COLUMNS, insert_for, is_postgresql, line_values, lines_table
from roost_platform.metering.lines import as_json, hours_of

__all__ = ["CALLS", "UNFIT", "Recorded", "insert_for", "mark_dirty", "record", "record_lines", "record_rows"]

CALLS = "calls"
"""The kind of dirty hours whose events these are."""
UNFIT = (DBAPIError, ValueError, TypeError, OverflowError)
"""What a line raises that does not fit the table."""
_TIME = COLUMNS.index("time")
_REQUESTS = COLUMNS.index("requests")
_GROWS = (*AMOUNTS, "requests")
"""What a later sum of the same refusals replaces."""


class Recorded(NamedTuple):
    """What became of events."""

    new: int
    """The ledger did not hold them, or not with as many calls."""
    conflicts: int
    """They were kept beside it: it holds others under their keys. Those that came before as well are not counted."""


def record(connection: Connection, events: Iterable[UsageEvent]) -> int:
    """Add the events that the ledger does not hold yet, or not with as many calls; returns how many those were."""
    return record_rows(connection, [tuple(getattr(event, name) for name in COLUMNS) for event in events]).new


def record_rows(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> Recorded:
    """`record` for plain values in the order of UsageEvent's fields."""
    if not rows:
        return Recorded(0, 0)
    dialect = connection.dialect
    stored_time = usage_events.c.time.type.dialect_impl(dialect).bind_processor(dialect) or _as_it_is
    # Straight to the driver: SQLAlchemy's way through each parameter of each row would cost as much as the insert.
    # In the order of their keys: of two that add the same events in two orders, each would wait for the other.
    values = [(*row[:_TIME], stored_time(row[_TIME]), *row[_TIME + 1 :]) for row in sorted(rows, key=_key)]
    kind: Any = type(dialect)
    positional = kind(paramstyle="format" if is_postgresql(dialect) else "qmark")
    insert = insert_for(dialect)(usage_events)
    event, given = usage_events.c, insert.excluded
    more = insert.on_conflict_do_update(
        index_elements=[event.source, event.sequence],
        set_={name: given[name] for name in _GROWS},
        where=(event.requests < given.requests) & _all_equal(event, given),
    )
    new = connection.exec_driver_sql(str(more.compile(dialect=positional)), values).rowcount
    hour = {"minute": 0, "second": 0, "microsecond": 0}
    mark_dirty(connection, CALLS, {(row[_TIME + 1], row[_TIME].replace(**hour)) for row in rows})
    return Recorded(new, 0 if new == len(rows) else put_aside(connection, find_in_rows(connection, rows)))


def record_lines(connection: Connection, lines: bytes) -> Recorded:
    """`record` for sound lines of a journal. Raises one of UNFIT when one of them does not fit the table."""
    if is_postgresql(connection.dialect):  # it reads them itself, in one call
        new = connection.exec_driver_sql(_add_lines(connection.dialect), (as_json(lines),)).rowcount
    else:
        new = insert_rows(connection, lines, lambda rows: _add(connection.dialect, rows))
    conflicts = 0
    if new != lines.count(b"\n"):  # some were there: shipped before, sums, or of other content
        conflicts = put_aside(connection, find_in_lines(connection, as_json(lines)))
    mark_dirty(connection, CALLS, hours_of(lines))
    return Recorded(new, conflicts)


def mark_dirty(connection: Connection, kind: str, hours: Iterable[tuple[str, datetime]]) -> None:
    """Say that the roll-ups of these tenants and hours (UTC) are behind what this transaction has added.

    It locks their marks until it ends, so whoever rolls them up at the same time waits, or is waited for. Always in the same
    order: of two in two orders, each would wait for the other.
    """
    marks = [{"kind": kind, "tenant": tenant, "hour": hour, "marks": 1} for tenant, hour in sorted(hours)]
    if marks:
        more = insert_for(connection.dialect)(dirty_hours).on_conflict_do_update(
            index_elements=[dirty_hours.c.kind, dirty_hours.c.tenant, dirty_hours.c.hour],
            set_={"marks": dirty_hours.c.marks + 1},
        )
        connection.execute(more, marks)


def _add_lines(dialect: Dialect) -> str:
    values = ", ".join(line_values(dialect).values())
    # PostgreSQL takes a key once in a statement.
    return _add(
        dialect,
        f"SELECT DISTINCT ON (1, 2) {values} FROM {lines_table(dialect)} ORDER BY 1, 2, {_REQUESTS + 1} DESC",  # noqa: S608 (names of ours)
    )


@lru_cache(256)
def _add(dialect: Dialect, rows: str) -> str:
    quote = dialect.identifier_preparer.quote
    columns = ", ".join(quote(name) for name in COLUMNS)
    held = usage_events.name
    grown = ", ".join(f"{name} = excluded.{name}" for name in _GROWS)
    same = " AND ".join(f"{held}.{quote(name)} = excluded.{quote(name)}" for name in SAME)
    return (
        f"INSERT INTO {held} ({columns}) {rows} "
        f"ON CONFLICT (source, sequence) DO UPDATE SET {grown} WHERE {held}.requests < excluded.requests AND {same}"
    )


def _all_equal(event: Any, given: Any) -> Any:
    first, *others = (event[name] == given[name] for name in SAME)
    for each in others:
        first &= each
    return first


def _key(row: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(row[:_TIME])


def _as_it_is(value: Any) -> Any:
    return value
