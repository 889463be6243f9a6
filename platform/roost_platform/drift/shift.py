"""How far a sketch lies from its reference, and whether chance explains it.

Two measures: the population stability index over ten bins, Σ (p-q)·ln(p/q), and the greatest difference of the two
cumulative distributions (Kolmogorov-Smirnov) over all bins. Without a shift PSI · nm/(n+m) is distributed as χ² with
bins-1 degrees of freedom (to first order, PSI is that statistic), and the difference, looked at only at the bins' ends, is
never greater than Kolmogorov's. A shift is alarming when it is improbable, after Bonferroni's correction for all that is
looked at together, and also large enough to matter: with a million values the slightest difference is improbable.

Needs SciPy's special functions (extra `drift`).
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import accumulate
from math import log, sqrt

from roost_platform.domain.errors import Unavailable
from roost_platform.drift.sketch import Sketch

PSI_BINS = 10
LEAST_VALUES = 100
"""On either side: below, χ² is a poor likeness of PSI."""
LEAST_PSI, LEAST_DISTANCE = 0.1, 0.1
"""What is less is no alarm, however certain. 0.1 is where the trade's convention for PSI begins to speak of a shift."""


@dataclass(frozen=True, slots=True)
class Shift:
    """Of one feature or output."""

    reference: int
    current: int
    """Values compared."""
    psi: float
    psi_chance: float
    """Probability of such a PSI, or a larger one, without a shift."""
    distance: float
    """Kolmogorov-Smirnov, 0 to 1."""
    distance_chance: float
    missing: float
    outside: float
    """Shares of what was seen now that was no number, and that lay outside of the reference's range."""

    def alarming(self, *, false_alarms: float, looked_at: int) -> bool:
        """`false_alarms`: the probability of one or more false alarms among `looked_at` features and outputs together."""
        if min(self.reference, self.current) < LEAST_VALUES:
            return False
        chance = false_alarms / (2 * looked_at)
        return (self.psi_chance < chance and self.psi >= LEAST_PSI) or (
            self.distance_chance < chance and self.distance >= LEAST_DISTANCE
        )


def compare(reference: Sketch, current: Sketch) -> Shift:
    """Raises ValueError for sketches of different profiles, Unavailable without SciPy."""
    if reference.edges != current.edges:
        raise ValueError("sketches of different profiles cannot be compared")
    n, m = reference.size, current.size
    psi, degrees = _psi(reference.counts, current.counts)
    distance = _distance(reference.counts, current.counts)
    chi_squared, kolmogorov = _functions()
    weight = n * m / (n + m) if n and m else 0.0
    seen = m + current.missing
    return Shift(
        reference=n,
        current=m,
        psi=psi,
        psi_chance=float(chi_squared(degrees, psi * weight)) if degrees else 1.0,
        distance=distance,
        distance_chance=float(kolmogorov(distance * sqrt(weight))),
        missing=current.missing / seen if seen else 0.0,
        outside=(current.below + current.above) / m if m else 0.0,
    )


def compare_across(reference: Sketch, current: Sketch) -> Shift:
    """As `compare`, for sketches of different profiles: `current` is spread evenly over the reference's bins.

    Exact where both have the same edges; elsewhere distances are smoothed within bins.
    """
    if reference.edges == current.edges:
        return compare(reference, replace(current, low=reference.low, high=reference.high))
    below = [_share_below(current, edge) for edge in reference.edges] + [float(current.size)]
    rounded = [round(count) for count in below]
    counts = tuple(b - a for a, b in zip([0, *rounded], rounded, strict=False))
    spread = replace(reference, counts=counts, missing=current.missing, below=counts[0], above=counts[-1])
    return compare(reference, spread)


def _share_below(sketch: Sketch, value: float) -> float:
    """About so many values are not over `value`; all of the first bin lies at its end, all of the last beyond its begin."""
    edges, sums = sketch.edges, list(accumulate(sketch.counts))
    place = bisect_left(edges, value)
    if place == 0:
        return float(sums[0]) if value == edges[0] else 0.0
    if place == len(edges):
        return float(sums[-2] if value < sketch.high else sums[-1])
    low, high = edges[place - 1], edges[place]
    part = (value - low) / (high - low) if math.isfinite(high - low) else float(value == high)
    return sums[place - 1] + part * sketch.counts[place]


def alarms(shifts: Mapping[str, Shift], *, false_alarms: float) -> list[str]:
    """Names of what has shifted, by name; at most `false_alarms` is the probability of any when nothing has."""
    return sorted(
        name for name, shift in shifts.items() if shift.alarming(false_alarms=false_alarms, looked_at=len(shifts))
    )


def is_installed() -> bool:
    """Whether what this needs is there: SciPy, an extra."""
    return find_spec("scipy") is not None


def _psi(reference: Sequence[int], current: Sequence[int]) -> tuple[float, int]:
    """The index, and its degrees of freedom. Half a value more in each bin: none is empty, so no logarithm is infinite."""
    p, q = _coarse(reference, current)
    if len(p) < 2 or not sum(current) or not sum(reference):
        return 0.0, 0
    p_all, q_all = sum(p) + len(p) / 2, sum(q) + len(q) / 2
    shares = [((a + 0.5) / p_all, (b + 0.5) / q_all) for a, b in zip(p, q, strict=True)]
    return sum((a - b) * log(a / b) for a, b in shares), len(p) - 1


def _coarse(reference: Sequence[int], current: Sequence[int]) -> tuple[list[int], list[int]]:
    """Neighbouring bins put together until each holds a tenth of the reference; what is left joins the last."""
    p, q, least = [0], [0], sum(reference) / PSI_BINS
    for a, b in zip(reference, current, strict=True):
        if p[-1] >= least:
            p.append(0)
            q.append(0)
        p[-1] += a
        q[-1] += b
    if len(p) > 1 and p[-1] < least / 2:
        a, b = p.pop(), q.pop()
        p[-1] += a
        q[-1] += b
    return p, q


def _distance(reference: Sequence[int], current: Sequence[int]) -> float:
    n, m = sum(reference), sum(current)
    if not n or not m:
        return 0.0
    return max(abs(a / n - b / m) for a, b in zip(accumulate(reference), accumulate(current), strict=True))


def _functions() -> tuple[Callable[[float, float], float], Callable[[float], float]]:
    """The upper tails of χ² (degrees of freedom, value) and of Kolmogorov's distribution."""
    try:
        from scipy.special import chdtrc, kolmogorov  # noqa: PLC0415 - an extra; most processes never need it
    except ModuleNotFoundError as error:
        raise Unavailable(
            "drift needs SciPy: pip install 'roost[drift]' at the server", code="drift_not_installed"
        ) from error
    return chdtrc, kolmogorov
