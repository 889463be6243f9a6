"""Budgets on real parts: set and shown over HTTP, alerts raised once, a cap that reaches every gateway and lasts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway_parts import OPERATOR_KEY, Parts, gateway_parts, refusal, until
from gateways_parts import gateway, predicting
from metering_parts import event as call
from money_corrections_parts import correction
from predict_parts import LeasingEngine, json_response, predict_path
from roost_gateway.money.budgets import Budgets
from roost_platform.billing.budget_store import alerts_of, kept
from roost_platform.billing.budgets import Budget, Cap
from roost_platform.billing.months import Month, parse_month
from roost_platform.domain.errors import Unavailable
from roost_platform.domain.tenants import Scope
from roost_platform.engines.port import UpstreamRequest, UpstreamResponse
from roost_platform.metering.recording import record

PATH = "/api/v1/budget?tenant=acme"
NOVEMBER, DECEMBER = parse_month("2026-11"), parse_month("2026-12")


class Money:
    """What has been spent, as the test says."""

    def __init__(self) -> None:
        self.spent: dict[str, str] = {}
        self.away: set[str] = set()

    async def __call__(self, tenant: str, month: Month) -> Decimal:
        if tenant in self.away:
            raise Unavailable("the database does not answer right now")
        return Decimal(self.spent.get(f"{tenant} {month}", "0.00"))


@pytest.fixture
def money() -> Money:
    return Money()


@pytest.fixture
async def parts(tmp_path: Path, each_database: str) -> AsyncIterator[Parts]:
    async with gateway_parts(tmp_path) as made:
        await made.add_tenant("acme")
        yield made


@pytest.fixture
def budgets(parts: Parts, money: Money) -> Budgets:
    return parts.budgets(spent=money)


def client_of(parts: Parts, budgets: Budgets, secret: str = OPERATOR_KEY) -> httpx.AsyncClient:
    """The control API with these budgets."""
    return parts.client(secret, budgets=budgets)


def wish(amount: str = "10.00", *thresholds: int, hard_cap: bool = False) -> dict[str, Any]:
    return {"amount": amount, "thresholds": list(thresholds or (50, 80, 100)), "hard_cap": hard_cap}


async def told(parts: Parts, month: Month = NOVEMBER) -> list[tuple[int, str, str]]:
    found = await parts.database.read(alerts_of, "acme", month)
    return [(alert.threshold, str(alert.amount), str(alert.spent)) for alert in found]


async def test_a_budget_is_set_shown_and_removed(parts: Parts, budgets: Budgets, money: Money):
    money.spent = {"acme 2026-11": "4.21"}
    async with client_of(parts, budgets) as operator:
        assert refusal(await operator.get(PATH)) == (404, "no_budget", None)
        answer = await operator.put(PATH, json={"amount": "10"})
        assert answer.status_code == 200
        assert answer.json() == {
            "tenant": "acme",
            "month": "2026-11",
            "currency": "USD",
            "amount": "10.00",
            "thresholds": [50, 80, 100],
            "hard_cap": False,
            "changed_at": "2026-11-03T12:00:00Z",
            "spent": "4.21",
            "ratio": "0.4210",
            "forecast": "50.52",
            "capped_until": None,
            "alerts": [],
        }
        secret = (
            await parts.keys.create("acme", name="reader", scopes=frozenset({Scope.READ}), expires_at=None)
        ).secret
        async with client_of(parts, budgets, secret) as acme:
            assert (await acme.get("/api/v1/budget")).json() == answer.json()
            assert refusal(await acme.put("/api/v1/budget", json=wish())) == (403, "operator_only", None)
            assert refusal(await acme.delete("/api/v1/budget")) == (403, "operator_only", None)
            assert refusal(await acme.get("/api/v1/budget?tenant=rival")) == (404, "not_found", None)
        for _ in range(2):
            assert (await operator.delete(PATH)).status_code == 204
        assert refusal(await operator.get(PATH)) == (404, "no_budget", None)


async def test_each_threshold_is_told_of_once_a_month_and_again_when_the_amount_changes(
    parts: Parts, budgets: Budgets, money: Money, caplog: pytest.LogCaptureFixture
):
    async with client_of(parts, budgets) as operator:
        await operator.put(PATH, json=wish("10.00"))
        for spent in ("4.99", "5.00", "5.01", "9.00", "9.00", "8.00", "9.00"):  # a correction took something back
            money.spent = {"acme 2026-11": spent}
            await budgets.look()
        assert await told(parts) == [(50, "10.00", "5.00"), (80, "10.00", "9.00")]
        parts.clock.move(minutes=1)
        shown = (await operator.put(PATH, json=wish("16.00"))).json()
        assert [(a["threshold"], a["amount"], a["spent"], a["delivered_at"]) for a in shown["alerts"]] == [
            (50, "10.00", "5.00", None),
            (80, "10.00", "9.00", None),
            (50, "16.00", "9.00", None),
        ], "percents of another amount are other thresholds"
    parts.clock.now = datetime(2026, 12, 2, tzinfo=UTC)
    money.spent = {"acme 2026-11": "16.00", "acme 2026-12": "8.00"}
    await budgets.look()
    assert await told(parts, DECEMBER) == [(50, "16.00", "8.00")]
    events = [record for record in caplog.records if record.message == "budget_alert"]
    assert [(e.tenant, e.month, e.threshold, e.spent) for e in events] == [  # type: ignore[attr-defined]
        ("acme", "2026-11", 50, "5.00"),
        ("acme", "2026-11", 80, "9.00"),
        ("acme", "2026-11", 50, "9.00"),
        ("acme", "2026-12", 50, "8.00"),
    ]


@pytest.mark.sqlite
async def test_what_comes_to_the_ledger_just_after_a_months_end_is_still_told_of(
    parts: Parts, budgets: Budgets, money: Money
):
    await budgets.put(a_budget("10.00", hard_cap=True))
    parts.clock.now = DECEMBER.start.replace(minute=2)
    money.spent = {"acme 2026-11": "10.00"}
    await budgets.look()
    assert await told(parts) == [(50, "10.00", "10.00"), (80, "10.00", "10.00"), (100, "10.00", "10.00")]
    assert parts.directory.caps == {}, "a month that is over caps nobody"


def a_budget(amount: str, *thresholds: int, hard_cap: bool = False, currency: str = "USD") -> Budget:
    return Budget(
        tenant="acme",
        amount=Decimal(amount),
        currency=currency,
        thresholds=thresholds or (50, 80, 100),
        hard_cap=hard_cap,
        changed_at=NOVEMBER.start,
    )


async def test_two_who_look_at_once_raise_an_alert_once(tmp_path: Path, parts: Parts, money: Money):
    both = [parts.budgets(spent=money) for _ in range(2)]
    for n in range(5):
        await both[0].put(a_budget(f"{10 + n}.00", hard_cap=True))
        money.spent = {"acme 2026-11": f"{10 + n}.00"}
        await asyncio.gather(*(each.look() for each in [*both, *both]))
    assert [threshold for threshold, amount, _ in await told(parts) if amount == "14.00"] == [50, 80, 100]
    assert len(await told(parts)) == 15


@pytest.mark.sqlite
async def test_one_tenant_that_cannot_be_rated_holds_up_no_other(parts: Parts, budgets: Budgets, money: Money):
    await parts.add_tenant("aaa")
    await budgets.put(a_budget("10.00"))
    await budgets.put(replace(a_budget("10.00"), tenant="aaa"))
    money.spent, money.away = {"acme 2026-11": "5.00"}, {"aaa"}
    await budgets.look()
    assert len(await told(parts)) == 1


async def test_a_cap_holds_until_it_is_raised_removed_or_the_month_ends(parts: Parts, budgets: Budgets, money: Money):
    async with client_of(parts, budgets) as operator:

        async def put(amount: str, **how: Any) -> str | None:
            answer = await operator.put(PATH, json=wish(amount, **how))
            until: str | None = answer.json()["capped_until"]
            assert (until is not None) == ("acme" in parts.directory.caps)
            return until

        assert await put("10.00", hard_cap=True) is None
        money.spent = {"acme 2026-11": "10.02"}
        await budgets.look()
        assert parts.directory.caps == {"acme": Cap(NOVEMBER.end, Decimal("10.00"), Decimal("10.02"), "USD")}
        money.spent = {"acme 2026-11": "10.50"}
        await budgets.look()
        assert parts.directory.caps["acme"].used == Decimal("10.02"), "as it was found"
        assert (await operator.get(PATH)).json()["capped_until"] == "2026-12-01T00:00:00Z"
        assert await put("10.51", hard_cap=True) is None, "raised"
        assert await put("10.50", hard_cap=True) == "2026-12-01T00:00:00Z"
        assert await put("10.50") is None, "no longer a hard cap"
        assert await put("9.00", hard_cap=True) == "2026-12-01T00:00:00Z"
        money.spent = {"acme 2026-11": "8.99"}  # a correction
        await budgets.look()
        assert parts.directory.caps == {}
        money.spent = {"acme 2026-11": "9.00"}
        await budgets.look()
        assert "acme" in parts.directory.caps
        parts.clock.now = DECEMBER.start
        assert (await operator.get(PATH)).json()["capped_until"] is None, "by the clock, before anybody looked"
        await budgets.look()
        assert parts.directory.caps == {}
        money.spent = {"acme 2026-12": "9.00"}
        await budgets.look()
        assert parts.directory.caps["acme"].until == DECEMBER.end
        await operator.delete(PATH)
        assert parts.directory.caps == {}


async def test_a_cap_outlasts_a_restart_and_goes_with_its_tenant(tmp_path: Path, each_database: str, money: Money):
    money.spent = {"acme 2026-11": "10.00"}
    async with gateway_parts(tmp_path) as parts:
        await parts.add_tenant("acme")
        await parts.budgets(spent=money).put(a_budget("10.00", hard_cap=True))
        caps = dict(parts.directory.caps)
        assert list(caps) == ["acme"]
    async with gateway_parts(tmp_path) as parts:
        assert parts.directory.caps == caps
        assert await parts.tenants.outdated() == set()
        await parts.tenants.delete("acme")
        assert parts.directory.caps == {}
        assert await parts.database.read(kept, NOVEMBER) == []


@pytest.mark.sqlite
async def test_a_budget_in_a_currency_that_prices_no_longer_have_is_left_alone(
    parts: Parts, budgets: Budgets, money: Money
):
    await budgets.put(a_budget("10.00", hard_cap=True, currency="EUR"))
    money.spent = {"acme 2026-11": "10.00"}
    await budgets.look()
    assert (parts.directory.caps, await told(parts)) == ({}, [])
    async with client_of(parts, budgets) as operator:
        assert refusal(await operator.get(PATH)) == (409, "budget_currency", None)
        assert (await operator.put(PATH, json=wish("10.00"))).json()["currency"] == "USD"


@pytest.mark.sqlite
async def test_only_the_leader_looks_and_only_its_page_has_ratios(parts: Parts, money: Money):
    leading, asked = [False], []
    budgets = parts.budgets(spent=money, leads=lambda: asked.append(1) or leading[0], interval_s=0.001)
    await budgets.put(a_budget("10.00"))
    money.spent = {"acme 2026-11": "5.00"}
    looking = asyncio.create_task(budgets.run())
    try:
        await until(lambda: len(asked) > 3)
        assert await told(parts) == []
        leading[0] = True
        await until(lambda: series(budgets, "roost_budget_used_ratio") == {"acme": 0.5})
        assert series(budgets, "roost_budget_alerts") == {"acme": 1.0}
        leading[0] = False
        await until(lambda: series(budgets, "roost_budget_used_ratio") == {})
        leading[0] = True
        await until(lambda: series(budgets, "roost_budget_used_ratio") == {"acme": 0.5})
        await budgets.remove("acme")
        await until(lambda: series(budgets, "roost_budget_used_ratio") == {})
    finally:
        looking.cancel()


def series(budgets: Budgets, name: str) -> dict[str, float]:
    (family,) = [family for family in budgets.figures.collect() if family.name == name]
    return {sample.labels["tenant"]: sample.value for sample in family.samples}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "amount"),
    ({"amount": 10}, "amount"),
    ({"amount": "-1"}, "amount"),
    ({"amount": "0.00"}, "amount"),
    ({"amount": "1.005"}, "amount"),
    ({"amount": "1e3"}, "amount"),
    ({"amount": "1", "thresholds": [80, 50]}, "thresholds"),
    ({"amount": "1", "thresholds": ["50"]}, "thresholds.0"),
    ({"amount": "1", "thresholds": [50, True]}, "thresholds.1"),
    ({"amount": "1", "hard_cap": "yes"}, "hard_cap"),
    ({"amount": "1", "hardcap": True}, "hardcap"),
]


@pytest.mark.sqlite
async def test_what_is_wrong_with_a_wish_is_named(tmp_path: Path):
    async with gateway_parts(tmp_path) as parts, parts.client() as operator:
        await parts.add_tenant("acme")
        for body, field in WRONG:
            assert refusal(await operator.put(PATH, json=body)) == (400, "invalid_request", field), body
        assert refusal(await operator.put("/api/v1/budget?tenant=absent", json={"amount": "1"}))[0] == 404
        assert refusal(await operator.get("/api/v1/budget")) == (400, "invalid_request", "tenant")
        assert refusal(await operator.get(PATH)) == (404, "no_budget", None)


async def test_capped_calls_are_refused_before_anything_is_done_and_metered_as_throttled(tmp_path: Path):
    async with predict_path(tmp_path) as path:
        directory = path.parts.directory
        directory.put_cap("acme", Cap(datetime(2999, 1, 1, tzinfo=UTC), Decimal("10.00"), Decimal("10.02"), "USD"))
        heard = await path.call()
        assert heard.refusal == (429, "budget_exhausted")
        assert heard.header("retry-after") == "3600"
        document = heard.json()
        assert (document["limit"], document["used"]) == (10.0, 10.02)
        assert "10.00 USD" in document["error"]
        assert path.engine.seen == []
        assert (await path.call(method="GET", path="/t/acme/v2/models/iris", pieces=())).status == 200
        directory.put_cap("acme", Cap(datetime.now(UTC), Decimal("10.00"), Decimal("10.02"), "USD"))
        assert (await path.call()).status == 200, "its month is over"
        directory.put_cap("acme", None)
        directory.put_cap("rival", Cap(datetime(2999, 1, 1, tzinfo=UTC), Decimal(1), Decimal(1), "USD"))
        assert (await path.call()).status == 200
        assert path.outcomes() == [("throttled", 429), ("ok", 200), ("ok", 200)]


async def test_a_cap_by_real_calls_at_one_gateway_is_in_force_at_the_other(tmp_path: Path, on_postgres: str):
    """The calls are metered, shipped and rated by the price book; the second gateway never looks."""

    async def long_run(request: UpstreamRequest) -> UpstreamResponse:
        return json_response({"outputs": []}, compute_us=1000 * 10**6)  # 0.042 USD

    async with AsyncExitStack() as stack:
        made = []
        for name in ("one", "other"):
            engine = LeasingEngine()
            engine.answer = long_run
            each = await stack.enter_async_context(gateway(tmp_path / name, on_postgres, engine=engine))
            each.parts.clock.now = datetime.now(UTC)
            made.append(each.parts)
        one, other = made
        secret = await one.add_tenant("acme")
        await one.serve()
        await until(lambda: other.directory.route("acme", "iris") is not None and other.directory.tenants() != [])
        here = await stack.enter_async_context(predicting(one, secret))
        there = await stack.enter_async_context(predicting(other, secret))
        budgets = one.budgets()
        await budgets.put(a_budget("0.10", hard_cap=True))
        for path in (here, there, here):
            await budgets.look()
            assert one.directory.caps == {}
            assert (await path.client()).status == 200
            await path.shipper.drain()
        await budgets.look()
        assert one.directory.caps["acme"].used == Decimal("0.13")
        await until(lambda: other.directory.caps == one.directory.caps)
        for path in (here, there):
            assert (await path.client()).refusal == (429, "budget_exhausted")
        await other.budgets().put(a_budget("5.00", hard_cap=True))
        assert (await there.client()).status == 200, "raised here, it holds here at once"
        await until(lambda: one.directory.caps == {})
        assert (await here.client()).status == 200


async def test_what_a_correction_takes_back_is_no_longer_spent(parts: Parts):
    """By the ledger, its corrections and the price book: 0.042 USD for 1,000 s of compute."""
    budgets = parts.budgets()
    await budgets.put(a_budget("0.10", hard_cap=True))
    await parts.database.write(record, [call(n, compute_us=1000 * 10**6) for n in range(3)])
    await budgets.look()
    assert parts.directory.caps["acme"].used == Decimal("0.13")
    taken_back = correction(corrects=("run", 1), requests=-1, rows=-1, compute_us=-1000 * 10**6)
    async with client_of(parts, budgets) as operator:
        headers = {"Content-Type": "application/cloudevents+json"}
        answer = await operator.post("/api/v1/usage/corrections", json=taken_back, headers=headers)
        assert answer.status_code == 201
        await budgets.look()
        assert (await operator.get(PATH)).json()["spent"] == "0.08"
    assert parts.directory.caps == {}


async def test_a_gateway_that_missed_a_cap_learns_of_it(tmp_path: Path, on_postgres: str, money: Money):
    money.spent = {"acme 2026-11": "10.00"}
    (tmp_path / "one").mkdir()
    async with gateway(tmp_path / "one", on_postgres) as first:
        await first.parts.add_tenant("acme")
        async with gateway(tmp_path / "two", on_postgres, poll_s=60) as second:
            await until(lambda: second.parts.directory.tenant("acme") is not None)
            second.following.cancel()  # cut off
            await asyncio.gather(second.following, return_exceptions=True)
            await first.parts.budgets(spent=money).put(a_budget("10.00", hard_cap=True))
            assert await second.parts.tenants.outdated() == {"acme"}
            await second.parts.tenants.reload("acme")
            assert second.parts.directory.caps == first.parts.directory.caps != {}
