"""Whether there were as many replicas as Knative's autoscaler allows for the load that there was. Pure.

The bounds are those of Knative's own end-to-end tests: for a load that fills n replicas to the brim, never fewer than
n - 1 ready ones, and never more than ceil(ceil(n / utilization) x 1.1). The load is what the generator itself had in flight
(or sent, for rps), averaged as the autoscaler averages: it may hold what the highest average of the last stable window
called for, since it never scales down while it panics. In the time for settling after a step up, the floor is the one of
before the step.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from roost_loadtest.criterion import Criterion
from roost_loadtest.policy import Policy, policies
from roost_loadtest.record import Record, Replicas, Second
from roost_loadtest.stretches import Stretch

_TOO_MANY = 1.1
_MEMORY_S = 10
"""On top of the stable window: the ticks that it takes to come down, and the second between two looks."""
_LOOK_S = 2
"""What a panic began with was seen before it was told."""
_START_S = 10
"""A floor counts when the load was there for so long: replicas need time to start."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one second, both inclusive."""

    least: int
    most: int


def replica_criteria(record: Record, found: Sequence[Stretch]) -> Iterator[Criterion]:
    """For each model, and each steady stretch of it."""
    told = policies(record.platform)
    for target in dict.fromkeys(str(stream.target) for stream in record.plan.streams):
        if not any(target in second.replicas for second in record.seconds):
            yield _not_judged(target, "the platform did not tell its replicas")
        elif (policy := told.get(target)) is None:
            yield _not_judged(target, "the platform did not tell its policy")
        elif not policy.kpa:
            yield _not_judged(target, "these bounds are those of Knative's own autoscaler, and another one decides")
        elif (bounds := bounds_of(record, target, policy)) is None:
            yield _not_judged(
                target, "the load of one model among several is known by the platform only, and it did not tell"
            )
        else:
            for stretch in found:
                if stretch.steady:
                    yield _judged(record.seconds, target, bounds, stretch)


def _not_judged(target: str, why: str) -> Criterion:
    return Criterion(
        "replicas", "replicas inside KPA's bounds", None, unit="seconds outside", target=target, detail=why
    )


def _judged(seconds: Sequence[Second], target: str, bounds: Sequence[Bounds], stretch: Stretch) -> Criterion:
    outside: list[str] = []
    # Another version that takes over at the same rate begins with its initial scale.
    floor = bounds[stretch.start - 1].least if stretch.start and stretch.rate != stretch.rate_before else 0
    for second in seconds[stretch.start : stretch.end]:
        told = second.replicas.get(target)
        if told is None or told.ready is None:
            continue
        allowed = bounds[second.second]
        settled = second.second >= stretch.settled
        least = allowed.least if settled else min(floor, allowed.least)
        if told.ready < least:
            outside.append(f"{told.ready} ready at {second.second} s, at least {least}")
        elif settled and (most := max(told.ready, told.wanted or 0)) > allowed.most:
            outside.append(f"{most} at {second.second} s, at most {allowed.most}")
    judged = [bounds[n] for n in range(stretch.settled, min(stretch.end, len(bounds)))]
    span = f"{min(b.least for b in judged)} to {max(b.most for b in judged)} replicas allowed" if judged else ""
    return Criterion(
        "replicas", f"replicas inside KPA's bounds at {stretch.rate:.4g}/s", not outside, float(len(outside)), 0.0, "<=",
        "seconds outside", target=target, from_s=float(stretch.start), to_s=float(stretch.end),
        detail="; ".join(outside[:3]) or span,
    )  # fmt: skip


def bounds_of(record: Record, target: str, policy: Policy) -> list[Bounds] | None:
    """Of every second of the load; None when the load of this model is not known."""
    loads = list(_loads(record, target, rps=policy.rps))
    if not loads:
        return None
    stable = [_averages(load, policy.window_s) for load in loads]
    burst = [_averages(load, policy.panic_window_s) for load in loads]
    highest = [max(values) for values in zip(*stable, *burst, strict=True)]
    lowest = [min(values) for values in zip(*stable, strict=True)]
    for second, told in enumerate(_told(record.seconds, target)):
        # What the autoscaler itself says that it saw, between two of our looks.
        highest[second] = max(
            [highest[second], *(average for average in (told.stable, told.burst) if average is not None)]
        )
        lowest[second] = min([lowest[second], *([told.stable] if told.stable is not None else [])])
    memory_s = policy.window_s + policy.scale_down_delay_s + _MEMORY_S
    begun = _panics(record.seconds, target)
    return [
        _bounds(
            min(lowest[max(0, n - _START_S) : n + 1]), max(highest[max(0, min(n - memory_s, begun[n])) : n + 1]), policy
        )
        for n in range(len(record.seconds))
    ]


def _panics(seconds: Sequence[Second], target: str) -> list[int]:
    """For each second when the panic began that is under way, or was until a moment ago; itself where there is none.

    New overload prolongs a panic, and what its highest average called for is held until it ends.
    """
    found: list[int] = []
    since, until = 0, -_MEMORY_S
    for n, told in enumerate(_told(seconds, target)):
        if told.panic:
            since, until = (since if until == n - 1 else n), n
        found.append(since - _LOOK_S if n - until < _MEMORY_S else n)
    return found


def _bounds(low: float, high: float, policy: Policy) -> Bounds:
    least = math.ceil(low / policy.total) - 1
    aimed = math.ceil(high / (policy.total * policy.utilization))
    most = max(1, math.ceil(round(aimed * _TOO_MANY, 6)), policy.min_scale, policy.activation_scale)
    if policy.max_scale:
        least, most = min(least, policy.max_scale), min(most, policy.max_scale)
    return Bounds(max(0, least, policy.min_scale), most)


def _told(seconds: Sequence[Second], target: str) -> Iterator[Replicas]:
    for second in seconds:
        yield second.replicas.get(target, _NOTHING)


_NOTHING = Replicas()


def _loads(record: Record, target: str, *, rps: bool) -> Iterator[list[float]]:
    """The load of each second in each way in which it is known: no two see quite the same."""
    seconds = record.seconds
    if all(str(stream.target) == target for stream in record.plan.streams):
        if rps:
            yield [float(second.sent) for second in seconds]
        else:
            yield [float(second.in_flight) for second in seconds]
            # Little's law: the time that the requests of a second take altogether.
            yield [second.latency.mean * second.latency.count for second in seconds]
    elif not rps and any(told.in_flight is not None for told in _told(seconds, target)):
        yield [float((told.in_flight or 0) + (told.queued or 0)) for told in _told(seconds, target)]


def _averages(load: Sequence[float], window_s: int) -> list[float]:
    """At the end of each second, over the window; while that is younger, over its age."""
    found: list[float] = []
    total = 0.0
    for second, value in enumerate(load):
        total += value - (load[second - window_s] if second >= window_s else 0.0)
        found.append(max(0.0, total) / min(second + 1, window_s))
    return found
