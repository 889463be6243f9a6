"""A scaling policy in Ray Serve's words. Pure; docs/engines.md has the table."""

from typing import Any

from roost_platform.domain.errors import InvalidRequest
from roost_platform.domain.scaling import Autoscaler, Metric, ScalingPolicy, option_name

_WITHOUT_MEANING = ("activation_scale", "panic_threshold_percentage")
"""Serve wakes one replica, and looks at one window: Knative's panic window, which rises; the stable one is its patience."""
_DEFAULT_TARGET = 100.0
_LEAST_WINDOW_S = 1.0


def check(policy: ScalingPolicy) -> None:
    """Raises InvalidRequest, naming the option that means nothing here."""
    if policy.autoscaler is not Autoscaler.KPA:
        raise _refused("class must be kpa with Ray Serve: hpa needs Kubernetes", "class")
    if policy.metric is not Metric.CONCURRENCY:
        raise _refused("metric must be concurrency with Ray Serve, which counts requests in flight", "metric")
    default = ScalingPolicy()
    for name in _WITHOUT_MEANING:
        if getattr(policy, name) != getattr(default, name):
            raise _refused(f"{option_name(name)} has no counterpart in Ray Serve: leave it out", option_name(name))


def _refused(message: str, option: str) -> InvalidRequest:
    return InvalidRequest(message, code="invalid_scaling_policy", field=option)


def autoscaling(policy: ScalingPolicy, *, reachable: bool, proven: bool, max_replicas: int) -> dict[str, Any]:
    """Serve's `autoscaling_config`. One that takes no traffic keeps none awake; one that is not proven is started once."""
    least = policy.min_scale if reachable else 0
    most = max(policy.max_scale or max_replicas, 1)
    target = policy.target or policy.container_concurrency or _DEFAULT_TARGET
    if policy.container_concurrency:
        target = min(target, policy.container_concurrency)
    patience_s = float(max(policy.window_s, policy.scale_down_delay_s))
    window_s = policy.window_s * policy.panic_window_percentage / 100
    return {
        "min_replicas": least,
        "initial_replicas": least if proven else min(max(least, policy.initial_scale), most),
        "max_replicas": most,
        "target_ongoing_requests": max(target * policy.target_utilization_percentage / 100, 0.01),
        "look_back_period_s": max(window_s, _LEAST_WINDOW_S),
        "metrics_interval_s": max(window_s, _LEAST_WINDOW_S) / 2,
        "upscale_delay_s": 0.0,
        "downscale_delay_s": patience_s,
        "downscale_to_zero_delay_s": patience_s + policy.scale_to_zero_pod_retention_period_s,
    }
