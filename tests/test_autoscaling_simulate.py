"""The simulator without an engine: its arithmetic, its bounds, and that it is the autoscaler's own rules that decide."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost_platform.autoscaling.replicas import Pool, ReplicaModel
from roost_platform.autoscaling.simulate import Load, Simulation, follow, simulate
from roost_platform.domain.scaling import Autoscaler, Metric, ScalingPolicy

RPS = ScalingPolicy(metric=Metric.RPS, target=100, window_s=6)  # 70 a replica
FAST = ReplicaModel(service_s=0.005)


def wanted(simulation: Simulation, second: int) -> int:
    return simulation.seconds[second].wanted


def test_a_steady_load_gets_what_it_needs_and_then_sleeps():
    made = simulate([0.0] * 3 + [200.0] * 60 + [0.0] * 60, policy=RPS, replica=FAST)
    assert [wanted(made, second) for second in (2, 62, 122)] == [0, 3, 0]
    assert (made.cold_starts, made.requests, made.late_s) == (1, 12_000, 0)


def test_replicas_take_their_time_to_start_and_the_load_waits_for_them():
    slow = ReplicaModel(service_s=0.005, start_s=4.0)
    made = simulate([50.0] * 20, policy=RPS, replica=slow, aim_s=0.1)
    assert [second.ready for second in made.seconds[:6]] == [0, 0, 0, 0, 1, 1]
    assert made.seconds[3].queued == pytest.approx(200, abs=5)
    assert [second.late for second in made.seconds[:8]] == [True] * 6 + [
        False
    ] * 2  # the last two wait behind the others
    assert made.setup_s == pytest.approx(4.0, abs=0.2)


def test_what_is_held_adds_up_and_is_told_apart():
    policy = ScalingPolicy(min_scale=3, max_scale=3)
    made = simulate([100.0] * 50 + [0.0] * 50, policy=policy, replica=ReplicaModel(service_s=0.01))
    assert made.replica_s == pytest.approx(300)
    assert made.active_s == pytest.approx(50, rel=0.05)  # one in flight on average, or a little more
    assert (made.idle_s, made.setup_s, made.cold_starts) == (0, 0, 0)


def test_a_second_is_late_when_its_replicas_were_measured_to_hold_less():
    replica = ReplicaModel(service_s=0.005, holds_rps=60)
    policy = ScalingPolicy(min_scale=2, max_scale=2)
    made = simulate([110.0, 119.0, 121.0, 130.0], policy=policy, replica=replica, aim_s=0.1)
    assert [second.late for second in made.seconds] == [False, False, True, True]


def test_replicas_of_one_machine_share_its_cores():
    shared = ReplicaModel(service_s=0.01, shared_slots=2)
    policy = ScalingPolicy(min_scale=8, max_scale=8)
    assert simulate([150.0] * 10, policy=policy, replica=shared, aim_s=0.1).late_s == 0
    assert simulate([250.0] * 10, policy=policy, replica=shared, aim_s=0.1).late_s > 5


def test_no_more_replicas_than_there_is_room_for():
    made = simulate([1000.0] * 30, policy=RPS, replica=FAST, most=4)
    assert made.most_ready == 4
    assert made.seconds[-1].wanted == 15


def test_single_calls_far_apart_wake_it_once_each_and_are_not_a_trickle():
    made = simulate([0.005] * 1000, policy=RPS, replica=FAST)
    assert made.requests == pytest.approx(5)
    assert made.cold_starts == 4  # the fifth is due when the time is over
    assert made.replica_s < 200


def test_hpa_is_not_ours_to_simulate():
    policy = ScalingPolicy(autoscaler=Autoscaler.HPA, metric=Metric.CPU, min_scale=1)
    with pytest.raises(ValueError, match="only class kpa"):
        simulate([1.0], policy=policy, replica=FAST)


@pytest.mark.parametrize("broken", [{"service_s": 0}, {"service_s": 1, "slots": 0}, {"service_s": 1, "start_s": -1}])
def test_a_replica_that_cannot_be_is_refused(broken: dict):
    with pytest.raises(ValueError, match="a replica needs"):
        ReplicaModel(**broken)


@given(st.floats(0.001, 5), st.lists(st.integers(0, 50), min_size=1, max_size=60), st.integers(0, 20))
def test_what_flows_in_flows_out_or_is_still_there(service_s: float, arrivals: list[int], slots: int):
    """Whether a step is shorter or longer than a service; and never more goes out than the slots can do."""
    pool = Pool(ReplicaModel(service_s=service_s))
    for count in arrivals:
        before = pool.present
        in_flight = pool.flow(count, slots, 0.1)
        gone = before + count - pool.present
        assert -1e-9 <= gone <= slots * 0.1 / service_s + 2e-3
        assert in_flight >= 0
    assert (pool.wait_s(slots) > 0) == (pool.queued(slots) > 0 or slots == 0)


def test_chance_makes_as_many_wait_as_in_a_queue_of_random_arrivals():
    """M/D/1 is known exactly: use^2 / (2 (1-use)). The approximation is meant for many slots, and close for one."""
    model = ReplicaModel(service_s=0.1)
    for use in (0.3, 0.5, 0.7, 0.9):
        assert model.waiting(use, 1) == pytest.approx(use**2 / (2 * (1 - use)), rel=0.01)
    assert model.waiting(8, 10) < model.waiting(0.8, 1)
    assert model.waiting(1, 0) == 0


POLICIES = st.builds(
    ScalingPolicy,
    min_scale=st.integers(0, 2),
    max_scale=st.sampled_from([0, 2, 5]),
    metric=st.sampled_from([Metric.CONCURRENCY, Metric.RPS]),
    container_concurrency=st.sampled_from([0, 1, 10]),
    window_s=st.sampled_from([6, 20]),
    scale_down_delay_s=st.sampled_from([0, 8]),
)


@given(POLICIES, st.lists(st.floats(0, 300), max_size=40), st.floats(0, 10), st.floats(0.002, 3))
def test_whatever_the_load_the_bounds_hold(
    policy: ScalingPolicy, offered: list[float], start_s: float, service_s: float
):
    made = simulate(
        offered, policy=policy, replica=ReplicaModel(service_s=service_s, slots=2, start_s=start_s), aim_s=1
    )
    for second in made.seconds:
        assert second.wanted >= policy.min_scale
        assert not policy.max_scale or second.ready <= policy.max_scale
        assert second.queued >= 0
    assert made.replica_s >= policy.min_scale * (len(offered) - start_s) - 1e-6
    assert min(made.setup_s, made.active_s, made.idle_s, made.reserved_s) >= 0


def test_a_load_that_was_measured_is_followed_second_by_second():
    """In flight as it was seen: no service time is asked for."""
    loads = [Load(0, 0)] * 5 + [Load(100, 5.0)] * 30 + [Load(0, 0)] * 60
    policy = ScalingPolicy(target=2, window_s=6)  # 1.4 a replica
    curve = follow(loads, policy=policy, start_s=3.0)
    assert curve[4] == (0, 0)
    assert curve[6][0] == 4
    assert [ready for _, ready in curve[5:11]] == [0, 0, 0, 1, 4, 4]
    assert curve[34] == (4, 4)
    assert curve[-1] == (0, 0)


def test_a_request_that_lasts_keeps_its_replica():
    loads = [Load(1, 1.0)] + [Load(0, 1.0)] * 100 + [Load(0, 0)] * 60
    curve = follow(loads, policy=ScalingPolicy(window_s=6, metric=Metric.RPS))
    assert all(wanted == 1 for wanted, _ in curve[:101])
    assert curve[-1] == (0, 0)
