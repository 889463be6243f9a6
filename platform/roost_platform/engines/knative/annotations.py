"""A scaling policy as Knative spells it: annotations of the revision's template, and three fields of its spec.

Everything that a cluster's ConfigMaps could default is said, so that a policy means the same on every cluster, and a
change of those defaults changes no template behind its name's back.
"""

from roost_platform.domain.scaling import Autoscaler, Metric, ScalingPolicy
from roost_platform.engines.knative.features import Features
from roost_platform.engines.knative.quantities import cores, size
from roost_platform.engines.knative.settings import KnativeSettings

_GROUP = "autoscaling.knative.dev/"
_QUEUE = "queue.sidecar.serving.knative.dev/"
_CLASSES = {Autoscaler.KPA: "kpa.autoscaling.knative.dev", Autoscaler.HPA: "hpa.autoscaling.knative.dev"}

_HPA_CPU_PERCENT = 80.0
_HPA_MEMORY_SHARE = 0.8
_DEFAULT_WINDOW_S = ScalingPolicy().window_s
_MIB = 1024**2


def scaling_annotations(
    policy: ScalingPolicy, settings: KnativeSettings, features: Features, *, memory_request_bytes: int
) -> dict[str, str]:
    """`autoscaling.knative.dev/*` of a template. `memory_request_bytes` is what HPA's memory target is a share of."""
    most = _most(policy, features)
    values = {
        "class": _CLASSES[policy.autoscaler],
        "metric": str(policy.metric),
        "min-scale": str(min(policy.min_scale, most) if most else policy.min_scale),
        # More than max-scale would never be reached, and the revision never be ready.
        "initial-scale": str(min(policy.initial_scale, most) if most else policy.initial_scale),
        "target": _number(_target(policy, memory_request_bytes)),
    }
    if most:
        values["max-scale"] = str(most)
    if policy.autoscaler is Autoscaler.KPA:
        values |= _kpa(policy, settings, most)
    elif policy.window_s != _DEFAULT_WINDOW_S:
        # An HPA that is given a window waits as long before it scales up too; its own default is better than Roost's.
        values["window"] = _seconds(policy.window_s)
    return {_GROUP + name: value for name, value in sorted(values.items())}


def _kpa(policy: ScalingPolicy, settings: KnativeSettings, most: int) -> dict[str, str]:
    values = {
        "target-utilization-percentage": _number(policy.target_utilization_percentage),
        "target-burst-capacity": str(settings.target_burst_capacity),
        "window": _seconds(policy.window_s),
        "panic-window-percentage": _number(policy.panic_window_percentage),
        "panic-threshold-percentage": _number(policy.panic_threshold_percentage),
        "scale-down-delay": _seconds(policy.scale_down_delay_s),
        "scale-to-zero-pod-retention-period": _seconds(policy.scale_to_zero_pod_retention_period_s),
    }
    # Knative refuses one below 2, below min-scale (which says the same then) or above max-scale.
    waking = min(policy.activation_scale, most) if most else policy.activation_scale
    if waking >= max(2, policy.min_scale):
        values["activation-scale"] = str(waking)
    return values


def spec_fields(policy: ScalingPolicy, features: Features) -> dict[str, int]:
    """The policy's part of a revision's spec. The time until the first byte is named too: Knative's default of it is
    300 s, whatever timeout is asked for. Idle streams have no limit of their own.
    """
    timeout = min(policy.timeout_s, features.max_timeout_s)
    return {
        "containerConcurrency": container_concurrency(policy, features),
        "timeoutSeconds": timeout,
        "responseStartTimeoutSeconds": timeout,
        "idleTimeoutSeconds": 0,
    }


def container_concurrency(policy: ScalingPolicy, features: Features) -> int:
    """Most requests that a replica is given at once; 0 = no limit."""
    wanted = min(policy.container_concurrency, features.max_container_concurrency)
    return wanted if wanted or features.zero_container_concurrency else features.max_container_concurrency


def serving_annotations(settings: KnativeSettings) -> dict[str, str]:
    """What else a template says to Knative: how long a start may take, and what queue-proxy is given.

    In a namespace with a ResourceQuota every container must name its requests and limits, queue-proxy too. Full duplex
    lets a replica answer before it has read the whole request.
    """
    return {
        "serving.knative.dev/progress-deadline": _seconds(settings.start_timeout_s),
        "features.knative.dev/http-full-duplex": "Enabled",
        _QUEUE + "cpu-resource-request": cores(settings.queue_cpu_request_m),
        _QUEUE + "cpu-resource-limit": cores(settings.queue_cpu_limit_m),
        _QUEUE + "memory-resource-request": size(settings.queue_memory_request_bytes),
        _QUEUE + "memory-resource-limit": size(settings.queue_memory_limit_bytes),
        _QUEUE + "ephemeral-storage-resource-request": size(settings.queue_storage_bytes),
        _QUEUE + "ephemeral-storage-resource-limit": size(settings.queue_storage_bytes),
    }


def _most(policy: ScalingPolicy, features: Features) -> int:
    """Highest scale; 0 = as many as the cluster lets."""
    if not features.max_scale_limit:
        return policy.max_scale
    return min(policy.max_scale or features.max_scale_limit, features.max_scale_limit)


def _target(policy: ScalingPolicy, memory_request_bytes: int) -> float:
    if policy.metric is Metric.MEMORY:
        # Whole MiB: Knative cuts the rest off, and an aim of 0 is no HPA.
        return max(1, int(policy.target or memory_request_bytes * _HPA_MEMORY_SHARE / _MIB))
    if policy.target is not None:
        return policy.target
    if policy.metric is Metric.CPU:
        return _HPA_CPU_PERCENT
    return 200.0 if policy.metric is Metric.RPS else float(policy.container_concurrency or 100)


def _number(value: float) -> str:
    """As Go's ParseFloat reads it, without an exponent or a needless fraction."""
    return format(value, "f").rstrip("0").removesuffix(".")


def _seconds(value: int) -> str:
    return f"{value}s"
