"""Adding to the ledger, which takes each (source, sequence) once, for ever. Functions of a connection.

The sums of a minute's refusals come several times, each time with more calls; the one with the most stays.
"""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import BigInteger, Column, Connection, Dialect, Integer
from sqlalchemy.dialects import postgresql, sqlite

from roost_platform.database.tables import usage_events
from roost_platform.domain.usage import UsageEvent

_COLUMNS = tuple(field.name for field in fields(UsageEvent))
_TIME = _COLUMNS.index("time")
_REQUESTS = _COLUMNS.index("requests")
_FIRST_US, _LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999
"""The years 1 to 9999, in microseconds since 1970 UTC."""
_GROWS = ("queue_us", "bytes_in", "bytes_out", "requests")
"""What a later sum of the same refusals replaces."""


def record(connection: Connection, events: Iterable[UsageEvent]) -> int:
    """Add the events that the ledger does not hold yet, or not with as many calls; returns how many those were."""
    return record_rows(connection, [tuple(getattr(event, name) for name in _COLUMNS) for event in events])


def record_rows(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> int:
    """`record` for plain values in the order of UsageEvent's fields."""
    if not rows:
        return 0
    dialect = connection.dialect
    stored_time = usage_events.c.time.type.dialect_impl(dialect).bind_processor(dialect) or _as_it_is
    # Straight to the driver: SQLAlchemy's way through each parameter of each row would cost as much as the insert.
    # In the order of their keys: of two that add the same events in two orders, each would wait for the other.
    values = [(*row[:_TIME], stored_time(row[_TIME]), *row[_TIME + 1 :]) for row in sorted(rows, key=_key)]
    kind: Any = type(dialect)
    positional = kind(paramstyle="format" if dialect.name == "postgresql" else "qmark")
    insert = insert_for(dialect)(usage_events)
    more = insert.on_conflict_do_update(
        index_elements=[usage_events.c.source, usage_events.c.sequence],
        set_={name: insert.excluded[name] for name in _GROWS},
        where=usage_events.c.requests < insert.excluded.requests,
    )
    return connection.exec_driver_sql(str(more.compile(dialect=positional)), values).rowcount


def record_json(connection: Connection, arrays: str) -> int:
    """`record` for a JSON array of arrays of those values, the time as microseconds since 1970 UTC.

    The database reads the JSON itself, in one call: Python's lock stays free for the event loop meanwhile, which row by
    row would wait for it thousands of times. Raises DBAPIError when one of the arrays does not fit the table.
    """
    return connection.exec_driver_sql(_json_insert(connection.dialect), (arrays,)).rowcount


def insert_for(dialect: Dialect) -> Any:
    """The `insert` that knows ON CONFLICT on this database (both have the same methods)."""
    return postgresql.insert if dialect.name == "postgresql" else sqlite.insert


def _json_insert(dialect: Dialect) -> str:
    quote = dialect.identifier_preparer.quote
    columns = ", ".join(quote(name) for name in _COLUMNS)
    on_postgresql = dialect.name == "postgresql"
    value = _postgresql_value if on_postgresql else _sqlite_value
    values = ", ".join(value(i, usage_events.c[name]) for i, name in enumerate(_COLUMNS))
    source = "json_array_elements(%s::json) AS each(value)" if on_postgresql else "json_each(?)"
    # `WHERE true` keeps SQLite from reading ON as a part of a join. PostgreSQL takes a key once in a statement.
    grown = ", ".join(f"{name} = excluded.{name}" for name in _GROWS)
    once = "DISTINCT ON (1, 2) " if on_postgresql else ""
    most = f"ORDER BY 1, 2, {_REQUESTS + 1} DESC " if on_postgresql else ""
    return (
        f"INSERT INTO {usage_events.name} ({columns}) SELECT {once}{values} FROM {source} WHERE true {most}"  # noqa: S608 (names of ours)
        f"ON CONFLICT (source, sequence) DO UPDATE SET {grown} WHERE {usage_events.name}.requests < excluded.requests"
    )


def _sqlite_value(index: int, column: Column[Any]) -> str:
    """The expression that turns an element of the array into what UtcTime and the other types store."""
    element = f"json_extract(value, '$[{index}]')"
    if index == _REQUESTS:  # where it is left out, the line's checksum stands in its place
        return f"CASE json_array_length(value) WHEN {len(_COLUMNS) + 1} THEN {element} ELSE 1 END"
    if column is usage_events.c.time:
        seconds = f"strftime('%Y-%m-%d %H:%M:%S', {element} / 1000000, 'unixepoch')"
        return f"{seconds} || printf('.%06d', {element} % 1000000)"
    return element


def _postgresql_value(index: int, column: Column[Any]) -> str:
    element = f"(value ->> {index})"
    if index == _REQUESTS:
        return f"CASE json_array_length(value) WHEN {len(_COLUMNS) + 1} THEN {element}::bigint ELSE 1 END"
    if column is usage_events.c.time:  # beyond what Python's calendar has: no value, which the table refuses
        time = f"timestamptz 'epoch' + {element}::bigint * interval '1 microsecond'"
        return f"CASE WHEN {element}::bigint BETWEEN {_FIRST_US} AND {_LAST_US} THEN {time} END"
    if isinstance(column.type, BigInteger):
        return f"{element}::bigint"
    return f"{element}::integer" if isinstance(column.type, Integer) else element


def _key(row: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(row[:_TIME])


def _as_it_is(value: Any) -> Any:
    return value
