"""The scaling policy in force, read from a record, with Knative's defaults where it says nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

GRACE_S = 30.0
"""Knative's scale-to-zero-grace-period."""
_CONCURRENCY = 100.0
_RPS = 200.0


@dataclass(frozen=True, slots=True)
class Policy:
    """What bounds replicas. Loads are in requests in flight, or in requests per second."""

    kpa: bool
    """Whether Knative's own autoscaler decides."""
    rps: bool
    total: float
    """Load that one replica may carry."""
    utilization: float
    """Share of it that is aimed for."""
    min_scale: int
    max_scale: int
    """0 = no bound."""
    activation_scale: int
    window_s: int
    panic_window_s: int
    scale_down_delay_s: int
    retention_s: int

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """From Knative's spelling, as the status API tells it."""

        def number(name: str, default: float) -> float:
            value = options.get(name)
            return default if value is None else float(value)

        rps = options.get("metric") == "rps"
        bound = number("container-concurrency", 0)
        total = number("target", _RPS if rps else bound or _CONCURRENCY)
        if bound and not rps:
            total = min(total, bound)
        window_s = int(number("window", 60))
        # Halves of a second go up, as in Knative.
        panic_window_s = max(1, int(window_s * number("panic-window-percentage", 10) / 100 + 0.5))
        return cls(
            kpa=options.get("class", "kpa") == "kpa",
            rps=rps,
            total=max(total, 0.01),
            utilization=number("target-utilization-percentage", 70) / 100,
            min_scale=int(number("min-scale", 0)),
            max_scale=int(number("max-scale", 0)),
            activation_scale=int(number("activation-scale", 1)),
            window_s=window_s,
            panic_window_s=panic_window_s,
            scale_down_delay_s=int(number("scale-down-delay", 0)),
            retention_s=int(number("scale-to-zero-pod-retention-period", 0)),
        )


def policies(platform: Mapping[str, Any]) -> dict[str, Policy]:
    """By target; of those that the platform told the policy of."""
    return {target: Policy.of(options) for target, options in (platform.get("scaling") or {}).items()}
