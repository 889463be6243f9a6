"""What a change of prices changes: two price lists side by side, by sku, resource class, tier and tenant. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any

from roost_platform.billing.prices import Period, PriceBook, PriceBooks
from roost_platform.billing.skus import MEASURES, Sku
from roost_platform.billing.terms import Terms
from roost_platform.billing.tiers import Mode, Price
from roost_platform.domain.errors import InvalidRequest, NotFound

_EXACT = Context(prec=60)
_INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class State:
    """A price list as it is at one moment: a book, and the terms in force beside it."""

    book: PriceBook
    terms: dict[str, Terms]
    """By tenant."""
    at: datetime

    def period(self, tenant: str) -> Period:
        return Period(self.at, self.at, self.book, self.terms.get(tenant))


@dataclass(frozen=True, slots=True)
class Change:
    """One price or setting that is not the same."""

    tenant: str
    """Empty: for all, as the book has it."""
    sku: str
    """Empty for what concerns no single one."""
    variant: str
    """The resource class; `*` where prices do not differ by it."""
    what: str
    """`price`, `free`, `cold_start` or `shadow`."""
    tier: str
    """Of which units this is the price, where it has tiers: `1 to 1000`, `above 1000`; empty for all."""
    mode: str
    """`graduated`, `volume`, `flat → volume`; empty for prices without tiers."""
    before: str | None
    """None = there is none: what has no price is free."""
    after: str | None
    difference: str | None
    """After less before; None where one of them is no number."""
    percent: str | None
    """Of before, rounded half to even to two places; None from nothing or 0."""

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def state_of(books: PriceBooks, version: str | None) -> State:
    """The list as it is just before the next book comes into force; of the newest one (which None names as well), once
    all terms have begun. Raises NotFound for a version that is not there.
    """
    found = [i for i, book in enumerate(books.books) if version in (None, book.version)]
    if not found:
        known = ", ".join(book.version for book in books.books)
        raise NotFound(f"there is no book {version!r}; there are: {known}", code="no_price_book")
    book, following = books.books[found[-1]], books.books[found[-1] + 1 : found[-1] + 2]
    starts = [terms.effective_from for terms in books.terms]
    at = following[0].effective_from - _INSTANT if following else max([book.effective_from, *starts])
    names = {terms.tenant for terms in books.terms}
    terms = {name: found_ for name in sorted(names) if (found_ := books.terms_in_force(name, at)) is not None}
    return State(book, terms, at)


def diff(before: State, after: State) -> tuple[Change, ...]:
    """What changes from one to the other: for everybody first, then for each tenant that has terms in either.

    A tenant's prices are what it pays: own ones, or the book's less its discount. Raises InvalidRequest for two currencies.
    """
    if before.book.currency != after.book.currency:
        message = f"{before.book.currency} and {after.book.currency} cannot be compared"
        raise InvalidRequest(message, code="invalid_price_book", field="currency")
    changes = list(_of_book(before.book, after.book))
    for tenant in ("", *sorted(before.terms.keys() | after.terms.keys())):
        changes += _of_tenant(tenant, before.period(tenant), after.period(tenant))
    return tuple(changes)


def _of_book(before: PriceBook, after: PriceBook) -> Iterator[Change]:
    for what in ("cold_start", "shadow"):
        old, new = getattr(before, what), getattr(after, what)
        if old is not new:
            yield Change(
                tenant="", sku="", variant="", what=what, tier="", mode="",
                before=str(old), after=str(new), difference=None, percent=None,
            )  # fmt: skip


def _of_tenant(tenant: str, before: Period, after: Period) -> Iterator[Change]:
    for sku in Sku:
        for variant in sorted({*before.classes(sku), *after.classes(sku)}):
            old, new = (found and found[1] for found in (before.price(sku, variant), after.price(sku, variant)))
            for tier, mode, was, now in _of_price(old, new):
                yield _change(tenant, sku, variant, what="price", tier=tier, mode=mode, before=was, after=now)
        old_count, new_count = (period.free(sku) // MEASURES[sku].count_units for period in (before, after))
        if old_count != new_count:
            yield _change(tenant, sku, "", what="free", before=Decimal(old_count), after=Decimal(new_count))


def _of_price(before: Price | None, after: Price | None) -> Iterator[tuple[str, str, Decimal | None, Decimal | None]]:
    """Tier, mode and the two prices of each stretch of units in which both have one price, where it is another."""
    prices = [price for price in (before, after) if price is not None]
    bounds = sorted({tier.up_to for price in prices for tier in price.tiers if tier.up_to is not None})
    modes = list(dict.fromkeys(str(price.mode) for price in prices))
    mode = "" if modes == [str(Mode.FLAT)] else " → ".join(modes)
    for below, up_to in zip([0, *bounds], [*bounds, None], strict=True):
        old, new = (None if price is None else _at(price, up_to) for price in (before, after))
        if old != new or len(modes) > 1:
            tier = f"{below + 1} to {up_to}" if up_to is not None else f"above {below}" if bounds else ""
            yield tier, mode, old, new


def _at(price: Price, unit: int | None) -> Decimal:
    """The price of this unit; None = of one beyond all bounds."""
    tiers = price.tiers
    return next(tier.price for tier in tiers if tier.up_to is None or (unit is not None and unit <= tier.up_to))


def _change(
    tenant: str,
    sku: Sku,
    variant: str,
    *,
    what: str,
    before: Decimal | None,
    after: Decimal | None,
    tier: str = "",
    mode: str = "",
) -> Change:
    difference = None if before is None or after is None else _EXACT.subtract(after, before)
    return Change(
        tenant=tenant,
        sku=str(sku),
        variant=variant,
        what=what,
        tier=tier,
        mode=mode,
        before=None if before is None else f"{before:f}",
        after=None if after is None else f"{after:f}",
        difference=None if difference is None else f"{difference:f}",
        percent=percent(difference, before),
    )


def percent(difference: Decimal | None, before: Decimal | None) -> str | None:
    """What share of `before` this is, with two places; None of nothing."""
    if difference is None or not before:
        return None
    hundredths = round(Fraction(difference) / Fraction(before) * 10_000)
    return f"{Decimal(hundredths).scaleb(-2, context=_EXACT):f}"
