"""From what one replica holds to how many are needed, and to scaling policies that get there. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from roost_platform.autoscaling.replicas import ReplicaModel
from roost_platform.autoscaling.simulate import Simulation, simulate
from roost_platform.autoscaling.targets import LEAST_TARGET
from roost_platform.domain.scaling import Metric, ScalingPolicy

HEADROOM = 0.2
LATE_ALLOWED = 0.01
"""Share of the seconds with load that may be in violation, for a policy to be worth its price."""
_LEAST_SHARE, _USUAL_SHARE = 10.0, 70.0
"""Percent of a target."""
AS_IT_IS = "as it is"
_AFTER_S = 120
"""Of quiet after a load, that going back to zero is paid for as well."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one replica was measured to do."""

    holds_rps: float
    """The highest rate at which it keeps the aim."""
    in_flight: float
    """Requests in it on average at that rate."""
    service_s: float
    """Mean latency at a low rate."""
    most_rps: float
    """The most answers a second that were seen, late ones included."""
    start_s: float
    tester_fell_behind: bool = False
    """At higher rates the load tester did not keep up either: the replica may hold more than was measured."""

    def replica(self) -> ReplicaModel:
        return ReplicaModel(
            service_s=self.service_s,
            slots=max(self.most_rps, self.holds_rps) * self.service_s,
            start_s=self.start_s,
            holds_rps=self.holds_rps,
        )


def replicas_needed(target_rps: float, holds_rps: float) -> int:
    """N = ceil(T/Q) + ceil(0.2 T/Q): enough for the load, and a fifth of the load on top."""
    share = round(target_rps / holds_rps, 9)  # 0.2 * 5 is a whole number to people, too
    return math.ceil(share) + math.ceil(round(HEADROOM * share, 9))


@dataclass(frozen=True, slots=True)
class Candidate:
    name: str
    policy: ScalingPolicy


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a candidate did in the simulation."""

    candidate: Candidate
    simulation: Simulation
    loaded_s: int
    """Seconds with any load."""

    @property
    def late_share(self) -> float:
        return self.simulation.late_s / self.loaded_s if self.loaded_s else 0.0


def candidates(target_rps: float, aim_s: float, capacity: Capacity, current: ScalingPolicy) -> list[Candidate]:
    """Policies that have N replicas at the target rate, by requests per second and by concurrency; the current one first.

    All of class kpa, as the current one must be. Raises InvalidRequest when N is more than a model can have.
    """
    needed = replicas_needed(target_rps, capacity.holds_rps)
    base = replace(
        current,
        container_concurrency=current.container_concurrency or limit(capacity.holds_rps, aim_s),
        min_scale=0,
        max_scale=needed,
        initial_scale=1,
        activation_scale=1,
    )
    rps = _aimed(replace(base, metric=Metric.RPS), capacity.holds_rps, target_rps, needed)
    by_metric = {"rps": rps}
    # In flight grows slower than the rate: at the target each replica has less to do than at what it holds.
    load = target_rps * capacity.service_s
    if load > 2 * LEAST_TARGET * needed:  # below, what is to be in flight per replica cannot be written down
        by_metric["concurrency"] = _aimed(replace(base, metric=Metric.CONCURRENCY), capacity.in_flight, load, needed)
    found = [Candidate(AS_IT_IS, current)]
    for name, policy in by_metric.items():
        for window_s in (15, 60):
            for kept in (0, 1):
                changed = replace(policy, window_s=window_s, panic_window_percentage=max(10.0, 600 / window_s))
                found.append(Candidate(f"{name}, {window_s} s, min {kept}", replace(changed, min_scale=kept)))
    return [*found, Candidate(f"always {needed}", replace(rps, min_scale=needed))]


def limit(holds_rps: float, aim_s: float) -> int:
    """A container concurrency: by Little's law a replica cannot have more in it than this and answer them in time."""
    return min(1000, max(1, math.ceil(holds_rps * aim_s)))


def _aimed(policy: ScalingPolicy, of_one: float, load: float, needed: int) -> ScalingPolicy:
    """Target and utilization for which `load` wants `needed` replicas, half of one away from wanting one less or more."""
    aim = load / (needed - 0.5)
    share = 100 * aim / of_one if of_one else 0.0
    if share < _LEAST_SHARE:  # one replica holds many times the load: a share of that could not be written down
        of_one, share = aim / _USUAL_SHARE * 100, _USUAL_SHARE
    return replace(
        policy,
        target=max(0.01, round(of_one, 3)),
        target_utilization_percentage=min(100.0, max(1.0, round(share, 1))),
    )


def outcomes(
    found: Sequence[Candidate], offered: Sequence[float], *, capacity: Capacity, aim_s: float
) -> list[Outcome]:
    loads = [*offered, *[0.0] * _AFTER_S]
    loaded_s = sum(rate > 0 for rate in loads)
    return [
        Outcome(each, simulate(loads, policy=each.policy, replica=capacity.replica(), aim_s=aim_s), loaded_s)
        for each in found
    ]
