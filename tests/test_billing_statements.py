"""Statements: exact, rounded once per line, every call accounted for."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost_platform.billing.exports import to_csv, to_json, to_table
from roost_platform.billing.months import parse_month
from roost_platform.billing.prices import Sku, default_price_books, load_price_books
from roost_platform.billing.statements import NOT_CHARGED, Statement, Status, UsageFigure, make_statement
from roost_platform.domain.errors import InvalidRequest
from roost_platform.domain.usage import BILLED_OUTCOMES, Outcome

NOVEMBER = parse_month("2026-11")
CHANGE = datetime(2026, 11, 15, 6, tzinfo=UTC)

TWO_BOOKS = """
currency = "USD"
[[book]]
version = "old"
effective_from = 2026-11-01T00:00:00Z
[book.prices]
requests = "1000"
compute_seconds = "0.01"
bytes_out = "0.09"
[[book]]
version = "new"
effective_from = 2026-11-15T06:00:00Z
[book.prices]
requests = "3000"
rows = "0.5"
"""


def _usage(model="iris", outcome=Outcome.OK, start=NOVEMBER.start, end=CHANGE, **figures) -> UsageFigure:
    values = {"requests": 1, "compute_us": 0, "rows": 0, "bytes_out": 0} | figures
    return UsageFigure(model=model, outcome=outcome, start=start, end=end, **values)


def _statement(*usage, text=TWO_BOOKS, tenant="acme", month=NOVEMBER, now=CHANGE) -> Statement:
    return make_statement(tenant=tenant, month=month, usage=usage, books=load_price_books(text), now=now)


def _amounts(statement):
    return [(line.model, line.sku, line.price_book, line.quantity, str(line.amount)) for line in statement.lines]


def test_a_line_for_each_model_sku_and_book():
    statement = _statement(
        _usage("wine", requests=10, compute_us=1_500_000, rows=80, bytes_out=2**30),
        _usage("iris", requests=20, start=CHANGE, end=NOVEMBER.end, rows=2000),
        _usage("iris", requests=30),
    )
    assert _amounts(statement) == [
        ("iris", "requests", "old", 30, "0.03"),
        ("iris", "requests", "new", 20, "0.06"),
        ("iris", "rows", "new", 2000, "1.00"),
        ("wine", "requests", "old", 10, "0.01"),
        ("wine", "compute_seconds", "old", 1_500_000, "0.02"),  # 0.015: half to even
        ("wine", "bytes_out", "old", 2**30, "0.09"),
    ]
    assert [(line.start, line.end) for line in statement.lines[:2]] == [
        (NOVEMBER.start, CHANGE),
        (CHANGE, NOVEMBER.end),
    ]
    assert statement.total == Decimal("1.21")


@pytest.mark.parametrize(
    ("requests", "amount"),
    [(4, "0.00"), (5, "0.00"), (6, "0.01"), (14, "0.01"), (15, "0.02"), (16, "0.02"), (25, "0.02"), (26, "0.03")],
)
def test_an_amount_is_rounded_once_with_halves_to_the_even_cent(requests, amount):
    statement = _statement(_usage(requests=requests))  # 0.001 each
    assert str(statement.lines[0].amount) == amount


def test_the_usage_of_a_line_is_summed_before_it_is_rounded():
    outcomes = [_usage(requests=4), _usage(requests=4, outcome=Outcome.MODEL_ERROR)]
    assert _amounts(_statement(*outcomes)) == [("iris", "requests", "old", 8, "0.01")]


def test_calls_that_are_not_charged_are_shown_for_nothing():
    usage = [_usage(requests=i + 1, compute_us=10**9, outcome=outcome) for i, outcome in enumerate(Outcome)]
    statement = _statement(*usage)
    assert statement.calls == {outcome: i + 1 for i, outcome in enumerate(Outcome)}
    assert statement.charged_calls == 3
    assert _amounts(statement) == [
        ("iris", "requests", "old", 3, "0.00"),
        ("iris", "compute_seconds", "old", 2 * 10**9, "20.00"),
        ("iris", NOT_CHARGED, "old", 18, "0.00"),
    ]
    assert statement.notes == ("18 calls are not charged: only those that ended with model_error, ok are.",)


def test_calls_before_the_first_price_book_are_shown_and_cost_nothing():
    october = parse_month("2026-10")
    statement = _statement(_usage(start=october.start, end=october.end, requests=5, compute_us=10**9), month=october)
    assert _amounts(statement) == [("iris", NOT_CHARGED, "", 5, "0.00")]
    assert statement.charged_calls == 0
    assert "before the first price book" in statement.notes[0]


def test_a_month_without_calls_is_an_empty_statement():
    statement = _statement()
    assert statement.lines == ()
    assert str(statement.total) == "0.00"
    assert to_csv(statement).count("\r\n") == 1


@pytest.mark.parametrize(
    ("now", "status"),
    [
        (NOVEMBER.start, Status.OPEN),
        (NOVEMBER.end - timedelta(microseconds=1), Status.OPEN),
        (NOVEMBER.end, Status.DRAFT),
    ],
)
def test_a_running_month_is_open_and_a_past_one_a_draft(now, status):
    assert _statement(now=now).status is status


def test_a_month_that_has_not_begun_has_no_statement():
    with pytest.raises(InvalidRequest):
        _statement(now=NOVEMBER.start - timedelta(microseconds=1))


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (NOVEMBER.start, NOVEMBER.end),  # across the change of prices
        (NOVEMBER.start - timedelta(days=1), CHANGE),
        (CHANGE, NOVEMBER.end + timedelta(seconds=1)),
        (CHANGE, CHANGE),
    ],
)
def test_usage_that_no_single_price_applies_to_is_refused(start, end):
    with pytest.raises(ValueError, match="price period"):
        _statement(_usage(start=start, end=end))


def test_currencies_without_minor_units_are_rounded_to_whole_ones():
    text = 'currency = "JPY"\n[[book]]\nversion = "v"\neffective_from = 2026-01-01T00:00:00Z\n[book.prices]\nrequests = "250000"'
    statement = _statement(_usage(requests=10, end=NOVEMBER.end), text=text)
    assert _amounts(statement) == [("iris", "requests", "v", 10, "2")]
    assert str(statement.total) == "2"


_FIGURES = st.builds(
    UsageFigure,
    model=st.sampled_from(["a", "b", "c"]),
    outcome=st.sampled_from(Outcome),
    start=st.just(NOVEMBER.start),
    end=st.just(NOVEMBER.end),
    requests=st.integers(0, 10**12),
    compute_us=st.integers(0, 10**18),
    rows=st.integers(0, 10**12),
    bytes_out=st.integers(0, 10**18),
)


@given(usage=st.lists(_FIGURES, max_size=12), order=st.randoms(use_true_random=False))
def test_every_call_is_on_the_statement_once_and_the_total_is_the_sum_of_its_lines(usage, order):
    books = default_price_books()
    shuffled = list(usage)
    order.shuffle(shuffled)
    statement, again = (
        make_statement(tenant="acme", month=NOVEMBER, usage=figures, books=books, now=CHANGE)
        for figures in (usage, shuffled)
    )
    assert statement == again
    assert sum(statement.calls.values()) == sum(figure.requests for figure in usage)
    for model in {figure.model for figure in usage}:
        counted = [
            line.quantity for line in statement.lines if line.model == model and line.sku in (Sku.REQUESTS, NOT_CHARGED)
        ]
        assert sum(counted) == sum(figure.requests for figure in usage if figure.model == model)
    charged = sum(figure.requests for figure in usage if figure.outcome in BILLED_OUTCOMES)
    assert statement.charged_calls == charged
    context = Context(prec=80, rounding=ROUND_HALF_EVEN)
    for line in statement.lines:
        exact = context.divide(context.multiply(Decimal(line.quantity), line.unit_price), Decimal(line.per))
        assert line.amount == exact.quantize(Decimal("0.01"), context=context)
    assert statement.total == sum(line.amount for line in statement.lines)
    exported = json.loads(json.dumps(to_json(statement)))
    assert sum(Decimal(line["amount"]) for line in exported["lines"]) == Decimal(exported["total"])
    records = list(csv.DictReader(io.StringIO(to_csv(statement))))
    assert sum(Decimal(record["amount"]) for record in records) == statement.total


def test_json_writes_money_as_decimal_strings():
    exported = to_json(_statement(_usage(requests=10)))
    assert exported["total"] == "0.01"
    assert exported["lines"] == [
        {
            "model": "iris",
            "sku": "requests",
            "price_book": "old",
            "from": "2026-11-01T00:00:00+00:00",
            "to": "2026-11-15T06:00:00+00:00",
            "quantity": 10,
            "unit": "requests",
            "unit_price": "1000",
            "per": 1_000_000,
            "amount": "0.01",
        }
    ]
    assert (exported["month"], exported["status"], exported["currency"]) == ("2026-11", "open", "USD")
    json.dumps(exported)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"])
def test_csv_text_cannot_become_a_formula(start):
    evil = f'{start}cmd|"/c calc"!A1,x'
    text = to_csv(_statement(_usage(evil, requests=10), tenant=evil))
    (record,) = csv.DictReader(io.StringIO(text, newline=""))
    assert record["model"] == record["tenant"] == f"'{evil}"
    assert (record["quantity"], record["amount"]) == ("10", "0.01")


def test_csv_lines_end_as_rfc_4180_wants():
    text = to_csv(_statement(_usage(requests=10)))
    assert text.split("\r\n") == [
        "tenant,month,status,currency,model,sku,price_book,from,to,quantity,unit,unit_price,per,amount",
        "acme,2026-11,open,USD,iris,requests,old,2026-11-01T00:00:00+00:00,2026-11-15T06:00:00+00:00,10,requests,1000,1000000,0.01",
        "",
    ]


def test_the_table_for_terminals_is_readable():
    usage = [
        _usage(requests=12_000, compute_us=1_234_500_001),
        _usage(requests=2, outcome=Outcome.THROTTLED),
    ]
    assert to_table(_statement(*usage)) == [
        ("model", "item", "from", "quantity", "price", "amount (USD)"),
        ("iris", "requests", "2026-11-01", "12,000 requests", "1000 per million requests", "12.00"),
        ("iris", "compute_seconds", "2026-11-01", "1,234.500001 s", "0.01 per compute second", "12.35"),
        ("iris", "not_charged", "2026-11-01", "2 requests", "not charged", "0.00"),
        ("total", "", "", "", "", "24.35"),
    ]
