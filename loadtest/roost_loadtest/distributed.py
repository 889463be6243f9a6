"""A run over several processes and machines, the Locust way: a master that counts, workers that send.

Worker i of n sends every n-th arrival of the one schedule. What it counted travels to the master once a second, as Locust's
own messages do; histograms add up exactly. The master sends plan and bodies, never a key: a worker has its own in
ROOST_API_KEY, as the master has.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import AsyncResult, Event
from locust import runners
from locust.env import Environment

from roost_loadtest import api, vitals
from roost_loadtest.collector import Collector
from roost_loadtest.options import Order
from roost_loadtest.payloads import Payload
from roost_loadtest.record import Plan
from roost_loadtest.sender import Sender
from roost_loadtest.streams import Standing, told_to_locust, traffic_of

_COME_WITHIN_S = 60.0
_REPORT_S = 1.0
_SILENT_S = 10.0
"""A worker of which nothing is heard for so long is lost."""

READY, WORK, PART, DONE, STOP = "roost_ready", "roost_work", "roost_part", "roost_done", "roost_stop"


class Master:
    """Starts the workers of this machine, waits for those of others, and adds up what all of them count."""

    behind = 1
    """Seconds that pass until what workers counted in one is here."""

    def __init__(
        self, order: Order, environment: Environment, collector: Collector, *, say: Callable[[str], None]
    ) -> None:
        """The workers of this machine are under way when it returns; `gather` waits for all."""
        plan = self._plan = order.plan
        self._collector = collector
        self._payloads = order.payloads
        self._ready: list[str] = []
        self._heard: dict[str, float] = {}
        self._all_ready, self._all_done = Event(), Event()
        host, _, wished = (order.bind or "127.0.0.1:0").rpartition(":")
        self._runner = environment.create_master_runner(host, int(wished))
        self._runner.register_message(READY, self._on_ready)
        self._runner.register_message(PART, self._on_part)
        self._runner.register_message(DONE, self._on_done)
        self._done: set[str] = set()
        port = self._runner.server.port
        local = "127.0.0.1" if host in {"*", "0.0.0.0", ""} else host  # noqa: S104 - compared, not bound
        command = [sys.executable, "-m", "roost_loadtest", "worker", "--master", f"{local}:{port}"]
        # A session of their own: Ctrl-C is for the master, which lets them finish.
        self._children = [
            subprocess.Popen(command, start_new_session=True)  # noqa: S603 - our own program
            for _ in range(plan.processes - order.workers)
        ]
        self._limit_s = None if order.workers else _COME_WITHIN_S
        if order.workers:
            say(f"Waiting for {order.workers} workers: python -m roost_loadtest worker --master {host}:{port}")

    def gather(self) -> None:
        """Returns when all workers are there. Raises TimeoutError when they are not in time, KeyboardInterrupt after `stop`."""
        self._all_ready.wait(self._limit_s)
        if len(self._ready) < self._plan.processes:
            self.end()
            if self._all_ready.is_set():
                raise KeyboardInterrupt
            raise TimeoutError(f"of {self._plan.processes} processes {len(self._ready)} are there")

    def begin(self, start: float) -> None:
        for part, worker in enumerate(self._ready):
            work = {
                "plan": self._plan.to_json(),
                "payloads": [[list(each.bodies), each.headers] for each in self._payloads],
                "part": part,
                "in_s": start - time.perf_counter(),
            }
            self._heard[worker] = time.perf_counter()
            self._runner.send_message(WORK, work, worker)
        gevent.spawn(self._runner.start, self._plan.processes, spawn_rate=self._plan.processes)

    def wait(self, seconds: float) -> bool:
        """Whether all is over. Raises ConnectionError when a worker is lost."""
        if self._all_done.wait(seconds):
            return True
        for worker in self._ready:
            if worker not in self._done and time.perf_counter() - self._heard[worker] > _SILENT_S:
                raise ConnectionError(f"worker {worker} is silent")
        return False

    def stop(self) -> None:
        self._all_ready.set()
        self._runner.send_message(STOP)

    def end(self) -> None:
        self._runner.quit()
        for child in self._children:
            child.terminate()
            child.wait()

    def _on_ready(self, environment: Environment, msg: Any) -> None:
        self._ready.append(msg.node_id)
        if len(self._ready) == self._plan.processes:
            self._all_ready.set()

    def _on_part(self, environment: Environment, msg: Any) -> None:
        self._heard[msg.node_id] = time.perf_counter()
        self._collector.merge(msg.data)

    def _on_done(self, environment: Environment, msg: Any) -> None:
        self._collector.merge(msg.data)
        self._done.add(msg.node_id)
        if len(self._done) == len(self._ready):
            self._all_done.set()


def work_for(host: str, port: int) -> None:
    """Be a worker of one run; returns when the master says so. Raises ConnectionError when there is none."""
    environment = Environment(user_classes=[Standing])
    runner = environment.create_worker_runner(host, port)
    given: AsyncResult[dict[str, Any]] = AsyncResult()
    stop = Event()
    runner.register_message(WORK, lambda msg, **_: given.set(msg.data))
    runner.register_message(STOP, lambda **_: stop.set())
    runners.WORKER_REPORT_INTERVAL = _REPORT_S
    runner.send_message(READY)
    sending = gevent.spawn(_send, environment, given, stop)
    runner.greenlet.join()  # until the master says that it is over
    sending.kill()


def _send(environment: Environment, given: "AsyncResult[dict[str, Any]]", stop: Event) -> None:
    work, runner = given.get(), environment.runner
    assert work is not None
    assert isinstance(runner, runners.WorkerRunner)
    start = time.perf_counter() + work["in_s"]
    plan = Plan.from_json(work["plan"])
    payloads = tuple(Payload(tuple(bodies), headers) for bodies, headers in work["payloads"])
    collector = Collector()
    sender = Sender(
        plan.url,
        traffic_of(plan, payloads, lambda tenant: api.key_for(tenant, os.environ)),
        collector,
        part=work["part"],
        parts=plan.processes,
        timeout_s=plan.timeout_s,
        connections=plan.connections,
        seen=told_to_locust(environment),
    )
    vitals.settle()
    looking = gevent.spawn(vitals.watch_over, collector)
    stopping = gevent.spawn(_stop_after, stop, sender)
    walk = gevent.spawn(sender.run, start)
    second = 0
    while not walk.ready():
        walk.join(max(0.0, start + second + _REPORT_S - time.perf_counter()))
        second += 1
        if not walk.ready():
            runner.send_message(PART, collector.take())
    looking.kill()
    stopping.kill()
    runner.send_message(DONE, collector.take())
    walk.get()


def _stop_after(stop: Event, sender: Sender) -> None:
    stop.wait()
    sender.stop()
