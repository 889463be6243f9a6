"""What became known of a month after its statement was final: the month is rated again, and the difference is billed.

Zero for what was billed already, however often it is computed: the difference is taken to all that was billed of the month so
far, on its own statement and as corrections on others. Its prices, tiers and allowances are those of the month itself. Pure.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from fractions import Fraction
from typing import Any

from roost_platform.billing.currencies import rounded
from roost_platform.billing.lines import Category, Line, MeteredUsage
from roost_platform.billing.months import Month
from roost_platform.billing.prices import PriceBooks, hashes
from roost_platform.billing.rating import rate
from roost_platform.domain.errors import Conflict

LATEST = timedelta(days=35)
"""For so long after a month's end the next statements take up what becomes known of it."""


@dataclass(frozen=True, slots=True)
class EarlierMonth:
    """A month whose statement is final."""

    month: Month
    usage: tuple[MeteredUsage, ...]
    """As it is known now."""
    billed: tuple[Line, ...]
    """The lines of its statement, and all corrections of it so far."""
    documents: tuple[str, ...]
    """The ids of the statements that these are from."""
    price_books: Mapping[str, str]
    """What its own statement was rated with: names and hashes."""


@dataclass(frozen=True, slots=True)
class Late:
    """The differences of all earlier months."""

    lines: tuple[Line, ...]
    """Of Category.CORRECTION; by month, then as `rate` orders them. None where nothing changed."""
    price_books: dict[str, str]
    """What the months with a difference were rated with: names and hashes."""
    inputs: list[Any]
    """What those were computed from, for a hash of it."""


def still_corrected(earlier: Month, month: Month) -> bool:
    """Whether the statement of `month` takes up what became known of the `earlier` one.

    Usage that comes no more than 35 days late comes in a month of which this holds.
    """
    return earlier.end <= month.start < earlier.end + LATEST


def corrections(earlier: Iterable[EarlierMonth], *, tenant: str, books: PriceBooks) -> Late:
    """Raises Conflict when a month's prices are not those that it was rated with: what was in force cannot be changed."""
    lines: list[Line] = []
    price_books: dict[str, str] = {}
    inputs: list[Any] = []
    for each in sorted(earlier, key=lambda each: each.month):
        now = rate(each.usage, tenant=tenant, month=each.month, books=books)
        found = difference(each.billed, now, month=each.month, currency=books.currency)
        if found:
            lines += found
            used = hashes(books.periods(each.month.start, each.month.end, tenant=tenant))
            _require_same(each, used)
            price_books |= used
            inputs.append([str(each.month), sorted(each.documents), _figures(each.usage)])
    return Late(tuple(lines), price_books, inputs)


def _require_same(earlier: EarlierMonth, used: Mapping[str, str]) -> None:
    changed = sorted(name for name, digest in used.items() if earlier.price_books.get(name) != digest)
    if changed:
        message = (
            f"{earlier.month} was not rated with {', '.join(changed)} as it is now: its corrections cannot be billed"
        )
        raise Conflict(message, code="price_book_changed")


def difference(billed: Iterable[Line], now: Iterable[Line], *, month: Month, currency: str) -> list[Line]:
    """The lines that turn what was billed into what is right: added to it, they are `now`, to the last minor unit.

    Usage and credits of one sku and price are taken together. Amounts are differences of rounded amounts: a line's need not be
    the product of its quantity and price.
    """
    sums: dict[Any, list[Any]] = defaultdict(lambda: [0, Fraction(0), Fraction(0), None])
    for sign, lines in ((1, now), (-1, billed)):
        for line in lines:
            found = sums[_key(line)]
            found[0] += sign * line.quantity
            found[1] += sign * Fraction(line.list_amount)
            found[2] += sign * Fraction(line.amount)
            found[3] = found[3] or line
    return [
        replace(
            like,
            category=Category.CORRECTION,
            month=str(month),
            quantity=quantity,
            list_amount=rounded(list_amount, currency),
            amount=rounded(amount, currency),
        )
        for quantity, list_amount, amount, like in sums.values()
        if quantity or amount or list_amount
    ]


def _key(line: Line) -> tuple[Any, ...]:
    """What two lines have in common that can be added up."""
    return (
        line.model,
        line.sku,
        line.variant,
        line.price_book,
        line.tier,
        line.start,
        line.end,
        line.unit,
        line.list_price,  # equal Decimals are one key, however many zeros they end in
        line.unit_price,
        line.per,
    )


def _figures(usage: Iterable[MeteredUsage]) -> list[Any]:
    return sorted(
        [piece.model, str(piece.meter), piece.variant, piece.start.isoformat(), piece.end.isoformat(), piece.quantity]
        for piece in usage
        if piece.quantity
    )
