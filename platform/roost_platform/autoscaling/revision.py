"""The autoscaler of one revision, for an engine whose gateway sees every request.

    request_in, request_out    each prediction; a true answer asks for a `tick` at once: somebody waits at zero
    report                     each second; likewise
    tick                       each two seconds (TICK_S), and whenever one is asked for

Nothing here reads a clock: `now` is in seconds on one clock that does not run back, the same for all calls.
"""

from roost_platform.autoscaling.decider import Decider, Decision
from roost_platform.autoscaling.scaler import Scaler
from roost_platform.autoscaling.stats import FIRST_REQUEST, ConcurrencyReporter, Reporter
from roost_platform.autoscaling.targets import decider_spec, scaler_spec
from roost_platform.domain.scaling import ScalingPolicy
from roost_platform.domain.services import Readiness


class RevisionScaler:
    """Measures the load of one revision and tells how many replicas it should have."""

    __slots__ = ("_decider", "_decision", "_desired", "_reporter", "_scaler")

    def __init__(
        self,
        policy: ScalingPolicy,
        *,
        reachable: bool,
        proven: bool,
        now: float,
        ready: int = 0,
        reporter: Reporter | None = None,
    ) -> None:
        """A revision that is not `proven` yet is started at its initial scale once, even if nobody asks for it; it
        should count as reachable until then. A proven one sleeps: zero until the first tick. `ready` replicas that are
        there already (more than one) are kept until their load is known. `reporter`: None = count requests.
        """
        self._decider = Decider(decider_spec(policy, reachable=reachable), ready_at_start=ready, now=now)
        self._scaler = Scaler(scaler_spec(policy, reachable=reachable), proven=proven, now=now)
        self._reporter: Reporter = reporter or ConcurrencyReporter()
        self._decision: Decision | None = None
        self._desired = 0

    @property
    def wanted(self) -> int:
        """Replicas wanted since the last tick; before it the initial scale, or 0 if proven."""
        return self._scaler.wanted

    @property
    def desired(self) -> int:
        """Replicas that the load alone called for at the last tick, before bounds and delays; 0 before it."""
        return self._desired

    @property
    def panic(self) -> bool:
        return self._decision is not None and self._decision.panicking

    @property
    def decision(self) -> Decision | None:
        """The last tick's decision with its averages, for status and metrics; None before it."""
        return self._decision

    @property
    def active(self) -> Readiness:
        """TRUE serving, UNKNOWN starting or waking, FALSE asleep or about to be."""
        return self._scaler.active

    @property
    def started(self) -> bool:
        """Whether the initial scale was ever reached, or the revision came proven."""
        return self._scaler.started

    @property
    def in_flight(self) -> int:
        return self._reporter.in_flight

    def request_in(self, now: float) -> bool:
        """Count a request that arrived. True = tick at once: the load called for no replica so far."""
        if self._reporter.request_in(now):
            self._decider.record(now, FIRST_REQUEST)
        return self._desired == 0

    def request_out(self, now: float) -> None:
        """Count a request as answered or given up; once for each `request_in`."""
        self._reporter.request_out(now)

    def report(self, now: float) -> bool:
        """Close a second of measuring. True = tick at once.

        Two reports within one whole second of the clock are summed, so it is best called in the middle of each.
        """
        stat = self._reporter.report(now)
        if stat is None:
            return False
        self._decider.record(now, stat)
        return stat.concurrency != 0 and self._desired == 0

    def tick(self, now: float, ready: int) -> int:
        """The replicas wanted now, while `ready` of them can serve."""
        self._decision = self._decider.tick(now, ready)
        # Averages may miss a request: those of a second hide one that began long before them when requests per second
        # are counted, and a very short one rounds to nothing. The replica that it is on must not go.
        at_least = 1 if self._reporter.in_flight > 0 else 0
        self._desired = max(self._decision.desired, at_least)
        return self._scaler.scale(self._desired, ready, now)

    def update(self, policy: ScalingPolicy, *, reachable: bool) -> None:
        """Go by another policy, or without traffic, from the next tick on; what was measured stays."""
        self._decider.update(decider_spec(policy, reachable=reachable))
        self._scaler.update(scaler_spec(policy, reachable=reachable))
