"""From what the load calls for to the replicas that are wanted: bounds, the first start, and the way to zero and back.

A revision is *active* in one of three ways, as in Knative:

    UNKNOWN   starting or waking: not enough replicas are ready yet; never put to sleep, unless it fails to start
      │  ready enough
    TRUE      serving; once nothing is asked for and it has been active for a stable window, it becomes
    FALSE     inactive: the last replicas are still up, and go when retention and grace allow it
      │  something is asked for: back to UNKNOWN, or at once to TRUE while enough replicas are ready
"""

import math
from dataclasses import dataclass

from roost_platform.domain.services import Readiness


@dataclass(frozen=True, slots=True)
class ScalerSpec:
    """Bounds in replicas and delays in seconds."""

    min_scale: int
    max_scale: int
    """0 = no bound."""
    initial_scale: int
    """Replicas that must have been ready once before the revision counts as started."""
    stable_window_s: float
    retention_s: float
    """Least time between becoming inactive and zero."""
    grace_s: float
    """Least time that the gateway must have been in the path before zero; over when inactive for as long."""
    activation_timeout_s: float
    """How long a revision may be starting before it is given up."""
    reachable: bool = True
    """False for a revision without traffic: no min-scale, no first start at scale, no retention."""
    scale_to_zero: bool = True


class Scaler:
    """The replicas wanted of one revision. Times are seconds on one clock."""

    def __init__(self, spec: ScalerSpec, *, proven: bool, now: float, proxied_since: float = -math.inf) -> None:
        """`proven`: it was started once and sleeps; otherwise it starts at its initial scale, asked for or not.

        `proxied_since`: when the gateway came into the path; by default it always was.
        """
        self._spec = spec
        self._started = proven
        self._proxied_since = proxied_since
        self._active = Readiness.FALSE if proven else Readiness.UNKNOWN
        self._active_since = now
        self._wanted = 0 if proven else self._bounded(spec.initial_scale)

    @property
    def wanted(self) -> int:
        """Replicas wanted since the last `scale`."""
        return self._wanted

    @property
    def active(self) -> Readiness:
        return self._active

    @property
    def started(self) -> bool:
        """Whether the initial scale was ever reached."""
        return self._started

    def update(self, spec: ScalerSpec) -> None:
        """Go by `spec` from the next `scale` on; what is active since when stays."""
        self._spec = spec

    def scale(self, desired: int, ready: int, now: float) -> int:
        """The replicas wanted `now`, given what the load calls for (-1 = not known yet) and how many are ready."""
        wanted: int | None = None  # None = unknown: leave things as they are
        if desired >= 0 or self._active is Readiness.UNKNOWN:
            wanted = self._bounded(desired)
            if wanted > 0:
                self._wanted = wanted
            else:
                wanted = self._toward_zero(now)
        if self._spec.max_scale:
            # What is left as it is may stem from before an update.
            self._wanted = min(self._wanted, self._spec.max_scale)
        self._judge(wanted, ready, now)
        return self._wanted

    def _bounded(self, replicas: int) -> int:
        spec = self._spec
        fewest = spec.min_scale if spec.reachable else 0
        # One replica is what every revision begins with; only more than that must be held against the load.
        if not self._started and spec.reachable and spec.initial_scale > 1:
            fewest = max(fewest, spec.initial_scale)
        replicas = max(replicas, fewest)
        return min(replicas, spec.max_scale) if spec.max_scale else replicas

    def _toward_zero(self, now: float) -> int | None:
        """Take the next step towards zero; 0 = may be called inactive, None = cannot be told while it is starting."""
        spec = self._spec
        if not spec.scale_to_zero:
            self._wanted = 1
            return 1
        since = now - self._active_since
        if self._active is Readiness.UNKNOWN:
            if since < spec.activation_timeout_s:
                return None
            self._wanted = 0
        elif self._active is Readiness.TRUE:
            if since < spec.stable_window_s:
                self._wanted = 1
                return 1
        elif self._may_sleep(since, now):
            self._wanted = 0
        return 0

    def _may_sleep(self, inactive_s: float, now: float) -> bool:
        spec = self._spec
        retention_s = spec.retention_s if spec.reachable else 0
        if inactive_s < retention_s:
            return False
        # Grace is for the gateway to take over the path: what it has been there before counts too.
        return inactive_s >= spec.grace_s or now - self._proxied_since >= spec.grace_s

    def _judge(self, wanted: int | None, ready: int, now: float) -> None:
        """Tell from what is wanted and ready whether the revision is active."""
        enough = ready >= self._threshold()
        self._started = self._started or enough
        if wanted == 0:
            active = Readiness.FALSE
        elif wanted is None and self._active is Readiness.FALSE:
            return
        else:
            active = Readiness.TRUE if enough else Readiness.UNKNOWN
        if active is not self._active:
            self._active, self._active_since = active, now

    def _threshold(self) -> int:
        spec = self._spec
        fewest = spec.min_scale if spec.reachable else 0
        return max(fewest, 1 if self._started else spec.initial_scale)
