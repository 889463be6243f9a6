"""Locust users whose requests go out when they are due, whatever became of those before.

Locust's own pacing is closed: a user that waits for an answer sends nothing, so a server that stalls is asked less, and its
stall hardly shows. Here a schedule is walked, and each request has a greenlet of its own. The response time that Locust
shows, in its table, web page and files, counts from when the request was due.

    class Iris(OpenLoopUser):                       locust -f iris.py --headless -u 1
        host = "http://127.0.0.1:8000"
        shape = steps([(50, 30), (200, 60)])
        path = "/t/acme/v2/models/iris/infer"
        headers = {"Authorization": "Bearer …", "Content-Type": "application/json"}

        def body(self, number):
            return b'{"inputs": [...]}'

A process that has one such user or more walks the schedules of all open-loop classes once, and the run ends after the last
answer. So `-u 1` is enough, and for `--processes N` (or `--worker` with `--expect-workers N`) it is `-u N -r N`: each
process then sends its part of the arrivals.
"""

import logging
import time
from collections.abc import Mapping
from typing import ClassVar
from weakref import WeakKeyDictionary

import gevent
from locust import User, task
from locust.env import Environment
from locust.exception import StopUser
from locust.runners import WorkerRunner

from roost_loadtest.arrivals import Process
from roost_loadtest.collector import Collector
from roost_loadtest.sender import Sender, Traffic
from roost_loadtest.shapes import Shape

_log = logging.getLogger(__name__)


class OpenLoopUser(User):
    """One stream of POST requests. Give it `host`, `shape`, `path`, and what `body` returns."""

    abstract = True
    shape: Shape
    process: Process = Process.POISSON
    burstiness: float = 1.0
    """The gaps' coefficient of variation, for GAMMA."""
    seed: int = 0
    path: str = "/"
    headers: ClassVar[Mapping[str, str]] = {}
    label: str = ""
    """How Locust names the requests; the path where it is not given."""
    timeout_s: float = 60.0
    connections: int = 2000
    """Requests in flight at once; what is due beyond is not sent, and told to Locust as a failure `dropped`."""

    def body(self, number: int) -> bytes:
        """What the n-th request of this process holds."""
        return b""

    @task
    def walk(self) -> None:
        """Until all schedules of this process are over."""
        walks = _walks.get(self.environment)
        if walks is None:
            walks = _walks[self.environment] = _Walks(self.environment)
        walks.join()
        raise StopUser


class Unanswered(Exception):
    """The class of error of a request: a status, `timeout`, `connection`, `dropped`."""


class _Walks:
    """All schedules of a process, for one run."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        part, parts = _part_of(environment)
        users = [each(environment) for each in environment.user_classes if issubclass(each, OpenLoopUser)]
        # One for each class, because each has a limit of its own on what is in flight.
        self._senders = [
            Sender(
                user.host or environment.host or "",
                [
                    Traffic(
                        label=user.label or user.path,
                        path=user.path,
                        shape=user.shape,
                        body=user.body,
                        headers=user.headers,
                        process=user.process,
                        burstiness=user.burstiness,
                        seed=user.seed,
                    )
                ],
                Collector(),
                part=part,
                parts=parts,
                timeout_s=user.timeout_s,
                connections=user.connections,
                seen=self._seen,
            )
            for user in users
        ]
        environment.events.test_stopping.add_listener(self._on_stopping)
        environment.events.test_stop.add_listener(self._on_stop)
        start = time.perf_counter()
        self._greenlets = [gevent.spawn(sender.run, start) for sender in self._senders]
        gevent.spawn(self._end_the_run)

    def join(self) -> None:
        gevent.joinall(self._greenlets)

    def _on_stopping(self, environment: Environment) -> None:
        for sender in self._senders:
            sender.stop()

    def _on_stop(self, environment: Environment) -> None:
        """Only now: a user that Locust adds at the very end must not begin again."""
        environment.events.test_stopping.remove_listener(self._on_stopping)
        environment.events.test_stop.remove_listener(self._on_stop)
        _walks.pop(environment, None)

    def _end_the_run(self) -> None:
        self.join()
        for sender in self._senders:
            _log.info("sent late by %.2f ms at the 99th percentile", sender.collector.lag.quantile(0.99) * 1e3)
        runner, options = self._environment.runner, self._environment.parsed_options
        if isinstance(runner, WorkerRunner):
            runner._send_stats()  # noqa: SLF001 - what was counted since its last report would be lost
            runner.quit()
        elif runner is not None:
            (runner.quit if options is None or options.headless else runner.stop)()

    def _seen(self, label: str, *, latency: float, size: int, error: str) -> None:
        self._environment.events.request.fire(
            request_type="POST",
            name=label,
            response_time=latency * 1000,
            response_length=size,
            exception=Unanswered(error) if error else None,
            context={},
        )


def _part_of(environment: Environment) -> tuple[int, int]:
    """Which part of the arrivals is this process's, and of how many."""
    runner, options = environment.runner, environment.parsed_options
    if isinstance(runner, WorkerRunner):
        parts = max(1, getattr(options, "expect_workers", 1) or 1)
        return max(0, runner.worker_index) % parts, parts
    return 0, 1


_walks: WeakKeyDictionary[Environment, _Walks] = WeakKeyDictionary()
"""Of the run that is under way, by Environment: Locust gives its users nothing else to share."""
