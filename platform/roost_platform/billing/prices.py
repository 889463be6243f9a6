"""Price books: what a unit of usage costs, from when on. Dated, exact, and never changed once in force.

`PriceBooks` is a whole price list: the books, and the terms of tenants. Reading one from a file is `price_file`.
"""

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from itertools import pairwise
from operator import attrgetter
from typing import Any

from roost_platform.billing.currencies import MINOR_UNITS
from roost_platform.billing.skus import MEASURES, ColdStart, ShadowCalls, Sku
from roost_platform.billing.terms import Terms, prices_to_json
from roost_platform.billing.tiers import Price, find
from roost_platform.domain.errors import NotFound
from roost_platform.domain.usage import BILLED_OUTCOMES, Outcome


@dataclass(frozen=True, slots=True)
class PriceBook:
    """Prices in force from `effective_from` until the next book's."""

    version: str
    currency: str
    """ISO 4217 code."""
    effective_from: datetime
    prices: Mapping[Sku, Mapping[str, Price]]
    """By resource class, `*` for any other one. A sku or class that is not in here is not charged."""
    free: Mapping[Sku, int]
    """How many of a month's first units cost nothing, in `Measure.count`s."""
    cold_start: ColdStart = ColdStart.LOAD
    shadow: ShadowCalls = ShadowCalls.FREE

    def charges(self, outcome: str) -> bool:
        """Whether calls that ended so cost something."""
        return outcome in BILLED_OUTCOMES or (outcome == Outcome.SHADOW and self.shadow is ShadowCalls.CHARGED)

    @property
    def minor_units(self) -> int:
        """Digits after the point of an amount."""
        return MINOR_UNITS[self.currency]

    @property
    def name(self) -> str:
        return f"book/{self.version}"

    def price(self, sku: Sku, variant: str) -> Price | None:
        return find(self.prices.get(sku, {}), variant)

    def to_json(self) -> dict[str, Any]:
        # A book that was in force before there were shadows must go on saying the same.
        shadow = {} if self.shadow is ShadowCalls.FREE else {"shadow": str(self.shadow)}
        return shadow | {
            "version": self.version,
            "currency": self.currency,
            "effective_from": self.effective_from.isoformat(),
            "cold_start": str(self.cold_start),
            "prices": prices_to_json(self.prices),
            "free": {str(sku): count for sku, count in sorted(self.free.items())},
        }


@dataclass(frozen=True, slots=True)
class Period:
    """A half-open stretch of time in which a tenant's prices stay the same; without a book, nothing is charged."""

    start: datetime
    end: datetime
    book: PriceBook | None
    terms: Terms | None = None

    def price(self, sku: Sku, variant: str) -> tuple[Price, Price] | None:
        """What the book asks and what the tenant pays; None = nothing is charged.

        What only the tenant's terms have a price for has that as its list price.
        """
        if self.book is None:
            return None
        terms, listed = self.terms, self.book.price(sku, variant)
        own = None if terms is None else terms.own(sku, variant)
        if own is not None:
            return listed or own, own
        if listed is None:
            return None
        return listed, listed if terms is None or not terms.discount else listed.discounted(terms.discount)

    def classes(self, sku: Sku) -> tuple[str, ...]:
        """The resource classes that have a price of their own, and `*` where any other has one."""
        own = self.terms.prices.get(sku, {}) if self.terms is not None else {}
        return tuple(sorted({*(self.book.prices.get(sku, {}) if self.book is not None else {}), *own}))

    def free(self, sku: Sku) -> int:
        """The month's allowance, in base units."""
        if self.book is None:
            return 0
        own = self.terms.free.get(sku) if self.terms else None
        return (self.book.free.get(sku, 0) if own is None else own) * MEASURES[sku].count_units


@dataclass(frozen=True, slots=True)
class PriceBooks:
    """A price list: all books, oldest first, in one currency; and terms of tenants, by tenant, oldest first."""

    books: tuple[PriceBook, ...]
    terms: tuple[Terms, ...] = ()

    def in_force(self, at: datetime) -> PriceBook:
        """The book in force at this moment. Raises NotFound before the first one."""
        book = self._book_at(at)
        if book is None:
            raise NotFound(f"no price book is in force at {at.isoformat()}", code="no_price_book")
        return book

    def terms_in_force(self, tenant: str, at: datetime) -> Terms | None:
        """What this tenant has agreed for this moment."""
        return _terms_at(self._terms_of(tenant), at)

    def periods(self, start: datetime, end: datetime, *, tenant: str) -> tuple[Period, ...]:
        """[start, end) cut where the tenant's prices change; usage is to be summed for each part on its own."""
        terms = self._terms_of(tenant)
        cuts = {book.effective_from for book in self.books}
        cuts |= {each.effective_from for each in terms} | {each.until for each in terms if each.until is not None}
        edges = [start, *sorted(cut for cut in cuts if start < cut < end), end]
        return tuple(Period(a, b, self._book_at(a), _terms_at(terms, a)) for a, b in pairwise(edges))

    @property
    def currency(self) -> str:
        return self.books[0].currency

    def entries(self) -> Iterator[PriceBook | Terms]:
        """Everything that comes into force at some moment."""
        yield from self.books
        yield from self.terms

    def _book_at(self, at: datetime) -> PriceBook | None:
        index = bisect_right(self.books, at, key=lambda book: book.effective_from)
        return self.books[index - 1] if index else None

    def _terms_of(self, tenant: str) -> tuple[Terms, ...]:
        first, last = (look(self.terms, tenant, key=attrgetter("tenant")) for look in (bisect_left, bisect_right))
        return self.terms[first:last]


def hashes(periods: tuple[Period, ...]) -> dict[str, str]:
    """The name and hash of each book and each tenant's terms that these periods were rated with."""
    entries = [entry for period in periods for entry in (period.book, period.terms) if entry is not None]
    return {entry.name: content_hash(entry) for entry in entries}


def content(entry: PriceBook | Terms) -> str:
    """All that it says, the same text for the same meaning."""
    return json.dumps(entry.to_json(), sort_keys=True, separators=(",", ":"))


def content_hash(entry: PriceBook | Terms) -> str:
    return sha256(content(entry).encode()).hexdigest()


def _terms_at(terms: tuple[Terms, ...], at: datetime) -> Terms | None:
    # Those of one tenant do not overlap, but for an open end, which the next ones' beginning closes.
    found = next((each for each in reversed(terms) if each.effective_from <= at), None)
    return found if found is not None and found.holds_at(at) else None
