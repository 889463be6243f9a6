"""When requests are due: a seeded schedule for a shape. The same seed gives the same schedule, on any machine.

A point process of rate 1 is stretched by the shape: the n-th request is due when the area under the shape reaches the n-th
point (time rescaling). So burstiness and shape are independent of each other.
"""

import random
from collections.abc import Iterator
from enum import StrEnum

from roost_loadtest.shapes import Shape


class Process(StrEnum):
    UNIFORM = "uniform"
    """One after the other, at equal distances."""
    POISSON = "poisson"
    """Independent users: the gaps are exponential."""
    GAMMA = "gamma"
    """Gaps with a coefficient of variation of one's choice: over 1 they come in bursts, under 1 more evenly than Poisson's."""


def due_times(
    shape: Shape,
    process: Process = Process.POISSON,
    *,
    seed: int = 0,
    burstiness: float = 1.0,
    part: int = 0,
    parts: int = 1,
) -> Iterator[float]:
    """Seconds from the start, ascending. `burstiness`: the gaps' coefficient of variation, for GAMMA.

    `part` of `parts`: every so-many-th arrival, for one of several generators; together they make the whole schedule.
    """
    if burstiness <= 0:
        raise ValueError("burstiness is a coefficient of variation above 0")
    if not 0 <= part < parts:
        raise ValueError("there is no such part")
    gap = _gaps(process, random.Random(seed), burstiness)  # noqa: S311 - a schedule, no secret
    total, point, number = shape.requests, 0.0, 0
    while True:
        # The first of equal distances is half a one after the start, so that n requests are due in n gaps.
        point += next(gap) * (0.5 if number == 0 and process is Process.UNIFORM else 1.0)
        if point >= total:
            return
        if number % parts == part:
            yield shape.time_of(point)
        number += 1


def _gaps(process: Process, source: random.Random, burstiness: float) -> Iterator[float]:
    """Positive numbers with mean 1."""
    if process is Process.UNIFORM:
        while True:
            yield 1.0
    if process is Process.POISSON:
        while True:
            yield source.expovariate(1.0)
    # The coefficient of variation of a gamma distribution is 1/sqrt(shape); its mean is shape x scale.
    gamma_shape = 1 / burstiness**2
    while True:
        yield source.gammavariate(gamma_shape, 1 / gamma_shape)
