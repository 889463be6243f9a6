"""What was in force stays as it was: price books and tenants' terms are kept in the database, and a file is held against it.

Kept is everything, at each start of a gateway. What is not in force yet may still be changed, or dropped; what is may not,
and what is new must not reach back: neither before another book (or, of a tenant, other terms) in force, nor into a month
of which statements are final.
"""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from roost_platform.billing.months import parse_month
from roost_platform.billing.prices import PriceBook, PriceBooks, content, content_hash
from roost_platform.billing.terms import Terms
from roost_platform.database.money_tables import price_books, statements
from roost_platform.domain.errors import Conflict

_BEGINNING = datetime.min.replace(tzinfo=UTC)


def record_prices(connection: Connection, books: PriceBooks, *, now: datetime) -> None:
    """Keep the price list; doing it again changes nothing. To be run at start, before anything is rated with it.

    Raises Conflict (`price_book_changed`) that names what of those in force was changed, from what to what, what was
    dropped, and what is new and reaches back.
    """
    kept = _kept(connection)
    entries = {entry.name: entry for entry in books.entries()}
    wrong = [*_changed(kept.values(), entries, now), *_reaching_back(connection, kept, entries, now)]
    if wrong:
        advice = "what is in force cannot be changed; add a book (or terms) from a later moment on"
        raise Conflict(f"prices: {'; '.join(wrong)}: {advice}", code="price_book_changed")
    pending = [name for name, row in kept.items() if row.effective_from > now and _differs(row, entries.get(name))]
    if pending:
        connection.execute(delete(price_books).where(price_books.c.name.in_(pending)))
    _add(connection, [entry for name, entry in entries.items() if name not in kept or name in pending], now)
    # Another gateway that started at the same time may have been first, with another file.
    raced = list(_changed(_kept(connection).values(), entries, now))
    if raced:
        raise Conflict(f"prices: {'; '.join(raced)}: another gateway has other prices", code="price_book_changed")


def _kept(connection: Connection) -> dict[str, Row[Any]]:
    return {row.name: row for row in connection.execute(select(price_books))}


def _add(connection: Connection, entries: list[PriceBook | Terms], now: datetime) -> None:
    rows = [
        {
            "name": entry.name,
            "effective_from": entry.effective_from,
            "content": content(entry),
            "content_hash": content_hash(entry),
            "recorded_at": now,
        }
        for entry in entries
    ]
    if rows:
        insert: Any = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        connection.execute(insert(price_books).on_conflict_do_nothing(), rows)


def _changed(rows: Iterable[Row[Any]], entries: dict[str, PriceBook | Terms], now: datetime) -> Iterable[str]:
    """What of the kept ones in force the file no longer has, or has otherwise."""
    for row in rows:
        entry = entries.get(row.name)
        if row.effective_from > now or not _differs(row, entry):
            continue
        if entry is None:
            yield f"{row.name} is in force since {row.effective_from.isoformat()} and was dropped"
        else:
            yield f"{row.name}: " + ", ".join(_differences("", json.loads(row.content), entry.to_json()))


def _differs(row: Row[Any], entry: PriceBook | Terms | None) -> bool:
    return entry is None or content_hash(entry) != row.content_hash


def _differences(where: str, before: Any, after: Any) -> Iterable[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            if before.get(key) != after.get(key):
                yield from _differences(f"{where}.{key}".removeprefix("."), before.get(key), after.get(key))
    else:
        yield f"{where} was {_shown(before)} and is now {_shown(after)}"


def _shown(value: Any) -> str:
    return "absent" if value is None else json.dumps(value)


def _reaching_back(
    connection: Connection, kept: dict[str, Row[Any]], entries: dict[str, PriceBook | Terms], now: datetime
) -> Iterable[str]:
    """New ones that would change what something cost before, and must not; on the first start everything is new."""
    if not kept:
        return
    final = connection.scalar(select(func.max(statements.c.month)).where(statements.c.kind == "statement"))
    closed = parse_month(final).end if final else _BEGINNING
    for name, entry in entries.items():
        if entry.effective_from > now or (name in kept and kept[name].effective_from <= now):
            continue
        others = [
            row.effective_from for other, row in kept.items() if _beside(other, name) and row.effective_from <= now
        ]
        if entry.effective_from < closed:
            yield f"{name} is new and reaches back before {closed.isoformat()}, where statements are final"
        elif entry.effective_from <= max(others, default=_BEGINNING):
            yield f"{name} is new and reaches back before {max(others).isoformat()}, when other prices came into force"


def _beside(name: str, other: str) -> bool:
    """Whether one takes the other's place in time: all books do, and the terms of one tenant."""
    return name.rpartition("/")[0] == other.rpartition("/")[0]
