"""Where a model runs: on the event loop when a run is over sooner than a hand-over to a thread, else in threads.

Decided from measured run times alone. A model that proved slow on the loop stays in threads for good, since its cost may
depend on its input; one whose time is not known starts in threads and moves onto the loop after some quick runs in a row.
"""

INLINE_BELOW_US = 1000
"""A run may keep other requests, health checks among them, waiting this long."""

INLINE_BODY_BYTES = 1 << 16
"""Larger requests go to a thread whatever the model: its time was measured on small ones."""

_WEIGHT = 0.2
_TRIALS = 8
_CHANCES = 3
_CLAMP_US = 3 * INLINE_BELOW_US
"""A run counts as no slower than this, so that one run during which the process was not scheduled decides nothing."""
_TOO_SLOW_US = 50 * INLINE_BELOW_US
"""But one run as slow as this is the model's doing."""


class Pace:
    """Watches the run times of one model."""

    def __init__(self, run_us: int | None = None) -> None:
        """`run_us`: what one run takes, in microseconds, if it is known."""
        self._average = float(run_us) if run_us is not None else 0.0
        self._trials_left = 0 if run_us is not None else _TRIALS
        self._chances_left = _CHANCES
        self.inline = run_us is not None and run_us < INLINE_BELOW_US

    @property
    def run_us(self) -> int:
        """Moving average of a run's microseconds; 0 = none seen."""
        return int(self._average)

    def observe(self, run_us: int) -> None:
        """Take note of one run."""
        if self.inline:
            self._average += _WEIGHT * (min(run_us, _CLAMP_US) - self._average)
            self.inline = self._average < INLINE_BELOW_US and run_us < _TOO_SLOW_US
            return
        self._average += _WEIGHT * (run_us - self._average) if self._average else run_us
        if self._trials_left and self._chances_left:
            self._try(run_us)

    def _try(self, run_us: int) -> None:
        if run_us >= INLINE_BELOW_US:
            self._trials_left = _TRIALS
            self._chances_left -= 1
            return
        self._trials_left -= 1
        if not self._trials_left:
            self.inline = True
            self._average = float(run_us)
