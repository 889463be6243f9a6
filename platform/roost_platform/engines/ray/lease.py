"""One call to a model on Ray: where it goes, and what it waits for."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from time import perf_counter
from types import TracebackType
from typing import TypeVar

from roost_platform.domain.errors import DeadlineExceeded, Unavailable
from roost_platform.engines.port import Upstream
from roost_platform.engines.ray.proxy import Proxy
from roost_platform.engines.ray.revision import RayRevision
from roost_platform.engines.ray.seats import Seat

T = TypeVar("T")


class RayLease(AbstractAsyncContextManager[Upstream]):
    """Entered, it is one of the revision's calls in flight until it is left."""

    def __init__(
        self, revision: RayRevision, deadline: float, proxy: Proxy, *, secret: str, is_fresh: Callable[[], bool]
    ) -> None:
        self._revision = revision
        self._deadline = deadline
        self._proxy = proxy
        self._secret = secret
        self._is_fresh = is_fresh
        self._seat: Seat | None = None
        self._inner: AbstractAsyncContextManager[Upstream] | None = None

    async def __aenter__(self) -> Upstream:
        began = perf_counter()
        revision = self._revision
        if revision.full:
            raise Unavailable("too many requests wait for this model", code="queue_full", retry_after_s=1)
        unknown = not revision.takes_calls
        revision.queued += 1
        try:
            while not revision.takes_calls:
                await self._before_the_end(revision.changed.wait())
            refused = revision.unavailable()
            if refused is not None:
                raise refused
            if self._is_fresh():
                self._seat = await self._before_the_end(revision.seats.take())
        finally:
            revision.queued -= 1
        asleep = revision.entered()
        self._inner = self._proxy.to(
            revision.prefix,
            replica=self._seat.address if self._seat else "",
            on_unreachable=self._leave_out,
            secret=self._secret,
            deadline=self._deadline,
            asleep=asleep and self._seat is None,
        )
        upstream = await self._inner.__aenter__()
        upstream.queue_us = int((perf_counter() - began) * 1e6)
        if unknown:
            upstream.cold_start_us = upstream.queue_us
        return upstream

    def _leave_out(self) -> None:
        if self._seat is not None:
            self._revision.seats.leave_out(self._seat)

    async def _before_the_end(self, waiting: Awaitable[T]) -> T:
        """Raises DeadlineExceeded, or Unavailable when there is nothing to wait for."""
        refused = self._revision.unavailable()
        if refused is not None:
            raise refused
        try:
            async with asyncio.timeout_at(self._deadline):
                return await waiting
        except TimeoutError as error:
            raise DeadlineExceeded("no replica was ready within the request's time") from error

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        assert self._inner is not None, "left after it was entered"
        try:
            return await self._inner.__aexit__(kind, error, traceback)
        finally:
            self._revision.left(self._seat)
