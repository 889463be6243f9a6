"""Budgets as decisions: what is due, when a cap holds, and how far it can be overshot. Time and sums are parameters."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_parts import Parts, gateway_parts
from roost_gateway.predict.admission import require_budget
from roost_platform.billing.budgets import Alert, Budget, Cap, pause_before
from roost_platform.billing.months import Month, month_of, parse_month
from roost_platform.domain.errors import InvalidRequest, Throttled

NOVEMBER = parse_month("2026-11")
amounts = st.decimals(min_value="0.01", max_value="999999999999", places=2)
sums = st.decimals(min_value="-1000", max_value="999999999999", places=2)
thresholds = st.sets(st.integers(1, 1000), max_size=20).map(lambda found: tuple(sorted(found)))


def budget(amount: str | Decimal = "10.00", *percents: int, hard_cap: bool = False, currency: str = "USD") -> Budget:
    return Budget(
        tenant="acme",
        amount=Decimal(amount),
        currency=currency,
        thresholds=percents or (50, 80, 100),
        hard_cap=hard_cap,
        changed_at=NOVEMBER.start,
    )


def test_an_alert_is_due_from_the_cent_that_reaches_its_threshold():
    ten = budget("10.00")
    assert ten.due(Decimal("4.99"), ()) == ()
    assert ten.due(Decimal("5.00"), ()) == (50,)
    assert ten.due(Decimal("9.99"), (50,)) == (80,)
    assert ten.due(Decimal("10.00"), ()) == (50, 80, 100), "all that were passed at once"
    assert ten.due(Decimal(10**9), (50, 80, 100)) == ()


@given(amount=amounts, percents=thresholds, spendings=st.lists(sums, max_size=20))
def test_however_spending_goes_each_threshold_is_told_of_once_and_only_when_reached(amount, percents, spendings):
    made, told = budget(amount, *percents), []
    for spent in spendings:
        told += made.due(spent, told)
    assert sorted(told) == sorted(set(told))
    most = max(spendings, default=Decimal(0))
    assert set(told) == {percent for percent in made.thresholds if most * 100 >= amount * percent}


def test_a_hard_cap_holds_from_the_whole_amount_on_and_no_other_budget_refuses_anything():
    assert not budget("10.00", hard_cap=True).exhausted(Decimal("9.99"))
    assert budget("10.00", hard_cap=True).exhausted(Decimal("10.00"))
    assert not budget("10.00").exhausted(Decimal("1000.00"))


def test_the_ratio_is_rounded_down_so_that_one_is_shown_when_it_is_reached():
    assert budget("3.00").ratio(Decimal("1.00")) == Decimal("0.3333")
    assert budget("1000000.00").ratio(Decimal("999999.99")) == Decimal("0.9999")
    assert str(budget("3.00").ratio(Decimal("6.00"))) == "2.0000"


def test_the_forecast_is_a_straight_line_and_none_on_the_first_day():
    def at(*moment: int) -> Decimal | None:
        return budget().forecast(Decimal("7.00"), NOVEMBER, datetime(*moment, tzinfo=UTC))  # type: ignore[misc,arg-type]

    assert at(2026, 11, 1, 23, 59, 59) is None
    assert at(2026, 11, 2) == Decimal("210.00")
    assert at(2026, 11, 16) == Decimal("14.00")
    assert at(2026, 12, 5) == Decimal("7.00"), "a month that is over costs what it cost"
    assert budget(currency="JPY", amount="10").forecast(Decimal(7), NOVEMBER, datetime(2026, 11, 4, tzinfo=UTC)) == 70


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"amount": "0"}, "amount"),
        ({"amount": "-1"}, "amount"),
        ({"amount": "1.001"}, "amount"),
        ({"amount": "1.5", "currency": "JPY"}, "amount"),
        ({"amount": "1000000000000"}, "amount"),
        ({"amount": "NaN"}, "amount"),
        ({"amount": "Infinity"}, "amount"),
        ({"percents": (80, 50)}, "thresholds"),
        ({"percents": (50, 50)}, "thresholds"),
        ({"percents": (0, 50)}, "thresholds"),
        ({"percents": (1001,)}, "thresholds"),
        ({"percents": tuple(range(1, 22))}, "thresholds"),
    ],
)
def test_a_budget_that_cannot_be_one_is_refused_by_field(changes, field):
    with pytest.raises(InvalidRequest) as refused:
        budget(changes.get("amount", "10.00"), *changes.get("percents", ()), currency=changes.get("currency", "USD"))
    assert refused.value.field == field


def test_a_cap_refuses_until_the_months_end_and_not_after():
    cap = Cap(NOVEMBER.end, Decimal("10.00"), Decimal("10.02"), "USD")
    with pytest.raises(Throttled) as refused:
        require_budget(cap, datetime(2026, 11, 20, tzinfo=UTC))
    error = refused.value
    assert (error.code, error.limit, error.used) == ("budget_exhausted", 10.0, 10.02)
    assert (error.reset_s, error.retry_after_s) == (11 * 86400, 3600), (
        "it may be raised: a client looks again each hour"
    )
    assert "10.00 USD" in error.message
    with pytest.raises(Throttled) as refused:
        require_budget(cap, NOVEMBER.end - timedelta(milliseconds=1))
    assert refused.value.retry_after_s == pytest.approx(0.001)
    require_budget(cap, NOVEMBER.end)


def test_an_alert_that_is_not_taken_is_sent_again_later_and_later_up_to_an_hour():
    pauses = [pause_before(tries).total_seconds() for tries in range(1, 20)]
    assert pauses[:4] == [1, 2, 4, 8]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 3600


def test_an_alert_is_named_by_what_it_is_about():
    alert = Alert("acme", "2026-11", 80, Decimal("10.00"), "USD", Decimal("8.01"), NOVEMBER.start)
    assert alert.id == "acme/2026-11/10.00/80"


class Simulation:
    """Calls that cost 1.00 each come evenly; `clock` moves only here, and calls come as it does."""

    def __init__(self, parts: Parts, *, every_ms: int, phase_ms: int, shipped_ms: int, rated_ms: int, spread_ms: int):
        self.parts = parts
        self.every_ms, self.shipped_ms, self.rated_ms, self.spread_ms = every_ms, shipped_ms, rated_ms, spread_ms
        self.now_ms = 0
        self.next_ms = phase_ms
        self.accepted: list[int] = []
        self.heard_ms: int | None = None

    def move(self, ms: int) -> None:
        end = self.now_ms + ms
        while self.next_ms < end:
            self.now_ms = self.next_ms
            self.next_ms += self.every_ms
            self._call()
        self.now_ms = end
        self.parts.clock.now = NOVEMBER.start + timedelta(days=2, milliseconds=end)

    def _call(self) -> None:
        """At a gateway that hears of the cap last."""
        if self.heard_ms is not None and self.now_ms >= self.heard_ms:
            with pytest.raises(Throttled):
                require_budget(self.parts.directory.caps["acme"], self.parts.clock.now)
        else:
            self.accepted.append(self.now_ms)

    async def spent(self, tenant: str, month: Month) -> Decimal:
        in_ledger = [at for at in self.accepted if at + self.shipped_ms <= self.now_ms]
        self.move(self.rated_ms)
        return Decimal(len(in_ledger)).quantize(Decimal("0.01"))


@pytest.mark.sqlite
@pytest.mark.parametrize(("every_ms", "rated_ms"), [(90, 0), (90, 700), (1300, 250), (7, 30)])
async def test_a_cap_is_overshot_by_no_more_than_is_spent_until_it_is_known_rated_and_told(
    tmp_path: Path, every_ms: int, rated_ms: int
):
    """The stated bound: shipping + the interval + twice the rating (a look just missed it) + the spread."""
    interval_ms, shipped_ms, spread_ms = 2000, 1000, 1000
    bound_ms = shipped_ms + interval_ms + 2 * rated_ms + spread_ms
    overshoots = []
    async with gateway_parts(tmp_path) as parts:
        await parts.add_tenant("acme")
        for phase_ms in range(0, interval_ms, 230):
            simulated = Simulation(
                parts,
                every_ms=every_ms,
                phase_ms=phase_ms,
                shipped_ms=shipped_ms,
                rated_ms=rated_ms,
                spread_ms=spread_ms,
            )
            budgets = parts.budgets(spent=simulated.spent)
            simulated.move(1)
            await budgets.put(budget("20.00", hard_cap=True))
            while "acme" not in parts.directory.caps:
                simulated.move(interval_ms)
                await budgets.look()
            simulated.heard_ms = simulated.now_ms + spread_ms
            simulated.move(spread_ms + 3 * every_ms)
            used_up_ms = simulated.accepted[19]
            overshoot = len(simulated.accepted) - 20
            assert simulated.accepted[-1] <= used_up_ms + bound_ms
            overshoots.append(overshoot)
            await budgets.remove("acme")
    assert max(overshoots) > 0, "the bound would hold of anything else"


def test_the_month_of_a_moment_is_half_open():
    assert str(month_of(NOVEMBER.end)) == "2026-12"
    assert str(month_of(NOVEMBER.end - timedelta(microseconds=1))) == "2026-11"
