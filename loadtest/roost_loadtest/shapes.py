"""Load shapes: requests per second over time, as straight pieces. Pure.

Every shape is a list of knots (seconds, rate); between two knots the rate goes straight from one to the other, and two
knots at the same second are a jump. So one inverse serves all: the time at which the n-th request is due.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

_DIURNAL_PIECES = 96
"""Of a day: straight pieces of a quarter of an hour differ from the sine by less than 0.06 % of its height."""


@dataclass(frozen=True)
class Shape:
    """Rates are requests per second, times seconds from the start of the run."""

    knots: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        times = [time for time, _ in self.knots]
        if len(times) < 2 or times[0] != 0 or any(b < a for a, b in pairwise(times)):
            raise ValueError("a shape begins at second 0 and does not run back")
        if any(not (math.isfinite(rate) and rate >= 0) for _, rate in self.knots):
            raise ValueError("a rate is a number of requests per second, 0 or more")

    @property
    def duration_s(self) -> float:
        return self.knots[-1][0]

    @property
    def peak(self) -> float:
        return max(rate for _, rate in self.knots)

    @property
    def requests(self) -> float:
        """How many are due in all, on average."""
        return self._until[-1]

    def rate(self, at_s: float) -> float:
        """At a jump, the rate after it; 0 before the start and from the end on."""
        if not 0 <= at_s < self.duration_s:
            return 0.0
        index = bisect_right(self._times, at_s)
        (a, from_rate), (b, to_rate) = self.knots[index - 1], self.knots[index]
        return from_rate + (to_rate - from_rate) * (at_s - a) / (b - a)

    def due_by(self, at_s: float) -> float:
        """How many requests are due up to this moment, on average."""
        at_s = min(max(at_s, 0.0), self.duration_s)
        index = min(bisect_right(self._times, at_s), len(self.knots) - 1)
        (a, from_rate), (b, to_rate) = self.knots[index - 1], self.knots[index]
        share = (at_s - a) / (b - a) if b > a else 0.0
        return self._until[index - 1] + (at_s - a) * (from_rate + (to_rate - from_rate) * share / 2)

    def time_of(self, count: float) -> float:
        """When so many requests are due; `count` lies between 0 and `requests`."""
        index = min(max(bisect_right(self._until, count), 1), len(self.knots) - 1)
        (a, from_rate), (b, to_rate) = self.knots[index - 1], self.knots[index]
        left = count - self._until[index - 1]
        slope = (to_rate - from_rate) / (b - a) if b > a else 0.0
        # from_rate * t + slope * t^2 / 2 = left, in the form that stays exact where the slope is small.
        root = math.sqrt(max(0.0, from_rate * from_rate + 2 * slope * left))
        return min(b, a + (2 * left / (from_rate + root) if from_rate + root else 0.0))

    @cached_property
    def _times(self) -> list[float]:
        return [time for time, _ in self.knots]

    @cached_property
    def _until(self) -> list[float]:
        """Requests due up to each knot: the area under the pieces."""
        total, areas = 0.0, [0.0]
        for (a, from_rate), (b, to_rate) in pairwise(self.knots):
            total += (b - a) * (from_rate + to_rate) / 2
            areas.append(total)
        return areas


def constant(rate: float, duration_s: float) -> Shape:
    return Shape(((0.0, rate), (duration_s, rate)))


def steps(levels: Iterable[tuple[float, float]]) -> Shape:
    """`levels` are (rate, seconds), one after the other."""
    knots: list[tuple[float, float]] = []
    now = 0.0
    for rate, seconds in levels:
        if seconds <= 0:
            raise ValueError("a step lasts longer than no time")
        knots += [(now, rate), (now + seconds, rate)]
        now += seconds
    return Shape(tuple(knots))


def ramp(from_rate: float, to_rate: float, duration_s: float) -> Shape:
    return Shape(((0.0, from_rate), (duration_s, to_rate)))


def spike(base: float, peak: float, *, before_s: float, spike_s: float, after_s: float) -> Shape:
    return steps([(base, before_s), (peak, spike_s), (base, after_s)])


def diurnal(low: float, high: float, *, period_s: float, duration_s: float) -> Shape:
    """A day's sine: it begins at its lowest."""
    pieces = max(1, round(_DIURNAL_PIECES * duration_s / period_s))
    middle, swing = (low + high) / 2, (high - low) / 2
    times = [duration_s * i / pieces for i in range(pieces + 1)]
    return Shape(tuple((t, middle - swing * math.cos(2 * math.pi * t / period_s)) for t in times))


def counted(counts: Sequence[float], *, every_s: float, speed: float = 1.0) -> Shape:
    """A trace of requests per interval of `every_s` seconds, replayed `speed` times as fast: as many requests, in less time."""
    if speed <= 0:
        raise ValueError("a trace is replayed at a speed above 0")
    seconds = every_s / speed
    return steps((count / seconds, seconds) for count in counts)
