"""`GET /money`: what a month brings in, from whom and with which models, and what idle replicas cost."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import insert

from gateway_parts import NOON, OPERATOR_KEY, gateway_parts
from metering_parts import event
from roost_gateway.money.overview import Idle, idle_of
from roost_platform.billing.lines import MeteredUsage
from roost_platform.billing.months import parse_month
from roost_platform.billing.price_file import load_price_books
from roost_platform.billing.rating import rate
from roost_platform.database.money_tables import unknown_calls
from roost_platform.domain.meters import Meter
from roost_platform.domain.resources import ResourceKind, ResourceUsage
from roost_platform.domain.usage import Outcome
from roost_platform.metering.ledger import record
from roost_platform.metering.resource_report import ResourceFigures
from roost_platform.metering.resources import record_resources

NOVEMBER = parse_month("2026-11")
SECOND = 1_000_000


# What idle replicas cost


def idle(prices, *, own="", seconds=100, variant="cpu-1", discount="0%", free=""):
    """Of a tenant whose replicas were idle for so long, and reserved for a tenth of it."""
    books = load_price_books(
        f"""
        currency = "USD"
        [[book]]
        version = "b"
        effective_from = 2026-01-01T00:00:00Z
        [book.prices]
        requests = "0"
        {prices}
        {"[book.free]" if free else ""}
        {free}
        [[tenant]]
        name = "acme"
        effective_from = 2026-01-01T00:00:00Z
        discount = "{discount}"
        {f"prices = {{ {own} }}" if own else ""}
        """
    )
    (period,) = books.periods(NOVEMBER.start, NOVEMBER.end, tenant="acme")
    held = ResourceFigures(idle_us=seconds * SECOND, reserved_us=seconds * SECOND // 10)
    usage = [
        MeteredUsage("iris", meter, variant, NOVEMBER.start, NOVEMBER.end, quantity)
        for meter, quantity in ((Meter.IDLE, held.idle_us), (Meter.RESERVED, held.reserved_us))
    ]
    lines = rate(usage, tenant="acme", month=NOVEMBER, books=books)
    return idle_of([(period, variant, held)], lines, currency="USD")


@pytest.mark.parametrize(
    ("prices", "worth", "billed"),
    [
        ('idle_seconds = "0.01"\nreserved_seconds = "0.02"', "1.20", "1.20"),
        ('idle_seconds = "0"\nreserved_seconds = "0.02"', "2.20", "0.20"),  # idle as if it were reserved
        ('reserved_seconds = "0.02"\nactive_seconds = "9"', "2.20", "0.20"),
        ('idle_seconds = "0.01"', "1.10", "1.00"),
        ('active_seconds = "0.03"', "3.30", "0.00"),
        ('active_seconds = { "gpu-1" = "9" }\ncompute_seconds = "0.04"', "4.40", "0.00"),
        ('idle_seconds = { mode = "graduated", tiers = [{up_to = 90, price = "0"}, {price = "1"}] }', "20.00", "10.00"),
    ],
)
def test_idle_time_is_worth_what_it_costs_or_what_such_time_costs_elsewhere(prices, worth, billed):
    found = idle(prices)
    assert (found.idle_us, found.reserved_us, found.unpriced_us) == (100 * SECOND, 10 * SECOND, 0)
    assert (found.worth, found.billed) == (Decimal(worth), Decimal(billed))
    assert found.not_billed == Decimal(worth) - Decimal(billed)


def test_idle_time_of_which_nothing_like_it_has_a_price_is_said_to_be_unpriced():
    found = idle('active_seconds = { "gpu-1" = "9" }')
    assert found == Idle(100 * SECOND, 10 * SECOND, 110 * SECOND, Decimal("0.00"), Decimal("0.00"))


def test_what_discounts_and_allowances_give_away_is_not_billed():
    found = idle('idle_seconds = "0.01"\nreserved_seconds = "0.02"', discount="50%", free="idle_seconds = 20")
    assert (found.worth, found.billed, found.not_billed) == (Decimal("1.20"), Decimal("0.50"), Decimal("0.70"))
    dearer = idle('reserved_seconds = "0.02"', own='idle_seconds = "0.05"')
    assert (dearer.worth, dearer.billed) == (Decimal("5.20"), Decimal("5.20"))


# The route

MILLION = 1_000_000


def calls(sequence, millions, **changes):
    """Charged calls that cost 0.20 a million and nothing else."""
    free = {"compute_us": 0, "bytes_out": 0, "requests": millions * MILLION}
    return event(sequence, **(free | changes))


async def ask(client, status=200, **params):
    answer = await client.get("/api/v1/money", params=params)
    assert answer.status_code == status, answer.text
    return answer.json()


@pytest.fixture
async def parts(tmp_path):
    async with gateway_parts(tmp_path) as parts:
        yield parts


@pytest.fixture
async def operator(parts):
    async with parts.client(OPERATOR_KEY) as client:
        yield client


async def use(parts):
    """Three tenants, one of which is deleted by now, in November; and a fourth in October."""
    october = datetime(2026, 10, 31, 23, 59, 59, 999999, tzinfo=UTC)
    events = [
        calls(0, 10),
        calls(1, 5, model="wine"),
        calls(2, 1, outcome=Outcome.THROTTLED, status=429),
        calls(3, 30, tenant="gone", model="lamp"),
        calls(4, 15, tenant="also"),
        calls(5, 99, tenant="early", time=october),
    ]
    await parts.database.write(record, events)
    stretch = ResourceUsage(
        source="engine",
        id="1",
        kind=ResourceKind.REPLICA,
        start=NOON,
        end=NOON + timedelta(seconds=1000),
        tenant="acme",
        model="iris",
        version=1,
        replica="r",
        resource_class="cpu-1",
        idle_us=900 * SECOND,
        reserved_us=100 * SECOND,
        cold_starts=1,
    )
    await parts.database.write(record_resources, [stretch])
    unknown = {"source": "run", "time": NOON, "tenant": "acme", "model": "iris", "version": 1, "request_id": "r"}
    rows = [unknown | {"number": 1}, unknown | {"number": 2, "time": october}]
    await parts.database.write(lambda connection: connection.execute(insert(unknown_calls), rows))


@pytest.mark.usefixtures("each_database")
async def test_the_whole_view_of_a_month(parts, operator):
    await use(parts)
    nothing = {
        "idle_us": 0,
        "reserved_us": 0,
        "unpriced_us": 0,
        "worth": "0.00",
        "billed": "0.00",
        "not_billed": "0.00",
    }
    # No second of a replica costs anything in that book, but one of computing does.
    held = nothing | {"idle_us": 900 * SECOND, "reserved_us": 100 * SECOND, "worth": "0.04", "not_billed": "0.04"}
    gone = {"tenant": "gone", "status": "open", "amount": "6.00", "calls": 30 * MILLION, "charged_calls": 30 * MILLION}
    gone |= {"unknown_calls": 0, "cold_starts": 0, "idle": nothing, "top_models": [{"model": "lamp", "amount": "6.00"}]}
    acme = gone | {"tenant": "acme", "amount": "3.00", "calls": 16 * MILLION, "charged_calls": 15 * MILLION}
    acme |= {"unknown_calls": 1, "cold_starts": 1, "idle": held}
    acme |= {"top_models": [{"model": "iris", "amount": "2.00"}, {"model": "wine", "amount": "1.00"}]}
    also = gone | {"tenant": "also", "amount": "3.00", "calls": 15 * MILLION, "charged_calls": 15 * MILLION}
    also |= {"top_models": [{"model": "iris", "amount": "3.00"}]}
    assert await ask(operator) == {
        "month": "2026-11",
        "from": "2026-11-01T00:00:00+00:00",
        "to": "2026-12-01T00:00:00+00:00",
        "made_at": NOON.isoformat(),
        "currency": "USD",
        "total": {
            "tenants": 3,
            "amount": "12.00",
            "calls": 61 * MILLION,
            "charged_calls": 60 * MILLION,
            "unknown_calls": 1,
            "cold_starts": 1,
            "idle": held,
        },
        "tenants": [gone, acme, also],
        "more_tenants": 0,
        "models": [
            {"tenant": "gone", "model": "lamp", "amount": "6.00"},
            {"tenant": "also", "model": "iris", "amount": "3.00"},
            {"tenant": "acme", "model": "iris", "amount": "2.00"},
            {"tenant": "acme", "model": "wine", "amount": "1.00"},
        ],
        "more_models": 0,
    }


async def test_an_answer_is_bounded_and_its_total_is_not(parts, operator):
    await use(parts)
    found = await ask(operator, limit=1, month="2026-11")
    assert [each["tenant"] for each in found["tenants"]] == ["gone"]
    assert [each["model"] for each in found["models"]] == ["lamp"]
    assert (found["more_tenants"], found["more_models"], found["total"]["amount"]) == (2, 3, "12.00")


async def test_another_month_is_of_others_and_one_without_anybody_is_empty(parts, operator):
    await use(parts)
    october = await ask(operator, month="2026-10")
    assert [(each["tenant"], each["status"], each["amount"]) for each in october["tenants"]] == [
        ("early", "draft", "19.80")
    ]
    assert october["total"]["unknown_calls"] == 0  # of somebody who used nothing that is known
    empty = await ask(operator, month="2026-09")
    assert (empty["tenants"], empty["models"], empty["total"]["amount"]) == ([], [], "0.00")


async def test_only_the_operator_sees_it_and_a_month_is_a_month(parts, operator):
    async with parts.client(await parts.add_tenant()) as acme:
        assert (await ask(acme, 403))["code"] == "operator_only"
    assert (await ask(operator, 400, month="2026-13"))["field"] == "month"
    assert (await ask(operator, 400, limit=0))["field"] == "limit"
