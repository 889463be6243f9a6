"""The requests that wait for a replica of one revision, oldest first."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

from roost_platform.engines.local.replica import Replica


class Waiter:
    """A request in the queue; its future yields the replica whose slot it was given."""

    __slots__ = ("deadline", "future")

    def __init__(self, future: asyncio.Future[Replica], deadline: float) -> None:
        self.future = future
        self.deadline = deadline


class WaitingLine:
    """First come, first served. Times are seconds of the loop's clock."""

    def __init__(self) -> None:
        self._waiters: deque[Waiter] = deque()

    def __len__(self) -> int:
        return len(self._waiters)

    def join(self, future: asyncio.Future[Replica], deadline: float) -> Waiter:
        waiter = Waiter(future, deadline)
        self._waiters.append(waiter)
        return waiter

    def forget(self, waiter: Waiter) -> None:
        """Its caller has gone; its place is free."""
        with contextlib.suppress(ValueError):
            self._waiters.remove(waiter)

    def serve(self, take_slot: Callable[[], Replica | None]) -> None:
        """Give slots to those who wait, as long as `take_slot` yields any."""
        waiters = self._waiters
        while waiters:
            if waiters[0].future.done():
                waiters.popleft()
                continue
            replica = take_slot()
            if replica is None:
                return
            waiters.popleft().future.set_result(replica)

    def expire(self, now: float) -> None:
        """Fail those past their deadline with TimeoutError."""
        for waiter in self._waiters:
            if now >= waiter.deadline and not waiter.future.done():
                waiter.future.set_exception(TimeoutError())
        while self._waiters and self._waiters[0].future.done():
            self._waiters.popleft()

    def refuse(self, error: Exception) -> None:
        """Fail everybody at once."""
        while self._waiters:
            future = self._waiters.popleft().future
            if not future.done():
                future.set_exception(error)
