"""What counts of bad requests prove about a guard, however often one looks.

For a share p, the beta mixture over p of the likelihood ratio is a martingale under p; by Ville's inequality it passes
1/alpha with a chance of at most alpha, ever. The shares that it has not ruled out are a confidence sequence (Robbins).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    PASSED = "passed"
    VIOLATED = "violated"
    SHARED = "shared"
    """Over the limit, but so is the serving version at the same time: held, and not blamed on the candidate."""
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Counts:
    total: int = 0
    bad: int = 0


def bounds(counts: Counts, alpha: float) -> tuple[float, float]:
    """The shares not ruled out; the true one is outside at any time with a chance of at most alpha. Prior Beta(1/2, 1/2)."""
    n, k = counts.total, counts.bad
    if n == 0:
        return 0.0, 1.0
    mixture = _log_beta(k + 0.5, n - k + 0.5) - _log_beta(0.5, 0.5)

    def ruled_out(p: float) -> bool:
        likelihood = (k * math.log(p) if k else 0.0) + ((n - k) * math.log1p(-p) if n > k else 0.0)
        return mixture - likelihood >= -math.log(alpha)

    seen = k / n
    low = 0.0 if k == 0 else _edge(0.0, seen, ruled_out_at=ruled_out)
    high = 1.0 if k == n else _edge(1.0, seen, ruled_out_at=ruled_out)
    return low, high


def judge(candidate: Counts, serving: Counts | None, *, limit: float, alpha: float, minimum: int) -> Verdict:
    """Of one guard, over the same time for both; `serving` is None where it is what the candidate is measured by.

    Violated only when proven over the limit and proven worse than the serving version: an equal one is blamed with a
    chance of at most 2 alpha, ever, and one over the limit passes with a chance of at most alpha. Nothing passes before
    there were `minimum` requests of each; blame needs proof only.
    """
    low, high = bounds(candidate, alpha)
    if high < limit:
        least = candidate.total if serving is None else min(candidate.total, serving.total)
        return Verdict.PASSED if least >= minimum else Verdict.OPEN
    if low <= limit:
        return Verdict.OPEN
    if serving is None:
        return Verdict.VIOLATED
    serving_low, serving_high = bounds(serving, alpha)
    if low > serving_high:
        return Verdict.VIOLATED
    return Verdict.SHARED if serving_low > limit else Verdict.OPEN


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _edge(out: float, inside: float, *, ruled_out_at: Callable[[float], bool]) -> float:
    """Where ruled out ends, between `out` and the share that was seen, by halving; errs to the outside."""
    for _ in range(50):
        middle = (out + inside) / 2
        if 0.0 < middle < 1.0 and not ruled_out_at(middle):
            inside = middle
        else:
            out = middle
    return out
