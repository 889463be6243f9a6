"""How long a call may still wait: a deadline whose clock stands still while the client is waited for."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from roost_platform.domain.errors import DeadlineExceeded


class Patience:
    """What is slow on the client's side, its upload or its reading, is not the replica's doing and costs no time here.

    `deadline` is in seconds of the running loop's clock.
    """

    def __init__(self, deadline: float) -> None:
        self.paused_s = 0.0
        """How long the client was waited for."""
        self._loop = asyncio.get_running_loop()
        self._deadline = deadline
        self._limit: asyncio.Timeout | None = None

    @property
    def left_s(self) -> float:
        """Seconds until the deadline, 0 when it has passed."""
        return max(0.0, self._deadline - self._loop.time())

    @asynccontextmanager
    async def bounded(self) -> AsyncIterator[None]:
        """Raises DeadlineExceeded at the deadline, and cancels what is awaited inside."""
        try:
            async with asyncio.timeout_at(self._deadline) as limit:
                self._limit = limit
                yield
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise DeadlineExceeded("the model did not answer within its timeout") from error
        finally:
            self._limit = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The client is waited for, and nobody else."""
        since = self._loop.time()
        self._move(None)
        try:
            yield
        finally:
            passed = self._loop.time() - since
            self.paused_s += passed
            self._deadline += passed
            self._move(self._deadline)

    def _move(self, when: float | None) -> None:
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(when)
