"""How many replicas a load calls for: Knative's autoscaler (KPA), decision for decision.

Two windows watch the load. The stable one rules as a rule; when the short one shows more than `panic_threshold` times
what the ready replicas can carry, the larger of both rules, and nothing is scaled down for a stable window.
"""

import math
from dataclasses import dataclass

from roost_platform.autoscaling.stats import Stat
from roost_platform.autoscaling.windows import Aggregation, BucketWindow, MaxWindow
from roost_platform.domain.scaling import Metric

TICK_S = 2
"""Seconds between two decisions; also the step of the scale-down delay."""


@dataclass(frozen=True, slots=True)
class DeciderSpec:
    """What a decision depends on besides the load."""

    metric: Metric
    target: float
    """Load per replica to aim for, in requests in flight or requests per second; over 0."""
    total: float
    """Load that one replica can carry, in the same unit."""
    target_burst_capacity: float
    """Load that must fit on top without buffering; 0 = buffer only at zero replicas, -1 = buffer always."""
    panic_threshold: float
    """Wanted over ready replicas at which panic begins."""
    max_scale_up_rate: float
    """Most replicas after one tick, as a multiple of those ready; over 1."""
    max_scale_down_rate: float
    """Replicas ready over the fewest after one tick; over 1."""
    stable_window_s: int
    panic_window_s: int
    reachable: bool = True
    """False for a revision without traffic: it may fall at any rate and without delay."""
    activation_scale: int = 0
    """Fewest replicas while there is any load; 0 and 1 change nothing."""
    scale_down_delay_s: int = 0
    """Seconds that a lower wish must last before it is followed."""
    aggregation: Aggregation = Aggregation.LINEAR


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome of one tick; `stable` and `panic` are the averages of the two windows."""

    desired: int
    excess_burst_capacity: int
    """Load that would still fit beyond the burst capacity asked for; below 0 the gateway must buffer."""
    stable: float
    panic: float
    panicking: bool


class Decider:
    """Decides for one revision. Times are seconds on one clock that does not run back."""

    def __init__(self, spec: DeciderSpec, *, ready_at_start: int, now: float) -> None:
        """With more than one replica ready at the start it panics at once: the load that they carry is not known yet,
        and they must not be taken away before it is.
        """
        self._spec = spec
        self._windows = {metric: _Windows(spec) for metric in Metric}
        self._delay = MaxWindow(spec.scale_down_delay_s, TICK_S)
        self._panic_since = now if ready_at_start > 1 else None
        self._panic_peak = ready_at_start  # most replicas wanted in this panic

    @property
    def spec(self) -> DeciderSpec:
        return self._spec

    def update(self, spec: DeciderSpec) -> None:
        """Decide by `spec` from the next tick on; what was seen of the load, panic and delay stays."""
        self._delay.resize(spec.scale_down_delay_s)
        self._spec = spec

    def record(self, second: float, stat: Stat) -> None:
        """Add what was measured in a second; several stats of one second are summed."""
        self._windows[Metric.CONCURRENCY].record(second, stat.concurrency)
        self._windows[Metric.RPS].record(second, stat.requests)

    def tick(self, now: float, ready: int) -> Decision:
        """Decide with `ready` replicas; to be called each TICK_S, and at once when a sleeping revision is asked for."""
        spec = self._spec
        for windows in self._windows.values():
            windows.resize(spec, now)
        stable, panic = self._windows[spec.metric].averages(spec.aggregation, now)
        for_stable, for_panic = math.ceil(stable / spec.target), math.ceil(panic / spec.target)

        self._watch_for_panic(for_panic / max(1, ready), now)
        desired = self._limited(for_stable, ready)
        if self._panic_since is not None:
            # A long burst may show more in the stable window than in the short one: provide for the larger.
            self._panic_peak = max(self._panic_peak, desired, self._limited(for_panic, ready))
            desired = self._panic_peak
        # A window of one step is not the same as none: of two decisions within a step it would keep the larger.
        if spec.reachable and spec.scale_down_delay_s > 0:
            desired = self._delay.record(now, desired)
        return Decision(desired, self._excess(ready, panic), stable, panic, self._panic_since is not None)

    def _watch_for_panic(self, overload: float, now: float) -> None:
        if overload >= self._spec.panic_threshold:
            self._panic_since = now
        elif self._panic_since is not None and self._panic_since + self._spec.stable_window_s < now:
            self._panic_since = None
            self._panic_peak = 0

    def _limited(self, wanted: int, ready: int) -> int:
        """`wanted` within the rates of change, then raised to the activation scale if there is any load."""
        spec = self._spec
        base = max(1, ready)
        most = math.ceil(spec.max_scale_up_rate * base)
        fewest = math.floor(base / spec.max_scale_down_rate) if spec.reachable else 0
        limited = min(max(wanted, fewest), most)
        return max(limited, spec.activation_scale) if spec.activation_scale > 1 and wanted > 0 else limited

    def _excess(self, ready: int, panic: float) -> int:
        burst = self._spec.target_burst_capacity
        if burst <= 0:
            return 0 if burst == 0 else -1
        return math.floor(ready * self._spec.total - burst - panic)


class _Windows:
    """The stable and the panic window of one metric."""

    __slots__ = ("_panic", "_stable")

    def __init__(self, spec: DeciderSpec) -> None:
        self._stable = BucketWindow(spec.stable_window_s)
        self._panic = BucketWindow(spec.panic_window_s)

    def record(self, second: float, value: float) -> None:
        self._stable.record(second, value)
        self._panic.record(second, value)

    def averages(self, how: Aggregation, now: float) -> tuple[float, float]:
        return self._stable.aggregate(how, now), self._panic.aggregate(how, now)

    def resize(self, spec: DeciderSpec, now: float) -> None:
        """Follow an update; costs nothing when the lengths are the same."""
        self._stable.resize(spec.stable_window_s, now)
        self._panic.resize(spec.panic_window_s, now)
