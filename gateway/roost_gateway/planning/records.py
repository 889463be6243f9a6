"""What a load test's record.json tells a planner. The library that reads its histograms comes with `roost[loadtest]`."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_LAG_S = 0.010
_CPU = 0.85
"""A generator that sent later, or was busier, measured itself: the bounds that the verdict has as well."""


def latencies(encoded: str) -> Counter[int]:
    """Microseconds, and how many there were, from an encoded HdrHistogram. Raises ValueError for what is none."""
    if not encoded:
        return Counter()
    from hdrh.histogram import HdrHistogram  # noqa: PLC0415 - where there is a record, there is the extra

    try:
        histogram = HdrHistogram.decode(encoded)
        counts = histogram.encoder.payload.counts[: histogram.counts_len]
    except Exception as error:  # the library's own errors, zlib's, struct's
        raise ValueError("this is not a histogram") from error
    return Counter({histogram.get_value_from_index(index): count for index, count in enumerate(counts) if count})


def mean_s(counts: Counter[int]) -> float:
    """Seconds; 0 of nothing."""
    return sum(us * count for us, count in counts.items()) / 1e6 / counts.total() if counts else 0.0


@dataclass(frozen=True, slots=True)
class Measured:
    """One short run at a steady rate, without its first seconds."""

    rate: float
    """Requests a second that were offered."""
    requests: int
    """That were due."""
    late: int
    """Of these: answered after the aim, refused, failed, or not even sent."""
    answered_rps: float
    latency_s: float
    """Mean, from when a request was due."""
    fast_enough: bool = True
    """Whether the generator itself kept up: where it did not, being late is not the platform's fault alone."""

    @property
    def in_flight(self) -> float:
        """On average, by Little's law."""
        return self.answered_rps * self.latency_s


def measured(record: Mapping[str, Any], *, rate: float, aim_s: float, settle_s: int) -> Measured:
    """Raises KeyError, TypeError or ValueError for what is not a record; ValueError when nothing is left of it."""
    seconds = [each for each in record["seconds"] if each["second"] >= settle_s and each["offered"]]
    if not seconds:
        raise ValueError("the run was too short")
    counts: Counter[int] = Counter()
    for each in seconds:
        counts += latencies(each["latency"])
    due = sum(each["sent"] + each["dropped"] for each in seconds)
    failed = sum(sum(each["errors"].values()) for each in seconds)
    answered = sum(each["answered"] for each in seconds)
    slow = sum(count for us, count in counts.items() if us > aim_s * 1e6)
    lag = latencies(record["generator"]["lag"])
    late_sent = sum(count for us, count in lag.items() if us > _LAG_S * 1e6)
    return Measured(
        rate=rate,
        requests=due,
        # A refusal may be slow as well, but it is late only once.
        late=min(due, slow + failed + sum(each["dropped"] for each in seconds)),
        # What is answered late counts for the second it was due in; what is left over lasted longer than the run.
        answered_rps=answered / len(seconds),
        latency_s=mean_s(counts),
        fast_enough=late_sent <= lag.total() / 100 and record["generator"]["cpu"] <= _CPU,
    )
