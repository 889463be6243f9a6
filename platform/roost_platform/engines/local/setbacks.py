"""Failed starts of one revision in a row: why the last one failed, and when the next may be tried. No clock of its own."""

FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 60.0


class Setbacks:
    """Times are seconds of the caller's clock."""

    def __init__(self) -> None:
        self.last: tuple[str, str] | None = None
        """Reason and sentence of the last failure; None while there is none."""
        self._count = 0
        self._retry_at = 0.0
        self._died_young = False

    def add(self, reason: str, message: str, now: float) -> None:
        """One more failed start: the wait doubles, up to a bound."""
        self._count += 1
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
