"""Whether a replica still answers: told by pings that it leaves unanswered, and by whether it computes meanwhile."""

from collections.abc import Callable
from enum import Enum, auto
from pathlib import Path

PULSE_S = 1.0
"""How often every replica is looked at."""
MISSES = 3
"""Looks in a row that find the last ping unanswered: then it counts as hung."""
IDLE_LOOKS = 5
"""An idle replica is asked once in so many looks: asking wakes its process."""


class Sign(Enum):
    WELL = auto()
    ASK = auto()
    """Send a ping now."""
    HUNG = auto()


class Pulse:
    """One replica's. Counts looks and reads no clock: after the machine has slept, there is time to answer."""

    def __init__(self) -> None:
        self._asked = False
        self._misses = 0
        self._quiet = 0
        self._served = 0
        self._computed = 0

    def heard(self) -> None:
        """The ping was answered."""
        self._asked = False

    def look(self, *, served: int, busy: bool, computed: Callable[[], int]) -> Sign:
        """One look. `served`: answers so far, each as good as an answered ping; `busy`: work is in flight;
        `computed`: asks how much processor time it has used, in any unit.

        A busy replica that computes is not hung: a run may block its event loop until the deadline of its call.
        """
        if served != self._served:
            self._served, self._asked, self._quiet = served, False, 0
            return Sign.WELL
        if not self._asked:
            self._quiet += 1
            if not busy and self._quiet < IDLE_LOOKS:
                return Sign.WELL
            self._asked, self._misses, self._quiet, self._computed = True, 0, 0, computed()
            return Sign.ASK
        self._misses += 1
        if self._misses < MISSES:
            return Sign.WELL
        before, self._computed = self._computed, computed()
        if busy and self._computed != before:
            self._misses = 0
            return Sign.WELL
        return Sign.HUNG


def processor_ticks(pid: int) -> int:
    """Processor time that a process has used, in the kernel's ticks (10 ms as a rule); 0 when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    fields = stat.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
