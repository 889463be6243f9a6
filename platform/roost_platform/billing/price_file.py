"""Reading a price list from TOML, as `prices.toml` describes it. Every mistake of a file is found in one reading."""

import re
import tomllib
from collections import Counter
from datetime import datetime
from importlib import resources
from typing import Any

from roost_platform.billing.currencies import MINOR_UNITS
from roost_platform.billing.price_values import Problem, Reader
from roost_platform.billing.prices import PriceBook, PriceBooks
from roost_platform.billing.skus import ColdStart, ShadowCalls, Sku
from roost_platform.billing.terms import Terms
from roost_platform.domain.errors import InvalidRequest
from roost_platform.domain.names import check_name

FILE_LIMIT = 1024 * 1024
"""Bytes of a price file."""

_MOST_CHANGES = 50
"""In one month, of the books and of one tenant's terms: each change makes lines of its own."""
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")


def default_price_books() -> PriceBooks:
    """The price list that Roost comes with."""
    return load_price_books(resources.files("roost_platform.billing").joinpath("prices.toml").read_text("utf-8"))


def load_price_books(text: str) -> PriceBooks:
    """The price list in this TOML. Raises InvalidRequest that names the first key and value at fault."""
    books, problems = read_price_books(parse(text))
    if books is None:
        first, more = problems[0], len(problems) - 1
        rest = f" (and {more} more: `roost prices check` explains all)" if more else ""
        raise InvalidRequest(f"price book: {first}{rest}", code="invalid_price_book", field=first.key[:64] or "body")
    return books


def parse(text: str) -> dict[str, Any]:
    """The tables of a file. Raises InvalidRequest for what is not TOML."""
    try:
        if len(text.encode()) > FILE_LIMIT:
            raise ValueError(f"it is larger than {FILE_LIMIT} bytes")
        return tomllib.loads(text)
    except RecursionError as error:
        raise InvalidRequest("the price book is nested too deeply", code="invalid_price_book", field="body") from error
    except ValueError as error:  # tomllib's own, and what Python says of a number with thousands of digits
        message = f"the price book is not TOML: {error}"
        raise InvalidRequest(message, code="invalid_price_book", field="body") from error


def read_price_books(content: dict[str, Any]) -> tuple[PriceBooks | None, tuple[Problem, ...]]:
    """The price list, or all that is wrong with it."""
    reader = Reader()
    reader.no_others(content, {"currency", "book", "tenant"}, where="")
    currency = content.get("currency")
    if not isinstance(currency, str) or currency not in MINOR_UNITS:
        reader.wrong("currency", currency, "an ISO 4217 code in use, such as USD")
        currency = "USD"
    books = _read_books(reader, _tables(reader, content, "book"), currency)
    terms = _read_terms(reader, _tables(reader, content, "tenant"))
    if not content.get("book"):
        reader.wrong("book", content.get("book"), "at least one [[book]]")
    if reader.problems:
        return None, tuple(reader.problems)
    return PriceBooks(tuple(books), tuple(sorted(terms, key=lambda each: (each.tenant, each.effective_from)))), ()


def _tables(reader: Reader, content: dict[str, Any], name: str) -> list[dict[str, Any]]:
    tables = content.get(name, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        reader.wrong(name, tables, f"[[{name}]] tables")
        return []
    return tables


def _read_books(reader: Reader, tables: list[dict[str, Any]], currency: str) -> list[PriceBook]:
    books: list[PriceBook] = []
    seen: set[str] = set()
    latest: datetime | None = None
    changes: Counter[str] = Counter()
    for i, table in enumerate(tables):
        where = f"book[{i}]"
        known = {"version", "effective_from", "cold_start", "shadow", "prices", "free"}
        reader.no_others(table, known, where=f"{where}.")
        start = reader.time(f"{where}.effective_from", table.get("effective_from"))
        if start is not None and latest is not None and start <= latest:
            reader.wrong(f"{where}.effective_from", start, f"later than the book before, {latest.isoformat()}")
        latest = max((moment for moment in (start, latest) if moment is not None), default=None)
        _count_change(reader, changes, f"{where}.effective_from", start)
        version = _read_version(reader, f"{where}.version", table.get("version"), seen)
        book = _read_book(reader, table, where=where, version=version, start=start, currency=currency)
        if book is not None:
            books.append(book)
    return books


def _read_version(reader: Reader, key: str, version: object, seen: set[str]) -> str | None:
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        reader.wrong(key, version, "1 to 32 letters, digits, dots, _ or -, the first a letter or digit")
        return None
    if version in seen:
        reader.wrong(key, version, "different for each book")
    seen.add(version)
    return version


def _read_book(
    reader: Reader, table: dict[str, Any], *, where: str, version: str | None, start: datetime | None, currency: str
) -> PriceBook | None:
    prices = reader.prices(f"{where}.prices", table.get("prices"))
    free = reader.free(f"{where}.free", table.get("free", {}))
    cold_start = table.get("cold_start", ColdStart.LOAD)
    if isinstance(table.get("prices"), dict):
        if Sku.REQUESTS not in table["prices"]:
            reader.wrong(f"{where}.prices.requests", None, "there (it may be the string 0)")
        for sku in free:
            if sku not in table["prices"]:
                reader.wrong(f"{where}.free.{sku}", free[sku], "of a sku that this book has a price for")
    if cold_start not in list(ColdStart):  # not a set: a file may give something that has no hash
        reader.wrong(f"{where}.cold_start", cold_start, '"platform", "load" or "all"')
    shadow = table.get("shadow", ShadowCalls.FREE)
    if shadow not in list(ShadowCalls):
        reader.wrong(f"{where}.shadow", shadow, '"free" or "charged"')
    if start is None or version is None or reader.problems:
        return None
    return PriceBook(version, currency, start, prices, free, ColdStart(cold_start), ShadowCalls(shadow))


def _read_terms(reader: Reader, tables: list[dict[str, Any]]) -> list[Terms]:
    found: list[Terms] = []
    latest: dict[str, tuple[datetime, datetime | None]] = {}
    changes: dict[str, Counter[str]] = {}
    for i, table in enumerate(tables):
        where = f"tenant[{i}]"
        known = {"name", "effective_from", "until", "discount", "prices", "free"}
        reader.no_others(table, known, where=f"{where}.")
        name = _tenant(reader, f"{where}.name", table.get("name"))
        start = reader.time(f"{where}.effective_from", table.get("effective_from"))
        until = None if table.get("until") is None else reader.time(f"{where}.until", table["until"])
        if start is not None and until is not None and until <= start:
            reader.wrong(f"{where}.until", until, f"later than effective_from, {start.isoformat()}")
        if name is not None and start is not None:
            _check_follows(reader, f"{where}.effective_from", start, latest.get(name))
            latest[name] = start, until
            for moment in (start, until):
                _count_change(reader, changes.setdefault(name, Counter()), f"{where}.effective_from", moment)
        discount = reader.discount(f"{where}.discount", table.get("discount", "0%"))
        prices = reader.prices(f"{where}.prices", table.get("prices", {}))
        free = reader.free(f"{where}.free", table.get("free", {}))
        if name is not None and start is not None:
            found.append(Terms(name, start, until, discount, prices, free))
    return found


def _check_follows(reader: Reader, key: str, start: datetime, before: tuple[datetime, datetime | None] | None) -> None:
    if before is None:
        return
    began, until = before
    if start <= began:
        reader.wrong(key, start, f"later than this tenant's terms before, {began.isoformat()}")
    elif until is not None and start < until:
        reader.wrong(key, start, f"no earlier than the end of this tenant's terms before, {until.isoformat()}")


def _tenant(reader: Reader, key: str, value: object) -> str | None:
    try:
        return check_name(value if isinstance(value, str) else "", field=key)
    except InvalidRequest:
        reader.wrong(key, value, "a tenant's name: 1 to 63 lower-case letters, digits or inner hyphens")
        return None


def _count_change(reader: Reader, changes: Counter[str], key: str, at: datetime | None) -> None:
    if at is None:
        return
    month = f"{at:%Y-%m}"
    changes[month] += 1
    if changes[month] == _MOST_CHANGES + 1:
        reader.wrong(key, at, f"in another month: {month} has {_MOST_CHANGES} changes already")
