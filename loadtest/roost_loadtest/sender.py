"""Sends requests when they are due, whatever became of those before, and tells a collector of each.

One greenlet walks the schedule and never waits for an answer; each request has a greenlet of its own. Latency counts from
when a request was due, so that a server that stalls shows all the requests that it kept waiting.
"""

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Protocol
from urllib.parse import urlsplit

import gevent
from gevent.event import Event

from roost_loadtest.arrivals import Process, due_times
from roost_loadtest.clock import Alarm
from roost_loadtest.collector import Collector
from roost_loadtest.connections import Connections, Refused
from roost_loadtest.shapes import Shape


@dataclass(frozen=True)
class Traffic:
    """One stream of requests to one path."""

    label: str
    """Under which its requests are counted."""
    path: str
    shape: Shape
    body: Callable[[int], bytes]
    """What the n-th request of this process holds."""
    headers: Mapping[str, str] = field(default_factory=dict)
    process: Process = Process.POISSON
    burstiness: float = 1.0
    seed: int = 0


class Seen(Protocol):
    """Called for each answer; `error` is empty for a good one. `latency` in seconds from when it was due."""

    def __call__(self, label: str, *, latency: float, size: int, error: str) -> None: ...


def unseen(label: str, *, latency: float, size: int, error: str) -> None:
    """Nobody looks."""


def same(bodies: Sequence[bytes]) -> Callable[[int], bytes]:
    """These in turn."""
    return lambda number: bodies[number % len(bodies)]


class Sender:
    """Walks the schedules of all streams once, in one process; `part` of `parts` processes."""

    def __init__(
        self,
        url: str,
        traffic: Sequence[Traffic],
        collector: Collector,
        *,
        part: int = 0,
        parts: int = 1,
        timeout_s: float = 60.0,
        connections: int = 2000,
        seen: Seen = unseen,
    ) -> None:
        """Raises ValueError for a URL that is none, OSError when its host is not known."""
        self._connections = Connections(url, timeout_s=timeout_s)
        base = urlsplit(url).path.rstrip("/")
        self._heads = [_head(base + each.path, self._connections.host, each.headers) for each in traffic]
        self._traffic = traffic
        self.collector = collector
        self._part, self._parts = part, parts
        self._most = connections
        self._seen = seen
        self._quiet = Event()
        self._stopped = False
        self._walking: gevent.Greenlet[..., None] = gevent.Greenlet()

    def run(self, start: float) -> None:
        """Returns when all are answered or given up. `start` is of `time.perf_counter`: second 0 of the schedule."""
        if not self._stopped:
            self._walking = gevent.spawn(self._walk, start)
            self._walking.get()
        while self.collector.in_flight:
            self._quiet.clear()
            self._quiet.wait()
        self._connections.close()

    def stop(self) -> None:
        """Send no more; `run` returns when what is in flight is answered."""
        self._stopped = True
        self._walking.kill(block=False)

    def _walk(self, start: float) -> None:
        collector, most = self.collector, self._most
        with Alarm() as alarm:
            for due, number, which in self._schedule():
                now = perf_counter()
                if now < start + due:
                    alarm.sleep_until(start + due, now)
                if collector.in_flight >= most:
                    collector.drop(due)
                    self._seen(self._traffic[which].label, latency=0.0, size=0, error="dropped")
                else:
                    collector.in_flight += 1
                    gevent.spawn(self._fire, start, due, number, which)

    def _schedule(self) -> Iterator[tuple[float, int, int]]:
        return heapq.merge(
            *(
                ((due, number, which) for number, due in enumerate(self._due(each)))
                for which, each in enumerate(self._traffic)
            )
        )

    def _due(self, each: Traffic) -> Iterator[float]:
        return due_times(
            each.shape, each.process, seed=each.seed, burstiness=each.burstiness, part=self._part, parts=self._parts
        )

    def _fire(self, start: float, due: float, number: int, which: int) -> None:
        traffic, collector = self._traffic[which], self.collector
        sent = perf_counter() - start
        collector.send(due, lag=sent - due)
        status, size, error = 0, 0, "generator"  # a body that cannot be made is an error too
        try:
            body = traffic.body(number)
            status, size = self._connections.exchange(b"%b%d\r\n\r\n%b" % (self._heads[which], len(body), body))
            error = "" if 200 <= status < 300 else str(status)
        except Refused as refused:
            error = str(refused)
        finally:
            end = perf_counter() - start
            collector.done(due, latency=end - due, service=end - sent, status=status, error=error, target=traffic.label)
            if not collector.in_flight:
                self._quiet.set()
            self._seen(traffic.label, latency=end - due, size=size, error=error)


def _head(path: str, host: str, headers: Mapping[str, str]) -> bytes:
    """All that comes before the length of the body. Raises ValueError for what would be more than one line."""
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in headers.items())]
    if any(not line.isprintable() for line in lines) or " " in path:
        raise ValueError("a path or a header holds what HTTP does not allow there")
    return "\r\n".join([*lines, "Content-Length: "]).encode("latin-1")
