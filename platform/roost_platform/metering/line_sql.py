"""SQL that reads the journal's lines: the database takes the JSON itself, in one call, and Python's lock stays free."""

from dataclasses import fields
from typing import Any

from sqlalchemy import BigInteger, Column, Dialect, Integer
from sqlalchemy.dialects import postgresql, sqlite

from roost_platform.database.tables import usage_events
from roost_platform.domain.usage import UsageEvent

COLUMNS = tuple(field.name for field in fields(UsageEvent))
"""Of the ledger, in the order that a line has them."""
_REQUESTS = COLUMNS.index("requests")
_FIRST_US, _LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999
"""The years 1 to 9999, in microseconds since 1970 UTC."""


def insert_for(dialect: Dialect) -> Any:
    """The `insert` that knows ON CONFLICT on this database (both have the same methods)."""
    return postgresql.insert if is_postgresql(dialect) else sqlite.insert


def is_postgresql(dialect: Dialect) -> bool:
    return dialect.name == "postgresql"


def lines_table(dialect: Dialect) -> str:
    """A table of one column, `value`, with a row for each line of an array that is the one parameter."""
    return "json_array_elements(%s::json) AS line(value)" if is_postgresql(dialect) else "json_each(?) AS line"


def line_values(dialect: Dialect) -> dict[str, str]:
    """By column of the ledger: what turns a line's `value` into what the column stores."""
    value = _postgresql_value if is_postgresql(dialect) else _sqlite_value
    return {name: value(index, usage_events.c[name]) for index, name in enumerate(COLUMNS)}


def _sqlite_value(index: int, column: Column[Any]) -> str:
    element = f"json_extract(line.value, '$[{index}]')"
    if index == _REQUESTS:  # where it is left out, the line's checksum stands in its place
        return f"CASE json_array_length(line.value) WHEN {len(COLUMNS) + 1} THEN {element} ELSE 1 END"
    if column is usage_events.c.time:
        seconds = f"strftime('%Y-%m-%d %H:%M:%S', {element} / 1000000, 'unixepoch')"
        return f"{seconds} || printf('.%06d', {element} % 1000000)"
    return element


def _postgresql_value(index: int, column: Column[Any]) -> str:
    element = f"(line.value ->> {index})"
    if index == _REQUESTS:
        return f"CASE json_array_length(line.value) WHEN {len(COLUMNS) + 1} THEN {element}::bigint ELSE 1 END"
    if column is usage_events.c.time:  # beyond what Python's calendar has: no value, which the table refuses
        time = f"timestamptz 'epoch' + {element}::bigint * interval '1 microsecond'"
        return f"CASE WHEN {element}::bigint BETWEEN {_FIRST_US} AND {_LAST_US} THEN {time} END"
    if isinstance(column.type, BigInteger):
        return f"{element}::bigint"
    return f"{element}::integer" if isinstance(column.type, Integer) else element
