"""The last lines that replicas printed, fetched from the API server in the background and kept after the pod is gone.

A status is asked for without waiting, so the lines must be there before they are wanted: they are fetched when a replica
fails, when one becomes ready, and again when somebody looks.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from roost_platform.domain.services import ServiceKey
from roost_platform.engines.knative.cluster import Cluster, ClusterError
from roost_platform.engines.knative.template import CONTAINER

logger = logging.getLogger(__name__)

LINES_KEPT = 200
_REMEMBERED = 2000
_AT_ONCE = 4
_MOST_WAITING = 100
_FRESH_S = 2.0


class LogName(NamedTuple):
    """A Knative revision, whose replicas all do the same."""

    service: ServiceKey
    uid: str


class Logs:
    """The lines of one replica at a time for each Knative revision."""

    def __init__(self, cluster: Cluster, *, fetched: Callable[[LogName], None]) -> None:
        """`fetched` is called with the name whenever its lines were fetched, or could not be."""
        self._cluster = cluster
        self._fetched = fetched
        self._lines: OrderedDict[LogName, tuple[str, ...]] = OrderedDict()
        self._asked: OrderedDict[LogName, tuple[str, bool, float]] = OrderedDict()
        self._running: dict[LogName, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(_AT_ONCE)

    def lines(self, of: LogName, count: int) -> tuple[str, ...]:
        """Oldest first; empty when none were fetched yet."""
        return self._lines.get(of, ())[-count:]

    def known(self, of: LogName, pod: str, *, previous: bool) -> bool:
        """Whether the log of this pod was fetched, or found not to be had."""
        asked = self._asked.get(of)
        return asked is not None and asked[:2] == (pod, previous) and of not in self._running

    def fetch(self, of: LogName, *, namespace: str, pod: str, previous: bool = False) -> None:
        """Begin to fetch, unless that is under way or was done a moment ago."""
        now = asyncio.get_running_loop().time()
        asked = self._asked.get(of)
        fresh = asked is not None and asked[:2] == (pod, previous) and now - asked[2] < _FRESH_S
        if fresh or of in self._running or len(self._running) >= _MOST_WAITING:
            return
        self._asked[of] = (pod, previous, now)
        self._asked.move_to_end(of)
        self._running[of] = asyncio.create_task(self._fetch(of, namespace, pod, previous))
        while len(self._asked) > _REMEMBERED:
            forgotten, _ = self._asked.popitem(last=False)
            self._lines.pop(forgotten, None)

    async def stop(self) -> None:
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _fetch(self, of: LogName, namespace: str, pod: str, previous: bool) -> None:
        try:
            async with self._places:
                lines = await self._cluster.log(
                    pod, namespace, container=CONTAINER, lines=LINES_KEPT, previous=previous
                )
            if lines:
                self._lines[of] = tuple(lines)
        except ClusterError as error:  # the pod is gone, or its container did not start yet
            logger.info("log_not_fetched", extra={"pod": pod, "error": error.message})
        finally:
            del self._running[of]
        self._fetched(of)
