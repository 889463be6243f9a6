"""The life of one replica, cut into stretches that say what each was spent on. Pure: moments come in as numbers.

A moment is in whole microseconds of a *steady* clock, which neither steps nor runs back. At each moment the replica is in
exactly one part of its life, and every microsecond goes to that part: so the parts of a stretch add up to its length,
and its stretches to its life, whatever is done to the time of day.

UTC is the steady clock plus an offset. A stretch has the offset of its beginning, and ends at the full hour if not
earlier. When the time of day is set to another, the next stretch begins by the new one: between the two there is a gap,
or an overlap, as long as the step; how long anything took does not change.
"""

from dataclasses import dataclass
from enum import IntEnum
from itertools import count

_HOUR_US = 3_600_000_000


class Part(IntEnum):
    """What a replica does. The first three are its setup."""

    SCHEDULE = 0
    """It waits for room and for a process,"""
    PULL = 1
    """for its file, which was not here,"""
    LOAD = 2
    """and for its model to be loaded and warm."""
    ACTIVE = 3
    """At least one request is in it."""
    IDLE = 4
    RESERVED = 5
    """Idle, and kept because of min-scale."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Part of a replica's life, within one hour of UTC."""

    number: int
    """0, 1, 2 … within the replica."""
    start_us: int
    """Microseconds since 1970 UTC, as `end_us`."""
    end_us: int
    spent_us: tuple[int, ...]
    """By `Part`; the sum is `end_us - start_us`."""
    cold_starts: int
    final: bool


class Timeline:
    """One replica's. Moments that come in must not be earlier than the one before; one that is counts as that."""

    __slots__ = (
        "_begun_us",
        "_cold_starts",
        "_done",
        "_numbers",
        "_offset_us",
        "_since_us",
        "_spent",
        "active_us",
        "hour_ends_us",
        "part",
    )

    def __init__(self, at_us: int, *, offset_us: int, part: Part = Part.SCHEDULE) -> None:
        """It begins. `offset_us`: what makes microseconds since 1970 UTC of a moment."""
        self.part = part
        self.active_us = 0
        """Of the time that is accounted for next, so much was spent being active, however it was spread."""
        self._since_us = at_us
        self._done: list[Stretch] = []
        self._numbers = count()
        self._begin(at_us, offset_us)

    def enter(self, part: Part, at_us: int) -> None:
        """From now on it does this."""
        while at_us > self.hour_ends_us:
            self._spend(self.hour_ends_us)
            self._close(final=False)
            self._begin(self._since_us, self._offset_us)
        if at_us > self._since_us:
            self._spend(at_us)
        self.part = part

    def count_cold_start(self) -> None:
        """A request woke it, and it is ready now."""
        self._cold_starts = 1

    def cut(self, at_us: int, *, offset_us: int) -> list[Stretch]:
        """End the stretch here and begin the next one; all that have ended since the last cut, oldest first."""
        self.enter(self.part, at_us)
        kept = self._cold_starts
        if self._since_us > self._begun_us:
            self._close(final=False)
            kept = 0
        self._begin(self._since_us, offset_us)
        self._cold_starts = kept
        return self._taken()

    def end(self, at_us: int) -> list[Stretch]:
        """It is no more: what there is since the last cut, the last of them `final`."""
        self.enter(self.part, at_us)
        self._close(final=True)
        return self._taken()

    def _begin(self, at_us: int, offset_us: int) -> None:
        self._begun_us = at_us
        self._offset_us = offset_us
        self.hour_ends_us = at_us + _HOUR_US - (at_us + offset_us) % _HOUR_US
        self._spent = [0] * len(Part)
        self._cold_starts = 0

    def _spend(self, until_us: int) -> None:
        lasted = until_us - self._since_us
        active = min(self.active_us, lasted)
        self.active_us -= active
        self._spent[Part.ACTIVE] += active
        self._spent[self.part] += lasted - active
        self._since_us = until_us

    def _close(self, *, final: bool) -> None:
        start, end = self._begun_us + self._offset_us, self._since_us + self._offset_us
        self._done.append(Stretch(next(self._numbers), start, end, tuple(self._spent), self._cold_starts, final))

    def _taken(self) -> list[Stretch]:
        done, self._done = self._done, []
        return done
