"""The decider: every tick of the reference scenarios, the worked examples, and what must hold for any load."""

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost_platform.autoscaling.decider import Decider, DeciderSpec, Decision
from roost_platform.autoscaling.stats import FIRST_REQUEST, Stat
from roost_platform.autoscaling.windows import Aggregation
from roost_platform.domain.scaling import Metric

VECTORS = Path(__file__).parent / "data" / "kpa_decisions.jsonl.gz"
SPEC = DeciderSpec(
    metric=Metric.CONCURRENCY,
    target=70,
    total=100,
    target_burst_capacity=211,
    panic_threshold=2,
    max_scale_up_rate=1000,
    max_scale_down_rate=2,
    stable_window_s=60,
    panic_window_s=6,
)


def load(value: float) -> Stat:
    return Stat(concurrency=value, requests=value)


@pytest.fixture(scope="module")
def scenarios() -> list[dict[str, Any]]:
    with gzip.open(VECTORS, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_there_are_120_scenarios(scenarios):
    assert len(scenarios) == 120


@pytest.mark.parametrize("number", range(120))
def test_every_tick_of_the_reference_is_reproduced(scenarios, number):
    scenario = scenarios[number]
    options = scenario["spec"]
    spec = DeciderSpec(
        **{**options, "metric": Metric(options["metric"]), "aggregation": Aggregation(options["aggregation"])}
    )
    decider = Decider(spec, ready_at_start=scenario["ticks"][0][1], now=scenario["ticks"][0][0])
    records = iter(scenario["records"])
    record = next(records, None)
    for second, ready, stable, panic, desired, excess in scenario["ticks"]:
        while record is not None and record[0] <= second:
            decider.record(record[1], load(record[2]))
            record = next(records, None)
        decision = decider.tick(second, ready)
        assert (decision.desired, decision.excess_burst_capacity) == (desired, excess), f"at {second} s"
        assert (decision.stable, decision.panic) == pytest.approx((stable, panic), abs=1e-6), f"at {second} s"


def test_the_first_request_with_one_at_a_time_starts_two_replicas_in_panic():
    decider = Decider(replace(SPEC, target=0.7, total=1), ready_at_start=0, now=0)
    decider.record(0.2, FIRST_REQUEST)
    assert decider.tick(0.2, ready=0) == Decision(2, -212, 1, 1, panicking=True)
    assert decider.tick(60, ready=2).desired == 2


def test_the_first_request_without_a_limit_starts_one_replica_calmly():
    decider = Decider(SPEC, ready_at_start=0, now=0)
    decider.record(0, FIRST_REQUEST)
    decision = decider.tick(0, ready=0)
    assert decision.desired == 1
    assert not decision.panicking


def after_a_burst() -> Decider:
    """57 s of 10 in flight, then 3 s of 300; the next tick is due at 59 s."""
    decider = Decider(SPEC, ready_at_start=1, now=0)
    for second in range(60):
        decider.record(second, load(10 if second < 57 else 300))
    return decider


def test_a_burst_shows_in_the_panic_window_first():
    assert after_a_burst().tick(59, ready=1) == Decision(3, -266, 24.5, 155, panicking=True)


def test_panic_ends_only_after_more_than_a_stable_window():
    decider = after_a_burst()
    decider.tick(59, ready=1)
    for second in range(60, 122):
        decider.record(second, load(10))
        if second == 119:
            assert decider.tick(second, ready=3).desired == 3
    assert decider.tick(121, ready=3) == Decision(1, 79, 10, 10, panicking=False)


def test_replicas_halve_with_each_tick():
    decider = Decider(SPEC, ready_at_start=1, now=0)
    decider.record(0, load(70))
    assert [decider.tick(0, ready=ready).desired for ready in (10, 5, 2)] == [5, 2, 1]
    decider.record(60, load(0))
    assert decider.tick(60, ready=1).desired == 0


def test_requests_per_second_are_counted_when_they_are_the_metric():
    decider = Decider(replace(SPEC, metric=Metric.RPS, target=140, total=200), ready_at_start=1, now=0)
    decider.record(0, Stat(concurrency=0, requests=1000))
    assert decider.tick(0, ready=3) == Decision(8, -611, 1000, 1000, panicking=True)


def test_a_slow_rate_up_still_adds_a_replica():
    spec = replace(SPEC, target=1, max_scale_up_rate=1.1)
    decider = Decider(spec, ready_at_start=0, now=0)
    decider.record(0, load(3))
    assert decider.tick(0, ready=2).desired == 3


@pytest.mark.parametrize(("reachable", "desired"), [(True, 90), (False, 1)])
def test_a_revision_without_traffic_may_fall_at_any_rate(reachable, desired):
    spec = replace(SPEC, target=10, max_scale_down_rate=1.1, reachable=reachable)
    decider = Decider(spec, ready_at_start=0, now=0)
    decider.record(0, load(1))
    assert decider.tick(0, ready=100).desired == desired


def test_a_ten_second_burst_is_followed_and_held():
    """10 at a time (target 7): 7 in flight, ten times that from 10 s to 20 s; replicas are ready by the next tick."""
    decider = Decider(replace(SPEC, target=7, total=10), ready_at_start=1, now=0)
    ready, seen = 1, {}
    for second in range(80):
        decider.record(second, load(70 if 10 <= second < 20 else 7))
        if second % 2:
            decision = decider.tick(second, ready)
            seen[second] = (ready, decision)
            ready = decision.desired
    assert seen[9] == (1, Decision(1, -208, 7, 7, panicking=False))
    assert seen[11] == (1, Decision(4, -229, 17.5, 28, panicking=True))
    assert seen[13] == (4, Decision(7, -220, 25, 49, panicking=True))
    assert seen[15] == (7, Decision(10, -211, 30.625, 70, panicking=True))
    assert seen[21] == (10, Decision(10, -160, 35.636364, 49, panicking=True))
    assert seen[71] == (10, Decision(10, -118, 15.4, 7, panicking=True))
    assert seen[73] == (10, Decision(5, -118, 13.3, 7, panicking=False))
    assert [(seen[t][0], seen[t][1].desired, seen[t][1].excess_burst_capacity) for t in (75, 77, 79)] == [
        (5, 2, -168),
        (2, 2, -198),
        (2, 1, -198),
    ]


def test_a_new_decider_keeps_the_replicas_that_are_there_until_it_knows_their_load():
    decider = Decider(SPEC, ready_at_start=5, now=0)
    assert decider.tick(2, ready=5) == Decision(5, 289, 0, 0, panicking=True)
    assert decider.tick(60, ready=5).desired == 5
    assert decider.tick(62, ready=5).desired == 2


def test_the_activation_scale_counts_only_while_there_is_load():
    decider = Decider(replace(SPEC, activation_scale=4), ready_at_start=0, now=0)
    assert decider.tick(0, ready=0).desired == 0
    decider.record(2, load(1))
    assert decider.tick(2, ready=0).desired == 4
    assert decider.tick(62, ready=1).desired == 0


def test_a_lower_wish_must_last_for_the_scale_down_delay():
    decider = Decider(replace(SPEC, target=1, panic_threshold=10, scale_down_delay_s=10), ready_at_start=0, now=0)
    decider.record(0, load(4))
    assert decider.tick(0, ready=1).desired == 4
    decider.record(60, load(0))
    assert [decider.tick(t, ready=1).desired for t in (2, 8, 10, 60)] == [4, 4, 0, 0]


def test_the_delay_does_not_hold_a_revision_without_traffic():
    spec = replace(SPEC, target=1, panic_threshold=10, scale_down_delay_s=60)
    decider = Decider(spec, ready_at_start=0, now=0)
    decider.record(0, load(4))
    assert decider.tick(0, ready=4).desired == 4
    decider.update(replace(spec, reachable=False))
    assert decider.tick(60, ready=4).desired == 0


@pytest.mark.parametrize(("burst", "excess"), [(0, 0), (-1, -1), (10, 40)])
def test_the_burst_capacity_tells_whether_the_gateway_must_buffer(burst, excess):
    decider = Decider(replace(SPEC, target_burst_capacity=burst), ready_at_start=0, now=0)
    decider.record(0, load(50))
    assert decider.tick(0, ready=1).excess_burst_capacity == excess


def test_an_update_keeps_the_load_and_the_panic():
    decider = after_a_burst()
    decider.tick(59, ready=1)
    decider.update(replace(SPEC, target=7, stable_window_s=30, panic_window_s=3))
    decision = decider.tick(59, ready=3)
    assert (decision.stable, decision.panic, decision.panicking) == (39, 300, True)
    assert decision.desired == 43


def test_an_update_of_the_metric_finds_it_measured_already():
    decider = Decider(SPEC, ready_at_start=1, now=0)
    decider.record(0, Stat(concurrency=1, requests=700))
    assert decider.tick(0, ready=1).desired == 1
    decider.update(replace(SPEC, metric=Metric.RPS, target=140, total=200))
    assert decider.tick(0, ready=1).desired == 5


LOADS = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 400), st.integers(0, 20)), min_size=1, max_size=60
)  # load, what another decider sees on top, ready replicas


@given(
    LOADS, st.sampled_from([Metric.CONCURRENCY, Metric.RPS]), st.integers(0, 5), st.sampled_from([0, 6]), st.booleans()
)
def test_more_load_never_asks_for_fewer_replicas(loads, metric, activation_scale, delay, reachable):
    spec = replace(
        SPEC,
        metric=metric,
        target=7,
        stable_window_s=12,
        panic_window_s=2,
        activation_scale=activation_scale,
        scale_down_delay_s=delay,
        reachable=reachable,
    )
    less, more = Decider(spec, ready_at_start=0, now=0), Decider(spec, ready_at_start=0, now=0)
    for second, (base, extra, ready) in enumerate(loads):
        less.record(second, load(base))
        more.record(second, load(base + extra))
        if second % 2:
            assert less.tick(second, ready).desired <= more.tick(second, ready).desired


@given(LOADS, st.floats(1.1, 10), st.floats(1.1, 10))
def test_a_tick_stays_within_the_rates_unless_it_panics(loads, up, down):
    spec = replace(SPEC, target=7, stable_window_s=12, panic_window_s=2, max_scale_up_rate=up, max_scale_down_rate=down)
    decider = Decider(spec, ready_at_start=0, now=0)
    for second, (value, _, ready) in enumerate(loads):
        decider.record(second, load(value))
        decision = decider.tick(second, ready)
        base = max(1, ready)
        assert decision.desired >= int(base / down)
        if not decision.panicking:
            assert decision.desired <= base * up + 1
