"""Statements: a tenant's bill for a month, computed from sums of usage. Pure: the same input gives the same statement.

Arithmetic: quantities are integers, prices are Decimals, and a line's amount is their exact product, rounded once, to
the currency's minor unit, halves to the even digit (ROUND_HALF_EVEN). Sums add rounded lines, so they need no rounding.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction

from roost_platform.billing.months import Month
from roost_platform.billing.prices import MEASURES, Period, PriceBooks, Sku
from roost_platform.domain.errors import InvalidRequest
from roost_platform.domain.usage import BILLED_OUTCOMES, Outcome

NOT_CHARGED = "not_charged"
"""The sku of lines that show calls which cost nothing because of how they ended."""


@dataclass(frozen=True, slots=True)
class UsageFigure:
    """Sums over the calls of one model that ended in one way within [start, end), in integer base units."""

    model: str
    outcome: Outcome
    start: datetime
    end: datetime
    requests: int
    compute_us: int
    rows: int
    bytes_out: int


class Status(StrEnum):
    OPEN = "open"
    """The month is running: the figures will grow."""
    DRAFT = "draft"
    """The month is over."""


@dataclass(frozen=True, slots=True)
class Line:
    """One model, one sku, one price."""

    model: str
    sku: str
    """A Sku, or `not_charged`."""
    price_book: str
    """Version of the book that the price is from; empty when none was in force yet."""
    start: datetime
    end: datetime
    """[start, end): the part of the month in which that book was in force."""
    quantity: int
    """In `unit`s."""
    unit: str
    unit_price: Decimal
    """For `per` units."""
    per: int
    amount: Decimal
    """In the statement's currency, rounded to its minor unit."""


@dataclass(frozen=True, slots=True)
class Statement:
    tenant: str
    month: Month
    status: Status
    currency: str
    made_at: datetime
    lines: tuple[Line, ...]
    """By model, then time, then sku. Per model, `requests` and `not_charged` add up to the calls made."""
    total: Decimal
    """The sum of the lines' amounts."""
    calls: dict[str, int]
    """Calls by outcome; every answered call of the month is in here once."""
    charged_calls: int
    notes: tuple[str, ...]


def make_statement(
    *, tenant: str, month: Month, usage: Iterable[UsageFigure], books: PriceBooks, now: datetime
) -> Statement:
    """Rate a month's usage, given per part of the month in `books.periods(month.start, month.end)`.

    Raises InvalidRequest for a month that has not begun, ValueError for usage outside the month or across a change of
    prices (it could not be rated).
    """
    if now < month.start:
        raise InvalidRequest(f"the month {month} has not begun", code="invalid_month", field="month")
    periods = books.periods(month.start, month.end)
    groups: dict[tuple[str, int], list[UsageFigure]] = defaultdict(list)
    calls: dict[str, int] = {str(outcome): 0 for outcome in Outcome}
    for figure in usage:
        groups[figure.model, _period_of(figure, periods)].append(figure)
        calls[figure.outcome] += figure.requests
    digits = books.books[0].minor_units
    lines = tuple(
        line
        for (model, period), figures in sorted(groups.items(), key=lambda group: group[0])
        for line in _lines(model, periods[period], figures, digits)
    )
    return Statement(
        tenant=tenant,
        month=month,
        status=Status.OPEN if now < month.end else Status.DRAFT,
        currency=books.currency,
        made_at=now,
        lines=lines,
        total=sum((line.amount for line in lines), _amount(Fraction(0), digits)),
        calls=calls,
        charged_calls=sum(line.quantity for line in lines if line.sku == Sku.REQUESTS),
        notes=_notes(lines),
    )


def _period_of(figure: UsageFigure, periods: tuple[Period, ...]) -> int:
    for index, period in enumerate(periods):
        if period.start <= figure.start < figure.end <= period.end:
            return index
    raise ValueError(
        f"usage from {figure.start.isoformat()} to {figure.end.isoformat()} does not lie within one price period"
    )


def _lines(model: str, period: Period, figures: list[UsageFigure], digits: int) -> Iterator[Line]:
    """The lines of one model in one price period; skus without usage or without a price get none."""
    book = period.book
    charged = [figure for figure in figures if book is not None and figure.outcome in BILLED_OUTCOMES]
    quantities = {
        Sku.REQUESTS: sum(figure.requests for figure in charged),
        Sku.COMPUTE_SECONDS: sum(figure.compute_us for figure in charged),
        Sku.ROWS: sum(figure.rows for figure in charged),
        Sku.BYTES_OUT: sum(figure.bytes_out for figure in charged),
    }
    version = book.version if book is not None else ""
    for sku, price in book.prices.items() if book is not None else ():
        quantity, measure = quantities[sku], MEASURES[sku]
        if quantity:
            amount = _amount(Fraction(price) * quantity / measure.per, digits)
            yield Line(
                model, sku, version, period.start, period.end, quantity, measure.unit, price, measure.per, amount
            )
    free = sum(figure.requests for figure in figures) - quantities[Sku.REQUESTS]
    if free:
        nothing = Decimal(0)
        zero = _amount(Fraction(0), digits)
        yield Line(model, NOT_CHARGED, version, period.start, period.end, free, "requests", nothing, 1, zero)


def _amount(exact: Fraction, digits: int) -> Decimal:
    """Round to minor units: `round` of a Fraction is exact and takes halves to even."""
    return Decimal(round(exact * 10**digits)).scaleb(-digits)


def _notes(lines: tuple[Line, ...]) -> tuple[str, ...]:
    notes = []
    charged = ", ".join(sorted(BILLED_OUTCOMES))
    free = sum(line.quantity for line in lines if line.sku == NOT_CHARGED and line.price_book)
    early = sum(line.quantity for line in lines if line.sku == NOT_CHARGED and not line.price_book)
    if free:
        notes.append(f"{free} calls are not charged: only those that ended with {charged} are.")
    if early:
        notes.append(f"{early} calls are not charged: they were made before the first price book came into force.")
    return tuple(notes)
