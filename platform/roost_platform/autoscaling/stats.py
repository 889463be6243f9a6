"""What the gateway measures of one revision: how many requests are in flight on average, and how many arrive."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Stat:
    """One reporting period: mean requests in flight, and requests that arrived."""

    concurrency: float
    requests: float


FIRST_REQUEST = Stat(concurrency=1.0, requests=1.0)
"""What the first request of a quiet revision reports at once, without waiting for the period to end."""

FORGET_S = 3.0
"""Seconds without a report after which a revision with nothing in flight is not known any more."""


class Reporter(Protocol):
    """What tells the load of one revision: counted by `ConcurrencyReporter`, or known where it is simulated."""

    @property
    def in_flight(self) -> int: ...

    def request_in(self, now: float) -> bool: ...

    def request_out(self, now: float) -> None: ...

    def report(self, now: float) -> Stat | None: ...


class ConcurrencyReporter:
    """Counts the requests of one revision; `report` is meant to be called once a second.

    A revision is *known* from its first request until a whole period passed with nothing in flight, or until reports
    stopped: an engine may end one at any time, and what comes much later must not be averaged over its sleep. Times are
    seconds on one clock; steps back are ignored. `request_in` and `request_out` are on the path of every prediction.
    """

    __slots__ = ("_arrived", "_busy", "_changed", "_known", "_sent_ahead", "_started", "in_flight")

    def __init__(self) -> None:
        self.in_flight = 0
        """Requests that came in and are not out yet."""
        self._known = False
        self._sent_ahead = 0  # requests of this period that FIRST_REQUEST already told of
        self._arrived = 0
        self._busy = 0.0  # the integral of in_flight over this period, in request seconds
        self._started = 0.0  # when this period began
        self._changed = 0.0  # up to when _busy is counted

    def request_in(self, now: float) -> bool:
        """Count a request in. True = the revision was not known: its stat is FIRST_REQUEST, to be recorded at once."""
        if self._known and (self.in_flight or now - self._started < FORGET_S):
            elapsed = now - self._changed
            if elapsed > 0:
                self._busy += self.in_flight * elapsed
                self._changed = now
            self.in_flight += 1
            self._arrived += 1
            return False
        self._known = True
        self._sent_ahead = self._arrived = self.in_flight = 1
        self._busy = 0.0
        self._started = self._changed = now
        return True

    def request_out(self, now: float) -> None:
        """Count a request out that `request_in` counted in."""
        elapsed = now - self._changed
        if elapsed > 0:
            self._busy += self.in_flight * elapsed
            self._changed = now
        self.in_flight -= 1

    def report(self, now: float) -> Stat | None:
        """The stat of the period that ends `now`, and begin the next; None when the revision is not known.

        What FIRST_REQUEST told ahead is taken off, but never below 0 in flight: the period may have been less busy.
        """
        if not self._known:
            return None
        if now > self._changed:
            self._busy += self.in_flight * (now - self._changed)
            self._changed = now
        length = self._changed - self._started
        average = self._busy / length if length > 0 else 0.0
        stat = Stat(max(average - self._sent_ahead, 0.0), float(self._arrived - self._sent_ahead))
        self._sent_ahead = self._arrived = 0
        self._busy = 0.0
        self._started = self._changed
        # Exactly 0 with something in flight is a request that came at this very instant.
        if average == 0 and self.in_flight == 0:
            self._known = False
        return stat
