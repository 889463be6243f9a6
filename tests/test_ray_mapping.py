"""Scaling policies in Ray Serve's words: what has a meaning there, and what is refused. Needs no Ray."""

from typing import Any

import pytest

from roost_platform.domain.errors import InvalidRequest
from roost_platform.domain.scaling import Autoscaler, Metric, ScalingPolicy
from roost_platform.engines.ray.mapping import autoscaling, check
from roost_platform.engines.ray.settings import RaySettings


def mapped(policy: ScalingPolicy, *, reachable: bool = True, proven: bool = True) -> dict[str, Any]:
    return autoscaling(policy, reachable=reachable, proven=proven, max_replicas=50)


def test_the_defaults_let_a_model_sleep_after_the_window():
    assert mapped(ScalingPolicy()) == {
        "min_replicas": 0,
        "initial_replicas": 0,
        "max_replicas": 50,
        "target_ongoing_requests": 70.0,
        "look_back_period_s": 6.0,
        "metrics_interval_s": 3.0,
        "upscale_delay_s": 0.0,
        "downscale_delay_s": 60.0,
        "downscale_to_zero_delay_s": 60.0,
    }


def test_every_option_that_has_a_meaning_arrives():
    policy = ScalingPolicy(
        min_scale=1,
        max_scale=4,
        initial_scale=2,
        target=30,
        container_concurrency=10,
        target_utilization_percentage=50,
        window_s=20,
        panic_window_percentage=50,
        scale_down_delay_s=30,
        scale_to_zero_pod_retention_period_s=7,
    )
    assert mapped(policy, proven=False) == {
        "min_replicas": 1,
        "initial_replicas": 2,
        "max_replicas": 4,
        "target_ongoing_requests": 5.0,
        "look_back_period_s": 10.0,
        "metrics_interval_s": 5.0,
        "upscale_delay_s": 0.0,
        "downscale_delay_s": 30.0,
        "downscale_to_zero_delay_s": 37.0,
    }


def test_a_revision_without_traffic_is_not_kept_awake_but_a_new_one_is_started_once():
    policy = ScalingPolicy(min_scale=3)
    asleep, new = mapped(policy, reachable=False), mapped(policy, reachable=False, proven=False)
    assert (asleep["min_replicas"], asleep["initial_replicas"]) == (0, 0)
    assert (new["min_replicas"], new["initial_replicas"]) == (0, 1)


@pytest.mark.parametrize(
    ("policy", "option"),
    [
        (ScalingPolicy(autoscaler=Autoscaler.HPA, metric=Metric.CPU, min_scale=1), "class"),
        (ScalingPolicy(metric=Metric.RPS), "metric"),
        (ScalingPolicy(activation_scale=2), "activation-scale"),
        (ScalingPolicy(panic_threshold_percentage=300), "panic-threshold-percentage"),
    ],
)
def test_what_means_nothing_to_ray_is_refused_by_name(policy: ScalingPolicy, option: str):
    with pytest.raises(InvalidRequest) as refused:
        check(policy)
    assert (refused.value.code, refused.value.field) == ("invalid_scaling_policy", option)
    assert option in refused.value.message


def test_what_ray_can_do_is_not_refused():
    check(ScalingPolicy(min_scale=1, max_scale=3, target=4, container_concurrency=8, window_s=6))


@pytest.mark.parametrize(
    "open_setting", [{"http_host": "0.0.0.0"}, {"http_host": "ray.example"}, {"address": "10.0.0.3:6379"}]
)
def test_a_ray_that_strangers_may_reach_is_refused_without_the_flag(open_setting: dict[str, Any]):
    with pytest.raises(InvalidRequest, match="ROOST_RAY_OPEN_NETWORK") as refused:
        RaySettings(artifact_url="http://127.0.0.1:8001", **open_setting)
    assert refused.value.code == "open_network"
    assert RaySettings(artifact_url="http://127.0.0.1:8001", open_network=True, **open_setting).open_network


@pytest.mark.parametrize("address", ["", "127.0.0.1:6379", "localhost:6379", "[::1]:6379"])
def test_a_ray_of_this_machine_needs_no_flag(address: str):
    assert RaySettings(artifact_url="http://127.0.0.1:8001", address=address).address == address
