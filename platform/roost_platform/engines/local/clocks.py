"""UTC that does not jump about: the time of day as it was when it was last looked at seriously, carried on by a steady clock."""

import logging
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

STEP_US = 2_000_000
"""A time of day that is further off was set to another one. Less is a leap second, or the gentle pull of NTP, which moves
both clocks alike: to follow it would leave gaps of milliseconds between stretches, and bill nobody more rightly."""


class Clocks:
    """A steady clock, and what makes UTC of it. Both can be handed in by who makes time pass itself."""

    __slots__ = ("_time_of_day_ns", "now_ns", "offset_us")

    def __init__(
        self,
        *,
        steady_ns: Callable[[], int] = time.monotonic_ns,
        time_of_day_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """`steady_ns` neither steps nor runs back, and stands still while the machine sleeps."""
        self.now_ns = steady_ns
        self._time_of_day_ns = time_of_day_ns
        self.offset_us = self._offset_us()
        """Added to `now_us()` it makes microseconds since 1970 UTC."""

    def now_us(self) -> int:
        return self.now_ns() // 1000

    def look(self) -> None:
        """Follow the time of day if it was set to another; asked for now and then."""
        offset_us = self._offset_us()
        if abs(offset_us - self.offset_us) > STEP_US:
            logger.warning("clock_stepped", extra={"seconds": (offset_us - self.offset_us) / 1e6})
            self.offset_us = offset_us

    def _offset_us(self) -> int:
        return self._time_of_day_ns() // 1000 - self.now_us()
