"""A queue of keys to look at: each at most once in line and never by two workers at a time, now or after a pause."""

import asyncio
import contextlib
import heapq
import random
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 60.0


class WorkQueue(Generic[Key]):
    """Times are seconds of the event loop's clock."""

    def __init__(self) -> None:
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._count = 0  # breaks ties, so that keys need no order
        self._busy: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._changed = asyncio.Event()

    def add(self, key: Key, *, after_s: float = 0.0) -> None:
        """Have a key looked at; the earliest of several wishes counts. One that is being looked at is again after that."""
        due = asyncio.get_running_loop().time() + after_s
        known = self._due.get(key)
        if known is not None and known <= due:
            return
        self._due[key] = due
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, key))
        self._changed.set()

    def add_failed(self, key: Key, *, at_least_s: float = 0.0) -> float:
        """Have it looked at again after a pause that doubles with each failure in a row; returns that pause."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        pause_s = min(FIRST_PAUSE_S * 2.0 ** min(failures - 1, 20), LONGEST_PAUSE_S)
        pause_s = max(at_least_s, pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load
        self.add(key, after_s=pause_s)
        return pause_s

    def succeeded(self, key: Key) -> None:
        """The next failure is the first in a row."""
        self._failures.pop(key, None)

    async def get(self) -> Key:
        """Wait for a key that is due and take it; `done` must follow."""
        clock = asyncio.get_running_loop().time
        while True:
            wait_s = self._until_due(clock())
            if wait_s == 0:
                return self._take()
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()

    def done(self, key: Key) -> None:
        self._busy.discard(key)
        due = self._due.get(key)
        if due is not None:
            self._count += 1
            heapq.heappush(self._heap, (due, self._count, key))
            self._changed.set()

    def _until_due(self, now: float) -> float | None:
        """Seconds until the first in line is due; 0 = it is, None = nothing is in line."""
        while self._heap:
            due, _, key = self._heap[0]
            if self._due.get(key) == due and key not in self._busy:
                return max(0.0, due - now)
            heapq.heappop(self._heap)  # superseded, or `done` will put it back
        return None

    def _take(self) -> Key:
        _, _, key = heapq.heappop(self._heap)
        del self._due[key]
        self._busy.add(key)
        return key
