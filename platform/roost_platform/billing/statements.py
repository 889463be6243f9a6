"""Statements: a tenant's bill for a month, computed from sums of usage. Pure: the same input gives the same statement.

    open ──the month ends──▶ draft ──made final──▶ final, for ever ──▶ paid or void (marks beside it), notes

What becomes known of a month after its statement was made final is on the next statement, as lines of Category.CORRECTION.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from roost_platform.billing.late import EarlierMonth, corrections
from roost_platform.billing.lines import Line, MeteredUsage
from roost_platform.billing.months import Month
from roost_platform.billing.prices import PriceBook, PriceBooks, hashes
from roost_platform.billing.rating import rate, total_of
from roost_platform.domain.errors import InvalidRequest
from roost_platform.domain.meters import Meter
from roost_platform.domain.usage import Outcome


class Kind(StrEnum):
    STATEMENT = "statement"
    CREDIT_NOTE = "credit_note"
    """In the tenant's favour: its total is negative."""
    DEBIT_NOTE = "debit_note"


class Status(StrEnum):
    OPEN = "open"
    """The month is running: the figures will grow."""
    DRAFT = "draft"
    """The month is over; what is still on its way to the ledger will be added."""
    FINAL = "final"
    """It never changes again."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement, or a note that belongs to one."""

    id: str
    """`acme-2026-11`; of notes `acme-2026-11-C1`."""
    kind: Kind
    of: str
    """The id of the statement that a note belongs to; else empty."""
    tenant: str
    month: Month
    status: Status
    currency: str
    """ISO 4217 code."""
    made_at: datetime
    """Of final ones: when they became so."""
    lines: tuple[Line, ...]
    """As `rate` orders them, then the corrections of earlier months."""
    total: Decimal
    """The sum of the lines' amounts."""
    calls: dict[str, int]
    """Calls by outcome; every answered call of the month is in here once."""
    charged_calls: int
    unknown_calls: int
    """Calls that were under way when their gateway died: nobody knows how they ended, and they are not charged."""
    price_books: dict[str, str]
    """The name and hash of each price book, and of each of the tenant's terms, that the prices are from."""
    inputs_hash: str
    """sha256 of all that the lines were computed from."""
    notes: tuple[str, ...]
    """Sentences for people."""


def statement_id(tenant: str, month: Month) -> str:
    return f"{tenant}-{month}"


def make_statement(
    *,
    tenant: str,
    month: Month,
    usage: Iterable[MeteredUsage],
    books: PriceBooks,
    now: datetime,
    unknown_calls: int = 0,
    earlier: Iterable[EarlierMonth] = (),
    final: bool = False,
    notes: Iterable[str] = (),
) -> Statement:
    """Rate a month. `usage` is as `rate` takes it, in any order and in any pieces; `earlier`: months that are final.

    Raises InvalidRequest for a month that has not begun, or that shall be `final` and is not over; ValueError for usage
    outside the month or across a change of prices.
    """
    status = _status(month, now, final=final)
    usage, periods = list(usage), books.periods(month.start, month.end, tenant=tenant)
    late = corrections(earlier, tenant=tenant, books=books)
    lines = (*rate(usage, tenant=tenant, month=month, books=books), *late.lines)
    price_books = hashes(periods) | late.price_books
    begun = next((period.start for period in periods if period.book is not None), month.end)
    in_force = [period.book for period in periods if period.book is not None]
    calls = Counter({str(outcome): 0 for outcome in Outcome})
    charged = early = 0
    for piece in usage:
        if piece.meter is Meter.REQUESTS:
            calls[piece.variant] += piece.quantity
            if piece.start < begun:
                early += piece.quantity
            elif books.in_force(piece.start).charges(piece.variant):
                charged += piece.quantity
    return Statement(
        id=statement_id(tenant, month),
        kind=Kind.STATEMENT,
        of="",
        tenant=tenant,
        month=month,
        status=status,
        currency=books.currency,
        made_at=now,
        lines=lines,
        total=total_of(lines, books.currency),
        calls=dict(calls),
        charged_calls=charged,
        unknown_calls=unknown_calls,
        price_books=price_books,
        inputs_hash=_hash_of(
            tenant=tenant,
            month=str(month),
            usage=_sums(usage),
            price_books=price_books,
            unknown_calls=unknown_calls,
            earlier=late.inputs,
        ),
        notes=(*_notes(sum(calls.values()) - charged - early, early, in_force), *notes),
    )


def _status(month: Month, now: datetime, *, final: bool) -> Status:
    if now < month.start:
        raise InvalidRequest(f"the month {month} has not begun", code="invalid_month", field="month")
    if now < month.end:
        if final:
            raise InvalidRequest(f"the month {month} is not over", code="month_not_over", field="month")
        return Status.OPEN
    return Status.FINAL if final else Status.DRAFT


def _sums(usage: Iterable[MeteredUsage]) -> list[Any]:
    """The same for the same sums, in whatever order and pieces they came."""
    sums: Counter[tuple[str, ...]] = Counter()
    for piece in usage:
        sums[piece.model, piece.meter, piece.variant, piece.start.isoformat(), piece.end.isoformat()] += piece.quantity
    return [[*key, quantity] for key, quantity in sorted(sums.items()) if quantity]


def _hash_of(**inputs: Any) -> str:
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _notes(free: int, early: int, books: Iterable[PriceBook]) -> list[str]:
    notes = []
    outcomes = [outcome for outcome in sorted(Outcome) if any(book.charges(outcome) for book in books)]
    if free:
        notes.append(f"{free:,} calls are not charged: only those that ended with {', '.join(outcomes)} are.")
    if early:
        notes.append(f"{early:,} calls are not charged: they were made before the first price book came into force.")
    return notes
