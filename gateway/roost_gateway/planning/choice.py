"""The plan: candidates by what they did in the simulation, and the one to take. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from roost_gateway.planning.costs import cost
from roost_gateway.planning.sizing import (
    AS_IT_IS,
    LATE_ALLOWED,
    Capacity,
    Outcome,
    candidates,
    outcomes,
    replicas_needed,
)
from roost_platform.domain.scaling import ScalingPolicy


@dataclass(frozen=True, slots=True)
class Priced:
    outcome: Outcome
    cost: Decimal


@dataclass(frozen=True, slots=True)
class Plan:
    target_rps: float
    aim_s: float
    capacity: Capacity
    replicas: int
    """N = ceil(T/Q) + ceil(0.2 T/Q)."""
    together: bool
    """Whether so many were measured to hold the target: replicas that share a machine may not."""
    options: tuple[Priced, ...]
    currency: str

    @property
    def chosen(self) -> Priced:
        """The cheapest that is hardly ever late; else the one that is late least. What is as cheap: fewer replica-seconds.

        The policy as it is stands there to compare with: it need not have N replicas for the target.
        """

        def rank(option: Priced) -> tuple[float, Decimal, float]:
            late = option.outcome.late_share
            return (0.0 if late <= LATE_ALLOWED else late), option.cost, option.outcome.simulation.replica_s

        made = [option for option in self.options if option.outcome.candidate.name != AS_IT_IS]
        return min(made, key=rank)

    def to_json(self) -> dict[str, Any]:
        found = self.capacity
        return {
            "target_rps": self.target_rps,
            "p99_s": self.aim_s,
            "one_replica": {
                "holds_rps": round(found.holds_rps, 3),
                "at_least": found.holds_rps >= self.target_rps,
                "in_flight": round(found.in_flight, 3),
                "service_s": round(found.service_s, 6),
                "most_rps": round(found.most_rps, 3),
                "start_s": round(found.start_s, 3),
                "tester_fell_behind": found.tester_fell_behind,
            },
            "replicas": self.replicas,
            "replicas_hold_target": self.together,
            "currency": self.currency,
            "candidates": [self._option(each) for each in self.options],
            "chosen": self.chosen.outcome.candidate.name,
            "policy": self.chosen.outcome.candidate.policy.to_json(),
        }

    def _option(self, option: Priced) -> dict[str, Any]:
        outcome = option.outcome
        return {
            "name": outcome.candidate.name,
            "late_s": outcome.simulation.late_s,
            "loaded_s": outcome.loaded_s,
            "most_replicas": outcome.simulation.most_ready,
            "replica_s": round(outcome.simulation.replica_s, 1),
            "cold_starts": outcome.simulation.cold_starts,
            "cost": f"{option.cost:f}",
            "policy": outcome.candidate.policy.to_json(),
        }


def make_plan(
    target_rps: float,
    aim_s: float,
    capacity: Capacity,
    current: ScalingPolicy,
    offered: Sequence[float],
    *,
    prices: Mapping[str, Any],
    resource_class: str,
    together: bool,
) -> Plan:
    """`prices`: the document of `GET /api/v1/prices`."""
    found = outcomes(candidates(target_rps, aim_s, capacity, current), offered, capacity=capacity, aim_s=aim_s)
    options = tuple(
        Priced(each, cost(each.simulation, prices, service_s=capacity.service_s, resource_class=resource_class))
        for each in found
    )
    needed = replicas_needed(target_rps, capacity.holds_rps)
    return Plan(target_rps, aim_s, capacity, needed, together, options, prices["currency"])
