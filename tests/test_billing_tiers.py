"""Tiers: which price a unit has, at every edge; and what a month costs by them."""

from decimal import Decimal
from itertools import pairwise

import pytest

from roost_platform.billing.lines import MeteredUsage
from roost_platform.billing.months import parse_month
from roost_platform.billing.price_file import load_price_books
from roost_platform.billing.rating import rate, total_of
from roost_platform.billing.tiers import Mode, Price, Tier, find, flat, pieces, step_at, steps
from roost_platform.domain.meters import Meter

MONTH = parse_month("2026-11")
BOUNDS = 'tiers = [{ up_to = 10, price = "3000000" }, { up_to = 20, price = "2000000" }, { price = "1000000" }]'
BOOK = 'currency = "USD"\n[[book]]\nversion = "%s"\neffective_from = %s\nprices = { requests = %s }\nfree = { requests = %d }\n'


def book(mode, *, free=0, version="v", start="2026-01-01T00:00:00Z", bounds=BOUNDS):
    return BOOK % (version, start, f'{{ mode = "{mode}", {bounds} }}', free)


def used(quantity, *, model="iris", start=MONTH.start, end=MONTH.end, meter=Meter.REQUESTS, variant="ok"):
    return MeteredUsage(model, meter, variant, start, end, quantity)


def lines_of(text, *usage):
    return rate(usage, tenant="acme", month=MONTH, books=load_price_books(text))


def told(lines):
    return [(line.model, line.tier, line.quantity, str(line.amount)) for line in lines]


@pytest.mark.parametrize(
    ("requests", "tiers"),
    [
        (1, [(1, 1, "3.00")]),
        (9, [(1, 9, "27.00")]),
        (10, [(1, 10, "30.00")]),
        (11, [(1, 10, "30.00"), (2, 1, "2.00")]),
        (19, [(1, 10, "30.00"), (2, 9, "18.00")]),
        (20, [(1, 10, "30.00"), (2, 10, "20.00")]),
        (21, [(1, 10, "30.00"), (2, 10, "20.00"), (3, 1, "1.00")]),
        (10**12, [(1, 10, "30.00"), (2, 10, "20.00"), (3, 10**12 - 20, "999999999980.00")]),
    ],
)
def test_graduated_tiers_hold_the_units_up_to_and_including_their_bound(requests, tiers):
    lines = lines_of(book("graduated"), used(requests))
    assert told(lines) == [("iris", *tier) for tier in tiers]


@pytest.mark.parametrize(
    ("requests", "tier", "amount"),
    [
        (1, 1, "3.00"),
        (10, 1, "30.00"),
        (11, 2, "22.00"),
        (20, 2, "40.00"),
        (21, 3, "21.00"),
        (10**12, 3, f"{10**12}.00"),
    ],
)
def test_all_units_of_a_volume_price_cost_what_the_total_decides(requests, tier, amount):
    assert told(lines_of(book("volume"), used(requests))) == [("iris", tier, requests, amount)]


def test_graduated_tiers_are_filled_by_all_models_in_the_order_of_their_names():
    lines = lines_of(book("graduated"), used(8, model="b"), used(7, model="a"), used(9, model="c"))
    assert told(lines) == [
        ("a", 1, 7, "21.00"),
        ("b", 1, 3, "9.00"),
        ("b", 2, 5, "10.00"),
        ("c", 2, 5, "10.00"),
        ("c", 3, 4, "4.00"),
    ]
    assert told(lines_of(book("volume"), used(8, model="b"), used(7, model="a"))) == [
        ("a", 2, 7, "14.00"),
        ("b", 2, 8, "16.00"),
    ]


def test_a_model_that_begins_right_after_a_bound_has_no_line_of_nothing():
    lines = lines_of(book("graduated"), used(10, model="a"), used(5, model="b"))
    assert told(lines) == [("a", 1, 10, "30.00"), ("b", 2, 5, "10.00")]


def test_tiers_run_on_through_a_change_of_prices_by_the_tiers_of_the_new_book():
    second = book(
        "graduated",
        version="w",
        start="2026-11-15T00:00:00Z",
        bounds='tiers = [{ up_to = 12, price = "500000" }, { price = "0" }]',
    )
    text = book("graduated") + second.split("\n", 1)[1]
    change = load_price_books(text).books[1].effective_from
    lines = lines_of(text, used(11, end=change, model="z"), used(4, start=change, model="a"))
    assert [(line.model, line.price_book, line.tier, line.quantity, str(line.amount)) for line in lines] == [
        ("a", "w", 1, 1, "0.50"),  # the 12th of the month
        ("a", "w", 2, 3, "0.00"),
        ("z", "v", 1, 10, "30.00"),
        ("z", "v", 2, 1, "2.00"),
    ]


def test_volume_tiers_look_at_the_whole_month_in_each_of_its_periods():
    text = book("volume") + book("volume", version="w", start="2026-11-15T00:00:00Z").split("\n", 1)[1]
    change = load_price_books(text).books[1].effective_from
    lines = lines_of(text, used(9, end=change), used(12, start=change))
    assert [(line.tier, line.quantity, str(line.amount)) for line in lines] == [(3, 9, "9.00"), (3, 12, "12.00")]


@pytest.mark.parametrize(
    ("free", "given"),
    [
        (0, []),
        (9, [(1, -9, "-27.00")]),
        (10, [(1, -10, "-30.00")]),
        (11, [(1, -10, "-30.00"), (2, -1, "-2.00")]),
        (25, [(1, -10, "-30.00"), (2, -10, "-20.00"), (3, -5, "-5.00")]),
        (26, [(1, -10, "-30.00"), (2, -10, "-20.00"), (3, -5, "-5.00")]),
    ],
)
def test_an_allowance_gives_back_the_first_units_at_the_price_of_their_tier(free, given):
    lines = lines_of(book("graduated", free=free), used(25))
    assert [(line.tier, line.quantity, str(line.amount)) for line in lines if line.category == "credit"] == given
    assert total_of(lines, "USD") == Decimal(55) + sum(Decimal(amount) for _, _, amount in given)
    assert [line.quantity for line in lines if line.category == "usage"] == [10, 10, 5]


def test_an_allowance_is_for_all_classes_of_a_sku_together():
    prices = '{ requests = "0", idle_seconds = { "cpu-1" = "1", "gpu-1" = "10" } }'
    text = f'currency = "USD"\n[[book]]\nversion = "v"\neffective_from = 2026-01-01T00:00:00Z\nprices = {prices}\nfree = {{ idle_seconds = 15 }}'
    usage = [
        used(10**7, meter=Meter.IDLE, variant=v, model=m) for v, m in (("gpu-1", "a"), ("cpu-1", "a"), ("cpu-1", "b"))
    ]
    lines = lines_of(text, *usage)
    assert [(line.model, line.variant, line.quantity, str(line.amount)) for line in lines] == [
        ("a", "cpu-1", 10**7, "10.00"),
        ("a", "cpu-1", -(10**7), "-10.00"),
        ("a", "gpu-1", 10**7, "100.00"),
        ("a", "gpu-1", -5 * 10**6, "-50.00"),
        ("b", "cpu-1", 10**7, "10.00"),
    ]


@pytest.mark.parametrize(
    ("sku", "meter", "unit"),
    [
        ("compute_seconds", Meter.COMPUTE, 10**6),
        ("bytes_out", Meter.BYTES_OUT, 1),
        ("inferences", Meter.INFERENCES, 1),
        ("storage", Meter.STORAGE, 2**30 * 3600),
        ("check_seconds", Meter.CHECK, 10**6),
        ("cold_starts", Meter.COLD_STARTS, 1),
    ],
)
def test_bounds_are_in_the_counts_of_their_sku_and_exact_to_the_base_unit(sku, meter, unit):
    price = '{ mode = "graduated", tiers = [{ up_to = 3, price = "1" }, { price = "2" }] }'
    text = f'currency = "USD"\n[[book]]\nversion = "v"\neffective_from = 2026-01-01T00:00:00Z\nprices = {{ requests = "0", {sku} = {price} }}'
    for more in (-1, 0, 1):
        lines = lines_of(text, used(3 * unit + more, meter=meter))
        assert [line.quantity for line in lines] == ([3 * unit, 1] if more == 1 else [3 * unit + more])


def test_what_has_no_price_in_a_period_is_not_numbered():
    first = (
        book("graduated").replace("requests = {", 'requests = "0", bytes_in = {').replace("free = { requests = 0 }", "")
    )
    second = '[[book]]\nversion = "w"\neffective_from = 2026-11-15T00:00:00Z\nprices = { requests = "0" }\n'
    text = (
        second.replace('"w"', '"u"').replace("2026-11-15", "2025-01-01")
        + first.split("\n", 1)[1].replace("2026-01-01", "2026-11-10")
        + second
    )
    text = 'currency = "USD"\n' + text
    edges = [MONTH.start, *(b.effective_from for b in load_price_books(text).books[1:]), MONTH.end]
    usage = [used(15, meter=Meter.BYTES_IN, start=a, end=b) for a, b in pairwise(edges)]
    assert [(line.tier, line.quantity) for line in lines_of(text, *usage)] == [(1, 10), (2, 5)]


def test_steps_and_pieces_by_themselves():
    price = Price(Mode.GRADUATED, (Tier(2, Decimal(5)), Tier(None, Decimal(3))))
    made = steps(price, total=9, count_units=10)
    assert [(step.last, step.tier) for step in made] == [(20, 1), (None, 2)]
    assert [step_at(made, unit).tier for unit in (-5, 0, 1, 20, 21)] == [1, 1, 1, 1, 2]
    assert [(p.after, p.last) for p in pieces(5, 40, (made, steps(flat(Decimal(1)), total=0, count_units=1)))] == [
        (5, 20),
        (20, 40),
    ]
    assert [(p.after, p.last) for p in pieces(5, 20, (made,))] == [(5, 20)]
    assert find({"*": price}, "cpu-1") is price
    assert find({"cpu-1": price}, "gpu-1") is None
