"""Rating: from what a tenant used in a month to the lines of its bill. Pure: the same input gives the same lines.

Arithmetic: quantities are integers, prices are Decimals; a line's amount is their exact product, rounded once to the
currency's minor unit, halves to the even digit. Sums add rounded lines and need no rounding.

Order: the units of a sku (and resource class) are numbered through the whole month: period by period, in each by model.
Their numbers decide the tier of a graduated price and what lies within a free allowance; the month's total decides the tier
of a volume price. A unit is judged by the prices, tiers and allowance of the period in which it was used; one that has
no price then is not numbered. An allowance is the tenant's for all classes of a sku together; the units in it are
charged on a line like any other, and given back by a Credit line right after it, with the same price and the quantity
and amount negative: so a credit never exceeds what it credits.

Corrections may leave a sum below zero; then the units that were numbered last are taken back, at what they cost.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from functools import partial

from roost_platform.billing.currencies import rounded
from roost_platform.billing.lines import Category, Line, MeteredUsage
from roost_platform.billing.months import Month
from roost_platform.billing.prices import Period, PriceBooks
from roost_platform.billing.skus import MEASURES, NOT_CHARGED, SHADOW, Sku, sku_of
from roost_platform.billing.tiers import Price, Step, pieces, step_at, steps
from roost_platform.domain.meters import CALL_METERS, Meter
from roost_platform.domain.usage import Outcome

_ORDER = {sku: place for place, sku in enumerate(Sku)}


@dataclass(frozen=True, slots=True)
class _Use:
    """What was used of one sku (and resource class) by one model in one period."""

    model: str
    period: int
    sku: Sku
    variant: str
    quantity: int


def rate(usage: Iterable[MeteredUsage], *, tenant: str, month: Month, books: PriceBooks) -> tuple[Line, ...]:
    """The lines of a tenant's month: by model, period, sku, class and tier; each Credit follows what it credits.

    `usage` may come in any order and in any pieces, each within one of `books.periods(month.start, month.end,
    tenant=tenant)`; raises ValueError for another. Per model, the quantities of `requests` (Category.USAGE) and
    `not_charged` add up to the calls made.
    """
    periods = books.periods(month.start, month.end, tenant=tenant)
    used, not_charged = _sums(usage, periods)
    lines = list(_charges(used, periods, books.currency))
    lines += _free_calls(not_charged, periods, books.currency)
    return tuple(line for _, line in sorted(lines, key=lambda keyed: keyed[0]))


def total_of(lines: Iterable[Line], currency: str) -> Decimal:
    """The exact sum of the lines' amounts."""
    return rounded(sum((Fraction(line.amount) for line in lines), Fraction(0)), currency)


_Key = tuple[str, int, int, str, int, int, int]
"""Model, period, sku, class, piece, and whether it is a Credit: the order of lines."""


_Free = Counter[tuple[str, int, str]]
"""Calls that are not charged, by model, period and variant."""


def _sums(usage: Iterable[MeteredUsage], periods: tuple[Period, ...]) -> tuple[list[_Use], _Free]:
    """What is charged, in the order in which units are numbered; and the calls that are not."""
    sums: dict[tuple[int, str, Sku, str], int] = defaultdict(int)
    not_charged: _Free = Counter()
    starts = [period.start for period in periods]
    for piece in usage:
        index = _period_of(piece, periods, starts)
        book = periods[index].book
        of_calls = piece.meter in CALL_METERS
        copies = SHADOW if of_calls and piece.variant == Outcome.SHADOW else ""
        if book is None or (of_calls and not book.charges(piece.variant)):
            if piece.meter is Meter.REQUESTS:
                not_charged[piece.model, index, copies] += piece.quantity
            continue
        sku = sku_of(piece.meter, book.cold_start)
        if sku is not None:
            sums[index, piece.model, sku, piece.variant if MEASURES[sku].by_class else copies] += piece.quantity
    used = [
        _Use(model, index, sku, variant, quantity)
        for (index, model, sku, variant), quantity in sorted(sums.items())
        if quantity
    ]
    return used, not_charged


def _period_of(piece: MeteredUsage, periods: tuple[Period, ...], starts: list[datetime]) -> int:
    index = bisect_right(starts, piece.start) - 1
    if index < 0 or not piece.start < piece.end <= periods[index].end:
        raise ValueError(
            f"usage from {piece.start.isoformat()} to {piece.end.isoformat()} does not lie within one price period"
        )
    return index


def _charges(used: list[_Use], periods: tuple[Period, ...], currency: str) -> Iterator[tuple[_Key, Line]]:
    priced = [(use, found) for use in used if (found := periods[use.period].price(use.sku, use.variant)) is not None]
    totals: Counter[tuple[Sku, str]] = Counter()
    for use, _ in priced:
        totals[use.sku, use.variant] += use.quantity
    numbered: Counter[tuple[Sku, str]] = Counter()
    of_sku: Counter[Sku] = Counter()
    for use, (listed, paid) in priced:
        key = use.sku, use.variant
        yield from _lines(
            use, periods[use.period], listed, paid,
            total=totals[key], before=numbered[key], sku_before=of_sku[use.sku], currency=currency,
        )  # fmt: skip
        numbered[key] += use.quantity
        of_sku[use.sku] += use.quantity


def _lines(
    use: _Use, period: Period, listed: Price, paid: Price, *, total: int, before: int, sku_before: int, currency: str
) -> Iterator[tuple[_Key, Line]]:
    """`before`: how many units of this sku and class came first; `sku_before`: of this sku, whatever class."""
    measure, free = MEASURES[use.sku], period.free(use.sku)
    paid_steps = steps(paid, total=total, count_units=measure.count_units)
    list_steps = steps(listed, total=total, count_units=measure.count_units)
    low, high = sorted((before, before + use.quantity))
    sign = 1 if use.quantity > 0 else -1
    for number, piece in enumerate(pieces(low, high, (paid_steps, list_steps))):
        step, list_price = step_at(paid_steps, piece.last), step_at(list_steps, piece.last).price
        key = use.model, use.period, _ORDER[use.sku], use.variant, step.tier, number
        make = partial(_line, use=use, period=period, step=step, list_price=list_price, currency=currency)
        yield (*key, 0), make(Category.USAGE, quantity=sign * (piece.last - piece.after))
        shift = sku_before - before
        credited = sign * (min(piece.last + shift, free) - min(piece.after + shift, free)) if free else 0
        if credited:
            yield (*key, 1), make(Category.CREDIT, quantity=-credited)


def _line(
    category: Category, *, use: _Use, period: Period, step: Step, list_price: Decimal, quantity: int, currency: str
) -> Line:
    measure = MEASURES[use.sku]
    assert period.book is not None, "what is charged has a price"
    units = Fraction(quantity, measure.per)
    return Line(
        category=category,
        model=use.model,
        sku=str(use.sku),
        variant=use.variant,
        price_book=period.book.version,
        tier=step.tier,
        start=period.start,
        end=period.end,
        quantity=quantity,
        unit=measure.unit,
        list_price=list_price,
        unit_price=step.price,
        per=measure.per,
        list_amount=rounded(units * Fraction(list_price), currency),
        amount=rounded(units * Fraction(step.price), currency),
    )


def _free_calls(calls: _Free, periods: tuple[Period, ...], currency: str) -> Iterator[tuple[_Key, Line]]:
    """Calls that cost nothing because of their outcome, or because no book was in force."""
    nothing, zero = Decimal(0), rounded(Fraction(0), currency)
    for (model, index, variant), quantity in calls.items():
        period = periods[index]
        if quantity:
            yield (
                (model, index, len(_ORDER), variant, 0, 0, 0),
                Line(
                    category=Category.USAGE,
                    model=model,
                    sku=NOT_CHARGED,
                    variant=variant,
                    price_book=period.book.version if period.book is not None else "",
                    tier=0,
                    start=period.start,
                    end=period.end,
                    quantity=quantity,
                    unit="requests",
                    list_price=nothing,
                    unit_price=nothing,
                    per=1,
                    list_amount=zero,
                    amount=zero,
                ),
            )
