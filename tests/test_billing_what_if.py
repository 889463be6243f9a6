"""What-if: a month rated again with another price list, over HTTP and by the command; and the prices that a tenant sees."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select

from gateway_parts import Parts, gateway_parts, refusal
from metering_parts import event
from recording_server import Command, serving
from roost_platform.billing.price_file import FILE_LIMIT
from roost_platform.database.money_tables import price_books, statements
from roost_platform.domain.resources import ResourceKind, ResourceUsage
from roost_platform.domain.usage import Outcome
from roost_platform.metering.ledger import record
from roost_platform.metering.resources import record_resources

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
OTHER = """
currency = "USD"
[[book]]
version = "other"
effective_from = 2026-01-01T00:00:00Z
prices = { requests = "1000000", compute_seconds = "2", idle_seconds = { "cpu-1" = "0.5" } }
free = { requests = 1 }

[[tenant]]
name = "beta"
effective_from = 2026-10-15T12:30:00Z
discount = "50%"
"""
PATH = "/api/v1/prices/what-if"


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    async with gateway_parts(tmp_path) as made:
        yield made


@pytest.fixture
async def operator(parts: Parts) -> AsyncIterator[httpx.AsyncClient]:
    async with parts.client() as client:
        yield client


async def use(parts: Parts):
    """October: acme calls thrice (one is not charged) and idles a minute; beta calls on both sides of a change."""
    day = timedelta(days=1)
    calls = [
        event(0, time=OCTOBER, compute_us=1_000_000),
        event(1, time=OCTOBER + 9 * day, compute_us=1_500_000),
        event(2, time=OCTOBER + 9 * day, outcome=Outcome.PLATFORM_ERROR),
        event(3, time=OCTOBER + 31 * day, compute_us=10**12),  # November's
        event(4, tenant="beta", time=OCTOBER + 14 * day, compute_us=0),
        event(5, tenant="beta", time=OCTOBER + timedelta(days=14, hours=12, minutes=29, seconds=59), compute_us=0),
        event(6, tenant="beta", time=OCTOBER + timedelta(days=14, hours=12, minutes=30), compute_us=0),
    ]
    idle = ResourceUsage(
        source="run",
        id="1",
        kind=ResourceKind.REPLICA,
        start=OCTOBER + day,
        end=OCTOBER + day + timedelta(minutes=1),
        tenant="acme",
        model="iris",
        version=1,
        resource_class="cpu-1",
        idle_us=60 * 10**6,
    )
    await parts.database.write(record, calls)
    await parts.database.write(record_resources, [idle])


async def test_a_past_month_is_rated_again_for_every_tenant_and_nothing_is_kept(each_database, parts, operator):
    await use(parts)
    answer = await operator.post(f"{PATH}?month=2026-10", content=OTHER)
    assert answer.status_code == 200
    assert answer.json() == {
        "month": "2026-10",
        "currency": "USD",
        "tenants": [
            # 2 calls less a free one, 2.5 s x 2, 60 s x 0.5
            {"tenant": "acme", "billed": "0.00", "other": "36.00", "difference": "36.00", "percent": None},
            # 2 calls less a free one, and one at half the price
            {"tenant": "beta", "billed": "0.00", "other": "1.50", "difference": "1.50", "percent": None},
        ],
        "total": {"billed": "0.00", "other": "37.50", "difference": "37.50", "percent": None},
    }
    only = (await operator.post(f"{PATH}?month=2026-10&tenant=beta", content=OTHER)).json()
    assert only["tenants"] == answer.json()["tenants"][1:]
    assert only["total"]["other"] == "1.50"
    november = (await operator.post(f"{PATH}?month=2026-11", content=OTHER)).json()["tenants"]
    assert [(each["tenant"], each["billed"], each["other"]) for each in november] == [("acme", "42.00", "2000000.00")]
    assert november[0]["percent"] == "4761804.76"
    for table in (price_books, statements):
        assert await parts.database.read(lambda c, table=table: c.scalar(select(func.count()).select_from(table))) == 0


async def test_a_month_or_tenant_without_usage_costs_nothing(each_database, parts, operator):
    assert (await operator.post(f"{PATH}?month=2026-09", content=OTHER)).json() == {
        "month": "2026-09",
        "currency": "USD",
        "tenants": [],
        "total": {"billed": "0.00", "other": "0.00", "difference": "0.00", "percent": None},
    }
    assert refusal(await operator.post(f"{PATH}?month=2026-09&tenant=ghost", content=OTHER)) == (404, "not_found", None)
    await parts.add_tenant("ghost")
    (ghost,) = (await operator.post(f"{PATH}?month=2026-09&tenant=ghost", content=OTHER)).json()["tenants"]
    assert (ghost["tenant"], ghost["billed"], ghost["other"]) == ("ghost", "0.00", "0.00")


@pytest.mark.parametrize(
    ("query", "body", "told"),
    [
        ("month=2026-10", b"currency = ", (400, "invalid_price_book", "body")),
        ("month=2026-10", b"\xff", (400, "invalid_price_book", "body")),
        ("month=2026-10", b"", (400, "invalid_price_book", "currency")),
        (
            "month=2026-10",
            OTHER.replace('"1000000"', "1").encode(),
            (400, "invalid_price_book", "book[0].prices.requests"),
        ),
        ("month=2026-10", OTHER.replace("USD", "EUR").encode(), (400, "invalid_price_book", "currency")),
        ("month=2026-10", b"[" * FILE_LIMIT, (400, "invalid_price_book", "body")),
        ("month=2026-10", b"#" * (FILE_LIMIT + 1), (413, "body_too_large", None)),
        ("month=2026-12", OTHER.encode(), (400, "invalid_month", "month")),
        ("month=2026-13", OTHER.encode(), (400, "invalid_month", "month")),
        ("", OTHER.encode(), (400, "invalid_request", "month")),
        ("month=2026-10&tenant=Beta", OTHER.encode(), (400, "invalid_name", "tenant")),
        ("month=2026-10&moth=1", OTHER.encode(), (400, "invalid_request", "moth")),
    ],
)
async def test_a_wrong_request_is_refused_by_name(operator, query, body, told):
    assert refusal(await operator.post(f"{PATH}?{query}", content=body)) == told


async def test_a_list_of_the_largest_size_is_rated_with(parts, operator):
    await use(parts)
    terms = "".join(
        f'[[tenant]]\nname = "t{i}"\neffective_from = 2026-10-01T00:00:00Z\ndiscount = "1%"\n' for i in range(12_000)
    )
    text = OTHER + terms
    text += "#" * (FILE_LIMIT - len(text.encode()))
    answer = await operator.post(f"{PATH}?month=2026-10", content=text, timeout=100)
    assert answer.json()["total"]["other"] == "37.50"


async def test_only_the_operator_asks_what_if(parts):
    async with parts.client(await parts.add_tenant()) as acme:
        assert refusal(await acme.post(f"{PATH}?month=2026-10", content=OTHER))[:2] == (403, "operator_only")


async def test_the_prices_in_force_are_the_books_to_the_operator(parts, operator):
    document = (await operator.get("/api/v1/prices")).json()
    assert {
        name: document[name] for name in ("version", "currency", "effective_from", "cold_start", "free", "terms")
    } == {
        "version": "2026-10",
        "currency": "USD",
        "effective_from": "2026-10-01T00:00:00+00:00",
        "cold_start": "load",
        "free": [],
        "terms": None,
    }
    assert document["prices"][0] == {
        "sku": "requests",
        "class": "",
        "mode": "flat",
        "tier": 0,
        "up_to": None,
        "count": "requests",
        "unit_price": "0.20",
        "per": 1_000_000,
        "unit": "requests",
    }
    parts.clock.move(days=30)
    december = (await operator.get("/api/v1/prices")).json()
    classes = [(each["class"], each["unit_price"]) for each in december["prices"] if each["sku"] == "reserved_seconds"]
    assert classes == [
        ("*", "0.00060"),
        ("cpu-1", "0.0000050"),
        ("cpu-2", "0.0000100"),
        ("cpu-4", "0.0000200"),
        ("gpu-1", "0.00030"),
    ]


def test_the_command_sends_the_file_and_shows_each_tenant(tmp_path):
    file = tmp_path / "new.toml"
    file.write_text(OTHER)
    amounts = {"billed": "10.00", "other": "9.00", "difference": "-1.00", "percent": "-10.00"}
    none = {"billed": "0.00", "other": "1.00", "difference": "1.00", "percent": None}
    document = {"month": "2026-10", "currency": "USD", "total": amounts}
    document["tenants"] = [amounts | {"tenant": "acme"}, none | {"tenant": "beta"}]
    with serving() as server:
        server.on(f"POST {PATH}", document)
        roost = Command(server.url, tmp_path)
        operator = {"ROOST_OPERATOR_KEY": "roost_operator"}
        shown = roost("prices", "what-if", str(file), "--month", "2026-10", environment=operator)
        assert shown.exit_code == 0
        assert all(part in shown.stdout for part in ("acme", "10.00", "9.00", "-1.00", "-10.00 %", "beta", "+1.00"))
        asked = server.asked[0]
        assert (asked.query, asked.body.decode()) == ({"month": "2026-10"}, OTHER)
        assert asked.headers["authorization"] == "Bearer roost_operator"
        again = roost(
            "prices", "what-if", str(file), "--month", "2026-10", "--tenant", "acme", "--json", environment=operator
        )
        assert json.loads(again.stdout) == document
        assert server.asked[1].query == {"month": "2026-10", "tenant": "acme"}
        assert roost("prices", "what-if", str(file), "--month", "2026-13").exit_code == 2
        assert roost("prices", "what-if", str(tmp_path / "absent"), "--month", "2026-10").exit_code == 2
        assert roost("prices", "what-if", str(file)).exit_code == 2
        assert len(server.asked) == 2


def test_the_command_shows_classes_tiers_allowances_and_terms(tmp_path):
    price = {"unit": "requests", "per": 1_000_000, "count": "requests", "class": "", "mode": "graduated"}
    prices = [
        price | {"sku": "requests", "tier": 1, "up_to": 1000, "unit_price": "0.20"},
        price | {"sku": "requests", "tier": 2, "up_to": None, "unit_price": "0.10"},
        {"sku": "idle_seconds", "class": "*", "mode": "flat", "tier": 0, "up_to": None, "count": "seconds"}
        | {"unit": "microseconds", "per": 1_000_000, "unit_price": "0.001"},
    ]
    document = {"version": "v", "currency": "EUR", "effective_from": "2026-10-01T00:00:00+00:00", "prices": prices}
    document["free"] = [{"sku": "requests", "quantity": 10_000, "unit": "requests"}]
    document["terms"] = {
        "tenant": "acme",
        "effective_from": "2026-11-01T00:00:00+00:00",
        "until": None,
        "discount": "0.1",
    }
    with serving() as server:
        server.on("GET /api/v1/prices", document)
        roost = Command(server.url, tmp_path)
        shown = roost("prices").stdout
        assert roost("prices", "show").stdout == shown
    parts = ("up to 1,000 requests (graduated)", "the rest (graduated)", "any other", "0.001 per second")
    more = ("Free each month: 10,000 requests of requests.", "With the terms of acme since 2026-11-01 00:00:00Z.")
    assert all(part in shown for part in parts + more)
