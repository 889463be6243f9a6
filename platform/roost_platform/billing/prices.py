"""Price books: what a unit of usage costs, from when on. Dated, exact, and never changed once in force."""

import re
import tomllib
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from importlib import resources
from itertools import pairwise
from typing import Any

from roost_platform.billing.currencies import MINOR_UNITS
from roost_platform.domain.errors import InvalidRequest, NotFound

_PRICE = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")


class Sku(StrEnum):
    """What can be charged, in the order of a statement's lines."""

    REQUESTS = "requests"
    COMPUTE_SECONDS = "compute_seconds"
    ROWS = "rows"
    BYTES_OUT = "bytes_out"


@dataclass(frozen=True, slots=True)
class Measure:
    """How a sku is counted: in whole `unit`s; the price is for `per` of them."""

    unit: str
    per: int
    text: str


MEASURES: Mapping[Sku, Measure] = {
    Sku.REQUESTS: Measure("requests", 1_000_000, "per million requests"),
    Sku.COMPUTE_SECONDS: Measure("microseconds", 1_000_000, "per compute second"),
    Sku.ROWS: Measure("rows", 1_000, "per thousand rows"),
    Sku.BYTES_OUT: Measure("bytes", 2**30, "per GiB out"),
}


@dataclass(frozen=True, slots=True)
class PriceBook:
    """Prices in force from `effective_from` until the next book's."""

    version: str
    currency: str
    """ISO 4217 code."""
    effective_from: datetime
    prices: Mapping[Sku, Decimal]
    """A sku that is not in here is not charged."""

    @property
    def minor_units(self) -> int:
        """Digits after the point of an amount."""
        return MINOR_UNITS[self.currency]

    def to_json(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "currency": self.currency,
            "effective_from": self.effective_from.isoformat(),
            "prices": [
                {"sku": str(sku), "unit_price": f"{price:f}", "per": MEASURES[sku].per, "unit": MEASURES[sku].unit}
                for sku, price in self.prices.items()
            ],
        }


@dataclass(frozen=True, slots=True)
class Period:
    """A half-open stretch of time in which one book is in force, or none yet."""

    start: datetime
    end: datetime
    book: PriceBook | None


@dataclass(frozen=True, slots=True)
class PriceBooks:
    """All books, oldest first, in one currency."""

    books: tuple[PriceBook, ...]

    def in_force(self, at: datetime) -> PriceBook:
        """The book in force at this moment. Raises NotFound before the first one."""
        book = self._find(at)
        if book is None:
            raise NotFound(f"no price book is in force at {at.isoformat()}", code="no_price_book")
        return book

    def periods(self, start: datetime, end: datetime) -> tuple[Period, ...]:
        """[start, end) cut where prices change; usage is to be summed for each part on its own."""
        cuts = [book.effective_from for book in self.books if start < book.effective_from < end]
        edges = [start, *cuts, end]
        return tuple(Period(a, b, self._find(a)) for a, b in pairwise(edges))

    @property
    def currency(self) -> str:
        return self.books[0].currency

    def _find(self, at: datetime) -> PriceBook | None:
        index = bisect_right([book.effective_from for book in self.books], at)
        return self.books[index - 1] if index else None


def default_price_books() -> PriceBooks:
    """The books that Roost comes with."""
    return load_price_books(resources.files("roost_platform.billing").joinpath("prices.toml").read_text("utf-8"))


def load_price_books(text: str) -> PriceBooks:
    """Read TOML as described in `prices.toml`. Raises InvalidRequest that names the key and the value at fault."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidRequest(f"the price book is not TOML: {error}", code="invalid_price_book") from error
    _no_others(content, {"currency", "book"}, where="")
    currency = content.get("currency")
    if not isinstance(currency, str) or currency not in MINOR_UNITS:
        raise _invalid("currency", currency, "an ISO 4217 code in use, such as USD")
    tables = content.get("book")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise _invalid("book", tables, "at least one [[book]]")
    books = tuple(_read_book(table, currency, f"book[{i}]") for i, table in enumerate(tables))
    for i, (before, book) in enumerate(pairwise(books), start=1):
        if book.effective_from <= before.effective_from:
            raise _invalid(f"book[{i}].effective_from", book.effective_from.isoformat(), "later than the book before")
        if book.version in {other.version for other in books[:i]}:
            raise _invalid(f"book[{i}].version", book.version, "different for each book")
    return PriceBooks(books)


def _read_book(table: dict[str, Any], currency: str, where: str) -> PriceBook:
    _no_others(table, {"version", "effective_from", "prices"}, where=f"{where}.")
    version, start, prices = table.get("version"), table.get("effective_from"), table.get("prices")
    if not isinstance(version, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}", version):
        raise _invalid(
            f"{where}.version", version, "1 to 32 letters, digits, dots, _ or -, the first a letter or digit"
        )
    if not isinstance(start, datetime) or start.tzinfo is None:
        raise _invalid(f"{where}.effective_from", start, "a time with an offset, such as 2026-01-01T00:00:00Z")
    if not isinstance(prices, dict):
        raise _invalid(f"{where}.prices", prices, "a table of prices")
    _no_others(prices, set(Sku), where=f"{where}.prices.")
    if Sku.REQUESTS not in prices:
        raise _invalid(f"{where}.prices.requests", None, "there (it may be the string 0)")
    for sku, price in prices.items():
        if not isinstance(price, str) or not _PRICE.fullmatch(price):
            raise _invalid(f"{where}.prices.{sku}", price, 'a decimal string with up to 12 places, such as "0.20"')
    known = {sku: Decimal(prices[sku]) for sku in Sku if sku in prices}
    return PriceBook(version, currency, start.astimezone(UTC), known)


def _no_others(table: dict[str, Any], known: set[Any], *, where: str) -> None:
    for key, value in table.items():
        if key not in known:
            raise _invalid(f"{where}{key}", value, f"one of {', '.join(sorted(known))}")


def _invalid(key: str, value: object, wanted: str) -> InvalidRequest:
    shown = "missing" if value is None else repr(value)
    return InvalidRequest(f"price book: {key} must be {wanted}, but is {shown}", code="invalid_price_book", field=key)
