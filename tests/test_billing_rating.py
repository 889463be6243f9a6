"""Rating: every line to the last minor unit, whatever order and pieces the usage comes in."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rating_reference import INSTANT, MONTH, cases, rated, reference, toml_of, usages
from roost_platform.billing.lines import Category, MeteredUsage
from roost_platform.billing.months import parse_month
from roost_platform.billing.price_file import load_price_books
from roost_platform.billing.rating import rate, total_of
from roost_platform.billing.skus import NOT_CHARGED, Sku
from roost_platform.domain.errors import InvalidRequest
from roost_platform.domain.meters import Meter
from roost_platform.domain.usage import Outcome

CHANGE = datetime(2026, 11, 15, 6, tzinfo=UTC)
HEAD = 'currency = "USD"\n[[book]]\nversion = "v"\neffective_from = 2026-01-01T00:00:00Z\n'


def lines_of(text, *usage, tenant="acme", month=MONTH):
    return rate(usage, tenant=tenant, month=month, books=load_price_books(text))


def used(meter, quantity, *, model="iris", variant=None, start=MONTH.start, end=MONTH.end):
    return MeteredUsage(model, Meter(meter), "ok" if variant is None else variant, start, end, quantity)


def told(lines):
    return [(line.model, line.sku, line.price_book, line.tier, line.quantity, str(line.amount)) for line in lines]


# Against the reference


@settings(max_examples=100)
@given(case=cases(), usage=usages)
def test_it_agrees_with_the_reference_to_the_last_minor_unit(case, usage):
    books = load_price_books(toml_of(case))
    lines = rate(usage, tenant="acme", month=MONTH, books=books)
    assert rated(lines) == reference(case, usage)


@settings(max_examples=40)
@given(case=cases(), usage=usages, order=st.randoms(use_true_random=False))
def test_order_and_pieces_of_the_usage_change_nothing(case, usage, order):
    books = load_price_books(toml_of(case))
    lines = rate(usage, tenant="acme", month=MONTH, books=books)
    periods = books.periods(MONTH.start, MONTH.end, tenant="acme")
    pieces = []
    for piece in usage:
        period = next(p for p in periods if p.start <= piece.start < p.end)
        taken = order.randint(-piece.quantity, piece.quantity)  # a correction and what it corrects are pieces, too
        for quantity in (taken, piece.quantity - taken):
            start = order.choice([period.start, piece.start])
            pieces.append(MeteredUsage(piece.model, piece.meter, piece.variant, start, period.end, quantity))
    order.shuffle(pieces)
    assert rate(pieces, tenant="acme", month=MONTH, books=books) == lines
    assert rate(iter(pieces), tenant="acme", month=MONTH, books=books) == lines


@settings(max_examples=40)
@given(case=cases(), usage=usages)
def test_lines_add_up_and_no_credit_exceeds_what_it_credits(case, usage):
    books = load_price_books(toml_of(case))
    lines = rate(usage, tenant="acme", month=MONTH, books=books)
    assert total_of(lines, books.currency) == sum((line.amount for line in lines), Decimal(0))
    for before, line in zip((None, *lines), lines, strict=False):
        assert Fraction(line.amount) == round_of(line.quantity * Fraction(line.unit_price) / line.per, line.amount)
        assert Fraction(line.list_amount) == round_of(line.quantity * Fraction(line.list_price) / line.per, line.amount)
        if line.category is Category.CREDIT:
            assert before.category is Category.USAGE
            same = ("model", "sku", "variant", "price_book", "tier", "start", "end", "unit_price", "list_price")
            assert [getattr(before, name) for name in same] == [getattr(line, name) for name in same]
            assert 0 < -line.quantity <= before.quantity
            assert 0 <= -line.amount <= before.amount
    calls, counted = Counter(), Counter()
    for piece in usage:
        if piece.meter is Meter.REQUESTS:
            calls[piece.model] += piece.quantity
    for line in lines:
        if line.sku in (Sku.REQUESTS, NOT_CHARGED) and line.category is Category.USAGE:
            counted[line.model] += line.quantity
    assert +counted == +calls


def round_of(exact, like):
    places = -like.as_tuple().exponent
    return Fraction(round(exact * 10**places), 10**places)


# By hand


def test_a_line_for_each_model_period_and_sku_in_that_order():
    text = (
        HEAD
        + 'prices = { requests = "1000", inferences = "0.5" }\n'
        + """
[[book]]
version = "new"
effective_from = 2026-11-15T06:00:00Z
prices = { requests = "3000" }
"""
    )
    lines = lines_of(
        text,
        used("inferences", 2000, end=CHANGE),
        used("requests", 20, start=CHANGE),
        used("requests", 30, end=CHANGE),
        used("inferences", 5000, start=CHANGE),  # has no price any more
        used("requests", 10, model="ant", end=CHANGE),
    )
    assert told(lines) == [
        ("ant", "requests", "v", 0, 10, "0.01"),
        ("iris", "requests", "v", 0, 30, "0.03"),
        ("iris", "inferences", "v", 0, 2000, "1.00"),
        ("iris", "requests", "new", 0, 20, "0.06"),
    ]
    assert [(line.start, line.end) for line in lines[1:4:2]] == [(MONTH.start, CHANGE), (CHANGE, MONTH.end)]


@pytest.mark.parametrize(
    ("requests", "amount"),
    [(4, "0.00"), (5, "0.00"), (6, "0.01"), (14, "0.01"), (15, "0.02"), (16, "0.02"), (25, "0.02"), (26, "0.03")],
)
def test_an_amount_is_rounded_once_with_halves_to_the_even_cent(requests, amount):
    (line,) = lines_of(HEAD + 'prices = { requests = "1000" }', used("requests", requests))
    assert str(line.amount) == amount


@pytest.mark.parametrize(
    ("currency", "amount"), [("JPY", "12346"), ("USD", "12345.68"), ("KWD", "12345.679"), ("CLP", "12346")]
)
def test_amounts_have_the_digits_of_their_currency(currency, amount):
    text = HEAD.replace("USD", currency) + 'prices = { requests = "12345.6789" }'
    (line,) = lines_of(text, used("requests", 1_000_000))
    assert str(line.amount) == amount
    assert str(total_of([line, line], currency)) == str(2 * Decimal(amount))
    assert str(total_of([], currency)) == amount[:0] + (
        "0" if "." not in amount else "0." + "0" * len(amount.split(".")[1])
    )


def test_ten_million_events_at_a_fraction_of_a_cent_are_exact():
    text = HEAD + 'prices = { requests = "0", compute_seconds = "0.000000000007" }'
    pieces = (used("compute", 1_000_003) for _ in range(10**4))  # a thousand events in each
    (line,) = lines_of(text, *pieces, used("compute", 10**7 * 1_000_003 - 10**4 * 1_000_003))
    assert line.quantity == 10**7 * 1_000_003
    assert line.amount == Decimal("0.00")
    text = HEAD + 'prices = { requests = "0", compute_seconds = "0.123456789012" }'
    (line,) = lines_of(text, used("compute", 10**7 * 1_000_003))
    # 10,000,030 s x 0.123456789012
    assert line.amount == Decimal("1234571.59")
    assert Decimal(10000030) * line.unit_price == Decimal("1234571.59382367036")


@pytest.mark.parametrize("price", ["0.000000000001", "999999999999.999999999999", "0.123456789012"])
def test_prices_with_twelve_places_and_huge_quantities_lose_no_digit(price):
    (line,) = lines_of(HEAD + f'prices = {{ requests = "{price}" }}', used("requests", 10**18 - 1))
    exact = Fraction(price) * (10**18 - 1) / 10**6
    assert Fraction(line.amount) == Fraction(round(exact * 100), 100)


def test_calls_that_are_not_charged_are_shown_for_nothing():
    usage = [used("requests", i + 1, variant=str(outcome)) for i, outcome in enumerate(Outcome)]
    usage += [used("compute", 10**9, variant=str(outcome)) for outcome in Outcome]
    lines = lines_of(HEAD + 'prices = { requests = "0", compute_seconds = "0.01" }', *usage)
    assert told(lines) == [
        ("iris", "requests", "v", 0, 3, "0.00"),
        ("iris", "compute_seconds", "v", 0, 2 * 10**9, "20.00"),
        ("iris", NOT_CHARGED, "v", 0, 18, "0.00"),
        ("iris", NOT_CHARGED, "v", 0, 7, "0.00"),
    ]
    assert [line.variant for line in lines[2:]] == ["", "shadow"]


@pytest.mark.parametrize("switch", ['cold_start = ["load"]', 'shadow = "half"', "shadow = {}"])
def test_a_switch_that_is_none_is_refused(switch):
    with pytest.raises(InvalidRequest, match=r"book\[0\]\.(cold_start|shadow)"):
        load_price_books(f'{HEAD}{switch}\nprices = {{ requests = "0" }}')


def test_copies_to_a_shadow_are_charged_apart_where_the_book_says_so():
    usage = [used("requests", 5), used("requests", 7, variant="shadow"), used("compute", 10**9, variant="shadow")]
    prices = 'prices = { requests = { mode = "graduated", tiers = [{ up_to = 6, price = "0" }, { price = "1000000" }] }'
    lines = lines_of(HEAD + 'shadow = "charged"\n' + prices + ', compute_seconds = "0.01" }', *usage)
    assert [(line.sku, line.variant, line.tier, line.quantity, str(line.amount)) for line in lines] == [
        ("requests", "", 1, 5, "0.00"),
        ("requests", "shadow", 1, 6, "0.00"),
        ("requests", "shadow", 2, 1, "1.00"),
        ("compute_seconds", "shadow", 0, 10**9, "10.00"),
    ]


def test_nothing_costs_before_the_first_book():
    text = HEAD.replace("2026-01-01", "2026-12-01") + 'prices = { requests = "1", storage = "1" }'
    terms = '\n[[tenant]]\nname = "acme"\neffective_from = 2026-01-01T00:00:00Z\nprices = { requests = "9" }'
    lines = lines_of(text + terms, used("requests", 5), used("compute", 10**9), used("storage", 10**15, variant=""))
    assert told(lines) == [("iris", NOT_CHARGED, "", 0, 5, "0.00")]


@pytest.mark.parametrize(
    ("cold_start", "quantity"), [("platform", None), ("load", 3_000_000), ("all", 9_000_000), (None, 3_000_000)]
)
def test_who_pays_a_cold_start_is_a_switch_of_the_book(cold_start, quantity):
    switch = "" if cold_start is None else f'cold_start = "{cold_start}"\n'
    text = HEAD + switch + 'prices = { requests = "0", setup_seconds = "1" }'
    parts = {"setup": 9_000_000, "pull": 4_000_000, "schedule": 2_000_000, "load": 3_000_000}
    lines = lines_of(text, *(used(meter, us, variant="cpu-1") for meter, us in parts.items()))
    assert [(line.sku, line.variant, line.quantity) for line in lines] == (
        [] if quantity is None else [("setup_seconds", "cpu-1", quantity)]
    )


def test_the_seconds_of_replicas_cost_by_class_and_one_without_a_price_is_free():
    prices = 'requests = "0", idle_seconds = { "cpu-1" = "1", "gpu-1" = "10" }, reserved_seconds = { "cpu-1" = "2", "*" = "5" }'
    usage = [used(m, 10**6, variant=v) for m in ("idle", "reserved") for v in ("cpu-1", "cpu-2", "gpu-1")]
    lines = lines_of(f"{HEAD}prices = {{ {prices} }}", *usage)
    assert [(line.sku, line.variant, str(line.amount)) for line in lines] == [
        ("idle_seconds", "cpu-1", "1.00"),
        ("idle_seconds", "gpu-1", "10.00"),
        ("reserved_seconds", "cpu-1", "2.00"),
        ("reserved_seconds", "cpu-2", "5.00"),
        ("reserved_seconds", "gpu-1", "5.00"),
    ]


def test_storage_is_priced_by_the_gib_and_hour():
    (line,) = lines_of(
        HEAD + 'prices = { requests = "0", storage = "0.5" }', used("storage", 3 * 2**30 * 3600, variant="")
    )
    assert (line.unit, line.per, str(line.amount)) == ("byte-seconds", 2**30 * 3600, "1.50")


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (MONTH.start, MONTH.end),  # across the change of prices
        (MONTH.start - INSTANT, MONTH.start + INSTANT),
        (CHANGE, MONTH.end + INSTANT),
        (CHANGE, CHANGE),
        (MONTH.end, MONTH.end + INSTANT),
    ],
)
def test_usage_that_no_single_price_applies_to_is_refused(start, end):
    text = (
        HEAD
        + 'prices = { requests = "1" }\n[[book]]\nversion = "w"\neffective_from = 2026-11-15T06:00:00Z\nprices = { requests = "2" }'
    )
    with pytest.raises(ValueError, match="price period"):
        lines_of(text, used("requests", 1, start=start, end=end))


@pytest.mark.parametrize(
    ("at", "book"),
    [
        (datetime(2026, 10, 24, 23, 59, 59, 999_999, tzinfo=UTC), "summer"),
        (datetime(2026, 10, 25, 0, 59, 59, 999_999, tzinfo=UTC), "summer"),
        (datetime(2026, 10, 25, 1, 0, tzinfo=UTC), "winter"),  # 02:00+01:00: the hour after the clocks went back
        (datetime(2026, 10, 31, 23, 59, 59, 999_999, tzinfo=UTC), "winter"),
    ],
)
def test_an_hour_that_a_zone_has_twice_is_two_moments(at, book):
    text = 'currency = "EUR"\n' + "".join(
        f'[[book]]\nversion = "{version}"\neffective_from = {start}\nprices = {{ requests = "1" }}\n'
        for version, start in (("summer", "2026-03-29T03:00:00+02:00"), ("winter", "2026-10-25T02:00:00+01:00"))
    )
    october = parse_month("2026-10")
    (line,) = lines_of(text, used("requests", 1, start=at, end=at + INSTANT), month=october)
    assert line.price_book == book


@pytest.mark.parametrize("month", ["2026-02", "2028-02", "2026-12", "2027-01", "2016-12"])
def test_each_moment_of_a_month_belongs_to_it_and_none_of_the_next(month):
    """December 2016 ended with a leap second, which has no moment of its own here: 23:59:59 is its last second."""
    books = load_price_books(HEAD.replace("2026", "2000") + 'prices = { requests = "1000000" }')
    whole = parse_month(month)
    first, last = whole.start, whole.end - INSTANT
    usage = [used("requests", 1, start=at, end=at + INSTANT) for at in (first, last)]
    (line,) = rate(usage, tenant="acme", month=whole, books=books)
    assert (line.quantity, line.start, line.end) == (2, whole.start, whole.end)
    for at in (first - INSTANT, whole.end):
        with pytest.raises(ValueError, match="price period"):
            rate([used("requests", 1, start=at, end=at + INSTANT)], tenant="acme", month=whole, books=books)


def test_a_price_that_changes_in_the_middle_changes_at_that_moment():
    text = (
        HEAD
        + 'prices = { requests = "1000000" }\n[[book]]\nversion = "w"\neffective_from = 2026-11-15T06:00:00Z\nprices = { requests = "3000000" }'
    )
    usage = [used("requests", 1, start=at, end=at + INSTANT) for at in (CHANGE - INSTANT, CHANGE)]
    assert told(lines_of(text, *usage)) == [
        ("iris", "requests", "v", 0, 1, "1.00"),
        ("iris", "requests", "w", 0, 1, "3.00"),
    ]


def test_corrections_that_outweigh_their_usage_are_given_back_at_what_the_last_units_cost():
    text = (
        HEAD
        + 'prices = { requests = { mode = "graduated", tiers = [{ up_to = 10, price = "2000000" }, { price = "1000000" }] } }'
    )
    lines = lines_of(text, used("requests", 15, model="ant"), used("requests", -8, model="bee"))
    assert told(lines) == [
        ("ant", "requests", "v", 1, 10, "20.00"),
        ("ant", "requests", "v", 2, 5, "5.00"),
        ("bee", "requests", "v", 1, -3, "-6.00"),
        ("bee", "requests", "v", 2, -5, "-5.00"),
    ]
    assert total_of(lines, "USD") == Decimal(14)  # as seven units in all cost
    assert lines_of(text, used("requests", 5), used("requests", -5)) == ()
    free = text + "\nfree = { requests = 12 }"
    assert (
        sum(
            line.amount for line in lines_of(free, used("requests", 15, model="ant"), used("requests", -8, model="bee"))
        )
        == 0
    )


def test_rating_is_quick_enough_for_a_month_of_hours():
    """744 hours x 30 meters and models is what a busy tenant's roll-ups come to; here it only must not be quadratic."""
    hours = [MONTH.start + timedelta(hours=h) for h in range(720)]
    usage = [
        used("requests", 1, model=f"m{i}", start=hour, end=hour + timedelta(hours=1))
        for hour in hours
        for i in range(30)
    ]
    lines = lines_of(HEAD + 'prices = { requests = "1" }', *usage)
    assert [line.quantity for line in lines] == [720] * 30
