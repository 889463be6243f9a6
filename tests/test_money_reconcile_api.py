"""`GET /reconciliation`: every check over a period, for the operator."""

import pytest
from sqlalchemy import insert

from gateway_parts import NOON, OPERATOR_KEY, gateway_parts
from metering_parts import event
from roost_platform.database.money_tables import sources
from roost_platform.metering.hours import refresh
from roost_platform.metering.ledger import record

CHECKS = [
    "counters",
    "calls taken on",
    "balance of runs",
    "completed calls",
    "unknown calls",
    "sequence numbers",
    "journal",
    "conflicts",
    "roll-ups of calls",
    "roll-ups of resources",
    "outbox",
    "states of replicas",
    "chains of replicas",
    "final documents",
    "calls on statements",
    "amounts billed",
]


@pytest.fixture
async def parts(tmp_path):
    async with gateway_parts(tmp_path) as parts:
        yield parts


@pytest.fixture
async def operator(parts):
    async with parts.client(OPERATOR_KEY) as client:
        yield client


async def ask(client, status=200, **params):
    answer = await client.get("/api/v1/reconciliation", params=params)
    assert answer.status_code == status, answer.text
    return answer.json()


@pytest.mark.usefixtures("each_database")
async def test_every_place_that_counts_is_compared_with_the_next_one(parts, operator):
    await parts.database.write(record, [event(0, source="old"), event(2, source="old")])
    row = {"source": "old", "started_at": NOON, "closed_at": NOON, "opened": 2, "completed": 2, "unstored": 0}
    await parts.database.write(lambda connection: connection.execute(insert(sources), [row | {"unknown": 0}]))
    await parts.database.write(refresh, 10)
    found = await ask(operator)
    assert [check["check"] for check in found["checks"]] == CHECKS
    wrong = found["checks"].pop(CHECKS.index("sequence numbers"))
    assert wrong == {
        "check": "sequence numbers",
        "left_name": "numbers given out",
        "right_name": "events in the ledger",
        "left": 3,
        "right": 2,
        "difference": 1,
        "compared": 1,
        "verdict": "differs",
        "findings": [
            {
                "scope": "run old",
                "left": 3,
                "right": 2,
                "difference": 1,
                "verdict": "differs",
                "says": "missing: 1. Usage was lost on the way from the journal to the ledger, or deleted there",
            }
        ],
        "more_findings": 0,
    }
    assert {(check["verdict"], check["difference"]) for check in found["checks"]} == {("equal", 0)}
    del found["checks"]
    assert found == {
        "from": "2026-11-01T00:00:00+00:00",
        "to": "2026-12-01T00:00:00+00:00",
        "made_at": NOON.isoformat(),
        "differs": 1,
    }


async def test_centuries_without_usage_take_no_time(parts, operator):
    """Days are asked one by one: only those from the first use on, and none that has not come."""
    await parts.database.write(record, [event(0, source="old")])
    long_ago = {"from": "0001-01-01T00:00:00Z", "to": "9999-12-31T00:00:00Z"}
    found = await ask(operator, **long_ago)
    assert found["checks"][CHECKS.index("sequence numbers")]["left"] == 1
    assert found["differs"] == 0


async def test_it_is_the_operators_and_a_period_ends_after_it_begins(parts, operator):
    async with parts.client(await parts.add_tenant()) as acme:
        assert (await ask(acme, 403))["code"] == "operator_only"
    refused = await ask(operator, 400, **{"from": "2026-11-02T00:00:00Z", "to": "2026-11-02T00:00:00Z"})
    assert (refused["field"], refused["error"]) == ("to", "to must be later than from")
