"""Records of runs that never happened: what a verdict is made from, second by second as a test wants it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from roost_loadtest import shapes
from roost_loadtest.arrivals import Process
from roost_loadtest.histograms import Histogram
from roost_loadtest.record import Aims, Billing, Generator, Plan, Record, Replicas, Second, Stream, Target
from roost_loadtest.verdict import Verdict, judge

IRIS = Target("acme", "iris")
STEPS = shapes.steps([(50, 30), (200, 30), (50, 30)])
WITHIN_100_MS = Aims(p99_s=0.1, billed=False)
POLICY = {"window": 10, "target": 1, "target-utilization-percentage": 70, "class": "kpa", "metric": "concurrency"}


def latencies(*each: float, times: int = 1) -> Histogram:
    histogram = Histogram()
    for value in each * times:
        histogram.add(value)
    return histogram


def steady_second(number: int, rate: int, *, latency_s: float = 0.005, replicas: Replicas | None = None) -> Second:
    """All that was due was sent and answered in time."""
    return Second(
        second=number,
        offered=rate,
        sent=rate,
        answered=rate,
        in_flight=round(rate * latency_s),
        latency=latencies(latency_s, times=rate),
        replicas={str(IRIS): replicas} if replicas is not None else {},
    )


def plan_of(shape: shapes.Shape = STEPS, *, aims: Aims = WITHIN_100_MS, targets: Iterable[Target] = (IRIS,)) -> Plan:
    return Plan("http://roost.test", tuple(Stream(target, shape, Process.UNIFORM) for target in targets), aims)


def record_of(
    plan: Plan | None = None,
    *,
    second: Callable[[Second], Second] = lambda each: each,
    generator: Generator | None = None,
    policy: Mapping[str, Any] | None = None,
    **more: Any,
) -> Record:
    """As planned, but for what `second` makes of each second."""
    plan = plan or plan_of()
    seconds = [
        second(steady_second(number, round(plan.offered(number, number + 1))))
        for number in range(round(plan.duration_s))
    ]
    platform = {"engine": "local", "version": "0.1.0", "scaling": {str(IRIS): dict(policy or POLICY)}}
    return Record(
        plan=plan, started_at="2026-11-23T05:00:00+00:00", seconds=tuple(seconds), service=latencies(0.005),
        generator=generator or Generator(lag=latencies(0.0005), cpu=0.4), **({"platform": platform} | more),
    )  # fmt: skip


def from_second(start: int, end: int, change: Callable[[Second], Second]) -> Callable[[Second], Second]:
    """Changes some seconds, and leaves the rest as they are."""
    return lambda each: change(each) if start <= each.second < end else each


def slower(latency_s: float) -> Callable[[Second], Second]:
    return lambda each: steady_second(each.second, each.sent, latency_s=latency_s)


def with_replicas(told: Callable[[int], Replicas | None]) -> Callable[[Second], Second]:
    def change(each: Second) -> Second:
        replicas = told(each.second)
        return replace(each, replicas={str(IRIS): replicas}) if replicas is not None else each

    return change


def failed(record: Record) -> list[str]:
    """Ids of the criteria that were not met."""
    return [each.id for each in judge(record).criteria if each.passed is False]


def of(verdict: Verdict, id_: str) -> list[Any]:
    return [each for each in (*verdict.validity, *verdict.criteria) if each.id == id_]


def bill(*, billed: int, answered: int) -> tuple[Billing, ...]:
    return (Billing(str(IRIS), 1000, 1000 + billed, answered),)
