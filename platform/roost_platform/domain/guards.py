"""The limits of a rollout as users write them: `p99<120ms,errors<0.5%,disagreement<1%`.

Each is a share of requests that may be bad: a p99 under 120 ms says that at most 1 % take longer than 120 ms; disagreement is
the share that the new version answers otherwise than the serving one, on copies of the same requests.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from roost_platform.domain.errors import InvalidRequest

_QUANTILE = re.compile(r"p(\d{2}(?:\.\d{1,2})?)<(\d+(?:\.\d+)?)(ms|s)")
_SHARE = re.compile(r"(errors|disagreement)<(\d+(?:\.\d+)?)%")


class Measure(StrEnum):
    LATENCY = "latency"
    ERRORS = "errors"
    DISAGREEMENT = "disagreement"


@dataclass(frozen=True, slots=True)
class Guard:
    text: str
    measure: Measure
    limit: float
    """The share of bad requests that is allowed, in (0, 1)."""
    threshold_s: float = 0.0
    """For latency: a request that takes longer is bad."""


def parse(text: str) -> tuple[Guard, ...]:
    """Raises InvalidRequest, field `guard`, naming the part that is wrong."""
    guards = tuple(_parse_one("".join(part.split())) for part in text.split(","))
    texts = [guard.text.split("<")[0] for guard in guards]
    for name in texts:
        if texts.count(name) > 1:
            raise InvalidRequest(f"the guard {name} is given twice", field="guard")
    return guards


def _parse_one(part: str) -> Guard:
    if match := _QUANTILE.fullmatch(part):
        limit, threshold = 1 - float(match[1]) / 100, float(match[2]) / (1000 if match[3] == "ms" else 1)
        if threshold > 0 and limit < 1:
            return Guard(part, Measure.LATENCY, limit, threshold)
    elif match := _SHARE.fullmatch(part):
        limit = float(match[2]) / 100
        if 0 < limit < 1:
            return Guard(part, Measure(match[1]), limit)
    raise InvalidRequest(f"guard {part!r} is not like p99<120ms, errors<0.5% or disagreement<1%", field="guard")
