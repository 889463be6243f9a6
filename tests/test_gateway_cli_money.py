"""`roost usage`, `bill`, `money` and `reconcile` against a server that answers as told: what is asked, and how it is shown."""

import csv
import io
import json
from datetime import UTC, datetime

import pytest
import typer

from recording_server import Command, serving
from roost_gateway.cli.periods import chosen_period
from roost_gateway.cli.show import byte_hours, long_duration

OPERATOR = {"ROOST_OPERATOR_KEY": "roost_operator", "ROOST_API_KEY": "roost_tenant"}


@pytest.fixture
def server():
    with serving() as recording:
        yield recording


@pytest.fixture
def roost(server, tmp_path):
    return Command(server.url, tmp_path)


def records(result):
    """The records of a CSV on stdout."""
    return list(csv.DictReader(io.StringIO(result.stdout)))


# Periods


@pytest.mark.parametrize(
    ("period", "now", "start", "end"),
    [
        ("this-month", "2026-12-31T23:59:59+00:00", "2026-12-01", "2027-01-01"),
        ("last-month", "2026-01-31T00:00:00+00:00", "2025-12-01", "2026-01-01"),
        ("last-month", "2028-03-31T12:00:00+00:00", "2028-02-01", "2028-03-01"),
        ("today", "2026-11-03T23:30:00-03:00", "2026-11-04", "2026-11-05"),  # it is the 4th in UTC
        ("7d", "2026-11-03T10:00:00+00:00", "2026-10-28", "2026-11-04"),
        ("1d", "2026-11-03T00:00:00+00:00", "2026-11-03", "2026-11-04"),
    ],
)
def test_a_named_period_is_made_of_whole_days_in_utc(period, now, start, end):
    found = chosen_period(None, None, period, now=datetime.fromisoformat(now))
    assert found == (f"{start}T00:00:00+00:00", f"{end}T00:00:00+00:00")


def test_without_a_period_the_server_decides():
    assert chosen_period(None, None, None, now=datetime.now(UTC)) == (None, None)
    assert chosen_period("2026-11-01", None, None, now=datetime.now(UTC)) == ("2026-11-01T00:00:00+00:00", None)


@pytest.mark.parametrize("period", ["0d", "7", "d7", "week", ""])
def test_a_period_that_is_none_is_refused_with_what_there_is(period):
    with pytest.raises(typer.BadParameter) as refused:
        chosen_period(None, None, period, now=datetime.now(UTC))
    assert refused.value.message == (
        f"{period!r} is none of this-month, last-month, today or a number of days such as 7d"
    )


def test_long_times_and_storage_are_written_for_people():
    assert [long_duration(us * 10**6) for us in (0, 59, 60, 3599, 3600, 111_900)] == [
        "0 s",
        "59.0 s",
        "1 min 00 s",
        "59 min 59 s",
        "1 h 00 min",
        "31 h 05 min",
    ]
    assert [byte_hours(hours * 3600) for hours in (0, 1023, 1536, 3 * 2**30, 5 * 2**50)] == [
        "0 B h",
        "1023 B h",
        "1.5 KiB h",
        "3.0 GiB h",
        "5,120.0 TiB h",
    ]


# Usage

CALLS = {"requests": 2, "billed_requests": 2, "rows": 2, "compute_us": 1500, "queue_us": 10, "cold_starts": 1}
CALLS |= {"cold_start_us": 900, "bytes_in": 2048, "bytes_out": 100, "errors": 0, "shadow_requests": 0}
HELD = {"provisioned_us": 90_000_000, "setup_us": 10_000_000, "active_us": 20_000_000, "idle_us": 60_000_000}
HELD |= {"reserved_us": 0, "cold_starts": 3, "pull_us": 1, "schedule_us": 2, "load_us": 9_999_997}
HELD |= {"byte_seconds": 7200, "job_us": 830}


def usage_document(*, keys=("model", "day"), calls=(), held=(), **more):
    document = {"tenant": "acme", "from": "2026-11-01T00:00:00+00:00", "to": "2026-12-01T00:00:00+00:00"}
    document |= {"group_by": list(keys), "rows": list(calls), "total": CALLS}
    return document | {"resources": {"group_by": list(keys), "rows": list(held), "total": HELD}} | more


def test_usage_shows_calls_and_what_was_held_in_two_tables(server, roost):
    row = {"model": "iris", "day": "2026-11-22"}
    server.on("GET /api/v1/usage", usage_document(calls=[row | CALLS], held=[row | HELD]))
    shown = roost("usage", "--by", "model,day", "--from", "2026-11-01", "--model", "iris").stdout
    calls, resources = shown.split("Resources")
    assert all(part in calls for part in ("iris", "2026-11-22", "1.5 ms", "2.0 KB", "total"))
    assert all(part in resources for part in ("1 min 30 s", "1 min 00 s", "10.0 s", "2 B h", "830 µs", "total"))
    asked = {"group_by": "model,day", "from": "2026-11-01T00:00:00+00:00", "model": "iris"}
    assert server.asked[0].query == asked


def test_usage_shows_copies_where_there_are_any(server, roost):
    row = {"model": "iris"} | CALLS
    server.on("GET /api/v1/usage", usage_document(keys=["model"], calls=[row]))
    document = usage_document(keys=["model"], calls=[row | {"shadow_requests": 17}])
    server.on("GET /api/v1/usage", document | {"total": CALLS | {"shadow_requests": 17}})
    assert "COPIES" not in roost("usage").stdout
    shown = roost("usage").stdout
    assert "COPIES" in shown
    assert shown.count("17") == 2


def test_usage_without_anything_held_says_so(server, roost):
    server.on("GET /api/v1/usage", usage_document())
    assert "No replica ran, nothing was stored and no upload was checked in this time." in roost("usage").stdout


def test_usage_as_csv_is_one_record_a_group_in_base_units(server, roost):
    iris, wine = {"model": "iris", "day": "2026-11-22"}, {"model": "wine", "day": "2026-11-22"}
    server.on("GET /api/v1/usage", usage_document(calls=[iris | CALLS], held=[iris | HELD, wine | HELD]))
    first, second = records(roost("usage", "--by", "model,day", "--csv"))
    assert list(first)[:6] == ["model", "day", "requests", "billed_requests", "shadow_requests", "rows"]
    assert (first["model"], first["requests"], first["compute_us"], first["cold_starts"]) == ("iris", "2", "1500", "1")
    assert (first["provisioned_us"], first["byte_seconds"], first["replica_cold_starts"]) == ("90000000", "7200", "3")
    assert (second["model"], second["requests"], second["idle_us"]) == ("wine", "", "60000000")


def test_usage_as_csv_keeps_groups_apart_that_only_one_kind_has(server, roost):
    document = usage_document(keys=["model"], calls=[{"model": "iris"} | CALLS])
    document["resources"] |= {"group_by": ["model", "class"], "rows": [{"model": "iris", "class": "cpu-1"} | HELD]}
    server.on("GET /api/v1/usage", document)
    calls, held = records(roost("usage", "--by", "model,class", "--csv"))
    assert (calls["class"], calls["requests"], calls["idle_us"]) == ("", "2", "")
    assert (held["class"], held["requests"], held["idle_us"]) == ("cpu-1", "", "60000000")


def test_usage_by_meter_is_one_table_of_quantities(server, roost):
    row = {"model": "iris", "outcome": "ok"}
    meters = [
        row | {"meter": "requests", "quantity": 1200, "unit": "requests"},
        row | {"meter": "idle", "quantity": 90_000_000, "unit": "microseconds", "outcome": ""},
        row | {"meter": "storage", "quantity": 3600 * 2048, "unit": "byte-seconds", "outcome": ""},
    ]
    server.on("GET /api/v1/usage", usage_document(meters=meters))
    shown = roost("usage", "--by", "model,outcome,meter").stdout
    assert all(part in shown for part in ("1,200 requests", "1 min 30 s", "2.0 KiB h"))
    found = records(roost("usage", "--by", "model,outcome,meter", "--csv"))
    assert found[1] == {
        "model": "iris",
        "outcome": "",
        "meter": "idle",
        "quantity": "90000000",
        "unit": "microseconds",
    }


def test_the_operator_sees_all_tenants_by_grouping_by_them(server, roost):
    row = {"tenant": "acme"}
    server.on("GET /api/v1/usage", usage_document(keys=["tenant"], calls=[row | CALLS]) | {"tenant": None})
    shown = roost("usage", "--by", "tenant", "--period", "today", environment=OPERATOR).stdout
    assert shown.startswith("all tenants: ")
    assert server.asked[0].headers["authorization"] == "Bearer roost_operator"
    start, end = (datetime.fromisoformat(server.asked[0].query[name]) for name in ("from", "to"))
    assert (end - start).days == 1


# Bills

LINE = {"category": "usage", "model": "iris", "sku": "requests", "variant": "", "price_book": "2026-10", "tier": 0}
LINE |= {"from": "2026-11-01T00:00:00+00:00", "to": "2026-12-01T00:00:00+00:00", "quantity": 52, "unit": "requests"}
LINE |= {"list_price": "0.20", "unit_price": "0.20", "per": 1_000_000, "list_amount": "0.01", "amount": "0.01"}
LINE |= {"month": ""}
STATEMENT = {"id": "acme-2026-11", "kind": "statement", "tenant": "acme", "month": "2026-11", "status": "open"}
STATEMENT |= {"currency": "USD", "total": "0.13", "charged_calls": 52, "unknown_calls": 2, "calls": {"ok": 52}}
STATEMENT |= {"notes": ["3 calls are not charged."], "lines": [LINE]}


def test_a_bill_shows_each_line_with_its_number_and_what_it_is_for(server, roost):
    lines = [
        LINE,
        LINE | {"category": "credit", "quantity": -50, "amount": "-0.01"},
        LINE | {"sku": "idle_seconds", "variant": "gpu-1", "tier": 2, "quantity": 1_500_000, "unit": "microseconds"},
        LINE | {"sku": "storage", "quantity": 3 * 2**30 * 3600, "unit": "byte-seconds", "per": 2**30 * 3600},
        LINE | {"sku": "not_charged", "quantity": 3, "unit_price": "0", "per": 1, "amount": "0.00"},
        LINE | {"category": "correction", "month": "2026-10", "quantity": -7},
    ]
    lines[2]["per"] = 1_000_000
    server.on("GET /api/v1/statements/2026-11", STATEMENT | {"lines": lines})
    rows = [" ".join(row.split()) for row in roost("bill", "2026-11").stdout.splitlines()]
    assert rows[0] == "acme-2026-11: acme, 2026-11 (open), USD"
    assert "1 iris requests 2026-11-01 52 requests 0.20 per 1,000,000 requests 0.01" in rows
    assert "2 iris requests (free allowance) 2026-11-01 -50 requests 0.20 per 1,000,000 requests -0.01" in rows
    assert "3 iris idle_seconds gpu-1 tier 2 2026-11-01 1.500000 seconds 0.20 per second 0.01" in rows
    assert "4 iris storage 2026-11-01 3.0 GiB h 0.20 per GiB and hour 0.01" in rows
    assert "5 iris not_charged 2026-11-01 3 requests not charged 0.00" in rows
    assert "6 iris requests (correction of 2026-10) 2026-11-01 -7 requests 0.20 per 1,000,000 requests 0.01" in rows
    assert "total 52 charged calls 0.13" in rows
    assert "3 calls are not charged." in rows
    assert "2 calls ended with their gateway, nobody knows how; they are not charged." in rows


@pytest.mark.parametrize("words", [("bill", "2026-11", "--json"), ("bill", "show", "2026-11", "--json")])
def test_show_may_be_left_out(server, roost, words):
    server.on("GET /api/v1/statements/2026-11", STATEMENT)
    assert json.loads(roost(*words).stdout) == STATEMENT


def test_final_statements_and_notes_are_listed(server, roost):
    final = {"id": "acme-2026-10", "tenant": "acme", "month": "2026-10", "kind": "statement", "status": "paid"}
    final |= {"currency": "USD", "total": "105.30", "finalized_at": "2026-11-01T01:00:00+00:00"}
    note = final | {"id": "acme-2026-10-C1", "kind": "credit_note", "of": "acme-2026-10", "total": "-5.00"}
    server.on("GET /api/v1/statements", {"statements": [final | {"of": ""}, note]})
    shown = roost("bill", "list").stdout
    assert all(part in shown for part in ("acme-2026-10-C1", "credit note", "paid", "105.30", "2026-11-01 01:00:00Z"))
    found = records(roost("bill", "list", "--csv"))
    assert [(row["id"], row["of"], row["total"]) for row in found] == [
        ("acme-2026-10", "", "105.30"),
        ("acme-2026-10-C1", "acme-2026-10", "-5.00"),
    ]


def test_the_operator_lists_the_statements_of_all_tenants(server, roost):
    server.on("GET /api/v1/statements", {"statements": []})
    roost("bill", "list", "--all", environment=OPERATOR)
    roost("bill", "list", environment=OPERATOR)
    assert [asked.headers["authorization"] for asked in server.asked] == [
        "Bearer roost_operator",
        "Bearer roost_tenant",
    ]
    assert roost("bill", "list", "2026-11").exit_code == 2


def test_what_the_server_refuses_is_told_with_what_to_do(server, roost):
    server.refuse(
        "POST /api/v1/statements/acme-2026-11/marks",
        status=404,
        code="statement_not_found",
        message="no such statement",
    )
    refused = roost("bill", "mark", "acme-2026-11", "paid", environment=OPERATOR)
    assert refused.exit_code == 1
    assert refused.stderr.splitlines()[-1] == (
        "Next:  Only final statements can be noted or marked; see them with: roost bill --tenant NAME"
    )


def test_a_tenant_without_statements_is_told_how_to_see_the_running_month(server, roost):
    server.on("GET /api/v1/statements", {"statements": []})
    assert roost("bill", "list").stdout == "No statement is final yet. See this month so far with: roost bill\n"


def test_a_bill_as_a_file_is_what_the_server_wrote(server, roost, tmp_path):
    server.on("GET /api/v1/statements/2026-11", "line,amount\r\n1,0.10\r\n")
    assert roost("bill", "2026-11", "--csv").stdout_bytes == b"line,amount\r\n1,0.10\r\n"
    file = tmp_path / "bill.pdf"
    saved = roost("bill", "2026-11", "-o", file)
    assert (saved.stdout, saved.stderr) == ("", f"{file}: 21 B\n")
    assert file.read_bytes() == b"line,amount\r\n1,0.10\r\n"
    roost("bill", "2026-11", "--format", "focus", "-o", file)
    assert [asked.query for asked in server.asked] == [{"format": "csv"}, {"format": "pdf"}, {"format": "focus"}]


def test_a_file_that_cannot_be_written_is_told(server, roost, tmp_path):
    server.on("GET /api/v1/statements/2026-11", "x")
    refused = roost("bill", "2026-11", "--format", "pdf", "-o", tmp_path)
    assert refused.exit_code == 2
    assert "cannot be written: Is a directory" in refused.stderr


def test_the_events_behind_a_line_and_how_to_see_more_of_them(server, roost):
    event = {"kind": "call", "source": "0a", "sequence": 7, "time": "2026-11-03T12:00:00.500000+00:00", "model": "iris"}
    event |= {"request_id": "r1", "requests": 1, "queue_us": 0}
    server.on("GET /api/v1/statements/2026-11/lines/3/events", {"events": [event], "next": "run-7"})
    shown = roost("bill", "events", "2026-11", "3", "--limit", "1", "--after", "run-6").stdout
    assert all(part in shown for part in ("REQUEST ID", "2026-11-03 12:00:00Z", "iris", "r1"))
    assert not any(part in shown for part in ("QUEUE US", "SOURCE", "SEQUENCE"))  # for programs, or nothing of it
    assert shown.endswith("There are more:  roost bill events 2026-11 3 --after run-7\n")
    assert server.asked[0].query == {"limit": "1", "after": "run-6"}
    (row,) = records(roost("bill", "events", "2026-11", "3", "--csv"))
    assert (row["source"], row["sequence"], row["request_id"], row["queue_us"]) == ("0a", "7", "r1", "0")


def test_the_operator_finalizes_a_tenants_month(server, roost):
    server.on("POST /api/v1/statements/2026-10/finalize", STATEMENT | {"status": "final", "month": "2026-10"})
    done = roost("bill", "finalize", "2026-10", "--tenant", "acme", "--yes", environment=OPERATOR)
    assert "(final)" in done.stdout
    assert (server.asked[0].query, server.asked[0].headers["authorization"]) == (
        {"tenant": "acme"},
        "Bearer roost_operator",
    )


def test_the_operator_writes_notes_and_marks(server, roost):
    server.on(
        "POST /api/v1/statements/acme-2026-10/notes", {"id": "acme-2026-10-C1", "currency": "USD", "total": "-5.00"}
    )
    server.on("POST /api/v1/statements/acme-2026-10/marks", {"state": "paid"})
    noted = roost("bill", "note", "acme-2026-10", "credit", "5.00", "--reason", "outage", environment=OPERATOR)
    assert noted.stdout == "acme-2026-10-C1: USD -5.00\n"
    marked = roost("bill", "mark", "acme-2026-10", "paid", "--note", "bank", environment=OPERATOR)
    assert marked.stdout == "acme-2026-10 is paid.\n"
    assert [asked.json for asked in server.asked] == [
        {"kind": "credit", "amount": "5.00", "reason": "outage"},
        {"state": "paid", "note": "bank"},
    ]


# The operator's view

IDLE = {"idle_us": 3_600_000_000, "reserved_us": 0, "unpriced_us": 60_000_000, "worth": "0.50", "billed": "0.20"}
IDLE |= {"not_billed": "0.30"}
MONTH = {"amount": "105.30", "calls": 1200, "charged_calls": 1100, "unknown_calls": 1, "cold_starts": 4, "idle": IDLE}
MONEY = {"month": "2026-10", "currency": "USD", "total": MONTH | {"tenants": 7}, "more_tenants": 6, "more_models": 0}
MONEY |= {
    "tenants": [MONTH | {"tenant": "acme", "status": "final", "top_models": [{"model": "iris", "amount": "99.00"}]}]
}
MONEY |= {"models": [{"tenant": "acme", "model": "iris", "amount": "99.00"}]}


def test_money_by_tenant_shows_amounts_and_what_idle_replicas_cost(server, roost):
    server.on("GET /api/v1/money", MONEY)
    shown = roost("money", "--month", "2026-10", environment=OPERATOR).stdout
    assert shown.startswith("2026-10: 7 tenants, USD 105.30\n")
    assert all(part in shown for part in ("acme", "final", "1,100", "1 h 00 min", "0.50", "0.30", "iris 99.00"))
    assert "And 6 more tenants, who are in the total." in shown
    assert "For 1 min 00 s of it the book has no price at all." in shown
    assert server.asked[0].query == {"month": "2026-10"}
    assert server.asked[0].headers["authorization"] == "Bearer roost_operator"
    (row,) = records(roost("money", "--month", "2026-10", "--csv", environment=OPERATOR))
    assert (row["tenant"], row["amount"], row["idle_us"], row["not_billed"]) == ("acme", "105.30", "3600000000", "0.30")


def test_money_by_model_shows_the_largest(server, roost):
    server.on("GET /api/v1/money", MONEY)
    assert "99.00" in roost("money", "--by", "model", environment=OPERATOR).stdout
    (row,) = records(roost("money", "--by", "model", "--csv", environment=OPERATOR))
    assert row == {"tenant": "acme", "model": "iris", "currency": "USD", "amount": "99.00"}


# Reconciling

CHECK = {"check": "sequence numbers", "left_name": "numbers given out", "right_name": "events in the ledger"}
CHECK |= {"left": 1200, "right": 1200, "difference": 0, "compared": 1, "verdict": "equal", "findings": []}
CHECK |= {"more_findings": 0}
FINDING = {"scope": "run 0a", "left": 3, "right": 2, "difference": 1, "verdict": "differs", "says": "missing: 1."}
COMPARED = {"from": "2026-11-01T00:00:00+00:00", "to": "2026-12-01T00:00:00+00:00", "differs": 0, "checks": [CHECK]}


def test_reconcile_ends_well_when_everything_agrees(server, roost):
    server.on("GET /api/v1/reconciliation", COMPARED)
    result = roost("reconcile", "--from", "2026-11-01", environment=OPERATOR)
    assert result.exit_code == 0
    assert all(part in result.stdout for part in ("sequence numbers", "1,200", "equal", "Everything agrees."))
    assert server.asked[0].query == {"from": "2026-11-01T00:00:00+00:00"}
    assert server.asked[0].headers["authorization"] == "Bearer roost_operator"


def test_reconcile_says_what_differs_and_exits_1(server, roost):
    wrong = CHECK | {"right": 1199, "difference": 1, "verdict": "differs", "findings": [FINDING], "more_findings": 8}
    server.on("GET /api/v1/reconciliation", COMPARED | {"differs": 1, "checks": [CHECK, wrong]})
    result = roost("reconcile", environment=OPERATOR)
    assert result.exit_code == 1
    assert "sequence numbers, run 0a: missing: 1." in result.stdout
    assert "sequence numbers: and 8 more" in result.stdout
    assert result.stdout.endswith("Something differs: see above.\n")
    as_json = roost("reconcile", "--json", environment=OPERATOR)
    assert (as_json.exit_code, json.loads(as_json.stdout)["differs"]) == (1, 1)
    equal, finding = records(roost("reconcile", "--csv", environment=OPERATOR))
    assert (equal["verdict"], equal["scope"], equal["left"]) == ("equal", "", "1200")
    assert (finding["verdict"], finding["scope"], finding["left"], finding["says"]) == (
        "differs",
        "run 0a",
        "3",
        "missing: 1.",
    )


def test_reconcile_says_what_is_still_being_written(server, roost):
    pending = CHECK | {"right": 1199, "verdict": "pending", "findings": [FINDING | {"verdict": "pending"}]}
    server.on("GET /api/v1/reconciliation", COMPARED | {"checks": [pending]})
    result = roost("reconcile", environment=OPERATOR)
    assert result.exit_code == 0
    assert result.stdout.endswith("Nothing differs; what is pending is still being written: ask again.\n")
