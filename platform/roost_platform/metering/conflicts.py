"""What comes again under a known (source, sequence) with other content: the first stays, the other is put aside for a person.

It happens when a folder's journal is damaged or restored beside itself, or two gateways were given one name. The same content
again is none, nor is another sum of the same minute's refusals: those grow.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import orjson
from sqlalchemy import Connection, tuple_

from roost_platform.database.money_tables import ledger_conflicts
from roost_platform.database.tables import usage_events
from roost_platform.metering.line_sql import COLUMNS, insert_for, is_postgresql, line_values, lines_table
from roost_platform.metering.lines import EPOCH, MICROSECOND

AMOUNTS = ("queue_us", "bytes_in", "bytes_out")
"""What grows with the number of requests that a line stands for."""
SAME = tuple(name for name in COLUMNS if name not in ("source", "sequence", "requests", *AMOUNTS))
"""What two sums of the same refusals have in common."""
_TIME, _REQUESTS, _KEY = COLUMNS.index("time"), COLUMNS.index("requests"), slice(0, 2)
_AT_ONCE = 200


def find_in_lines(connection: Connection, arrays: str) -> list[tuple[Any, ...]]:
    """Those of a JSON array of lines that differ from what the ledger holds under their key."""
    dialect = connection.dialect
    value, table = line_values(dialect), usage_events.name
    other = " OR ".join(f"{value[name]} <> held.{name}" for name in SAME)
    amounts = " OR ".join(f"{value[name]} <> held.{name}" for name in AMOUNTS)
    text = "line.value::text" if is_postgresql(dialect) else "line.value"
    query = (
        f"SELECT {text} FROM {lines_table(dialect)} JOIN {table} AS held "  # noqa: S608 (names of ours)
        f"ON held.source = {value['source']} AND held.sequence = {value['sequence']} "
        f"WHERE {other} OR ({value['requests']} = held.requests AND ({amounts}))"
    )
    return [_content(orjson.loads(line)) for (line,) in connection.exec_driver_sql(query, (arrays,))]


def find_in_rows(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The same for the values of UsageEvent's fields."""
    found = []
    for start in range(0, len(rows), _AT_ONCE):
        part = rows[start : start + _AT_ONCE]
        event = usage_events.c
        keys = tuple_(event.source, event.sequence).in_([row[_KEY] for row in part])
        held = {tuple(row[_KEY]): tuple(row) for row in connection.execute(usage_events.select().where(keys))}
        found += [row for row in part if row[_KEY] in held and _differ(row, held[row[_KEY]])]
    return [(*row[:_TIME], (row[_TIME] - EPOCH) // MICROSECOND, *row[_TIME + 1 :]) for row in found]


def put_aside(connection: Connection, contents: Sequence[tuple[Any, ...]]) -> int:
    """Keep them beside the ledger; returns how many were not there yet. Their time is in microseconds since 1970 UTC."""
    if not contents:
        return 0
    now = datetime.now(UTC)
    kept = {}
    for content in contents:
        text = orjson.dumps(content)
        digest = sha256(text).hexdigest()
        kept[digest] = {
            "source": content[0],
            "id": str(content[1]),
            "content_hash": digest,
            "content": text.decode(),
            "seen_at": now,
        }
    insert = insert_for(connection.dialect)(ledger_conflicts).on_conflict_do_nothing()
    added = insert.returning(ledger_conflicts.c.id)  # psycopg's count of rows is lost by then
    return sum(connection.execute(added.values(each)).first() is not None for each in kept.values())


def _content(line: list[Any]) -> tuple[Any, ...]:
    """A line's values without its checksum, and with its requests."""
    values = line[:-1]
    return tuple(values if len(values) > _REQUESTS else [*values, 1])


def _differ(row: tuple[Any, ...], held: tuple[Any, ...]) -> bool:
    given, there = dict(zip(COLUMNS, row, strict=True)), dict(zip(COLUMNS, held, strict=True))
    if any(given[name] != there[name] for name in SAME):
        return True
    return given["requests"] == there["requests"] and any(given[name] != there[name] for name in AMOUNTS)
