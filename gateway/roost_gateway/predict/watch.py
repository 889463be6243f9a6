"""Notices clients that leave while their answer is computed.

Most answers come within a few milliseconds, so nothing is spent on them: only calls that are older than a sweep get a
task that listens for the disconnect.
"""

import asyncio
from typing import Any

from starlette.types import Receive

SWEEP_S = 0.1


class Watch:
    """The calls that wait for an answer. All on the event loop's thread."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Task[Any], Receive] = {}
        self._watched: dict[asyncio.Task[Any], asyncio.Task[None]] = {}
        self._seen: set[asyncio.Task[Any]] = set()

    def enter(self, task: asyncio.Task[Any], receive: Receive) -> None:
        """The body has been read; from now on `receive` yields nothing but the disconnect."""
        self._waiting[task] = receive

    def leave(self, task: asyncio.Task[Any]) -> None:
        del self._waiting[task]
        watcher = self._watched.pop(task, None)
        if watcher is not None:
            watcher.cancel()

    async def run(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self.sweep()

    def sweep(self) -> None:
        """Listen for the disconnect of every call that was there at the last sweep already."""
        for task in self._seen & self._waiting.keys() - self._watched.keys():
            self._watched[task] = asyncio.get_running_loop().create_task(
                cancel_on_disconnect(task, self._waiting[task])
            )
        self._seen = set(self._waiting)


async def cancel_on_disconnect(task: asyncio.Task[Any], receive: Receive) -> None:
    """For a request whose body has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
    task.cancel()
