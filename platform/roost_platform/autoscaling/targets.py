"""From a scaling policy to what the decider and the scaler go by; the defaults are Knative's, with their units."""

import math

from roost_platform.autoscaling.decider import DeciderSpec
from roost_platform.autoscaling.scaler import ScalerSpec
from roost_platform.domain.scaling import Metric, ScalingPolicy

DEFAULT_CONCURRENCY = 100.0
"""Requests in flight per replica, when neither a target nor a container concurrency is given."""
DEFAULT_RPS = 200.0
"""Requests per second per replica, when no target is given."""
LEAST_TARGET = 0.01
"""Load per replica; keeps the number of replicas finite."""
MAX_SCALE_UP_RATE = 1000.0
"""Most replicas after one tick, as a multiple of those ready."""
MAX_SCALE_DOWN_RATE = 2.0
"""Replicas ready over the fewest after one tick."""
TARGET_BURST_CAPACITY = -1.0
"""The gateway is always in the path: it sees every request, and buffers when it must."""
SCALE_TO_ZERO_GRACE_S = 30.0
"""Seconds, for the gateway to take over the path before the last replica goes."""
PROGRESS_DEADLINE_S = 600.0
"""Seconds that a revision may take to become ready."""
ACTIVATION_BUFFER_S = 30.0
"""Seconds on top, so that whoever watches the start can tell first why it failed."""


def metric_target(policy: ScalingPolicy) -> tuple[float, float]:
    """The load per replica to aim for, and the load that one can carry, both in the unit of the policy's metric."""
    if policy.metric is Metric.RPS:
        total = policy.target or DEFAULT_RPS
    else:
        total = policy.target or policy.container_concurrency or DEFAULT_CONCURRENCY
        if policy.container_concurrency:
            # A replica never holds more than it may handle, so aiming higher would never add one.
            total = min(total, policy.container_concurrency)
    return max(LEAST_TARGET, total * policy.target_utilization_percentage / 100), total


def panic_window_s(policy: ScalingPolicy) -> int:
    """The panic window in whole seconds: halves go up, and it is at least one."""
    return max(1, math.floor(policy.window_s * policy.panic_window_percentage / 100 + 0.5))


def decider_spec(policy: ScalingPolicy, *, reachable: bool) -> DeciderSpec:
    target, total = metric_target(policy)
    return DeciderSpec(
        metric=policy.metric,
        target=target,
        total=total,
        target_burst_capacity=TARGET_BURST_CAPACITY,
        panic_threshold=policy.panic_threshold_percentage / 100,
        max_scale_up_rate=MAX_SCALE_UP_RATE,
        max_scale_down_rate=MAX_SCALE_DOWN_RATE,
        stable_window_s=policy.window_s,
        panic_window_s=panic_window_s(policy),
        reachable=reachable,
        activation_scale=policy.activation_scale,
        scale_down_delay_s=policy.scale_down_delay_s,
    )


def scaler_spec(policy: ScalingPolicy, *, reachable: bool) -> ScalerSpec:
    """An initial scale over the max-scale counts as the max-scale: it could never be reached."""
    initial = min(policy.initial_scale, policy.max_scale) if policy.max_scale else policy.initial_scale
    return ScalerSpec(
        min_scale=policy.min_scale,
        max_scale=policy.max_scale,
        initial_scale=initial,
        stable_window_s=policy.window_s,
        retention_s=policy.scale_to_zero_pod_retention_period_s,
        grace_s=SCALE_TO_ZERO_GRACE_S,
        activation_timeout_s=PROGRESS_DEADLINE_S + ACTIVATION_BUFFER_S,
        reachable=reachable,
    )
