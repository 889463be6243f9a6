"""A plan's streams as the sender takes them, and what Locust sees of a process that sends them."""

from collections.abc import Callable

import gevent
from locust import User, task
from locust.env import Environment

from roost_loadtest import api
from roost_loadtest.payloads import Payload
from roost_loadtest.record import Plan
from roost_loadtest.sender import Seen, Traffic, same


class Standing(User):
    """Stands in Locust for a process that sends: it has no requests of its own."""

    @task
    def stand(self) -> None:
        gevent.sleep(3600)


def traffic_of(plan: Plan, payloads: tuple[Payload, ...], key_for: Callable[[str], str]) -> list[Traffic]:
    """The streams of a plan, with what their requests hold and the keys of their tenants."""
    return [
        Traffic(
            label=str(stream.target),
            path=stream.target.path,
            shape=stream.shape,
            body=same(payload.bodies),
            headers=api.bearer(key_for(stream.target.tenant)) | payload.headers,
            process=stream.process,
            burstiness=stream.burstiness,
            seed=stream.seed,
        )
        for stream, payload in zip(plan.streams, payloads, strict=True)
    ]


def told_to_locust(environment: Environment) -> Seen:
    """Lets Locust count the requests too, for its web page; their time is the one from when they were due."""

    def seen(label: str, *, latency: float, size: int, error: str) -> None:
        environment.stats.log_request("POST", label, latency * 1000, size)  # type: ignore[arg-type]  # takes fractions
        if error:
            environment.stats.log_error("POST", label, error)

    return seen
