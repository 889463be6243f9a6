"""Cuts a run into stretches in which nothing was changed from outside: neither the offered rate nor what serves. Pure."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from roost_loadtest.record import Plan, Record, Second

LEAST_S = 5
"""A shorter stretch tells nothing of its own: its quantiles rest on too few requests."""
_SETTLE_SHARE = 3
"""Of a short stretch at most a third is given to settling: what is left must be worth judging."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Whole seconds from the start of the run, `end` exclusive."""

    start: int
    end: int
    steady: bool
    """The offered rate is the same all the time; otherwise it changes all the time."""
    rate: float
    """Requests per second, on average."""
    rate_before: float
    """Of the stretch before; 0 at the start of the run."""
    cause: str = "the start"
    """What is different from before, in words."""
    settled: int = 0
    """From this second on it is judged: before that, autoscaling may still be at work."""

    def __str__(self) -> str:
        return f"{self.start}-{self.end} s at {self.rate:g}/s" + ("" if self.steady else " on average")


def stretches(record: Record) -> tuple[Stretch, ...]:
    """Those worth judging, in order; the whole run as one when there is none."""
    found = [
        piece for piece in _cut(_by_rate(record.plan), _changes(record.seconds)) if piece.end - piece.start >= LEAST_S
    ]
    if not found:
        plan, end = record.plan, math.ceil(record.plan.duration_s)
        found = [Stretch(0, end, steady=False, rate=plan.offered(0, end) / end, rate_before=0.0)]
    settle_s = record.plan.aims.settle_s
    return tuple(
        replace(each, settled=each.start + math.floor(min(settle_s, (each.end - each.start) / _SETTLE_SHARE)))
        for each in found
    )


def _by_rate(plan: Plan) -> list[Stretch]:
    """Stretches by the offered rate alone; neighbours that are not steady, or too short for it, are one."""
    found: list[Stretch] = []
    for piece in _pieces(plan):
        before = found[-1] if found else None
        if piece.steady and piece.end - piece.start >= LEAST_S:
            found.append(replace(piece, rate_before=_last_rate(plan, piece.start), cause=_step(plan, piece)))
        elif before is not None and not before.steady:
            rate = plan.offered(before.start, piece.end) / (piece.end - before.start)
            found[-1] = replace(before, end=piece.end, rate=rate)
        else:
            found.append(
                replace(piece, steady=False, rate_before=_last_rate(plan, piece.start), cause="the rate changes")
            )
    return found


def _last_rate(plan: Plan, moment: int) -> float:
    return plan.rate(moment - 1e-3) if moment else 0.0


def _step(plan: Plan, piece: Stretch) -> str:
    before = _last_rate(plan, piece.start)
    return f"{before:.4g} → {piece.rate:.4g}/s" if piece.start else "the start"


def _pieces(plan: Plan) -> list[Stretch]:
    """Between two knots of any stream, in whole seconds; steady neighbours of the same rates are one."""
    knots = sorted({0.0, plan.duration_s} | {time for stream in plan.streams for time, _ in stream.shape.knots})
    found: list[Stretch] = []
    last: tuple[float, ...] = ()
    for begin, end in pairwise(knots):
        # Between two knots a rate goes straight: it is steady when it is the same in the middle.
        rates = tuple(stream.shape.rate(begin) for stream in plan.streams)
        middle = tuple(stream.shape.rate((begin + end) / 2) for stream in plan.streams)
        steady = all(map(math.isclose, rates, middle))
        start, after = math.ceil(begin), math.floor(end) if end < plan.duration_s else math.ceil(end)
        if steady and rates == last and found and found[-1].steady:
            found[-1] = replace(found[-1], end=after)
        elif after > start:
            rate = sum(middle)
            found.append(Stretch(start, after, steady=steady, rate=rate, rate_before=0.0))
            last = rates if steady else ()
    return found


def _changes(seconds: tuple[Second, ...]) -> dict[int, str]:
    """Seconds from which on other revisions serve a model than before."""
    found: dict[int, str] = {}
    serving: dict[str, str] = {}
    for second in seconds:
        for target, replicas in second.replicas.items():
            if replicas.serving:
                if serving.get(target, replicas.serving) != replicas.serving:
                    found[second.second] = f"{replicas.serving} takes over"
                serving[target] = replicas.serving
    return found


def _cut(pieces: Sequence[Stretch], changes: dict[int, str]) -> Iterator[Stretch]:
    for piece in pieces:
        start, cause, before = piece.start, piece.cause, piece.rate_before
        for moment in sorted(at for at in changes if piece.start < at < piece.end):
            yield replace(piece, start=start, end=moment, cause=cause, rate_before=before)
            start, cause, before = moment, changes[moment], piece.rate
        yield replace(piece, start=start, cause=cause, rate_before=before)
