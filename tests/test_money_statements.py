"""Statements over HTTP: all forms, down to the events behind a line; what the operator does with them, and nobody else."""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from closing_parts import kept
from gateway_parts import NOON, Parts, gateway_parts, refusal
from metering_parts import event
from roost_platform.domain.resources import ResourceKind, ResourceUsage
from roost_platform.domain.usage import Outcome
from roost_platform.metering.corrections import Correction, record_corrections
from roost_platform.metering.recording import record
from roost_platform.metering.resources import record_resources

PATH = "/api/v1/statements"


@pytest.fixture
async def parts(tmp_path: Path, each_database: str) -> AsyncIterator[Parts]:
    async with gateway_parts(tmp_path) as made:
        yield made


@pytest.fixture
async def acme(parts: Parts) -> AsyncIterator[httpx.AsyncClient]:
    async with parts.client(await parts.add_tenant("acme")) as client:
        yield client


@pytest.fixture
async def operator(parts: Parts) -> AsyncIterator[httpx.AsyncClient]:
    async with parts.client() as client:
        yield client


async def use(parts: Parts, count: int = 5, **changes: Any) -> None:
    made = [event(n, time=NOON, compute_us=10**9 + n, **changes) for n in range(count)]
    await parts.database.write(record, made)


async def close(parts: Parts, operator: httpx.AsyncClient, tenant: str = "acme") -> dict[str, Any]:
    """November made final, after its end."""
    parts.clock.move(days=30)
    answer = await operator.post(f"{PATH}/2026-11/finalize?tenant={tenant}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_final_statement_is_the_same_bytes_for_ever(parts: Parts, acme, operator):
    await use(parts)
    final = await close(parts, operator)
    assert (final["id"], final["status"], final["charged_calls"]) == ("acme-2026-11", "final", 5)
    first = await acme.get(f"{PATH}/2026-11")
    await use(parts, source="late")
    parts.clock.move(days=1)
    assert (await operator.post(f"{PATH}/2026-11/finalize?tenant=acme")).content == first.content
    assert (await acme.get(f"{PATH}/2026-11")).content == first.content
    assert (await parts.database.read(kept))["acme-2026-11"].encode() == first.content


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("form", "media", "begins"),
    [
        ("json", "application/json", b'{"calls":'),
        ("csv", "text/csv", b"id,kind,tenant,month"),
        ("html", "text/html", b"<!DOCTYPE html>"),
        ("pdf", "application/pdf", b"%PDF-"),
        ("cloudevents", "application/cloudevents+json", b"{"),
        ("focus", "text/csv", b"BilledCost,"),
    ],
)
async def test_each_form_is_served_with_its_name(parts: Parts, acme, form, media, begins):
    await use(parts)
    answer = await acme.get(f"{PATH}/2026-11?format={form}")
    assert answer.headers["content-type"].startswith(media)
    assert answer.content.lower().startswith(begins.lower())
    named = answer.headers.get("content-disposition", "")
    assert named.startswith('attachment; filename="acme-2026-11.') == (form not in ("json", "html"))


async def test_a_list_tells_of_all_final_documents_and_their_marks(parts: Parts, acme, operator):
    assert (await acme.get(PATH)).json() == {"statements": []}
    await use(parts)
    await parts.add_tenant("other")
    await use(parts, source="other", tenant="other")
    await close(parts, operator)
    assert (await operator.post(f"{PATH}/2026-11/finalize?tenant=other")).status_code == 200
    assert (await operator.post(f"{PATH}/acme-2026-11/marks", json={"state": "paid"})).json()["status"] == "paid"
    (mine,) = (await acme.get(PATH)).json()["statements"]
    assert (mine["id"], mine["status"], mine["kind"], mine["of"]) == ("acme-2026-11", "paid", "statement", "")
    assert mine["finalized_at"] == "2026-12-03T12:00:00Z"
    everybody = (await operator.get(PATH)).json()["statements"]
    assert [each["id"] for each in everybody] == ["acme-2026-11", "other-2026-11"]
    assert (await operator.get(f"{PATH}?tenant=acme")).json()["statements"] == [mine]
    assert refusal(await acme.get(f"{PATH}?tenant=other"))[0] == 404


async def test_a_note_is_written_once_and_served_in_all_forms(parts: Parts, acme, operator):
    await use(parts)
    total = (await close(parts, operator))["total"]
    wish = {"kind": "credit", "amount": total, "reason": "  an outage "}
    written = [await operator.post(f"{PATH}/acme-2026-11/notes", json=wish) for _ in range(2)]
    assert [answer.status_code for answer in written] == [201, 201]
    assert written[0].content == written[1].content
    note = written[0].json()
    assert (note["id"], note["of"], note["total"], note["notes"]) == (
        "acme-2026-11-C1",
        "acme-2026-11",
        f"-{total}",
        ["an outage"],
    )
    assert (await acme.get(f"{PATH}/2026-11/notes/C1")).content == written[0].content
    assert (await acme.get(f"{PATH}/2026-11/notes/C1?format=csv")).text.count("\r\n") == 2
    assert refusal(await acme.get(f"{PATH}/2026-11/notes/D1"))[:2] == (404, "statement_not_found")
    more = wish | {"reason": "another"}
    assert refusal(await operator.post(f"{PATH}/acme-2026-11/notes", json=more))[:2] == (409, "credit_exceeds")


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("acme-2026-10/notes", {"kind": "credit", "amount": "1", "reason": "x"}, (404, "statement_not_found", None)),
        ("acme-2026-11/notes", {"kind": "gift", "amount": "1", "reason": "x"}, (400, "invalid_request", "kind")),
        ("acme-2026-11/notes", {"kind": "debit", "amount": "-1", "reason": "x"}, (400, "invalid_request", "amount")),
        ("acme-2026-11/notes", {"kind": "debit", "amount": "0.001", "reason": "x"}, (400, "invalid_amount", "amount")),
        ("acme-2026-11/notes", {"kind": "debit", "amount": "1", "reason": " "}, (400, "invalid_request", "reason")),
        ("acme-2026-11/marks", {"state": "lost"}, (400, "invalid_request", "state")),
        ("acme-2026-10/marks", {"state": "paid"}, (404, "statement_not_found", None)),
        ("2027-01/finalize?tenant=acme", None, (400, "invalid_month", "month")),
        ("2026-12/finalize?tenant=acme", None, (400, "month_not_over", "month")),
        ("2026-11/finalize?tenant=absent", None, (404, "not_found", None)),
        ("2026-11/finalize", None, (400, "invalid_request", "tenant")),
    ],
)
async def test_what_cannot_be_is_refused_in_words(parts: Parts, acme, operator, *, path, body, expected):
    await use(parts)
    await close(parts, operator)
    assert refusal(await operator.post(f"{PATH}/{path}", json=body)) == expected


@pytest.mark.sqlite
@pytest.mark.parametrize("path", ["2026-11/finalize", "acme-2026-11/notes", "acme-2026-11/marks"])
async def test_only_the_operator_makes_final_and_writes_notes_and_marks(parts: Parts, acme, path):
    body = {"kind": "credit", "amount": "1", "reason": "x"} if path.endswith("notes") else {"state": "paid"}
    assert refusal(await acme.post(f"{PATH}/{path}", json=body))[:2] == (403, "operator_only")


async def test_a_deleted_tenant_still_has_its_bill(parts: Parts, acme, operator):
    await use(parts)
    assert (await operator.delete("/api/v1/tenants/acme")).status_code == 204
    assert (await close(parts, operator))["charged_calls"] == 5
    assert (await operator.get(f"{PATH}/2026-11?tenant=acme")).json()["status"] == "final"
    assert len((await operator.get(f"{PATH}?tenant=acme")).json()["statements"]) == 1
    assert refusal(await operator.get(f"{PATH}?tenant=never"))[0] == 404


# Events


async def mixed(parts: Parts) -> None:
    """Calls at one moment and others, a correction, and stretches."""
    calls = [
        event(
            n, time=NOON, compute_us=1000 + n, outcome=Outcome.OK if n % 4 else Outcome.THROTTLED, source=f"run{n % 2}"
        )
        for n in range(12)
    ]
    await parts.database.write(record, calls)
    correction = Correction(
        source="/desk", id="c-1", time=NOON, tenant="acme", model="iris", version=1, outcome=Outcome.OK, requests=-1, rows=0,
        compute_us=-900, bytes_in=0, bytes_out=0, corrects_source="run1", corrects_sequence=1, reason="twice",
    )  # fmt: skip
    await parts.database.write(record_corrections, [correction], NOON)
    stretches = [
        ResourceUsage(
            source="run1", id=str(n), kind=ResourceKind.REPLICA, start=NOON, end=NOON, tenant="acme", model="iris",
            version=1, resource_class="cpu-1", active_us=n, load_us=n,
        )
        for n in range(5)
    ]  # fmt: skip
    await parts.database.write(record_resources, stretches)


async def all_events(client: httpx.AsyncClient, line: int, limit: int) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    while True:
        answer = await client.get(f"{PATH}/2026-11/lines/{line}/events", params={"limit": limit, **after})
        page = answer.json()
        events += page["events"]
        assert len(page["events"]) == limit or page["next"] is None
        if page["next"] is None:
            return events
        after = {"after": page["next"]}


async def test_every_line_is_the_sum_of_the_events_behind_it(parts: Parts, acme):
    await mixed(parts)
    statement = (await acme.get(f"{PATH}/2026-11")).json()
    sums = {}
    for number, line in enumerate(statement["lines"], start=1):
        events = await all_events(acme, number, 3)
        assert events == await all_events(acme, number, 100)
        assert sum(each["quantity"] for each in events) == line["quantity"], line
        sums[line["sku"]] = line["quantity"]
        assert not any("tenant" in each or "content_hash" in each for each in events)
    assert {"requests": 8, "not_charged": 3}.items() <= sums.items()


async def test_an_event_tells_all_that_is_known_of_it(parts: Parts, acme):
    await mixed(parts)
    statement = (await acme.get(f"{PATH}/2026-11")).json()
    number = 1 + [line["sku"] for line in statement["lines"]].index("compute_seconds")
    events = await all_events(acme, number, 100)
    assert [each["kind"] for each in events] == ["call"] * 9 + ["correction"]
    assert events[0] == {
        "kind": "call", "quantity": 1002, "source": "run0", "sequence": 2, "time": NOON.isoformat(), "model": "iris",
        "version": 1, "outcome": "ok", "status": 200, "compute_us": 1002, "queue_us": 20, "cold_start_us": 0, "bytes_in": 100,
        "bytes_out": 60, "rows": 1, "request_id": "r2", "requests": 1,
    }  # fmt: skip
    assert (events[-1]["quantity"], events[-1]["reason"], events[-1]["id"]) == (-900, "twice", "c-1")


async def test_pages_go_on_where_the_last_one_ended_whatever_is_added_meanwhile(parts: Parts, acme):
    await use(parts, 6)
    first = (await acme.get(f"{PATH}/2026-11/lines/1/events?limit=3")).json()
    await use(parts, 3, source="a-run-that-comes-before")
    second = (await acme.get(f"{PATH}/2026-11/lines/1/events?limit=10&after={first['next']}")).json()
    assert [each["request_id"] for each in first["events"] + second["events"]] == [f"r{n}" for n in range(6)]


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("1/events?after=x", (400, "invalid_request", "after")),
        ("1/events?after=" + base64.urlsafe_b64encode(json.dumps(["x", 0, "", 0]).encode()).decode(), (400, "invalid_request", "after")),
        ("1/events?limit=0", (400, "invalid_request", "limit")),
        ("0/events", (400, "invalid_request", "line")),
        ("99/events", (404, "line_not_found", "line")),
    ],
)  # fmt: skip
async def test_a_page_that_there_is_not_is_refused_in_words(parts: Parts, acme, query, expected):
    await use(parts)
    assert refusal(await acme.get(f"{PATH}/2026-11/lines/{query}")) == expected


async def test_another_tenants_events_are_not_told(parts: Parts, acme):
    await parts.add_tenant("rival")
    await use(parts, tenant="rival")
    assert refusal(await acme.get(f"{PATH}/2026-11/lines/1/events?tenant=rival"))[0] == 404
    assert refusal(await acme.get(f"{PATH}/2026-11/lines/1/events"))[:2] == (404, "line_not_found")
