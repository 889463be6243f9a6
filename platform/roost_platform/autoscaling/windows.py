"""Sliding windows over whole seconds: the averages that load is judged by, and the maximum that delays a scale-down.

Seconds are counted on any clock that never runs back by much; only differences matter.
"""

import math
from collections import deque
from enum import StrEnum

_DECIMALS = 1_000_000
"""Linear averages are rounded to a millionth, so that adding and removing a value leaves exactly nothing."""
_WEIGHT_WITHIN_WINDOW = 0.9999
"""Share of an endless exponential series that must lie inside the window; fixes how fast weights decay."""
_LEAST_DECAY = 0.2
"""Long windows would otherwise decay so slowly that they became plain averages."""


class Aggregation(StrEnum):
    """How a window's seconds become one number."""

    LINEAR = "linear"
    WEIGHTED_EXPONENTIAL = "weighted-exponential"


class BucketWindow:
    """One number per second for the last `window_s` seconds; values of the same second are summed."""

    __slots__ = ("_buckets", "_decay", "_first", "_last", "_total")

    def __init__(self, window_s: int) -> None:
        """`window_s` is in whole seconds, at least 1. Raises ValueError otherwise."""
        if window_s < 1:
            raise ValueError(f"a window needs at least one second, got {window_s}")
        self._buckets = [0.0] * window_s
        self._decay = _decay(window_s)
        self._first = 0  # the oldest second written; meaningless while _last is None
        self._last: int | None = None  # the newest second written
        self._total = 0.0  # the sum of all buckets, kept up to date so that an average costs no loop

    def record(self, second: float, value: float) -> None:
        """Add `value` to the bucket of `second`. Seconds that were skipped count as 0; too old ones are ignored."""
        at = math.floor(second)
        size = len(self._buckets)
        if self._last is None or at - self._last >= size:
            self._buckets = [0.0] * size
            self._total = 0.0
            self._first = self._last = at
        elif at + size <= self._last:
            return
        else:
            self._first = min(self._first, at)
            for skipped in range(self._last + 1, at + 1):
                self._total -= self._buckets[skipped % size]
                self._buckets[skipped % size] = 0.0
            self._last = max(self._last, at)
        self._buckets[at % size] += value
        self._total += value

    def average(self, now: float) -> float:
        """The mean over the seconds known at `now`, rounded to 6 decimals.

        A window younger than its length divides by its age; one whose newest seconds are missing divides by what is
        left; one with nothing left is 0.
        """
        size = len(self._buckets)
        if self._last is None:
            return 0.0
        stale = max(0, math.floor(now) - self._last)
        if stale >= size:
            return 0.0
        total = self._total
        for gone in range(self._last + 1, self._last + stale + 1):
            total -= self._buckets[gone % size]
        return _rounded(total / min(self._last - self._first + 1, size - stale))

    def weighted_average(self, now: float) -> float:
        """The sum of all seconds with weights that shrink exponentially with age.

        It is not normalised: a first value v reads as v times the decay.
        """
        size = len(self._buckets)
        if self._last is None:
            return 0.0
        stale = max(0, math.floor(now) - self._last)
        weight = self._decay * (1 - self._decay) ** stale
        result = 0.0
        for age in range(size - stale):
            result += self._buckets[(self._last - age) % size] * weight
            weight *= 1 - self._decay
        return result

    def aggregate(self, how: Aggregation, now: float) -> float:
        return self.average(now) if how is Aggregation.LINEAR else self.weighted_average(now)

    def resize(self, window_s: int, now: float) -> None:
        """Make the window longer or shorter and keep the seconds that it still held at `now`.

        A longer window starts with the age of the old one, because what went before was thrown away. Raises ValueError
        as the constructor does.
        """
        size = len(self._buckets)
        if window_s == size:
            return
        resized = BucketWindow(window_s)
        if self._last is not None:
            newest = max(self._last, math.floor(now))
            for second in range(max(self._first, newest - min(size, window_s) + 1), self._last + 1):
                resized.record(second, self._buckets[second % size])
        self._buckets, self._decay, self._total = resized._buckets, resized._decay, resized._total
        self._first, self._last = resized._first, resized._last


class MaxWindow:
    """The largest value of the last `length_s` seconds, in steps of `step_s` seconds."""

    __slots__ = ("_length", "_recent", "_step_s")

    def __init__(self, length_s: float, step_s: int) -> None:
        self._step_s = step_s
        self._length = 1
        self._recent: deque[tuple[int, int]] = deque()  # (step, value): steps rise, values fall
        self.resize(length_s)

    def resize(self, length_s: float) -> None:
        """Take effect from the next `record`; what was seen before still counts as far as it fits."""
        self._length = max(1, math.ceil(length_s / self._step_s))

    def record(self, now: float, value: int) -> int:
        """Add `value` and return the largest one of the window. Within one step the largest stays."""
        step = math.floor(now) // self._step_s
        recent = self._recent
        # A value that is not larger than a newer one can never be the maximum again.
        while recent and recent[-1][1] <= value:
            recent.pop()
        while recent and step - recent[0][0] >= self._length:
            recent.popleft()
        if not recent or recent[-1][0] != step:
            recent.append((step, value))
        return recent[0][1]


def _decay(window_s: int) -> float:
    return float(max(_LEAST_DECAY, 1 - (1 - _WEIGHT_WITHIN_WINDOW) ** (1 / window_s)))


def _rounded(value: float) -> float:
    """Half away from zero, unlike Python's own rounding."""
    scaled = value * _DECIMALS
    whole = math.trunc(scaled)
    if abs(scaled - whole) >= 0.5:
        whole += 1 if scaled > 0 else -1
    return whole / _DECIMALS
