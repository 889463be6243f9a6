"""The scaling policy: ranges, Knative's spelling, and errors that name the option."""

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost_platform.domain.errors import InvalidRequest
from roost_platform.domain.scaling import OPTION_NAMES, Autoscaler, Metric, ScalingPolicy, option_name

RANGES = {
    "min-scale": (0, 1000),
    "max-scale": (0, 1000),
    "initial-scale": (1, 1000),
    "activation-scale": (1, 1000),
    "target": (0.01, 1e9),
    "target-utilization-percentage": (1, 100),
    "container-concurrency": (0, 1000),
    "window": (6, 3600),
    "panic-window-percentage": (1, 100),
    "panic-threshold-percentage": (110, 1000),
    "scale-down-delay": (0, 3600),
    "scale-to-zero-pod-retention-period": (0, 3600),
    "timeout": (1, 3600),
}
POLICIES = st.builds(
    ScalingPolicy,
    min_scale=st.integers(0, 5),
    max_scale=st.sampled_from([0, 5, 1000]),
    initial_scale=st.integers(1, 1000),
    activation_scale=st.integers(1, 1000),
    metric=st.sampled_from([Metric.CONCURRENCY, Metric.RPS]),
    target=st.none() | st.floats(0.01, 1e9),
    target_utilization_percentage=st.floats(1, 100),
    container_concurrency=st.integers(0, 1000),
    window_s=st.integers(6, 3600),
    panic_window_percentage=st.floats(1, 100),
    panic_threshold_percentage=st.floats(110, 1000),
    scale_down_delay_s=st.integers(0, 3600),
    scale_to_zero_pod_retention_period_s=st.integers(0, 3600),
    timeout_s=st.integers(1, 3600),
)


def test_options_are_spelled_as_in_knative():
    assert set(OPTION_NAMES) == {*RANGES, "metric", "class"}
    assert option_name("scale_to_zero_pod_retention_period_s") == "scale-to-zero-pod-retention-period"
    assert len(OPTION_NAMES) == len(fields(ScalingPolicy))


def test_the_defaults_are_knatives():
    assert ScalingPolicy().to_json() == {
        "min-scale": 0,
        "max-scale": 0,
        "initial-scale": 1,
        "activation-scale": 1,
        "class": "kpa",
        "metric": "concurrency",
        "target": None,
        "target-utilization-percentage": 70,
        "container-concurrency": 0,
        "window": 60,
        "panic-window-percentage": 10,
        "panic-threshold-percentage": 200,
        "scale-down-delay": 0,
        "scale-to-zero-pod-retention-period": 0,
        "timeout": 300,
    }


@pytest.mark.parametrize("option", RANGES)
def test_both_ends_of_a_range_are_allowed(option):
    for value in RANGES[option]:
        # Without a max-scale, no min-scale is too large.
        assert ScalingPolicy().with_changes({option: value}).to_json()[option] == value


@pytest.mark.parametrize("option", RANGES)
def test_a_value_out_of_range_is_refused_by_name(option):
    low, high = RANGES[option]
    for value in (low - 1, high + 1, float("inf"), float("-inf"), float("nan")):
        with pytest.raises(InvalidRequest, match=f"^{option} must be ") as caught:
            ScalingPolicy().with_changes({option: value})
        assert (caught.value.field, caught.value.code) == (option, "invalid_scaling_policy")


@pytest.mark.parametrize("option", RANGES)
@pytest.mark.parametrize("value", ["", "many", [1], {}, True, "0x10"])
def test_a_value_that_is_no_number_is_refused_by_name(option, value):
    with pytest.raises(InvalidRequest, match=f"^{option} must be a ") as caught:
        ScalingPolicy().with_changes({option: value})
    assert caught.value.field == option


@pytest.mark.parametrize("value", [1.5, "1.5"])
def test_counts_and_seconds_are_whole(value):
    with pytest.raises(InvalidRequest, match="min-scale must be a whole number"):
        ScalingPolicy().with_changes({"min-scale": value})


def test_numbers_may_come_as_text():
    policy = ScalingPolicy().with_changes({"max-scale": "5", "target": "2.5", "metric": "rps", "window": 30.0})
    assert policy == ScalingPolicy(max_scale=5, target=2.5, metric=Metric.RPS, window_s=30)
    assert isinstance(policy.window_s, int)


def test_an_unknown_option_is_refused_with_the_known_ones():
    with pytest.raises(InvalidRequest, match="unknown scaling option 'min_scale'; known: min-scale") as caught:
        ScalingPolicy().with_changes({"min_scale": 1})
    assert caught.value.field == "min_scale"


def test_an_unknown_option_is_not_echoed_at_length():
    with pytest.raises(InvalidRequest) as caught:
        ScalingPolicy().with_changes({"x" * 10_000: 1})
    assert len(caught.value.message) < 500
    assert caught.value.field == "x" * 64


def test_hpa_goes_with_its_own_metrics_and_never_sleeps():
    policy = ScalingPolicy().with_changes({"class": "hpa", "metric": "cpu", "min-scale": 1, "target": 80})
    assert (policy.autoscaler, policy.metric) == (Autoscaler.HPA, Metric.CPU)
    assert ScalingPolicy.from_json(policy.to_json()) == policy
    for options, field in (
        ({"class": "hpa", "min-scale": 1}, "metric"),
        ({"metric": "memory"}, "metric"),
        ({"class": "hpa", "metric": "cpu"}, "min-scale"),
        ({"class": "keda"}, "class"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            ScalingPolicy().with_changes(options)
        assert (caught.value.field, caught.value.code) == (field, "invalid_scaling_policy")


@pytest.mark.parametrize("value", ["disk", 1, [], {}])
def test_an_unknown_metric_is_refused(value):
    with pytest.raises(InvalidRequest, match="metric must be one of concurrency, rps") as caught:
        ScalingPolicy().with_changes({"metric": value})
    assert caught.value.field == "metric"


def test_a_min_scale_over_the_max_scale_is_refused():
    with pytest.raises(InvalidRequest, match=r"min-scale \(3\) must not exceed max-scale \(2\)") as caught:
        ScalingPolicy(min_scale=3, max_scale=2)
    assert caught.value.field == "min-scale"


def test_bounds_may_be_moved_together():
    assert ScalingPolicy(min_scale=1, max_scale=2).with_changes({"min-scale": 3, "max-scale": 3}).min_scale == 3


def test_none_takes_an_option_back_to_its_default():
    policy = ScalingPolicy(window_s=30, target=5, metric=Metric.RPS)
    assert policy.with_changes({"window": None, "target": None, "metric": None}) == ScalingPolicy()


def test_changes_leave_the_original_and_the_other_options_alone():
    policy = ScalingPolicy(window_s=30)
    assert policy.with_changes({"max-scale": 4}) == ScalingPolicy(window_s=30, max_scale=4)
    assert policy.max_scale == 0


@given(POLICIES)
def test_a_policy_survives_json(policy):
    assert ScalingPolicy.from_json(policy.to_json()) == policy
