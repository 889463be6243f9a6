"""What became known of a month after it was final: billed to the last unit, once, at the prices of the month."""

from collections import Counter
from datetime import timedelta
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rating_reference import MONTH, cases, rated, reference, toml_of, usages
from roost_platform.billing.late import EarlierMonth, corrections, still_corrected
from roost_platform.billing.lines import Category, MeteredUsage
from roost_platform.billing.months import month_of, parse_month
from roost_platform.billing.price_file import load_price_books
from roost_platform.billing.prices import hashes
from roost_platform.billing.rating import rate
from roost_platform.domain.errors import Conflict
from roost_platform.domain.meters import Meter

INSTANT = timedelta(microseconds=1)
VOLUME = load_price_books("""
currency = "USD"
[[book]]
version = "v1"
effective_from = 2026-01-01T00:00:00Z
[book.prices]
requests = { mode = "volume", tiers = [{ up_to = 100, price = "100000" }, { price = "50000" }] }
[book.free]
requests = 10
""")


def calls(quantity, model="iris") -> MeteredUsage:
    return MeteredUsage(model, Meter.REQUESTS, "ok", MONTH.start, MONTH.end, quantity)


def earlier(usage, billed, *, books=VOLUME) -> EarlierMonth:
    recorded = hashes(books.periods(MONTH.start, MONTH.end, tenant="acme"))
    return EarlierMonth(MONTH, tuple(usage), tuple(billed), ("acme-2026-11",), recorded)


def rated_lines(*usage, books=VOLUME):
    return rate(usage, tenant="acme", month=MONTH, books=books)


@settings(max_examples=30, deadline=None)
@given(case=cases(), usage=usages, cuts=st.lists(st.integers(0, 25), max_size=3))
def test_whatever_comes_late_is_billed_in_the_end_as_if_it_had_come_in_time(case, usage, cuts):
    books = load_price_books(toml_of(case))
    billed = list(rated_lines(*usage[: min(cuts, default=0)], books=books))
    for cut in [*sorted(cuts), len(usage)]:
        late = corrections([earlier(usage[:cut], billed, books=books)], tenant="acme", books=books)
        assert {line.category for line in late.lines} <= {Category.CORRECTION}
        billed += late.lines
        assert corrections([earlier(usage[:cut], billed, books=books)], tenant="acme", books=books).lines == ()
    assert sums(billed) == sums(rated_lines(*usage, books=books))
    assert amounts(rated(billed)) == amounts(reference(case, usage))


def sums(lines):
    found = Counter()
    for line in lines:
        key = (
            line.model,
            line.sku,
            line.variant,
            line.price_book,
            line.tier,
            line.start,
            line.unit_price,
            line.list_price,
        )
        for name in ("quantity", "amount", "list_amount"):
            found[*key, name] += Fraction(getattr(line, name))
    return {key: sum_ for key, sum_ in found.items() if sum_}


def amounts(lines):
    """The sum of amounts by model."""
    found = Counter()
    for line, count in lines.items():
        found[line[0]] += count * line[-2]
    return {model: amount for model, amount in found.items() if amount}


def test_a_volume_price_that_is_reached_late_lowers_all_that_was_billed():
    billed = rated_lines(calls(90))
    assert [(line.category, line.quantity, str(line.amount)) for line in billed] == [
        (Category.USAGE, 90, "9.00"),
        (Category.CREDIT, -10, "-1.00"),
    ]
    late = corrections([earlier([calls(110)], billed)], tenant="acme", books=VOLUME)
    assert [(line.tier, line.quantity, str(line.amount), line.month) for line in late.lines] == [
        (2, 100, "5.00", "2026-11"),
        (1, -80, "-8.00", "2026-11"),
    ]
    assert list(late.price_books) == ["book/v1"]


def test_a_refund_gives_back_what_was_billed():
    billed = rated_lines(calls(90))
    late = corrections([earlier([calls(80)], billed)], tenant="acme", books=VOLUME)
    assert [(line.quantity, str(line.amount)) for line in late.lines] == [(-10, "-1.00")]


def test_what_was_billed_in_full_leaves_nothing():
    late = corrections([earlier([calls(90)], rated_lines(calls(90)))], tenant="acme", books=VOLUME)
    assert (late.lines, late.price_books, late.inputs) == ((), {}, [])


def test_prices_that_are_others_than_those_of_then_are_refused():
    month = earlier([calls(90)], rated_lines(calls(80)))
    month.price_books["book/v1"] = "0" * 64
    with pytest.raises(Conflict) as refused:
        corrections([month], tenant="acme", books=VOLUME)
    assert refused.value.code == "price_book_changed"


@pytest.mark.parametrize("month", ["2026-01", "2026-02", "2028-02", "2026-11", "2026-12"])
def test_usage_up_to_35_days_late_meets_a_statement_that_takes_it_up(month):
    late_month = parse_month(month)
    for age in (timedelta(0), timedelta(days=1), timedelta(days=31), timedelta(days=35)):
        for time in (late_month.start, late_month.start + timedelta(days=14), late_month.end - INSTANT):
            running = month_of(time + age)
            assert running == late_month or still_corrected(late_month, running), (time, age)


def test_the_books_of_a_month_are_shut_after_two_statements():
    october = parse_month("2026-10")
    assert [still_corrected(october, parse_month(month)) for month in ("2026-09", "2026-10")] == [False, False]
    later = ("2026-11", "2026-12", "2027-01", "2027-02")
    assert [still_corrected(october, parse_month(month)) for month in later] == [True, True, False, False]
