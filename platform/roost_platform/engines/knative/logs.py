"""The last lines that replicas printed, fetched from the API server in the background and kept after the pod is gone.

A status is asked for without waiting, so the lines must be there before they are wanted: they are fetched when a replica
fails, when one becomes ready, and again when somebody looks.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from roost_platform.domain.output import OutputLine
from roost_platform.domain.services import ServiceKey
from roost_platform.engines.knative.cluster import Cluster, ClusterError, Document
from roost_platform.engines.knative.template import CONTAINER
from roost_platform.engines.output import Output

logger = logging.getLogger(__name__)

_LINES_FETCHED = 200
_REMEMBERED = 2000
_AT_ONCE = 4
_PODS_FETCHED = 20
"""Of one revision, for one look."""
_MOST_WAITING = 100
_FRESH_S = 2.0


class LogName(NamedTuple):
    """A Knative revision, whose replicas all do the same."""

    service: ServiceKey
    uid: str


class Asked(NamedTuple):
    """One container's life: a pod's, or that before the container's last restart."""

    of: LogName
    pod: str
    previous: bool


class Logs:
    """The lines of the replicas of each Knative revision."""

    def __init__(self, cluster: Cluster, *, fetched: Callable[[LogName], None]) -> None:
        """`fetched` is called with the name whenever its lines were fetched, or could not be."""
        self._cluster = cluster
        self._fetched = fetched
        self._outputs: OrderedDict[LogName, Output] = OrderedDict()
        self._asked: OrderedDict[Asked, float] = OrderedDict()
        self._running: dict[Asked, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(_AT_ONCE)

    def lines(self, of: LogName) -> list[OutputLine]:
        """Oldest first; empty when none were fetched yet."""
        output = self._outputs.get(of)
        return output.lines() if output is not None else []

    def last(self, of: LogName, count: int) -> tuple[str, ...]:
        """The last so many of `lines`, bare."""
        return tuple(line.text for line in self.lines(of)[-count:])

    def known(self, of: LogName, pod: str, *, previous: bool) -> bool:
        """Whether the log of this pod was fetched, or found not to be had."""
        asked = Asked(of, pod, previous)
        return asked in self._asked and asked not in self._running

    def fetch(self, of: LogName, *, namespace: str, pod: str, previous: bool = False) -> None:
        """Begin to fetch, unless that is under way or was done a moment ago."""
        now = asyncio.get_running_loop().time()
        asked = Asked(of, pod, previous)
        fresh = now - self._asked.get(asked, float("-inf")) < _FRESH_S
        if fresh or asked in self._running or len(self._running) >= _MOST_WAITING:
            return
        self._asked[asked] = now
        self._asked.move_to_end(asked)
        self._running[asked] = asyncio.create_task(self._fetch(asked, namespace))
        while len(self._asked) > _REMEMBERED:
            self._asked.popitem(last=False)

    def fetch_newest(self, of: LogName, pods: Sequence[Document]) -> None:
        """Begin to fetch what the newest of these pods printed."""
        by_age = sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))
        for pod in by_age[-_PODS_FETCHED:]:
            self.fetch(of, namespace=pod["metadata"]["namespace"], pod=pod["metadata"]["name"])

    async def stop(self) -> None:
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _fetch(self, asked: Asked, namespace: str) -> None:
        try:
            async with self._places:
                printed = await self._cluster.log(
                    asked.pod, namespace, container=CONTAINER, lines=_LINES_FETCHED, previous=asked.previous
                )
            if printed:
                self._output(asked.of).add_fetched(asked.pod, printed)
        except ClusterError as error:  # the pod is gone, or its container did not start yet
            logger.info("log_not_fetched", extra={"pod": asked.pod, "error": error.message})
        finally:
            del self._running[asked]
        self._fetched(asked.of)

    def _output(self, of: LogName) -> Output:
        output = self._outputs.setdefault(of, Output())
        self._outputs.move_to_end(of)
        while len(self._outputs) > _REMEMBERED:
            self._outputs.popitem(last=False)
        return output
