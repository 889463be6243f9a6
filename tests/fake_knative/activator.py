"""What stands before the pods of a revision: holds requests until a pod has room, one by one where one at a time is asked."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fake_knative.kubelet import RunningPod


class QueueFull(Exception):
    """As many requests wait as may."""


class Activator:
    """`concurrency` requests at most in one pod; 0 = no bound."""

    def __init__(self, ready_pods: Callable[[], list[RunningPod]], *, concurrency: int, depth: int) -> None:
        self._ready_pods, self._concurrency, self._depth = ready_pods, concurrency, depth
        self._waiting: deque[asyncio.Future[RunningPod]] = deque()

    async def pod(self) -> RunningPod:
        """A place in a pod, first come first served; `leave` gives it back. Raises QueueFull."""
        if not self._waiting:
            found = self._free_pod()
            if found is not None:
                _enter(found)
                return found
        if len(self._waiting) >= self._depth:
            raise QueueFull
        waiter: asyncio.Future[RunningPod] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.leave(waiter.result())
            raise

    def leave(self, pod: RunningPod) -> None:
        pod.in_flight -= 1
        if pod.in_flight == 0:
            pod.idle.set()
        self.pump()

    @contextmanager
    def inside(self, pod: RunningPod) -> Iterator[None]:
        try:
            yield
        finally:
            self.leave(pod)

    def pump(self) -> None:
        """Send on who waits, as far as there is room now."""
        while self._waiting:
            if self._waiting[0].done():  # gave up
                self._waiting.popleft()
                continue
            pod = self._free_pod()
            if pod is None:
                return
            _enter(pod)
            self._waiting.popleft().set_result(pod)

    def _free_pod(self) -> RunningPod | None:
        pods = [p for p in self._ready_pods() if not self._concurrency or p.in_flight < self._concurrency]
        return min(pods, key=lambda pod: pod.in_flight, default=None)


def _enter(pod: RunningPod) -> None:
    pod.in_flight += 1
    pod.idle.clear()
