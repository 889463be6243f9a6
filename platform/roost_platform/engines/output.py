"""The last lines that the replicas of one revision printed, kept when a replica ends and another takes its place."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from heapq import merge

from roost_platform.domain.output import OutputLine

LINES_KEPT = 500
"""Of one revision, whichever replicas printed them."""


class Output:
    """Bounded: the oldest lines go. Costs nothing until something is printed."""

    __slots__ = ("_clock", "_lines", "_number")

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._lines: deque[OutputLine] | None = None
        self._number = 0

    def add(self, replica: str, text: str) -> None:
        """A replica printed a line, just now."""
        if self._lines is None:
            self._lines = deque(maxlen=LINES_KEPT)
        self._lines.append(self._line(self._clock(), replica, text))

    def add_fetched(self, replica: str, printed: Iterable[tuple[datetime, str]]) -> None:
        """What a replica printed last, oldest first. Most of it may be known already: those lines are passed over.

        A line is known when one of the same replica has its time: clocks of clusters tell nanoseconds, of which
        microseconds are left.
        """
        before: Sequence[OutputLine] = self._lines or ()
        known = {(line.replica, line.at) for line in before}
        full = len(before) == LINES_KEPT
        new = [
            self._line(at, replica, text)
            for at, text in printed
            if (replica, at) not in known and not (full and at < before[0].at)
        ]
        if new:
            self._lines = deque(merge(before, new, key=lambda line: line.at), maxlen=LINES_KEPT)

    def lines(self) -> list[OutputLine]:
        """By their time, oldest first."""
        return list(self._lines or ())

    def _line(self, at: datetime, replica: str, text: str) -> OutputLine:
        self._number += 1
        return OutputLine(self._number, at, replica, text)
