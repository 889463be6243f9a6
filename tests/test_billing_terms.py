"""Terms of tenants: whose they are, from when until when, and what they do to prices and allowances."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost_platform.billing.lines import MeteredUsage
from roost_platform.billing.months import parse_month
from roost_platform.billing.price_file import load_price_books
from roost_platform.billing.prices import content_hash, hashes
from roost_platform.billing.rating import rate
from roost_platform.billing.skus import Sku
from roost_platform.billing.tiers import flat
from roost_platform.domain.errors import InvalidRequest
from roost_platform.domain.meters import Meter

MONTH = parse_month("2026-11")
TENTH, TWENTIETH = (datetime(2026, 11, day, tzinfo=UTC) for day in (10, 20))
INSTANT = timedelta(microseconds=1)
BOOK = """
currency = "USD"
[[book]]
version = "v"
effective_from = 2026-01-01T00:00:00Z
prices = { requests = "2000000", bytes_in = "1073741824", idle_seconds = { "cpu-1" = "1", "cpu-2" = "2" } }
free = { requests = 1 }
"""


def terms(name="acme", start="2026-11-10T00:00:00Z", **more):
    lines = [f'name = "{name}"', f"effective_from = {start}", *(f"{key} = {value}" for key, value in more.items())]
    return "[[tenant]]\n" + "\n".join(lines) + "\n"


def lines_of(text, *usage, tenant="acme"):
    return rate(usage, tenant=tenant, month=MONTH, books=load_price_books(text))


def used(quantity=2, *, meter=Meter.REQUESTS, variant="ok", at=TENTH):
    return MeteredUsage("iris", meter, variant, at, at + INSTANT, quantity)


def told(lines):
    return [(line.sku, line.variant, str(line.list_price), str(line.unit_price), str(line.amount)) for line in lines]


def test_a_discount_is_taken_off_the_books_prices_and_the_list_price_stays():
    lines = lines_of(BOOK + terms(discount='"12.5%"'), used(10**4, meter=Meter.BYTES_IN))
    assert told(lines) == [("bytes_in", "", "1073741824", "939524096", "8750.00")]
    assert str(lines[0].list_amount) == "10000.00"


@given(
    price=st.decimals(0, 10**12 - 1, places=12).map(lambda d: f"{d:.12f}"),
    percent=st.decimals(0, 100, places=4).map(lambda d: f"{d:.4f}"),
)
def test_a_discounted_price_is_exact_to_the_last_digit(price, percent):
    share = Decimal(percent).scaleb(-2)
    (tier,) = flat(Decimal(price)).discounted(share).tiers
    assert Fraction(tier.price) == Fraction(price) * (1 - Fraction(percent) / 100)
    assert "E" not in f"{tier.price:f}"


def test_an_own_price_takes_the_place_of_the_books_and_no_discount_is_taken_off_it():
    text = BOOK + terms(discount='"50%"', prices='{ bytes_in = "107374182.4", idle_seconds = { "cpu-1" = "0.3" } }')
    usage = [used(10, meter=Meter.BYTES_IN), *(used(10**6, meter=Meter.IDLE, variant=v) for v in ("cpu-1", "cpu-2"))]
    assert told(lines_of(text, *usage)) == [
        ("bytes_in", "", "1073741824", "107374182.4", "1.00"),
        ("idle_seconds", "cpu-1", "1", "0.3", "0.30"),
        ("idle_seconds", "cpu-2", "2", "1", "1.00"),  # the book's, less the discount
    ]


def test_what_only_the_terms_have_a_price_for_has_that_as_its_list_price():
    lines = lines_of(BOOK + terms(prices='{ storage = "1" }'), used(2**30 * 3600, meter=Meter.STORAGE))
    assert told(lines) == [("storage", "", "1", "1", "1.00")]
    assert (
        lines_of(BOOK + terms(prices='{ storage = "1" }'), used(2**30 * 3600, meter=Meter.STORAGE), tenant="beta") == ()
    )


def test_an_own_flat_price_beside_a_tiered_list_price_is_cut_where_the_list_price_changes():
    tiered = BOOK.replace(
        'bytes_in = "1073741824"',
        'bytes_in = { mode = "graduated", tiers = [{ up_to = 10, price = "2147483648" }, { price = "1073741824" }] }',
    )
    lines = lines_of(tiered + terms(prices='{ bytes_in = "536870912" }'), used(30, meter=Meter.BYTES_IN))
    found = [(line.tier, line.quantity, str(line.list_amount), str(line.amount)) for line in lines]
    assert found == [(0, 10, "20.00", "5.00"), (0, 20, "20.00", "10.00")]


@pytest.mark.parametrize(("free", "credit"), [(0, None), (1, "-2.00"), (2, "-4.00"), (9, "-4.00")])
def test_an_own_allowance_takes_the_place_of_the_books(free, credit):
    lines = lines_of(BOOK + terms(free=f"{{ requests = {free} }}"), used(2))
    assert [str(line.amount) for line in lines] == ["4.00", *([credit] if credit else [])]


@pytest.mark.parametrize(
    ("at", "amount"),
    [
        (TENTH - INSTANT, "4.00"),
        (TENTH, "2.00"),
        (TWENTIETH - INSTANT, "2.00"),
        (TWENTIETH, "4.00"),
    ],
)
def test_terms_are_in_force_from_one_moment_to_just_before_another(at, amount):
    text = BOOK.replace("free = { requests = 1 }", "") + terms(discount='"50%"', until="2026-11-20T01:00:00+01:00")
    assert [str(line.amount) for line in lines_of(text, used(at=at))] == [amount]
    assert [str(line.amount) for line in lines_of(text, used(at=at), tenant="acme2")] == ["4.00"]


def test_later_terms_replace_the_earlier_ones_as_a_whole():
    text = BOOK + terms(discount='"50%"') + terms(start="2026-11-20T00:00:00Z", free="{ requests = 0 }")
    books = load_price_books(text)
    periods = books.periods(MONTH.start, MONTH.end, tenant="acme")
    assert [(p.start.day, p.terms and p.terms.discount) for p in periods] == [(1, None), (10, Decimal("0.5")), (20, 0)]
    assert [period.free(Sku.REQUESTS) for period in periods] == [1, 1, 0]
    assert len(books.periods(MONTH.start, MONTH.end, tenant="beta")) == 1


def test_the_books_and_terms_that_a_month_was_rated_with_are_named_with_their_hashes():
    books = load_price_books(BOOK + terms(discount='"50%"') + terms(name="beta") + terms(start="2026-12-01T00:00:00Z"))
    found = hashes(books.periods(MONTH.start, MONTH.end, tenant="acme"))
    agreed = books.terms[0]
    assert found == {"book/v": content_hash(books.books[0]), "terms/acme/20261110T000000.000000Z": content_hash(agreed)}
    again = load_price_books(BOOK.replace('"1073741824"', '"1073741824.0"') + terms(discount='"50.00%"'))
    assert content_hash(again.terms[0]) == content_hash(agreed)
    assert content_hash(again.books[0]) != content_hash(books.books[0])  # told to another number of places


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        (terms(name="Acme"), "tenant[0].name", "'Acme'"),
        (terms(start="2026-11-10"), "tenant[0].effective_from", "2026-11-10"),
        (terms(until="2026-11-10T00:00:00Z"), "tenant[0].until", "2026-11-10T00:00:00+00:00"),
        (terms(discount='"10"'), "tenant[0].discount", "'10'"),
        (terms(discount='"-1%"'), "tenant[0].discount", "'-1%'"),
        (terms(discount='"100.0001%"'), "tenant[0].discount", "'100.0001%'"),
        (terms(discount="10"), "tenant[0].discount", "10"),
        (terms(prices='{ idle_seconds = { "cpu" = "1" } }'), "tenant[0].prices.idle_seconds.cpu", "'1'"),
        (terms(prices='{ requests = { "cpu-1" = "1" } }'), "tenant[0].prices.requests", "a table"),
        (terms(free="{ requests = -1 }"), "tenant[0].free.requests", "-1"),
        (terms(free="{ requests = true }"), "tenant[0].free.requests", "True"),
        (terms(price="3"), "tenant[0].price", "3"),
        (terms() + terms(), "tenant[1].effective_from", "2026-11-10T00:00:00+00:00"),
        (
            terms(until="2026-11-12T00:00:00Z") + terms(start="2026-11-11T23:59:59Z"),
            "tenant[1].effective_from",
            "2026-11-11T23:59:59+00:00",
        ),
        ("tenant = 3\n", "tenant", "3"),
    ],
)
def test_wrong_terms_are_refused_by_key_and_value(text, key, value):
    whole = text + BOOK if text.startswith("tenant =") else BOOK + text
    with pytest.raises(InvalidRequest) as caught:
        load_price_books(whole)
    assert caught.value.field == key
    assert f"{key} must be" in caught.value.message
    assert f"but is {value}" in caught.value.message
