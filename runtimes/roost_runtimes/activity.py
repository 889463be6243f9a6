"""When requests were in a replica: the union of their times, also by stretches of ten seconds of UTC.

A stretch that is over is the same whoever asks for it, and whenever. So what was active can be told by somebody who was
not there at the time, and two who tell it say the same.
"""

from collections import deque
from dataclasses import dataclass
from time import perf_counter_ns, time_ns

STRETCH_US = 10_000_000
KEPT = 360
"""Stretches remembered, an hour of them: so long nobody need ask, and nothing is lost."""


@dataclass(frozen=True, slots=True)
class Past:
    """Stretches by number, which is their beginning in microseconds since 1970 / STRETCH_US."""

    first: int
    busy_us: list[int]
    """Of each stretch that is over, from number `first` on without a gap."""
    current_us: int
    """Of the stretch that is not over, so far."""


class Activity:
    """Told of each first request in and each last one out. Times handed in are those of `perf_counter_ns`.

    The wall clock is read once: no correction of it gives or takes time.
    """

    def __init__(self, *, now_ns: int | None = None, utc_ns: int | None = None) -> None:
        """`utc_ns`: the time of day at `now_ns`, in nanoseconds since 1970; both are now if they are not given."""
        now = perf_counter_ns() if now_ns is None else now_ns
        self._to_utc_ns = (time_ns() if utc_ns is None else utc_ns) - now
        self.total_us = 0
        """Microseconds with at least one request, as of the last call of a method."""
        self._since_us: int | None = None
        self._number = self.utc_us(now) // STRETCH_US
        self._over_us = (self._number + 1) * STRETCH_US  # the end of stretch `_number`
        self._busy_us = 0  # of stretch `_number`
        self._past: deque[tuple[int, int]] = deque(maxlen=KEPT)  # (number, busy microseconds), without those of zero

    def utc_us(self, now_ns: int) -> int:
        """Microseconds since 1970."""
        return (now_ns + self._to_utc_ns) // 1000

    def began(self, now_ns: int) -> None:
        """There is a request now, after there was none."""
        self._since_us = (now_ns + self._to_utc_ns) // 1000

    def ended(self, now_ns: int) -> None:
        """There is none any more."""
        now_us, since_us = (now_ns + self._to_utc_ns) // 1000, self._since_us
        if since_us is not None and now_us < self._over_us:  # as nearly always, and so for each of many requests
            self.total_us += now_us - since_us
            self._busy_us += now_us - since_us
        else:
            self._book(now_us)
        self._since_us = None

    def look(self, now_ns: int, *, first: int = 0) -> Past:
        """What there was in each stretch from number `first` on, as far back as it is known."""
        now_us = self.utc_us(now_ns)
        self._book(now_us)
        self._move_to(now_us)
        first = min(max(first, self._number - KEPT), self._number)
        busy = dict(self._past)
        return Past(first, [busy.get(number, 0) for number in range(first, self._number)], self._busy_us)

    def _book(self, now_us: int) -> None:
        """Count what has passed since the last time, if there was a request in it."""
        since = self._since_us
        if since is None:
            return
        self._since_us = now_us
        self.total_us += now_us - since
        if since >= self._over_us:
            self._move_to(since)
        while now_us > self._over_us:
            self._busy_us += self._over_us - since
            since = self._over_us
            self._move_to(since)
        self._busy_us += now_us - since

    def _move_to(self, us: int) -> None:
        """Go on with the stretch that this moment lies in."""
        number = us // STRETCH_US
        if number == self._number:
            return
        if self._busy_us:
            self._past.append((self._number, self._busy_us))
        self._number, self._over_us, self._busy_us = number, (number + 1) * STRETCH_US, 0
