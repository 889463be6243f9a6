"""What is kept of a feature's or an output's values: counts in fixed bins. Sketches of the same edges add up, in any order."""

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

BINS = 64
"""Most bins of a profile: a sketch is at most some 500 bytes, whatever it has seen."""


@dataclass(frozen=True, slots=True)
class Sketch:
    """`counts[i]` values lie in (edges[i-1], edges[i]]; the first bin lies below the reference, the last one above it."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    missing: int = 0
    """NaN and infinite values."""
    below: int = 0
    above: int = 0
    """Values outside of the reference's range; they are in `counts` as well."""
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        if len(self.counts) != len(self.edges) + 1 or any(
            a >= b for a, b in zip(self.edges, self.edges[1:], strict=False)
        ):
            raise ValueError("edges must rise, and there is one bin more than edges")

    @property
    def size(self) -> int:
        """Values that are numbers."""
        return sum(self.counts)

    def seen(self, values: Iterable[float]) -> Self:
        """With these values added."""
        counts, missing, below, above = list(self.counts), self.missing, self.below, self.above
        for value in values:
            if not math.isfinite(value):
                missing += 1
                continue
            counts[bisect_left(self.edges, value)] += 1
            below += value < self.low
            above += value > self.high
        return replace(self, counts=tuple(counts), missing=missing, below=below, above=above)

    def merged(self, other: "Sketch") -> Self:
        """Of both. Raises ValueError for a sketch of another profile."""
        if (self.edges, self.low, self.high) != (other.edges, other.low, other.high):
            raise ValueError("sketches of different profiles cannot be added")
        return replace(
            self,
            counts=tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)),
            missing=self.missing + other.missing,
            below=self.below + other.below,
            above=self.above + other.above,
        )

    def empty(self) -> Self:
        """The same bins, nothing seen."""
        return replace(self, counts=(0,) * len(self.counts), missing=0, below=0, above=0)

    def to_json(self) -> dict[str, Any]:
        return {
            "edges": list(self.edges), "counts": list(self.counts), "missing": self.missing,
            "below": self.below, "above": self.above, "low": self.low, "high": self.high,
        }  # fmt: skip

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        return cls(**{**document, "edges": tuple(document["edges"]), "counts": tuple(document["counts"])})


def profile(values: Sequence[float], *, bins: int = BINS) -> Sketch:
    """A reference: edges at its quantiles, so that bins hold about the same number; few distinct values get a bin each.

    Raises ValueError without one finite value.
    """
    finite = sorted(value for value in values if math.isfinite(value))
    if not finite:
        raise ValueError("a profile needs at least one number")
    inside = {finite[len(finite) * i // (bins - 2)] for i in range(1, bins - 2)}
    # What lies outside has a bin of its own at each end: else a constant that becomes another one would not be seen.
    edges = sorted(edge for edge in inside | {math.nextafter(finite[0], -math.inf), finite[-1]} if math.isfinite(edge))
    blank = Sketch(tuple(edges), (0,) * (len(edges) + 1), low=finite[0], high=finite[-1])
    return blank.seen(values)
