"""The seconds of a record, thinned to as many points as a chart can show: none of the highest is lost. Pure."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from roost_loadtest.record import Record, Replicas, Second

QUANTILES = (0.5, 0.95, 0.99, 1.0)

Values = tuple[float | None, ...]
"""One per point; None = nothing is known of it."""


@dataclass(frozen=True)
class Timeline:
    """Points are `step` seconds apart, the first is second 0."""

    record: Record
    step: int

    @classmethod
    def of(cls, record: Record, *, points: int) -> "Timeline":
        """At most so many points."""
        return cls(record, max(1, math.ceil(_length(record) / points)))

    @property
    def length(self) -> int:
        """Seconds, with those after the last request."""
        return _length(self.record)

    @property
    def times(self) -> tuple[int, ...]:
        return tuple(range(0, self.length, self.step))

    @property
    def targets(self) -> tuple[str, ...]:
        """Those of the plan first."""
        told = (name for second in self._all.values() for name in second.replicas)
        return tuple(dict.fromkeys([*(str(each.target) for each in self.record.plan.streams), *told]))

    def mean(self, value: Callable[[Second], float]) -> Values:
        """Of the seconds in which requests were due."""
        return self._each(self._run, lambda seconds: sum(map(value, seconds)) / len(seconds))

    def total(self, value: Callable[[Second], float]) -> Values:
        return self._each(self._run, lambda seconds: sum(map(value, seconds)))

    def highest(self, value: Callable[[Second], float | None]) -> Values:
        return self._each(self._run, lambda seconds: _max(map(value, seconds)))

    def replicas(self, target: str, value: Callable[[Replicas], float | None]) -> Values:
        """The highest that was told; with what came after the last request."""
        return self._each(
            self._all,
            lambda seconds: _max(value(each.replicas[target]) for each in seconds if target in each.replicas),
        )

    def grown(self, target: str, value: Callable[[Replicas], int | None]) -> Values:
        """By how much a count that starts at 0 grew."""
        reached = 0
        by_second: dict[int, float] = {}
        for at, second in sorted(self._all.items()):
            told = second.replicas.get(target)
            now = None if told is None else value(told)
            if now is not None:
                by_second[at] = max(0, now - reached)
                reached = max(reached, now)
        return self._points(by_second.get, sum)

    def curve(self, steps: Iterable[tuple[float, float]]) -> Values:
        """Of a value that is told when it changes, or each second: it stays until it is told again."""
        told = sorted(steps)
        by_second: dict[int, float] = {}
        index = 0
        for at in range(self.length if told else 0):
            while index < len(told) and told[index][0] < at + 1:
                index += 1
            if index:
                by_second[at] = told[index - 1][1]
        return self._points(by_second.get, max)

    def quantile(self, index: int) -> Values:
        """Of QUANTILES, in milliseconds: the worst second of each point."""
        return self.highest(lambda second: self._quantiles[second.second][index])

    @cached_property
    def _quantiles(self) -> Mapping[int, Sequence[float | None]]:
        return {
            at: [second.latency.quantile(share) * 1000 if second.latency.count else None for share in QUANTILES]
            for at, second in self._run.items()
        }

    @cached_property
    def _run(self) -> dict[int, Second]:
        return {second.second: second for second in self.record.seconds}

    @cached_property
    def _all(self) -> dict[int, Second]:
        return {second.second: second for second in (*self.record.after, *self.record.seconds)}

    def _each(self, seconds: Mapping[int, Second], value: Callable[[list[Second]], float | None]) -> Values:
        found = []
        for start in self.times:
            here = [seconds[at] for at in range(start, start + self.step) if at in seconds]
            found.append(value(here) if here else None)
        return tuple(found)

    def _points(self, of_second: Callable[[int], float | None], together: Callable[[list[float]], float]) -> Values:
        found: list[float | None] = []
        for start in self.times:
            known = [value for at in range(start, start + self.step) if (value := of_second(at)) is not None]
            found.append(together(known) if known else None)
        return tuple(found)


def predicted(platform: Mapping[str, Any], target: str) -> list[tuple[float, float]]:
    """The KPA's own prediction, as it was added to the record; empty when it was not."""
    return [(float(at), float(replicas)) for at, replicas in (platform.get("prediction") or {}).get(target) or []]


def _length(record: Record) -> int:
    return max((second.second + 1 for second in (*record.seconds, *record.after)), default=0)


def _max(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
