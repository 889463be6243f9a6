"""From what one replica holds to N, policies, their simulation, and what it costs."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost_gateway.planning.choice import make_plan
from roost_gateway.planning.costs import cost
from roost_gateway.planning.sizing import AS_IT_IS, Capacity, candidates, limit, replicas_needed
from roost_platform.autoscaling.replicas import ReplicaModel
from roost_platform.autoscaling.simulate import Simulation, simulate
from roost_platform.autoscaling.targets import metric_target
from roost_platform.domain.errors import InvalidRequest
from roost_platform.domain.scaling import Metric, ScalingPolicy

ONE = Capacity(holds_rps=100, in_flight=0.8, service_s=0.006, most_rps=150, start_s=0.5)


def price(sku: str, unit_price: str, per: int, variant: str = "", tier: int = 0) -> dict:
    return {"sku": sku, "class": variant, "unit_price": unit_price, "per": per, "tier": tier}


PRICES = {
    "currency": "USD",
    "cold_start": "load",
    "prices": [
        price("requests", "0.20", 1_000_000),
        price("compute_seconds", "0.00004", 1_000_000),
        price("idle_seconds", "0.001", 1_000_000, "*"),
        price("reserved_seconds", "0.002", 1_000_000, "cpu-1"),
        price("reserved_seconds", "0.009", 1_000_000, "*"),
    ],
}


@pytest.mark.parametrize(
    ("target", "holds", "replicas"),
    [(100, 100, 2), (200, 100, 3), (500, 100, 6), (501, 100, 8), (600, 100, 8), (10, 1000, 2), (0.3, 0.1, 4)],
)
def test_n_is_the_load_and_a_fifth_of_it_each_rounded_up(target: float, holds: float, replicas: int):
    assert replicas_needed(target, holds) == replicas


def test_more_in_flight_than_rate_times_aim_cannot_be_answered_in_time():
    assert [limit(100, 0.1), limit(0.5, 0.1), limit(1e6, 1)] == [10, 1, 1000]


@given(st.floats(1, 800), st.floats(1, 500))
def test_each_policy_has_n_replicas_at_the_target(target_rps: float, holds_rps: float):
    """By the autoscaler's own arithmetic: what the load is over the aim per replica, rounded up."""
    one = replace(ONE, holds_rps=holds_rps, in_flight=holds_rps * 0.006 * 1.2)
    needed = replicas_needed(target_rps, holds_rps)
    for candidate in candidates(target_rps, 0.1, one, ScalingPolicy())[1:]:
        aim, _ = metric_target(candidate.policy)
        load = target_rps if candidate.policy.metric is Metric.RPS else target_rps * one.service_s
        assert candidate.policy.max_scale == needed
        if needed <= 30:  # beyond, a tenth of a percent is more than half a replica
            assert needed - 0.75 <= load / aim <= needed, candidate


def test_the_policy_as_it_is_stays_what_else_it_was():
    current = ScalingPolicy(timeout_s=7, container_concurrency=3, scale_down_delay_s=30, min_scale=2)
    found = candidates(250, 0.1, ONE, current)
    assert (found[0].name, found[0].policy) == (AS_IT_IS, current)
    assert {each.policy.timeout_s for each in found} == {7}
    assert {each.policy.container_concurrency for each in found} == {3}
    assert {each.policy.min_scale for each in found[1:]} == {0, 1, 4}


def test_more_replicas_than_a_model_can_have_are_no_plan():
    with pytest.raises(InvalidRequest, match="max-scale"):
        candidates(100_000, 0.1, ONE, ScalingPolicy())


def test_a_cost_is_that_of_its_parts():
    made = simulate([100.0] * 100, policy=ScalingPolicy(min_scale=2, max_scale=2), replica=ReplicaModel(0.005))
    expected = (
        Decimal("0.20") * 10_000 / 1_000_000
        + Decimal("0.00004") * 50
        + Decimal("0.002") * Decimal(str(round(made.reserved_s, 6)))
    )
    found = cost(made, PRICES, service_s=0.005, resource_class="cpu-1")
    assert found == pytest.approx(expected, abs=Decimal("0.000001"))
    assert found.as_tuple().exponent == -6
    dearer = cost(made, PRICES, service_s=0.005, resource_class="gpu-1")
    assert dearer - found == pytest.approx(Decimal("0.007") * Decimal(str(made.reserved_s)), abs=Decimal("0.00001"))


def test_of_tiers_the_first_counts_and_setup_only_where_it_is_charged():
    idle = Simulation((), requests=10, setup_s=100, active_s=0, idle_s=0, reserved_s=0, cold_starts=0)
    prices = {
        "currency": "USD",
        "cold_start": "load",
        "prices": [
            price("requests", "1", 1, tier=1),
            price("requests", "9", 1, tier=2),
            price("setup_seconds", "1", 10**6),
        ],
    }
    assert cost(idle, prices, service_s=1, resource_class="cpu-1") == 110
    assert cost(idle, prices | {"cold_start": "platform"}, service_s=1, resource_class="cpu-1") == 10


def test_the_plan_takes_the_cheapest_that_is_hardly_ever_late():
    steady = [250.0] * 600
    plan = make_plan(250, 0.1, ONE, ScalingPolicy(), steady, prices=PRICES, resource_class="cpu-1", together=True)
    assert plan.replicas == 4
    assert plan.chosen.outcome.late_share <= 0.01
    made = [option for option in plan.options if option.outcome.candidate.name != AS_IT_IS]
    assert plan.chosen.cost == min(each.cost for each in made if each.outcome.late_share <= 0.01)
    document = plan.to_json()
    assert document["policy"] == plan.chosen.outcome.candidate.policy.to_json()
    assert document["one_replica"]["at_least"] is False
    assert len(document["candidates"]) == 10
    always = document["candidates"][-1]
    assert (always["late_s"], always["loaded_s"], always["most_replicas"]) == (0, 600, 4)
    assert always["replica_s"] == pytest.approx(4 * 720)


def test_without_one_that_keeps_the_aim_it_takes_the_one_that_comes_nearest():
    """Spikes out of nothing, and replicas that take ten seconds: only what is always there is in time."""
    spikes = ([0.0] * 100 + [250.0] * 20) * 5
    slow = replace(ONE, start_s=10)
    plan = make_plan(250, 0.1, slow, ScalingPolicy(), spikes, prices=PRICES, resource_class="cpu-1", together=True)
    assert plan.chosen.outcome.candidate.name == "always 4"
