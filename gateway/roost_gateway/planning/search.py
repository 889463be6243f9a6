"""The highest rate that holds a latency aim, by bracketing and bisection; each answer with a stated confidence. Pure.

Whether 99 of 100 requests keep the aim is a question about a share, asked of a sample: k late ones of n. If the true share
were 1 %, at most k late ones would be as rare as the binomial distribution says. A rate *holds* when that is rarer than
1 - confidence, *fails* when at least k are rarer than that, and is *open* between the two: then it is run again, and the
samples add up. Late requests come in clusters, so the confidence is that of independent ones: the search ends with a run
of its own at the rate found, which must hold as well.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

LATE_SHARE = 0.01
"""What a p99 allows."""
PRECISION = 0.10
"""The rate found and the lowest that failed lie at most so far apart."""


class Answer(StrEnum):
    HOLDS = "holds"
    FAILS = "fails"
    OPEN = "open"


def answer(requests: int, late: int, *, confidence: float, share: float = LATE_SHARE) -> Answer:
    """What `late` of `requests` say about whether at most `share` are late."""
    if requests == 0:
        return Answer.OPEN
    if at_most(late, requests, share) <= 1 - confidence:
        return Answer.HOLDS
    if 1 - at_most(late - 1, requests, share) <= 1 - confidence:
        return Answer.FAILS
    return Answer.OPEN


def at_most(k: int, n: int, p: float) -> float:
    """The chance of at most k of n, each with the chance p."""
    if k < 0:
        return 0.0
    if k >= n:
        return 1.0
    log_p, log_q = math.log(p), math.log1p(-p)
    total = 0.0
    # Beyond ten standard deviations over the mean nothing is added that a float could hold.
    for i in range(min(k, math.ceil(n * p + 10 * math.sqrt(n * p) + 20)) + 1):
        ways = math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1)
        total += math.exp(ways + i * log_p + (n - i) * log_q)
    return min(1.0, total)


def requests_needed(*, confidence: float, share: float = LATE_SHARE) -> int:
    """The fewest requests that can show that a rate holds: none of them may be late."""
    return math.ceil(math.log(1 - confidence) / math.log1p(-share))


@dataclass(slots=True)
class Search:
    """Ask for `next_rate`, run it, `tell` the answer; until there is none."""

    most: float
    """Requests a second beyond which nobody asks."""
    start: float
    precision: float = PRECISION
    least: float = 0.2
    """Below it a replica holds nothing worth planning with."""
    low: float = 0.0
    """The highest rate that held."""
    high: float = math.inf
    """The lowest that did not."""

    def next_rate(self) -> float | None:
        if self.low >= self.most or self.high <= self.least:
            return None
        if math.isinf(self.high):
            return min(self.most, 2 * self.low if self.low else max(self.start, self.least))
        if not self.low:
            return self.high / 4
        return math.sqrt(self.low * self.high) if self.high / self.low > 1 + self.precision else None

    def tell(self, rate: float, *, held: bool) -> None:
        if held:
            self.low = max(self.low, rate)
        else:
            self.high = min(self.high, rate)
            if self.low >= self.high:
                self.low = 0.0  # what held before may have been luck: look for it again from below
