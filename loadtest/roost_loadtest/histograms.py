"""Latencies as an HdrHistogram counts them: every quantile to three digits, and several of them add up exactly.

Counted in a dictionary of the buckets that hold something, because a run keeps one histogram a second and the library's own
takes 100 KiB each. Written and read in HdrHistogram's own compressed form, which tools in other languages read too.
"""

from collections.abc import Iterable
from typing import Self

from hdrh.histogram import HdrHistogram

_LARGEST_US = 3_600_000_000
_DIGITS = 3
_BITS = 11
"""Values keep their upper 11 bits: buckets are at most 1/1024 wide, as HdrHistogram has them for three digits."""


class Histogram:
    """Of times in seconds, kept as whole microseconds from 1 to an hour; what lies outside is counted at the edge."""

    __slots__ = ("_buckets", "_count")

    def __init__(self) -> None:
        # The lowest value of each bucket, and how many fell into it.
        self._buckets: dict[int, int] = {}
        self._count = 0

    def add(self, seconds: float) -> None:
        us = min(max(round(seconds * 1e6), 1), _LARGEST_US)
        shift = us.bit_length() - _BITS
        if shift > 0:
            us = us >> shift << shift
        self._buckets[us] = self._buckets.get(us, 0) + 1
        self._count += 1

    def merge(self, other: "Histogram") -> None:
        for value, count in other._buckets.items():  # noqa: SLF001 - of the same class
            self._buckets[value] = self._buckets.get(value, 0) + count
        self._count += other._count  # noqa: SLF001

    @classmethod
    def sum(cls, histograms: Iterable["Histogram"]) -> Self:
        total = cls()
        for each in histograms:
            total.merge(each)
        return total

    @property
    def count(self) -> int:
        return self._count

    def quantile(self, share: float) -> float:
        """Seconds under which `share` (0 to 1) of all lie; 0 when there are none."""
        wanted, seen = max(1, int(share * self._count + 0.5)), 0
        for value in sorted(self._buckets):
            seen += self._buckets[value]
            if seen >= wanted:
                return _highest(value) / 1e6
        return 0.0

    def above(self, seconds: float) -> int:
        """How many lie over it, as exactly as buckets tell."""
        us = round(seconds * 1e6)
        return sum(count for value, count in self._buckets.items() if value > us)

    @property
    def largest(self) -> float:
        """Seconds."""
        return self.quantile(1.0)

    @property
    def mean(self) -> float:
        """Seconds."""
        total = sum((value + _highest(value)) / 2 * count for value, count in self._buckets.items())
        return total / self._count / 1e6 if self._count else 0.0

    def encode(self) -> str:
        """HdrHistogram's own compressed form (V2) in base64; empty when there is nothing."""
        if not self._count:
            return ""
        histogram = HdrHistogram(1, _LARGEST_US, _DIGITS)
        for value, count in self._buckets.items():
            histogram.record_value(value, count)
        text: str = histogram.encode().decode("ascii")
        return text

    @classmethod
    def decode(cls, text: str) -> Self:
        """Raises ValueError for what `encode` does not write."""
        made = cls()
        if text:
            try:
                found = HdrHistogram.decode(text)
                # The library's own iterator takes 40 ms a histogram: minutes for the record of an hour.
                for index, count in enumerate(found.encoder.payload.counts[: found.counts_len]):
                    if count:
                        made._buckets[_lowest(found.get_value_from_index(index))] = count
                        made._count += count
            except Exception as error:  # the library's own errors, zlib's, struct's
                raise ValueError("this is not a histogram") from error
        return made

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self._buckets == other._buckets

    def __hash__(self) -> int:
        return hash(frozenset(self._buckets.items()))

    def __repr__(self) -> str:
        return f"<Histogram of {self._count}, median {self.quantile(0.5):.6f} s, largest {self.largest:.6f} s>"


def _lowest(us: int) -> int:
    shift = max(0, us.bit_length() - _BITS)
    return us >> shift << shift


def _highest(us: int) -> int:
    """The largest value of a bucket whose lowest this is."""
    return int(us) + (1 << max(0, us.bit_length() - _BITS)) - 1
