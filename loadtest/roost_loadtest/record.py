"""What a run was to do, and what came of it: plain values that verdict, report and summary are made from.

A record is written as JSON beside the report, so that all of them can be made again without a run.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from roost_loadtest.arrivals import Process
from roost_loadtest.histograms import Histogram
from roost_loadtest.shapes import Shape


@dataclass(frozen=True, slots=True)
class Target:
    """Where a stream of requests goes."""

    tenant: str
    model: str
    version: int | None = None
    """None = whichever the traffic split chooses."""

    @property
    def path(self) -> str:
        version = f"/versions/{self.version}" if self.version is not None else ""
        return f"/t/{self.tenant}/v2/models/{self.model}{version}/infer"

    def __str__(self) -> str:
        return f"{self.tenant}/{self.model}" + (f"@{self.version}" if self.version is not None else "")


@dataclass(frozen=True, slots=True)
class Stream:
    """One schedule of requests at one target."""

    target: Target
    shape: Shape
    process: Process = Process.POISSON
    burstiness: float = 1.0
    """The gaps' coefficient of variation, for GAMMA."""
    seed: int = 0
    payload: str = ""
    """What its requests hold, for people."""


@dataclass(frozen=True, slots=True)
class Aims:
    """What the run is judged by. Times in seconds from when a request was due."""

    p50_s: float | None = None
    p95_s: float | None = None
    p99_s: float | None = None
    errors: float = 0.001
    """Largest share of requests that may fail."""
    achieved: float = 0.99
    """Least share of the offered rate that must be answered, in every steady stretch."""
    capacity_within_s: float | None = None
    """How long after a step latency may be over its aim."""
    settle_s: float = 10.0
    """Of every steady stretch, the seconds at its begin in which autoscaling may still be at work."""
    back_to_zero: bool = False
    billed: bool = True
    """Whether the bill must count exactly the answered requests."""


@dataclass(frozen=True, slots=True)
class Plan:
    url: str
    streams: tuple[Stream, ...]
    aims: Aims = Aims()
    timeout_s: float = 60.0
    """A request without an answer after this is an error."""
    connections: int = 2000
    """Requests in flight at once, per process; what is due beyond is dropped, and counted."""
    processes: int = 1
    payload_file: str = ""
    """Name of the file that requests were taken from; empty = made from signatures."""
    binary: bool = False
    """Made as binary tensors."""
    batch: int = 1
    """Made with dimensions of any length that long."""

    @property
    def duration_s(self) -> float:
        return max(stream.shape.duration_s for stream in self.streams)

    def rate(self, at_s: float) -> float:
        """Requests per second offered at a moment, on average."""
        return sum(stream.shape.rate(at_s) for stream in self.streams)

    def offered(self, from_s: float, to_s: float) -> float:
        """Requests due in between, on average."""
        return sum(stream.shape.due_by(to_s) - stream.shape.due_by(from_s) for stream in self.streams)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """Raises ValueError, KeyError or TypeError for what is not a plan of this release."""
        return _plan(json.loads(text))


@dataclass(frozen=True, slots=True)
class Replicas:
    """What the platform said of one model in one second; None where it does not say."""

    wanted: int | None = None
    ready: int | None = None
    queued: int | None = None
    in_flight: int | None = None
    panic: bool | None = None
    cold_starts: int | None = None
    """Since the run began."""
    starting: int | None = None
    others: int | None = None
    """Replicas, ready or on their way, of revisions without traffic: what is left of an earlier version."""
    stable: float | None = None
    """The autoscaler's own average of the load over its stable window, in the unit of its metric."""
    burst: float | None = None
    """The same over its panic window."""
    serving: str = ""
    """The revisions that traffic goes to, with commas between."""


@dataclass(frozen=True, slots=True)
class Second:
    """Requests by the second in which they were due, not in which they were answered."""

    second: int
    offered: float
    """Requests due on average, by the plan."""
    sent: int = 0
    answered: int = 0
    """With a status of 2xx, whenever the answer came."""
    finished: int = 0
    """Ends of requests that fell into this second, good or bad, whenever they were due: what the platform got done."""
    dropped: int = 0
    """Not sent, because as many as may be were in flight."""
    errors: dict[str, int] = field(default_factory=dict)
    """By status, or by what went wrong (`timeout`, `connection`)."""
    in_flight: int = 0
    """At the end of the second."""
    latency: Histogram = field(default_factory=Histogram)
    """From when they were due to the end of the answer; of those that were answered in any way."""
    replicas: dict[str, Replicas] = field(default_factory=dict)
    """By target, as `acme/iris`."""

    @property
    def due(self) -> int:
        """How many were due, by the schedule: what the answered ones are to be compared with."""
        return self.sent + self.dropped

    @property
    def failed(self) -> int:
        return sum(self.errors.values())


@dataclass(frozen=True, slots=True)
class Generator:
    """How the generator itself did: a run whose generator was too slow proves nothing."""

    lag: Histogram = field(default_factory=Histogram)
    """From when a request was due to when it was sent."""
    cpu: float = 0.0
    """Busiest process: share of a core that it used while it sent."""
    starved_s: float = 0.0
    """Longest time for which a process did not get to run, as it saw it."""


@dataclass(frozen=True, slots=True)
class Billing:
    """Calls of one target in the platform's ledger, before the run and after it."""

    target: str
    before: int
    after: int
    answered: int
    """Charged answers that the generator got in between."""


@dataclass(frozen=True, slots=True)
class Record:
    plan: Plan
    started_at: str
    """ISO 8601, UTC."""
    seconds: tuple[Second, ...]
    service: Histogram = field(default_factory=Histogram)
    """From sending a request to the end of its answer."""
    generator: Generator = Generator()
    billing: tuple[Billing, ...] = ()
    after: tuple[Second, ...] = ()
    """What the platform did after the last request, for going back to zero; their numbers go on from those of `seconds`."""
    events: tuple[tuple[float, str], ...] = ()
    """Seconds from the start, and what happened then."""
    platform: dict[str, Any] = field(default_factory=dict)
    """What the platform said of itself: `engine`, `version`, and by target its `scaling` policy, in Knative's spelling, and
    the KPA's own `prediction`."""

    @property
    def latency(self) -> Histogram:
        """Of the whole run, from due time."""
        return Histogram.sum(second.latency for second in self.seconds)

    def to_json(self) -> str:
        return json.dumps(asdict(self, dict_factory=_plain), default=_encode, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises ValueError, KeyError or TypeError for what is not a record of this release."""
        content = json.loads(text)
        plan = content.pop("plan")
        return cls(
            plan=_plan(plan),
            seconds=tuple(_second(each) for each in content.pop("seconds")),
            after=tuple(_second(each) for each in content.pop("after")),
            service=Histogram.decode(content.pop("service")),
            generator=Generator(**(content["generator"] | {"lag": Histogram.decode(content.pop("generator")["lag"])})),
            billing=tuple(Billing(**each) for each in content.pop("billing")),
            events=tuple((float(at), str(text)) for at, text in content.pop("events")),
            **content,
        )


def _plain(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: _encode(value) if isinstance(value, Histogram) else value for name, value in pairs}


def _encode(value: object) -> object:
    if isinstance(value, Histogram):
        return value.encode()
    raise TypeError(f"a record holds no {type(value).__name__}")


def _plan(content: dict[str, Any]) -> Plan:
    streams = tuple(
        Stream(
            target=Target(**stream.pop("target")),
            shape=Shape(tuple((float(t), float(r)) for t, r in stream.pop("shape")["knots"])),
            process=Process(stream.pop("process")),
            **stream,
        )
        for stream in content.pop("streams")
    )
    return Plan(streams=streams, aims=Aims(**content.pop("aims")), **content)


def _second(content: dict[str, Any]) -> Second:
    latency = Histogram.decode(content.pop("latency"))
    replicas = {name: Replicas(**each) for name, each in content.pop("replicas").items()}
    return Second(latency=latency, replicas=replicas, **content)
