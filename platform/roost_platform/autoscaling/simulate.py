"""The autoscaler over a load that is only thought of: how many replicas it would want, have ready, and hold when. Pure.

The decisions are the autoscaler's own (`RevisionScaler`); only the requests and the replicas are models (`replicas.py`). A
day passes in seconds.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from roost_platform.autoscaling.decider import TICK_S
from roost_platform.autoscaling.replicas import Pool, ReplicaModel
from roost_platform.autoscaling.revision import RevisionScaler
from roost_platform.autoscaling.stats import Stat
from roost_platform.domain.scaling import Autoscaler, ScalingPolicy

STEPS = 10
"""Of a second; within one, nothing changes but by its sum."""
_REPORT_STEP = STEPS // 2
"""Reports and ticks are in the middle of a second, as an engine makes them."""


@dataclass(frozen=True, slots=True)
class SimulatedSecond:
    """How things stood at the end of a second of simulated time."""

    second: int
    offered: float
    """Requests that came in it."""
    wanted: int
    ready: int
    queued: float
    """Requests that wait because there are more than the ready replicas can compute at once."""
    in_flight: float
    panic: bool
    late: bool
    """Whether more than one request in a hundred that came in it is answered later than the aim."""


@dataclass(frozen=True, slots=True)
class Simulation:
    """Times are seconds, each of one replica: (setup, active, idle, reserved) as they are metered."""

    seconds: tuple[SimulatedSecond, ...]
    requests: float
    setup_s: float
    active_s: float
    """Ready, with a request in it."""
    idle_s: float
    """Ready, with none, and beyond the min-scale."""
    reserved_s: float
    """Ready, with none, because of the min-scale."""
    cold_starts: int
    """Times that a request woke the revision from zero."""

    @property
    def replica_s(self) -> float:
        return self.setup_s + self.active_s + self.idle_s + self.reserved_s

    @property
    def late_s(self) -> int:
        """Seconds in violation of the latency aim."""
        return sum(second.late for second in self.seconds)

    @property
    def most_ready(self) -> int:
        return max((second.ready for second in self.seconds), default=0)


def simulate(
    offered: Sequence[float],
    *,
    policy: ScalingPolicy,
    replica: ReplicaModel,
    aim_s: float = math.inf,
    most: int = 0,
) -> Simulation:
    """`offered`: requests a second, second by second. `aim_s`: the latency that 99 in 100 must keep, from when they came.

    `most`: replicas that the machine or the cluster has room for; 0 = any number. The revision is one that was started
    before: it sleeps at first, or has its min-scale ready. Raises ValueError for a policy of class hpa, which another
    autoscaler decides.
    """
    if policy.autoscaler is not Autoscaler.KPA:
        raise ValueError("only class kpa can be simulated: hpa goes by the processors of real pods")
    return _Run(policy, replica, aim_s, most).over(offered)


@dataclass(frozen=True, slots=True)
class Load:
    """A second as it was measured: requests that came, and mean requests in flight."""

    requests: float
    in_flight: float


def follow(
    loads: Iterable[Load], *, policy: ScalingPolicy, start_s: float = 0.0, most: int = 0
) -> list[tuple[int, int]]:
    """(wanted, ready) at the end of each second, for a load whose requests in flight are known: no replica is modelled
    but for when it is ready.
    """
    run = _Run(policy, ReplicaModel(service_s=1.0, start_s=start_s), math.inf, most)
    return [run.measured_second(load) for load in loads]


class _KnownLoad:
    """What stands for counting requests one by one; see `ConcurrencyReporter`."""

    __slots__ = ("_arrived", "_busy", "_known", "_now", "_sent_ahead", "_since", "mean")

    def __init__(self) -> None:
        self.mean = 0.0
        self._known = False
        self._sent_ahead = 0.0
        self._arrived = 0.0
        self._busy = 0.0
        self._since = self._now = 0.0

    @property
    def in_flight(self) -> int:
        return round(self.mean)

    def request_in(self, now: float) -> bool:
        if self._known:
            return False
        self._known = True
        self._sent_ahead = 1.0
        self._arrived = self._busy = 0.0
        self._since = self._now = now
        return True

    def request_out(self, now: float) -> None:
        """Requests flow out: see `passed`."""

    def passed(self, arrived: float, mean: float, seconds: float) -> None:
        """So much time with so many in flight on average."""
        self.mean = mean
        if self._known:
            self._arrived += arrived
            self._busy += mean * seconds
            self._now += seconds

    def report(self, now: float) -> Stat | None:
        if not self._known:
            return None
        length = self._now - self._since
        average = self._busy / length if length > 0 else 0.0
        stat = Stat(max(average - self._sent_ahead, 0.0), max(self._arrived - self._sent_ahead, 0.0))
        self._sent_ahead = self._arrived = self._busy = 0.0
        self._since = self._now
        if average == 0 and not self.mean:
            self._known = False
        return stat


class _Run:
    """One revision in simulated time, from second 0."""

    def __init__(self, policy: ScalingPolicy, replica: ReplicaModel, aim_s: float, most: int) -> None:
        self._policy = policy
        self._replica = replica
        self._aim_s = aim_s
        self._most = most or 1_000_000
        self._load = _KnownLoad()
        self._scaler = RevisionScaler(policy, reachable=True, proven=True, now=0.0, reporter=self._load)
        self._pool = Pool(replica)
        self._step = 0
        self._ready = min(policy.min_scale, self._most)
        self._starting: list[float] = []
        """When each becomes ready, the soonest first."""
        self._due = 0.0
        self._spent = {"setup_s": 0.0, "active_s": 0.0, "idle_s": 0.0, "reserved_s": 0.0}
        self._cold_starts = 0
        self._tick()

    def over(self, offered: Sequence[float]) -> Simulation:
        seconds = tuple(self._second(rate) for rate in offered)
        return Simulation(seconds, requests=sum(offered), cold_starts=self._cold_starts, **self._spent)

    def measured_second(self, load: Load) -> tuple[int, int]:
        for _ in range(STEPS):
            self._begin_step(self._arrivals(load.requests))
            self._load.passed(load.requests / STEPS, load.in_flight, 1 / STEPS)
            self._step += 1
        return self._scaler.wanted, self._ready

    def _second(self, rate: float) -> SimulatedSecond:
        late, slots, in_flight = 0.0, 0.0, 0.0
        for _ in range(STEPS):
            arrivals = self._arrivals(rate)
            self._begin_step(arrivals)
            slots = self._replica.slots_of(self._ready, self._policy.container_concurrency)
            if self._is_late(rate, slots):
                late += arrivals
            in_flight = self._pool.flow(arrivals, slots, 1 / STEPS)
            self._load.passed(arrivals, in_flight, 1 / STEPS)
            self._spend(in_flight)
            self._step += 1
        return SimulatedSecond(
            second=self._step // STEPS - 1,
            offered=rate,
            wanted=self._scaler.wanted,
            ready=self._ready,
            queued=self._pool.queued(slots),
            in_flight=in_flight,
            panic=self._scaler.panic,
            late=late > rate / 100,
        )

    @property
    def _now(self) -> float:
        return self._step / STEPS

    def _arrivals(self, rate: float) -> int:
        """Whole requests, evenly spread, so that few ones are single calls and not a trickle that never ends."""
        before = math.floor(self._due)
        self._due += rate / STEPS
        return math.floor(self._due) - before

    def _begin_step(self, arrivals: int) -> None:
        """What an engine does at this time, in its order: who is ready serves, requests ask, reports, ticks."""
        while self._starting and self._starting[0] <= self._now:
            self._starting.pop(0)
            self._ready += 1
        if arrivals and self._scaler.request_in(self._now):
            if not self._ready and not self._starting:
                self._cold_starts += 1
            self._tick()
        second, step = divmod(self._step, STEPS)
        if step == _REPORT_STEP:
            if self._scaler.report(self._now):
                self._tick()
            if second % TICK_S == 0:
                self._tick()

    def _tick(self) -> None:
        wanted = min(self._scaler.tick(self._now, self._ready), self._most)
        missing = wanted - self._ready - len(self._starting)
        if missing > 0:
            self._starting += [self._now + self._replica.start_s] * missing
        elif missing < 0:
            # Those that do not serve yet go first.
            gone = min(-missing, len(self._starting))
            del self._starting[len(self._starting) - gone :]
            self._ready += missing + gone
        if not self._replica.start_s:
            self._ready += len(self._starting)
            self._starting.clear()

    def _is_late(self, rate: float, slots: float) -> bool:
        """Whether who comes now gets an answer after the aim: it waits too long, or all do by what was measured."""
        if not self._ready:
            return (self._starting[0] - self._now if self._starting else 0.0) + self._replica.service_s > self._aim_s
        if self._pool.wait_s(slots) + self._replica.service_s > self._aim_s:
            return True
        holds = self._replica.holds_rps
        return holds is not None and rate > holds * self._ready

    def _spend(self, in_flight: float) -> None:
        active = min(float(self._ready), in_flight)
        reserved = min(self._ready - active, max(0.0, self._policy.min_scale - active))
        spent = self._spent
        spent["setup_s"] += len(self._starting) / STEPS
        spent["active_s"] += active / STEPS
        spent["reserved_s"] += reserved / STEPS
        spent["idle_s"] += (self._ready - active - reserved) / STEPS
