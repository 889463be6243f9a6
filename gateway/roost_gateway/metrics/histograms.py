"""Histograms as plain lists of counts, so that an observation costs a call next to nothing."""

from bisect import bisect_left
from functools import cache

LATENCY_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 15, 30, 60)
"""OpenTelemetry's buckets for http.server.request.duration, with finer ones below and cold-start ones above."""
ADDED_S = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
"""What the gateway adds to a call is mostly a fraction of a millisecond."""
COLD_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""A wake takes milliseconds from a spare process, and up to a minute where an image has to be pulled."""


class Histogram:
    """Counts in buckets; `bounds` are upper ends in seconds, the last bucket is open."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...] = LATENCY_S) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    def add(self, other: "Histogram") -> None:
        """Take over what another one has counted; it must have the same buckets."""
        assert self.bounds == other.bounds
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    @property
    def count(self) -> int:
        return sum(self.counts)

    def cumulative(self) -> list[tuple[str, int]]:
        """Buckets in Prometheus' way: each end, and the counts up to it."""
        below, buckets = 0, []
        for end, count in zip(_ends(self.bounds), self.counts, strict=True):
            below += count
            buckets.append((end, below))
        return buckets


@cache
def _ends(bounds: tuple[float, ...]) -> tuple[str, ...]:
    """As they are written: always with a decimal point, as every client library does."""
    return (*(str(float(bound)) for bound in bounds), "+Inf")
