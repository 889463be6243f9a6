"""Failed starts of one revision in a row: why the last one failed, and when the next may be tried. No clock of its own.

All that failed or ended by itself is also counted, by reason.
"""

from collections import Counter

FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 60.0

OTHER = "Other"
_KNOWN = frozenset(
    {
        "ArtifactMissing",
        "CannotStart",
        "Crashed",
        "Exited",
        "ExitedAtStart",
        "Hung",
        "LoadFailed",
        "Misbehaved",
        "OutOfMemory",
        "RuntimeMissing",
        "StartTimeout",
        "Unresponsive",
    }
)
"""Reasons that are counted by their names. A replica words its own failure, and it may be hostile: the rest is `Other`."""


class Setbacks:
    """Times are seconds of the caller's clock."""

    def __init__(self) -> None:
        self.last: tuple[str, str] | None = None
        """Reason and sentence of the last failure; None while there is none."""
        self._count = 0
        self._retry_at = 0.0
        self._died_young = False
        self.failed_starts: Counter[str] = Counter()
        """By reason, since the beginning."""
        self.restarts: Counter[str] = Counter()
        """Replicas that had been ready and ended by themselves, or had to be ended, by reason; since the beginning."""

    def ended(self, reason: str) -> None:
        """A replica that had been ready ended, and nobody wished it to."""
        self.restarts[_counted(reason)] += 1

    def add(self, reason: str, message: str, now: float) -> None:
        """One more failed start: the wait doubles, up to a bound."""
        self._count += 1
        self.failed_starts[_counted(reason)] += 1
        self._retry_at = now + min(FIRST_BACKOFF_S * 2 ** (self._count - 1), MAX_BACKOFF_S)
        self.last = (reason, message)

    def forgive_once(self) -> bool:
        """For an end that was hardly the model's doing: the first one costs no wait. False = not the first."""
        if self._count:
            return False
        self._count = 1
        return True

    def died_young(self, age_s: float, *, useful: bool) -> bool:
        """A replica that was ready ended by itself at this age; `useful`: it had been given work.

        True when it counts as a failed start, so that one that ends as soon as it is ready is not started again and
        again without a pause. The first in a row is forgiven.
        """
        young = age_s < FIRST_BACKOFF_S and not useful
        again, self._died_young = young and self._died_young, young
        return again

    def clear(self) -> None:
        """A replica became ready."""
        self.last, self._count, self._retry_at = None, 0, 0.0

    def wait_s(self, now: float) -> float:
        """Seconds until another start may be tried; 0 = now."""
        return max(0.0, self._retry_at - now)


def _counted(reason: str) -> str:
    return reason if reason in _KNOWN else OTHER
