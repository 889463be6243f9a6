"""The scaling policy of a model: Knative's names, ranges and defaults (autoscaling.knative.dev/*, revision spec)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from typing import Any, Self

from roost_platform.domain.errors import InvalidRequest


class Autoscaler(StrEnum):
    """Which autoscaler decides (`class`): Knative's own, or Kubernetes' HorizontalPodAutoscaler, which never sleeps."""

    KPA = "kpa"
    HPA = "hpa"


class Metric(StrEnum):
    """What the autoscaler counts: requests in flight or per second; under HPA, the share of cores or memory in use."""

    CONCURRENCY = "concurrency"
    RPS = "rps"
    CPU = "cpu"
    MEMORY = "memory"


_METRICS = {
    Autoscaler.KPA: (Metric.CONCURRENCY, Metric.RPS),
    Autoscaler.HPA: (Metric.CPU, Metric.MEMORY),
}


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """How many replicas a model gets, and when. Immutable; `with_changes` makes the next one.

    The JSON and CLI spelling of each field is Knative's: hyphens for underscores, without the unit suffix.
    """

    min_scale: int = 0
    """Fewest replicas; 0 lets the model sleep. Range 0 to 1000."""
    max_scale: int = 0
    """Most replicas; 0 means as many as the machine's budget holds. Range 0 to 1000."""
    initial_scale: int = 1
    """Replicas that a new version must have ready before it takes traffic. Range 1 to 1000."""
    activation_scale: int = 1
    """Replicas to start when waking from zero. Range 1 to 1000."""
    autoscaler: Autoscaler = Autoscaler.KPA
    """Spelt `class`: `kpa`, or `hpa` where the engine stands on Kubernetes; that needs a min-scale of at least 1."""
    metric: Metric = Metric.CONCURRENCY
    """What `target` counts; `cpu` and `memory` go with `hpa`, the others with `kpa`."""
    target: float | None = None
    """Aim per replica; None = 100 in flight (or container-concurrency), or 200 requests/s; of cpu the percent of what is
    requested (80), of memory MiB. At least 0.01."""
    target_utilization_percentage: float = 70.0
    """Share of `target` at which another replica is wanted. Range 1 to 100."""
    container_concurrency: int = 0
    """Most requests one replica handles at a time; 0 = no limit. Range 0 to 1000."""
    window_s: int = 60
    """Stable window in seconds, over which load is averaged. Range 6 to 3600."""
    panic_window_percentage: float = 10.0
    """Panic window as a share of the stable one. Range 1 to 100."""
    panic_threshold_percentage: float = 200.0
    """Load over capacity at which the panic window takes over. Range 110 to 1000."""
    scale_down_delay_s: int = 0
    """Seconds that a lower wish must last before it is followed. Range 0 to 3600."""
    scale_to_zero_pod_retention_period_s: int = 0
    """Least seconds the last replica is kept after the decision for zero. Range 0 to 3600."""
    timeout_s: int = 300
    """Seconds one request may take, waking included. Range 1 to 3600."""

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise InvalidRequest(
                    f"{option_name(name)} must be between {low:g} and {high:g}, got {value:g}",
                    code="invalid_scaling_policy",
                    field=option_name(name),
                )
        if self.max_scale and self.min_scale > self.max_scale:
            raise InvalidRequest(
                f"min-scale ({self.min_scale}) must not exceed max-scale ({self.max_scale})",
                code="invalid_scaling_policy",
                field="min-scale",
            )
        if self.metric not in _METRICS[self.autoscaler]:
            raise InvalidRequest(
                f"with class {self.autoscaler}, metric must be one of {', '.join(_METRICS[self.autoscaler])}",
                code="invalid_scaling_policy",
                field="metric",
            )
        if self.autoscaler is Autoscaler.HPA and not self.min_scale:
            raise InvalidRequest(
                "class hpa cannot sleep: set min-scale to 1 or more", code="invalid_scaling_policy", field="min-scale"
            )

    def with_changes(self, options: Mapping[str, Any]) -> Self:
        """A policy with these options changed; keys in Knative's spelling, values as numbers, text or None (= default).

        Raises InvalidRequest naming the option that is unknown, unreadable or out of range.
        """
        changes: dict[str, Any] = {}
        for option, value in options.items():
            name = _FIELD_OF.get(option)
            if name is None:
                raise InvalidRequest(
                    f"unknown scaling option {option[:64]!r}; known: {', '.join(_FIELD_OF)}",
                    code="invalid_scaling_policy",
                    field=option[:64],
                )
            changes[name] = _DEFAULTS[name] if value is None else _read(name, option, value)
        return replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        return {option_name(name): value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        return cls().with_changes(document)


_RANGES: dict[str, tuple[float, float]] = {
    "min_scale": (0, 1000),
    "max_scale": (0, 1000),
    "initial_scale": (1, 1000),
    "activation_scale": (1, 1000),
    "target": (0.01, 1e9),
    "target_utilization_percentage": (1, 100),
    "container_concurrency": (0, 1000),
    "window_s": (6, 3600),
    "panic_window_percentage": (1, 100),
    "panic_threshold_percentage": (110, 1000),
    "scale_down_delay_s": (0, 3600),
    "scale_to_zero_pod_retention_period_s": (0, 3600),
    "timeout_s": (1, 3600),
}
_WORDS: dict[str, type[StrEnum]] = {"metric": Metric, "autoscaler": Autoscaler}
_DEFAULTS: dict[str, Any] = {f.name: f.default for f in fields(ScalingPolicy)}


def option_name(field_name: str) -> str:
    """The Knative spelling of a field: `window_s` is `window`, `min_scale` is `min-scale`, `autoscaler` is `class`."""
    return "class" if field_name == "autoscaler" else field_name.removesuffix("_s").replace("_", "-")


_FIELD_OF = {option_name(f.name): f.name for f in fields(ScalingPolicy)}
OPTION_NAMES: tuple[str, ...] = tuple(_FIELD_OF)


def _read(name: str, option: str, value: Any) -> Any:
    words = _WORDS.get(name)
    if words is not None:
        if value in list(words):
            return words(value)
        raise InvalidRequest(f"{option} must be one of {', '.join(words)}", code="invalid_scaling_policy", field=option)
    kind = float if name in ("target", "target_utilization_percentage") or name.startswith("panic") else int
    try:
        number = kind(value)
        if isinstance(value, bool) or number != float(value):
            raise ValueError(value)
    except (TypeError, ValueError, OverflowError):
        wanted = "a whole number" if kind is int else "a number"
        raise InvalidRequest(f"{option} must be {wanted}", code="invalid_scaling_policy", field=option) from None
    return number
