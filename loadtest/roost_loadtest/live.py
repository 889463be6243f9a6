"""A run's progress in the terminal: a line a second, over the one before where there is a terminal, else every five."""

import sys
from typing import TextIO

from roost_loadtest.histograms import Histogram
from roost_loadtest.record import Second

_EVERY = 5
_CLEAR = "\r\x1b[2K"


class Live:
    """Writes to `stream`; `quiet` writes nothing."""

    def __init__(self, duration_s: float, *, stream: TextIO = sys.stderr, quiet: bool = False) -> None:
        self._duration = duration_s
        self._stream = stream
        self._quiet = quiet
        self._over = stream.isatty()
        self._written = False

    def say(self, text: str) -> None:
        """A line that stays."""
        if not self._quiet:
            self._write((_CLEAR if self._over and self._written else "") + text + "\n")
            self._written = False

    def second(self, second: Second) -> None:
        """What is known so far of the second that is just over."""
        if self._quiet or not (self._over or second.second % _EVERY == 0):
            return
        text = line(second, self._duration)
        self._write(_CLEAR + text if self._over else text + "\n")
        self._written = True

    def end(self) -> None:
        if self._over and self._written:
            self._write("\n")
            self._written = False

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def line(second: Second, duration_s: float) -> str:
    latency: Histogram = second.latency
    parts = [
        f"{second.second:4d}/{duration_s:.0f} s",
        f"offered {second.offered:7.1f}/s",
        f"answered {second.answered:6d}/s",
        f"p50 {latency.quantile(0.5) * 1e3:7.1f} ms",
        f"p99 {latency.quantile(0.99) * 1e3:7.1f} ms",
        f"in flight {second.in_flight}",
    ]
    if second.failed or second.dropped:
        named = [f"{name} {count}" for name, count in sorted(second.errors.items())]
        parts.append("errors " + ", ".join([*named, *([f"dropped {second.dropped}"] if second.dropped else [])]))
    for target, replicas in second.replicas.items():
        if replicas.ready is not None:
            parts.append(f"{target} {replicas.ready}/{'?' if replicas.wanted is None else replicas.wanted}")
    return "  ".join(parts)
