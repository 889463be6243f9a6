"""What a chart shows, for both who draw it: the still picture in the file, and the script of the page."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from roost_loadtest.report.timeline import Values

DIGITS = 4
"""Of a value: more cannot be seen."""


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    values: Values
    colour: str
    """Of the style sheet: blue, green, red, purple, orange, grey."""
    look: str = "line"
    """Or `steps`, `bars`."""
    dash: str = ""
    """Or `dashed`, `dotted`: colour is never all that tells lines apart."""
    fill: bool = False
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Level:
    """A horizontal line: what was aimed for."""

    name: str
    value: float


@dataclass(frozen=True, slots=True)
class Mark:
    """A vertical line: what happened, and when."""

    at: float
    text: str
    number: int | None = None
    """Of an event, as the list below the charts has it; None = a step of the load."""


@dataclass(frozen=True, slots=True)
class Chart:
    id: str
    title: str
    lines: tuple[Line, ...]
    unit: str = "count"
    """Or `ms`, `rate`."""
    says: str = ""
    """The chart in a sentence, for those who do not see it and those in a hurry."""
    xs: tuple[float, ...] = ()
    """Empty = the run's seconds; else nines, as a percentile plot has them."""
    levels: tuple[Level, ...] = ()
    bands: tuple[tuple[float, float], ...] = ()
    """Stretches of time to shade, from and to."""
    band: str = ""
    """What they are."""

    @property
    def log(self) -> bool:
        """Times whose highest is many times their lowest are unreadable otherwise."""
        low, high = self.reach
        return self.unit == "ms" and low > 0 and high / low > 30

    @property
    def reach(self) -> tuple[float, float]:
        """Lowest and highest of all that is drawn."""
        values = [*self._values(), *self._heaped(), *(level.value for level in self.levels)]
        positive = [value for value in values if value > 0]
        if self.unit == "ms":
            return min(positive, default=0.0), max(positive, default=0.0)
        return 0.0, max(values, default=0.0)

    @property
    def empty(self) -> bool:
        return next(self._values(), None) is None

    def _values(self) -> Iterator[float]:
        return (value for line in self.lines for value in line.values if value is not None)

    def _heaped(self) -> Iterator[float]:
        """How high bars reach that stand on each other."""
        bars = [line.values for line in self.lines if line.look == "bars"]
        return (sum(value or 0.0 for value in column) for column in zip(*bars, strict=True))

    def to_json(self) -> dict[str, Any]:
        """As report.js reads it."""
        return {
            "id": self.id,
            "unit": self.unit,
            "log": self.log,
            "xs": [short(x) for x in self.xs],
            "levels": [[short(level.value), level.name] for level in self.levels],
            "bands": self.bands,
            "lines": [
                {
                    "name": line.name,
                    "values": [short(value) for value in line.values],
                    "colour": line.colour,
                    "look": line.look,
                    "dash": line.dash,
                    "fill": line.fill,
                    "wide": line.wide,
                }
                for line in self.lines
            ],
        }


def short(value: float | None) -> float | int | None:
    """With no more digits than can be seen, so that the file stays small."""
    if value is None or not math.isfinite(value):
        return None
    rounded = float(f"{value:.{DIGITS}g}")
    return int(rounded) if rounded == int(rounded) else rounded
