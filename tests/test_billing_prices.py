"""Price books: which one is in force when, and what a wrong one is told."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest

from roost_platform.billing.months import month_of, parse_month
from roost_platform.billing.price_file import default_price_books, load_price_books
from roost_platform.billing.skus import Sku
from roost_platform.billing.tiers import flat
from roost_platform.domain.errors import InvalidRequest, NotFound

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
INSTANT = timedelta(microseconds=1)

BOOK = """
currency = "{currency}"
[[book]]
version = {version}
effective_from = {start}
[book.prices]
{prices}
"""


def _text(currency="EUR", version='"v1"', start="2026-01-01T00:00:00Z", prices='requests = "1"'):
    return BOOK.format(currency=currency, version=version, start=start, prices=prices)


def test_the_default_books_change_at_a_moment():
    books = default_price_books()
    assert books.in_force(OCTOBER - INSTANT).version == "2026-01"
    assert books.in_force(OCTOBER).version == "2026-10"
    assert books.in_force(datetime.fromisoformat("2026-10-01T01:30:00+02:00")).version == "2026-01"
    assert books.currency == "USD"
    december = books.in_force(datetime(2026, 12, 1, tzinfo=UTC))
    assert {Sku.STORAGE, Sku.RESERVED_SECONDS} == set(december.prices) - set(books.in_force(OCTOBER).prices) - {
        Sku.IDLE_SECONDS
    }


def test_no_book_is_in_force_before_the_first():
    with pytest.raises(NotFound):
        default_price_books().in_force(datetime(2025, 12, 31, tzinfo=UTC))


def test_periods_cover_an_interval_and_are_cut_where_prices_change():
    books = default_price_books()
    start, end = datetime(2025, 12, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)
    periods = books.periods(start, end, tenant="acme")
    assert [period.book and period.book.version for period in periods] == [None, "2026-01", "2026-10"]
    assert periods[0].start == start
    assert periods[-1].end == end
    assert all(a.end == b.start for a, b in pairwise(periods))
    (only,) = books.periods(OCTOBER, end, tenant="acme")  # a change at the very start cuts nothing
    assert only.book is books.in_force(OCTOBER)


def test_prices_keep_every_digit():
    book = load_price_books(_text(prices='requests = "0.123456789012"\ninferences = "0"')).books[0]
    assert book.prices == {
        Sku.REQUESTS: {"*": flat(Decimal("0.123456789012"))},
        Sku.INFERENCES: {"*": flat(Decimal(0))},
    }
    assert book.to_json() == {
        "version": "v1",
        "currency": "EUR",
        "effective_from": "2026-01-01T00:00:00+00:00",
        "cold_start": "load",
        "prices": {"inferences": {"*": "0"}, "requests": {"*": "0.123456789012"}},
        "free": {},
    }


@pytest.mark.parametrize(("currency", "digits"), [("JPY", 0), ("EUR", 2), ("KWD", 3)])
def test_minor_units_follow_the_currency(currency, digits):
    assert load_price_books(_text(currency=currency)).books[0].minor_units == digits


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        (_text(currency="ABC"), "currency", "'ABC'"),
        (_text(currency="usd"), "currency", "'usd'"),
        ('book = 3\ncurrency = "EUR"', "book", "3"),
        ('currency = "EUR"', "book", "missing"),
        (_text(version="7"), "book[0].version", "7"),
        (_text(version='"=1"'), "book[0].version", "'=1'"),
        (_text(start="2026-01-01T00:00:00"), "book[0].effective_from", "is 2026-01-01T00:00:00"),
        (_text(start="2026-01-01"), "book[0].effective_from", "is 2026-01-01"),
        (_text(prices='inferences = "1"'), "book[0].prices.requests", "missing"),
        (_text(prices='requests = "1"\ngpu = "1"'), "book[0].prices.gpu", "'1'"),
        (_text(prices="requests = 0.2"), "book[0].prices.requests", "0.2"),
        (_text(prices='requests = "-1"'), "book[0].prices.requests", "'-1'"),
        (_text(prices='requests = "NaN"'), "book[0].prices.requests", "'NaN'"),
        (_text(prices='requests = "1e3"'), "book[0].prices.requests", "'1e3'"),
        (_text(prices='requests = "0.1234567890123"'), "book[0].prices.requests", "'0.1234567890123'"),
        (_text() + "discount = 5", "book[0].prices.discount", "5"),
        ("discount = 5\n" + _text(), "discount", "5"),
        (_text() + _text().split("\n", 2)[2], "book[1].effective_from", "2026-01-01"),
        (_text() + _text(start="2027-01-01T00:00:00Z").split("\n", 2)[2], "book[1].version", "'v1'"),
    ],
)
def test_a_wrong_book_is_refused_by_key_and_value(text, key, value):
    with pytest.raises(InvalidRequest) as caught:
        load_price_books(text)
    assert caught.value.field == key
    assert key in caught.value.message
    assert value in caught.value.message


def test_text_that_is_not_toml_is_refused():
    with pytest.raises(InvalidRequest):
        load_price_books("currency = ")


def test_a_month_is_half_open_in_utc():
    assert (parse_month("2026-11").start, parse_month("2026-11").end) == (
        datetime(2026, 11, 1, tzinfo=UTC),
        datetime(2026, 12, 1, tzinfo=UTC),
    )
    assert parse_month("2026-12").end == datetime(2027, 1, 1, tzinfo=UTC)
    assert str(parse_month("2028-02")) == "2028-02"
    assert month_of(datetime.fromisoformat("2026-12-01T00:30:00+01:00")) == parse_month("2026-11")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026",
        "2026-13",
        "2026-00",
        "2026-1",
        "26-11",
        "2026-11-01",
        "2026-11\n",
        "0000-01",
        "9999-12",
        "\u0662\u0660\u0662\u0666-11",
    ],
)
def test_what_is_not_a_month_is_refused(text):
    with pytest.raises(InvalidRequest) as caught:
        parse_month(text)
    assert caught.value.field == "month"
