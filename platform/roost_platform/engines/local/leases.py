"""Leases and slots: one request's right to one slot of one replica."""

import asyncio
from time import perf_counter
from types import TracebackType
from typing import Self

from roost_platform.domain.errors import RoostError
from roost_platform.engines.local.replica import Call, Replica, State
from roost_platform.engines.local.runner import Runner
from roost_platform.engines.port import Done, Slot, Upstream, UpstreamRequest, UpstreamResponse


class Lease(Upstream):
    """Entered, it has waited for a slot; left, the slot is free again, or will be when the replica lets go of it."""

    __slots__ = ("_call", "_deadline", "_replica", "_runner", "cold_start_us", "queue_us")

    def __init__(self, runner: Runner, deadline: float) -> None:
        self._runner = runner
        self._deadline = deadline
        self._replica: Replica | None = None
        self._call: Call | None = None
        self.queue_us = 0
        self.cold_start_us = 0

    async def __aenter__(self) -> Self:
        runner = self._runner
        runner.arrived()
        replica = None if runner.waiters else runner.take_slot()
        if replica is None:
            replica = await self._wait()
        self._replica = replica
        return self

    async def _wait(self) -> Replica:
        runner = self._runner
        since = perf_counter()
        cold = runner.ready == 0
        try:
            waiter = runner.enqueue(self._deadline)
        except BaseException:
            runner.left()
            raise
        try:
            replica = await waiter.future
        except TimeoutError:
            runner.left()
            raise runner.too_late() from None
        except asyncio.CancelledError:
            if waiter.future.done() and not waiter.future.cancelled() and waiter.future.exception() is None:
                waiter.future.result().release()  # the slot came in the same turn as the cancellation
            else:
                runner.waiters.forget(waiter)
                runner.left()
            raise
        except BaseException:
            runner.left()
            raise
        self.queue_us = int((perf_counter() - since) * 1e6)
        if cold:
            self.cold_start_us = max(1, int((replica.ready_at - since) * 1e6))
        return replica

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        assert self._replica is not None, "a lease is used inside its context"
        assert self._call is None, "a lease is for one request"
        while self._replica.state is State.GONE:
            # It died between the lease and this call; nothing was sent, so another may serve it.
            self._replica.release()
            self._replica = None
            self._runner.arrived()
            self._replica = await self._wait()
        answer: asyncio.Future[UpstreamResponse] = asyncio.get_running_loop().create_future()

        def done(outcome: UpstreamResponse | RoostError) -> None:
            if answer.done():
                return
            if isinstance(outcome, RoostError):
                answer.set_exception(outcome)
            else:
                answer.set_result(outcome)

        self._call = self._replica.call(request, self._deadline, done)
        return await answer

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        replica, call = self._replica, self._call
        if replica is None:
            return
        if call is None:
            replica.release()
        elif kind is asyncio.CancelledError:
            replica.abandon(call)


class LocalSlot(Slot):
    """A slot of a ready replica; see the port."""

    __slots__ = ("_call", "_deadline", "_replica")

    def __init__(self, replica: Replica, deadline: float) -> None:
        self._replica = replica
        self._deadline = deadline
        self._call: Call | None = None

    def send(self, request: UpstreamRequest, done: Done) -> None:
        self._call = self._replica.call(request, self._deadline, done)

    def release(self) -> None:
        self._replica.release()

    def abandon(self) -> None:
        if self._call is not None:
            self._replica.abandon(self._call)
