"""Where values lie on an axis, and which of them are written beside it. Pure."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

_MOST_TICKS = 5
_TIMES = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)
_MOST_TIMES = 9


@dataclass(frozen=True, slots=True)
class Scale:
    low: float
    high: float
    log: bool = False

    @classmethod
    def over(cls, low: float, high: float, *, log: bool) -> "Scale":
        """With some room above; a logarithmic one from and to 1, 2 or 5 times a power of ten."""
        if log:
            return cls(
                max(_steps_up_to(low)),
                next(each for each in _steps_from(high) if each >= high and each > low),
                log=True,
            )
        return cls(0.0, high * 1.08 or 1.0)

    def share(self, value: float) -> float:
        """0 at the bottom, 1 at the top; what lies outside is at the edge."""
        if self.log:
            value = max(value, self.low)
            found = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            found = (value - self.low) / (self.high - self.low)
        return min(max(found, 0.0), 1.0)

    def ticks(self, *, whole: bool) -> list[float]:
        if self.log:
            every = [each for each in _steps_from(self.low) if each <= self.high * 1.0001]
            return every if len(every) <= _MOST_TICKS else [each for each in every if f"{each:e}".startswith("1.")]
        rough = (self.high - self.low) / _MOST_TICKS
        step = next(each for each in _steps_from(max(rough, 1 if whole else 0)) if each >= rough * 0.999)
        return [step * n for n in range(math.floor(self.high / step) + 1)]


def times(length: float) -> list[int]:
    """Moments to write under an axis of so many seconds."""
    step = next((each for each in _TIMES if length / each <= _MOST_TIMES), _TIMES[-1])
    return list(range(0, math.floor(length) + 1, step))


def _steps_from(value: float) -> Iterator[float]:
    """1, 2 and 5 times the powers of ten, from about a value upwards; at most over thirty decades."""
    decade = math.floor(math.log10(value)) if value > 0 else 0
    for power in range(decade, decade + 30):
        for factor in (1, 2, 5):
            step = factor * 10.0**power
            if step >= value * 0.999:
                yield step


def _steps_up_to(value: float) -> Iterator[float]:
    decade = math.floor(math.log10(value))
    return (step for factor in (1, 2, 5) if (step := factor * 10.0**decade) <= value * 1.0001)
