"""What a replica can do, and how many requests are in the replicas of a revision: the far side of a simulated autoscaler. Pure.

Requests flow like water rather than one by one: what is in flight follows from how many arrive, how long each takes, and how
many are computed at once. What chance adds is the mean of it (`waiting`).
"""

import math
from dataclasses import dataclass

_MOST_USE = 0.95
"""Beyond it the mean of what waits by chance is reached so slowly that what came too much rules."""
_NOTHING = 1e-3
"""Requests in flight that count as none: what flows never ends quite."""


@dataclass(frozen=True, slots=True)
class ReplicaModel:
    """One replica, as measured: it computes `slots` requests at once, each in `service_s`; more make all slower."""

    service_s: float
    """Seconds of one request in a replica that has no other."""
    slots: float = 1.0
    """Requests a second that it can do at most, times `service_s`: whole cores as a rule, but measured ones need not be."""
    start_s: float = 0.0
    """Seconds from being wanted to being ready."""
    holds_rps: float | None = None
    """Requests a second at which it still keeps the latency aim, as measured; None = not measured."""
    shared_slots: float = math.inf
    """What all replicas together have, where they share one machine."""

    def __post_init__(self) -> None:
        if not (self.service_s > 0 and self.slots > 0 and self.start_s >= 0 and self.shared_slots > 0):
            raise ValueError("a replica needs a service time and slots above 0, and starts in no less than no time")

    def slots_of(self, replicas: int, container_concurrency: int) -> float:
        """How many requests so many replicas compute at once; a container concurrency of 0 is no limit."""
        each = min(self.slots, container_concurrency) if container_concurrency else self.slots
        return min(replicas * each, self.shared_slots)

    def waiting(self, in_service: float, slots: float) -> float:
        """Requests that wait on average because arrivals are random, although there are slots enough.

        The queue of an M/D/c, by Sakasegawa's approximation: use^sqrt(2(c+1)) / (1-use) / 2.
        """
        if slots <= 0:
            return 0.0
        use = min(in_service / slots, _MOST_USE)
        return float(use ** math.sqrt(2 * (slots + 1)) / (1 - use) / 2)


class Pool:
    """The requests that are in one revision's replicas, or wait for one."""

    __slots__ = ("_model", "present")

    def __init__(self, model: ReplicaModel) -> None:
        self._model = model
        self.present = 0.0
        """Requests that are in, on average, without those that wait by chance."""

    def flow(self, arrivals: float, slots: float, seconds: float) -> float:
        """So many come in, and what is done goes out; returns how many were in flight on average, chance included.

        A request leaves at the rate 1/service_s while it has a slot. The step is implicit, hence stable whether it is
        longer or shorter than a service; what comes in is what goes out and what stays.
        """
        service_s = self._model.service_s
        there = self.present + arrivals
        all_served = there * service_s / (service_s + seconds)
        if all_served <= slots:
            self.present = all_served if all_served > _NOTHING or arrivals else 0.0
            return self.present + self._model.waiting(self.present, slots)
        before, self.present = self.present, there - slots * seconds / service_s
        return max(slots, (before + self.present) / 2)

    def queued(self, slots: float) -> float:
        return max(0.0, self.present - slots)

    def wait_s(self, slots: float) -> float:
        """How long who comes now waits for a slot; endless without any."""
        queued = self.queued(slots)
        if not slots:
            return math.inf
        return queued * self._model.service_s / slots
