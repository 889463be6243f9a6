"""Counters of one replica: plain integers, so that counting costs the hot path next to nothing."""

from bisect import bisect_left

DURATION_BOUNDS_US = (
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000,
    100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
)  # fmt: skip
BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Histogram:
    """Counts per bucket, and their sum. The last bucket is for everything above the bounds."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[int, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0

    def add(self, value: int) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Figures:
    """What one model's core counted since it started. Written by the event loop's thread only."""

    def __init__(self) -> None:
        self.outcomes = {"ok": 0, "client_error": 0, "model_error": 0, "cancelled": 0, "refused": 0}
        self.compute_us = Histogram(DURATION_BOUNDS_US)
        self.queue_us = Histogram(DURATION_BOUNDS_US)
        self.batch_requests = Histogram(BATCH_BOUNDS)
        self.rows = 0
        self.runs = 0
        self.busy_us = 0
        self.request_us = 0
        """From a request's arrival to its answer, summed; what was refused at once is not in it."""

    def count_answer(self, status: int) -> None:
        self.outcomes[_outcome(status)] += 1

    def count_run(self, requests: int, us: int) -> None:
        """One run of the model for so many requests."""
        self.runs += 1
        self.busy_us += us
        self.batch_requests.add(requests)


def _outcome(status: int) -> str:
    if status == 200:
        return "ok"
    if status == 499:
        return "cancelled"
    if status == 503:
        return "refused"
    return "model_error" if status == 422 or status >= 500 else "client_error"
