"""One run: the load goes out, the platform is watched, a record is written. On Locust's runners, so its web page works too.

Import it only in a process of its own: Locust patches the process for gevent.
"""

import os
import signal
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import gevent
from locust.env import Environment

from roost_loadtest import api, vitals
from roost_loadtest.collector import Collector
from roost_loadtest.distributed import Master
from roost_loadtest.live import Live
from roost_loadtest.options import Order
from roost_loadtest.record import Billing, Record, Replicas, Second
from roost_loadtest.sender import Sender
from roost_loadtest.streams import Standing, told_to_locust, traffic_of

_LEAD_S = 0.5
"""Between the last preparation and second 0."""


class Watch(Protocol):
    """What looks at the platform while the load goes out. All of it may wait on the network, none of it raises."""

    def facts(self) -> dict[str, Any]:
        """What the platform says of itself and of the targets' scaling, before the run."""

    def look(self) -> dict[str, Replicas]:
        """How the targets stand now, by name."""

    def events(self) -> list[tuple[float, str]]:
        """What was noticed: moments of `time.time`, and words."""

    def before(self) -> None:
        """Called before the first request."""

    def billing(self, charged: dict[str, int]) -> tuple[Billing, ...]:
        """Called after the last answer, with the charged answers by target."""

    def settled(self, replicas: dict[str, Replicas], waited_s: float) -> bool:
        """After each look that follows the last answer: whether nothing more is to be watched, so many seconds later."""


class Run:
    """Made once, run once."""

    def __init__(self, order: Order, *, watch: Watch, live: Live) -> None:
        self._order, self._watch, self._live = order, watch, live
        self._collector = Collector()
        self._environment = Environment(user_classes=[Standing], host=order.plan.url)
        self._events: list[tuple[float, str]] = []
        self._interrupted = False
        self._start = time.perf_counter()
        self._seen: dict[int, dict[str, Replicas]] = {}
        self._sends: Master | _Local | None = None

    @property
    def interrupted(self) -> bool:
        return self._interrupted

    def run(self) -> Record:
        """Raises OSError when the server's name is not known, TimeoutError when workers do not come.

        KeyboardInterrupt when it was interrupted before a request was sent.
        """
        order, plan = self._order, self._order.plan
        platform = self._watch.facts()
        for number in (signal.SIGINT, signal.SIGTERM):
            gevent.signal_handler(number, self._interrupt)
        if plan.processes > 1:
            self._sends = Master(order, self._environment, self._collector, say=self._live.say)
        else:
            self._sends = _Local(order, self._environment, self._collector)
        self._sends.gather()
        if order.web_port is not None:
            page = self._environment.create_web_ui("127.0.0.1", order.web_port)
            self._live.say(f"Locust's page: http://127.0.0.1:{order.web_port}")
        try:
            self._watch.before()
            start = self._start = time.perf_counter() + _LEAD_S
            started_at = datetime.now(UTC) + timedelta(seconds=_LEAD_S)
            self._sends.begin(start)
            watching = gevent.spawn(self._look, start)
            self._follow(start)
            sent_until = time.perf_counter() - start
            after = self._wait_for_zero(start, sent_until)
            watching.kill()
        finally:
            self._sends.end()
            if order.web_port is not None:
                page.stop()
        self._live.end()
        begin = started_at.timestamp()
        noticed = [(at - begin, text) for at, text in self._watch.events()]
        return Record(
            plan=plan,
            started_at=started_at.isoformat(),
            seconds=tuple(self._with_replicas(second) for second in self._collector.seconds(plan)),
            service=self._collector.service,
            generator=self._collector.generator(),
            billing=self._watch.billing(dict(self._collector.charged)),
            after=after,
            events=tuple(sorted([*self._events, *noticed])),
            platform=platform,
        )

    def _follow(self, start: float) -> None:
        """Once a second, until all is sent and answered."""
        assert self._sends is not None
        second = 0
        while not self._sends.wait(max(0.0, start + second + 1 - time.perf_counter())):
            if second >= self._sends.behind:
                known = self._collector.second(self._order.plan, second - self._sends.behind)
                self._live.second(self._with_replicas(known))
            second += 1

    def _look(self, start: float) -> None:
        while True:
            gevent.sleep(max(0.0, 1.0 - (time.perf_counter() - start) % 1.0))
            at = round(time.perf_counter() - start) - 1
            self._seen[at] = self._watch.look()

    def _wait_for_zero(self, start: float, sent_until: float) -> tuple[Second, ...]:
        """What the platform does after the last answer, while that is of interest."""
        first = len(self._collector.seconds(self._order.plan))
        if self._order.plan.aims.back_to_zero and not self._interrupted:
            self._live.say("Waiting for the models to go back to zero.")
            looked = -1
            while not self._interrupted:
                latest = max(self._seen, default=-1)
                if latest != looked and self._watch.settled(
                    self._seen[latest], time.perf_counter() - start - sent_until
                ):
                    break
                looked = latest
                gevent.sleep(0.1)
        return tuple(Second(at, 0.0, replicas=replicas) for at, replicas in sorted(self._seen.items()) if at >= first)

    def _with_replicas(self, second: Second) -> Second:
        return replace(second, replicas=self._seen.get(second.second, {}))

    def _interrupt(self) -> None:
        if not self._interrupted:
            self._events.append((time.perf_counter() - self._start, "interrupted"))
        self._interrupted = True
        if self._sends is not None:
            self._sends.stop()


class _Local:
    """Sends from the process itself."""

    behind = 0

    def __init__(self, order: Order, environment: Environment, collector: Collector) -> None:
        plan = order.plan
        self._runner = environment.create_local_runner()
        self._collector = collector
        traffic = traffic_of(plan, order.payloads, lambda tenant: api.key_for(tenant, os.environ))
        self._sender = Sender(
            plan.url,
            traffic,
            collector,
            timeout_s=plan.timeout_s,
            connections=plan.connections,
            seen=told_to_locust(environment),
        )
        self._walk: gevent.Greenlet[..., None] = gevent.Greenlet()
        self._vitals: gevent.Greenlet[..., None] = gevent.Greenlet()

    def gather(self) -> None:
        vitals.settle()

    def begin(self, start: float) -> None:
        self._runner.start(1, spawn_rate=1)
        self._vitals = gevent.spawn(vitals.watch_over, self._collector)
        self._walk = gevent.spawn(self._sender.run, start)

    def wait(self, seconds: float) -> bool:
        """Whether all is over; raises what the sender raised."""
        self._walk.join(seconds)
        if self._walk.ready():
            self._vitals.kill()
            self._walk.get()
            return True
        return False

    def stop(self) -> None:
        self._sender.stop()

    def end(self) -> None:
        self._runner.quit()
