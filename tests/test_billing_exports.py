"""Statements for programs: JSON that can be read back, CSV that can be summed, events that any CloudEvents reader takes."""

import csv
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from hypothesis import given, settings
from hypothesis import strategies as st

from billing_documents import HOSTILE, everything, line, note, statement, statements
from roost_platform.billing.exports import Form, from_json, render, render_all, to_json
from roost_platform.billing.exports.csv import to_csv
from roost_platform.billing.exports.json import canonical
from roost_platform.billing.statements import Kind, Status
from roost_platform.domain.errors import InvalidRequest

_PROGRAM = """
import sys
from billing_documents import everything
from roost_platform.billing.exports import render
for form in sys.argv[1:]:
    sys.stdout.buffer.write(render(everything(), form).body)
"""


def _records(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


@given(made=statements())
@settings(max_examples=25, deadline=None)
def test_json_holds_all_of_a_statement(made):
    assert from_json(json.loads(canonical(made))) == made


@given(made=statements())
@settings(max_examples=25, deadline=None)
def test_the_amounts_of_json_and_csv_add_up_to_the_total(made):
    in_json = sum(Fraction(item["amount"]) for item in json.loads(canonical(made))["lines"])
    in_csv = sum(Fraction(record["amount"]) for record in _records(to_csv(made)))
    assert in_json == in_csv == made.total


@given(made=st.lists(statements(), max_size=3))
@settings(max_examples=15, deadline=None)
def test_several_statements_go_into_one_csv(made):
    records = _records(to_csv(*made))
    assert len(records) == sum(len(of.lines) for of in made)
    assert [record["quantity"] for record in records] == [str(part.quantity) for of in made for part in of.lines]


def test_a_record_of_csv():
    made = everything()
    records = _records(to_csv(made))
    assert records[1] == {
        "id": "acme-2026-11",
        "kind": "statement",
        "tenant": "acme",
        "month": "2026-11",
        "status": "final",
        "currency": "USD",
        "line": "2",
        "category": "credit",
        "model": "iris",
        "sku": "requests",
        "variant": "",
        "price_book": "2026-10",
        "tier": "0",
        "from": "2026-11-01T00:00:00+00:00",
        "to": "2026-12-01T00:00:00+00:00",
        "corrected_month": "",
        "quantity": "-1000000",
        "unit": "requests",
        "list_price": "0.20",
        "unit_price": "0.18",
        "per": "1000000",
        "list_amount": "-0.20",
        "amount": "-0.18",
    }
    assert [record["corrected_month"] for record in records[-2:]] == ["2026-10", "2026-10"]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_field_of_csv_is_a_formula(text):
    made = statement([line("requests", -5, "1", model=text, variant=text, price_book=text)], tenant=text, id=text)
    (record,) = _records(to_csv(made))
    for name in ("id", "tenant", "model", "variant", "price_book"):
        assert record[name].removeprefix("'") == text
        assert not record[name].startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert record["quantity"] == "-5"


def test_a_statement_without_lines_is_a_header():
    assert to_csv(statement([])).count("\r\n") == 1


def test_a_quantity_beyond_64_bits_is_written_whole():
    made = statement([line("storage", 10**22, "0.00001")])
    assert json.loads(canonical(made))["lines"][0]["quantity"] == 10**22


@pytest.mark.parametrize(
    ("form", "media_type", "filename"),
    [
        ("json", "application/json", "acme-2026-11.json"),
        ("csv", "text/csv; charset=utf-8", "acme-2026-11.csv"),
        ("html", "text/html; charset=utf-8", "acme-2026-11.html"),
        ("pdf", "application/pdf", "acme-2026-11.pdf"),
        ("cloudevents", "application/cloudevents+json", "acme-2026-11.cloudevent.json"),
        ("focus", "text/csv; charset=utf-8", "acme-2026-11.focus.csv"),
    ],
)
def test_each_form_says_what_it_is(form, media_type, filename):
    made = render(everything(), form)
    assert (made.media_type, made.filename) == (media_type, filename)
    assert made.body


@pytest.mark.parametrize("form", ["csv", "focus", "cloudevents"])
def test_a_period_of_all_tenants_goes_into_one_file(form):
    tenants = [everything(), everything("beta", Status.DRAFT)]
    made = render_all(tenants, form, name="2026-11")
    assert made.filename.startswith("2026-11.")
    assert made.body.count(b"beta-2026-11") >= 1
    assert made.body.count(b"acme-2026-11") >= 1


@pytest.mark.parametrize("form", [Form.JSON, Form.HTML, Form.PDF])
def test_forms_for_one_statement_take_no_more(form):
    with pytest.raises(InvalidRequest, match="one statement"):
        render_all([everything()], form, name="2026-11")


def test_another_process_makes_the_same_bytes():
    """Whatever its language, time zone, folder and hash seed: a document that is made again is the one that was sent."""
    forms = list(Form)
    made = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *forms],
        env=os.environ | {"PYTHONHASHSEED": "7", "TZ": "Asia/Kathmandu", "LC_ALL": "C.UTF-8"},
        cwd="/",
        capture_output=True,
        check=True,
    ).stdout
    assert made == b"".join(render(everything(), form).body for form in forms)


def _read_event(body: bytes):
    headers = {"content-type": "application/cloudevents+json"}
    return from_structured_event(HTTPMessage(headers=headers, body=body))


@given(made=statements())
@settings(max_examples=20, deadline=None)
def test_an_event_is_one_for_the_sdk_and_holds_the_statement(made):
    event = _read_event(render(made, "cloudevents").body)
    assert event.get_specversion() == "1.0"
    assert event.get_source() == "/roost/billing"
    assert event.get_subject() == "tenants/acme"
    assert event.get_time() == made.made_at
    assert event.get_datacontenttype() == "application/json"
    assert from_json(event.get_data()) == made


def test_the_event_of_what_is_final_has_its_id():
    final, draft = everything(), everything(status=Status.DRAFT)
    assert _event(final)["type"] == "io.roost.statement.finalized.v1"
    assert _event(final)["id"] == "acme-2026-11"
    assert _event(note(Kind.CREDIT_NOTE, "5.00"))["type"] == "io.roost.statement.credit_note.issued.v1"
    assert _event(note(Kind.DEBIT_NOTE, "5.00"))["type"] == "io.roost.statement.debit_note.issued.v1"
    assert _event(draft)["type"] == "io.roost.statement.computed.v1"


def test_the_event_of_a_draft_is_another_once_its_figures_are():
    draft = everything(status=Status.DRAFT)
    again, later = replace(draft), replace(draft, total=draft.total + Decimal("0.01"))
    assert _event(draft)["id"] == _event(again)["id"] != _event(later)["id"]


def test_a_batch_of_events_is_an_array():
    made = render_all([everything(), everything("beta")], "cloudevents", name="2026-11")
    assert made.media_type == "application/cloudevents-batch+json"
    events = json.loads(made.body)
    assert [event["id"] for event in events] == ["acme-2026-11", "beta-2026-11"]
    for event in events:
        assert from_json(_read_event(json.dumps(event).encode()).get_data()).id == event["id"]


def _event(made):
    return json.loads(render(made, "cloudevents").body)


def test_json_says_everything_in_its_own_words():
    document = to_json(everything())
    assert document | {"lines": []} == {
        "id": "acme-2026-11",
        "kind": "statement",
        "of": "",
        "tenant": "acme",
        "month": "2026-11",
        "from": "2026-11-01T00:00:00+00:00",
        "to": "2026-12-01T00:00:00+00:00",
        "status": "final",
        "made_at": "2026-12-01T01:00:03+00:00",
        "currency": "USD",
        "lines": [],
        "total": "22672.11",
        "calls": {"ok": 232_400_000, "model_error": 322, "client_error": 1_100, "throttled": 122, "cancelled": 0},
        "charged_calls": 232_400_322,
        "unknown_calls": 3,
        "price_books": {"book/2026-10": "9f86d081" * 8, "terms/acme/20260101T000000.000000Z": "60303ae2" * 8},
        "inputs_hash": "fd61a03a" * 8,
        "notes": ["1,222 calls are not charged: only those that ended with model_error, ok are."],
    }
    assert document["lines"][2] == {
        "category": "usage",
        "model": "iris",
        "sku": "compute_seconds",
        "variant": "",
        "price_book": "2026-10",
        "tier": 1,
        "from": "2026-11-01T00:00:00+00:00",
        "to": "2026-11-15T06:00:00+00:00",
        "quantity": 8_123_456_789,
        "unit": "microseconds",
        "list_price": "0.0000420",
        "unit_price": "0.0000378",
        "per": 1_000_000,
        "list_amount": "0.34",
        "amount": "0.31",
        "month": "",
    }
