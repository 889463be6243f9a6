"""Statements as documents: every call accounted for, the same input the same statement, notes, and nothing that is not over final.

What lines cost is in test_billing_rating.py.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rating_reference import MONTH, cases, toml_of, usages
from roost_platform.billing.lines import Category, MeteredUsage
from roost_platform.billing.months import month_of, parse_month
from roost_platform.billing.notes import Note, make_note
from roost_platform.billing.price_file import default_price_books, load_price_books
from roost_platform.billing.statements import Kind, Statement, Status, make_statement
from roost_platform.domain.errors import Conflict, InvalidRequest
from roost_platform.domain.meters import Meter
from roost_platform.domain.usage import BILLED_OUTCOMES, Outcome

NOVEMBER = parse_month("2026-11")
CHANGE = datetime(2026, 11, 15, 6, tzinfo=UTC)
INSTANT = timedelta(microseconds=1)

BOOKS = load_price_books("""
currency = "USD"
[[book]]
version = "old"
effective_from = 2026-11-01T00:00:00Z
[book.prices]
requests = "1000"
compute_seconds = "0.01"
[[book]]
version = "new"
effective_from = 2026-11-15T06:00:00Z
[book.prices]
requests = "3000"
""")


def used(quantity=1, *, meter=Meter.REQUESTS, variant="ok", start=NOVEMBER.start, end=CHANGE, model="iris"):
    return MeteredUsage(model, meter, str(variant), start, end, quantity)


def made(*usage, month=NOVEMBER, now=CHANGE, **about) -> Statement:
    return make_statement(**({"tenant": "acme", "month": month, "usage": usage, "books": BOOKS, "now": now} | about))


@pytest.mark.parametrize(
    ("now", "final", "status"),
    [
        (NOVEMBER.start, False, Status.OPEN),
        (NOVEMBER.end - INSTANT, False, Status.OPEN),
        (NOVEMBER.end, False, Status.DRAFT),
        (NOVEMBER.end, True, Status.FINAL),
    ],
)
def test_a_running_month_is_open_and_a_past_one_a_draft_until_it_is_made_final(now, final, status):
    assert made(now=now, final=final).status is status


@pytest.mark.parametrize(
    ("now", "final", "code"),
    [(NOVEMBER.start - INSTANT, False, "invalid_month"), (NOVEMBER.end - INSTANT, True, "month_not_over")],
)
def test_a_month_that_has_not_begun_has_no_statement_and_one_that_runs_no_final_one(now, final, code):
    with pytest.raises(InvalidRequest) as refused:
        made(now=now, final=final)
    assert refused.value.code == code


def test_a_statement_names_itself_and_what_it_was_made_of():
    statement = made(used(10), used(4, start=CHANGE, end=NOVEMBER.end), unknown_calls=3, notes=["More."])
    assert (statement.id, statement.kind, statement.of) == ("acme-2026-11", Kind.STATEMENT, "")
    assert list(statement.price_books) == ["book/old", "book/new"]
    assert {len(digest) for digest in (statement.inputs_hash, *statement.price_books.values())} == {64}
    assert (statement.unknown_calls, statement.charged_calls, statement.notes) == (3, 14, ("More.",))


def test_calls_that_are_not_charged_are_counted_and_said():
    usage = [used(i + 1, variant=outcome) for i, outcome in enumerate(Outcome)]
    usage.append(used(10**9, meter=Meter.COMPUTE))
    statement = made(*usage)
    assert statement.calls == {outcome: i + 1 for i, outcome in enumerate(Outcome)}
    assert statement.charged_calls == 3
    assert statement.notes == ("25 calls are not charged: only those that ended with model_error, ok are.",)
    assert sum(line.quantity for line in statement.lines if line.unit == "requests") == 28


def test_calls_before_the_first_price_book_are_shown_and_cost_nothing():
    october = parse_month("2026-10")
    statement = made(used(5_000, start=october.start, end=october.end), month=october)
    assert (statement.charged_calls, statement.total, statement.calls["ok"]) == (0, Decimal("0.00"), 5_000)
    assert statement.notes == (
        "5,000 calls are not charged: they were made before the first price book came into force.",
    )


def test_a_month_without_usage_is_an_empty_statement():
    statement = made()
    assert (statement.lines, str(statement.total), statement.notes) == ((), "0.00", ())


@settings(max_examples=20, deadline=None)
@given(case=cases(), usage=usages, order=st.randoms(use_true_random=False), data=st.data())
def test_order_and_pieces_of_usage_do_not_matter(case, usage, order, data):
    books = load_price_books(toml_of(case))
    pieces = []
    for piece in usage:
        part = data.draw(st.integers(0, piece.quantity))
        pieces += [replace(piece, quantity=quantity) for quantity in (part, piece.quantity - part)]
    order.shuffle(pieces)
    statement, again = (
        make_statement(tenant="acme", month=MONTH, usage=each, books=books, now=MONTH.end, final=True)
        for each in (usage, pieces)
    )
    assert statement == again
    assert sum(statement.calls.values()) == sum(piece.quantity for piece in usage if piece.meter is Meter.REQUESTS)
    assert statement.total == sum(line.amount for line in statement.lines)
    assert statement.charged_calls <= sum(statement.calls[outcome] for outcome in (*BILLED_OUTCOMES, Outcome.SHADOW))


@pytest.mark.parametrize(
    "other",
    [
        {"usage": [used(11)]},
        {"usage": [used(10, variant="model_error")]},
        {"usage": [used(10, end=CHANGE - INSTANT)]},
        {"unknown_calls": 1},
        {"books": default_price_books()},
        {"tenant": "other"},
    ],
)
def test_other_input_has_another_hash(other):
    def digest(**changes):
        values = {"tenant": "acme", "month": NOVEMBER, "usage": [used(10)], "books": BOOKS, "now": CHANGE}
        return make_statement(**(values | changes)).inputs_hash

    assert digest(**other) != digest() == digest(now=NOVEMBER.end)


# Months


@pytest.mark.parametrize(
    ("at", "month", "days"),
    [
        ("2028-02-29T23:59:59.999999+00:00", "2028-02", 29),
        ("2026-03-01T00:00:00+01:00", "2026-02", 28),
        ("2100-02-28T23:59:59+00:00", "2100-02", 28),
        ("2026-12-31T23:59:59.999999+00:00", "2026-12", 31),  # where a leap second would be
        ("2026-12-31T19:00:00-05:00", "2027-01", 31),
        ("2026-10-25T00:59:59+02:00", "2026-10", 31),  # clocks go back here: months are UTC's
    ],
)
def test_months_are_those_of_utc_whatever_the_zone_leap_days_and_year_ends(at, month, days):
    found = month_of(datetime.fromisoformat(at))
    assert (str(found), found.end - found.start) == (month, timedelta(days=days))
    assert month_of(found.end - INSTANT) == found
    assert month_of(found.end).start == found.end


# Notes


def final(total="20.00") -> Statement:
    return made(used(int(Decimal(total) * 1000)), now=NOVEMBER.end, final=True)


def write(statement, kind, amount, reason="an outage", others=()):
    return make_note(statement, Note(Kind(kind), Decimal(amount), reason), others=others, now=NOVEMBER.end)


def test_notes_are_numbered_and_say_why():
    statement = final()
    first = write(statement, "credit_note", "5.00")
    debit = write(statement, "debit_note", "1.5", "a fee", [first])
    second = write(statement, "credit_note", "3.25", "another outage", [first, debit])
    assert [note.id for note in (first, debit, second)] == [f"acme-2026-11-{number}" for number in ("C1", "D1", "C2")]
    assert [str(note.total) for note in (first, debit, second)] == ["-5.00", "1.50", "-3.25"]
    assert [(line.sku, line.amount, line.category) for line in first.lines] == [
        ("credit_note", Decimal("-5.00"), Category.CREDIT)
    ]
    assert (debit.of, debit.status, debit.notes, debit.month) == (statement.id, Status.FINAL, ("a fee",), NOVEMBER)


def test_no_more_can_be_credited_than_is_left_of_a_statement():
    statement = final("20.00")
    credit = write(statement, "credit_note", "15.00")
    debit = write(statement, "debit_note", "3.00", others=[credit])
    with pytest.raises(Conflict, match=r"only 8\.00 USD of acme-2026-11 is left to credit"):
        write(statement, "credit_note", "8.01", "more", [credit, debit])
    assert write(statement, "credit_note", "8.00", "more", [credit, debit]).total == Decimal("-8.00")


@pytest.mark.parametrize("amount", ["0", "-1.00", "0.001", "1.005"])
def test_an_amount_that_is_none_is_refused(amount):
    with pytest.raises(InvalidRequest) as refused:
        write(final(), "credit_note", amount)
    assert refused.value.code == "invalid_amount"


def test_the_same_note_has_the_same_hash():
    statement = final()
    notes = [
        write(statement, "credit_note", amount, reason) for amount, reason in [("5", "x"), ("5.00", "x"), ("5", "y")]
    ]
    assert notes[0].inputs_hash == notes[1].inputs_hash != notes[2].inputs_hash
