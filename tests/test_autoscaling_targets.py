"""From a scaling policy to targets and windows, with Knative's defaults."""

import pytest

from roost_platform.autoscaling.targets import decider_spec, metric_target, panic_window_s, scaler_spec
from roost_platform.domain.scaling import Metric, ScalingPolicy


@pytest.mark.parametrize(
    ("options", "target", "total"),
    [
        ({}, 70, 100),
        ({"container-concurrency": 10}, 7, 10),
        ({"container-concurrency": 1}, 0.7, 1),
        ({"target": 50}, 35, 50),
        ({"target": 50, "container-concurrency": 10}, 7, 10),
        ({"target": 5, "container-concurrency": 10}, 3.5, 5),
        ({"target": 5, "target-utilization-percentage": 100}, 5, 5),
        ({"target": 0.01, "target-utilization-percentage": 1}, 0.01, 0.01),
        ({"metric": "rps"}, 140, 200),
        ({"metric": "rps", "container-concurrency": 10}, 140, 200),
        ({"metric": "rps", "target": 1000, "container-concurrency": 10}, 700, 1000),
    ],
)
def test_the_target_is_a_share_of_what_a_replica_carries(options, target, total):
    assert metric_target(ScalingPolicy.from_json(options)) == pytest.approx((target, total))


@pytest.mark.parametrize(
    ("window", "percentage", "seconds"), [(60, 10, 6), (6, 10, 1), (6, 1, 1), (25, 10, 3), (24, 10, 2), (60, 100, 60)]
)
def test_the_panic_window_is_whole_seconds(window, percentage, seconds):
    assert panic_window_s(ScalingPolicy(window_s=window, panic_window_percentage=percentage)) == seconds


def test_the_decider_gets_knatives_defaults_with_the_gateway_always_in_the_path():
    spec = decider_spec(ScalingPolicy(), reachable=True)
    assert spec.metric is Metric.CONCURRENCY
    assert (spec.max_scale_up_rate, spec.max_scale_down_rate, spec.panic_threshold) == (1000, 2, 2)
    assert (spec.stable_window_s, spec.panic_window_s, spec.scale_down_delay_s) == (60, 6, 0)
    assert spec.target_burst_capacity == -1
    assert spec.reachable
    assert not decider_spec(ScalingPolicy(), reachable=False).reachable


def test_the_decider_gets_what_the_policy_says():
    policy = ScalingPolicy(activation_scale=3, scale_down_delay_s=30, panic_threshold_percentage=300, window_s=120)
    spec = decider_spec(policy, reachable=True)
    assert (spec.activation_scale, spec.scale_down_delay_s, spec.panic_threshold) == (3, 30, 3)
    assert (spec.stable_window_s, spec.panic_window_s) == (120, 12)


def test_the_scaler_gets_bounds_and_delays():
    policy = ScalingPolicy(min_scale=1, max_scale=9, initial_scale=4, scale_to_zero_pod_retention_period_s=90)
    spec = scaler_spec(policy, reachable=True)
    assert (spec.min_scale, spec.max_scale, spec.initial_scale) == (1, 9, 4)
    assert (spec.stable_window_s, spec.retention_s, spec.grace_s, spec.activation_timeout_s) == (60, 90, 30, 630)


def test_an_initial_scale_that_could_never_be_reached_counts_as_the_max_scale():
    assert scaler_spec(ScalingPolicy(max_scale=2, initial_scale=4), reachable=True).initial_scale == 2
