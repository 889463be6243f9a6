"""From the figures of several rotations to single numbers."""

import math
from statistics import median

from bench import Figures, Round


def figures_of(rotation: Round, name: str) -> Figures:
    """A contender's figures in a rotation, with the median of its samples."""
    figures = rotation.get(name, {})
    samples = figures.get("samples")
    return {**figures, "median_ms": median(samples)} if samples else figures


def middle(rotations: list[Round], name: str, metric: str) -> float:
    """The median over the rotations."""
    return median(figures_of(rotation, name)[metric] for rotation in rotations)


def pooled(rotations: list[Round], name: str) -> list[float]:
    """The samples of all rotations."""
    return [ms for rotation in rotations for ms in rotation.get(name, {}).get("samples", ())]


def percentile(samples: list[float], share: int) -> float:
    """The nearest rank: the least value that `share` percent of all are not above."""
    return sorted(samples)[max(0, math.ceil(len(samples) * share / 100) - 1)]


def ratios(rotations: list[Round], name: str, base: str, metric: str) -> list[float]:
    """Name's figure over base's, of each rotation that has both."""
    pairs = [(figures_of(one, name).get(metric), figures_of(one, base).get(metric)) for one in rotations]
    return [value / reference for value, reference in pairs if value is not None and reference]
