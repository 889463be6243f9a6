"""The command that makes the same run again. Pure."""

import shlex
from collections.abc import Iterator
from itertools import pairwise

from roost_loadtest.arrivals import Process
from roost_loadtest.record import Aims, Plan, Stream
from roost_loadtest.shapes import Shape

_PIECES = 24
"""Of a shape that one still wants to read in a command."""
_AIMS = Aims()
_PLAN = Plan("", ())


def command(plan: Plan) -> str | None:
    """For a shell. None for a plan that no command line makes, or only an unreadable one: then the record alone has it.

    A payload's file is given by its name: a record does not say where it lay.
    """
    first, *others = plan.streams
    same = all(
        (each.process, each.burstiness, each.seed) == (first.process, first.burstiness, first.seed + index)
        for index, each in enumerate(plan.streams)
    )
    if not same or any(len(each.shape.knots) > 2 * _PIECES for each in plan.streams):
        return None
    words = ["roost", "loadtest", str(first.target)]
    if _constant(first.shape):
        words += [f"--qps={_number(first.shape.peak)}", f"--duration={_number(first.shape.duration_s)}s"]
    else:
        words.append(f"--shape={shape_text(first.shape)}")
    words += [f"--also={each.target}={_also(each, first)}" for each in others]
    words += [f"--process={_process(first)}", f"--seed={first.seed}", *_aims(plan.aims), *_limits(plan)]
    return " ".join(shlex.quote(word) for word in words)


def shape_text(shape: Shape) -> str:
    """As `shape_text.shape` reads it."""
    pieces = [(b - a, low, high) for (a, low), (b, high) in pairwise(shape.knots) if b > a]
    if all(low == high for _, low, high in pieces):
        return "steps:" + ",".join(f"{_number(low)}x{_number(length)}s" for length, low, _ in pieces)
    return "ramp:" + ",".join(f"{_number(low)}-{_number(high)}x{_number(length)}s" for length, low, high in pieces)


def _also(stream: Stream, first: Stream) -> str:
    """A rate alone lasts as long as the first stream."""
    if _constant(stream.shape) and stream.shape.duration_s == first.shape.duration_s:
        return _number(stream.shape.peak)
    return shape_text(stream.shape)


def _constant(shape: Shape) -> bool:
    return len({rate for _, rate in shape.knots}) == 1


def _process(stream: Stream) -> str:
    names = {Process.UNIFORM: "constant", Process.POISSON: "poisson"}
    return names.get(stream.process) or f"gamma:{_number(stream.burstiness)}"


def _aims(aims: Aims) -> Iterator[str]:
    for name, aim in (("p50", aims.p50_s), ("p95", aims.p95_s), ("p99", aims.p99_s)):
        if aim is not None:
            yield f"--{name}={_number(aim * 1000)}ms"
    for name in ("errors", "achieved"):
        if getattr(aims, name) != getattr(_AIMS, name):
            yield f"--{name}={_number(getattr(aims, name))}"
    if aims.capacity_within_s is not None:
        yield f"--capacity-within={_number(aims.capacity_within_s)}s"
    if aims.settle_s != _AIMS.settle_s:
        yield f"--settle={_number(aims.settle_s)}s"
    if aims.back_to_zero:
        yield "--back-to-zero"
    if not aims.billed:
        yield "--no-billing"


def _limits(plan: Plan) -> Iterator[str]:
    if plan.timeout_s != _PLAN.timeout_s:
        yield f"--timeout={_number(plan.timeout_s)}s"
    if plan.connections != _PLAN.connections:
        yield f"--connections={plan.connections}"
    if plan.processes != 1:
        yield f"--processes={plan.processes}"
    if plan.payload_file:
        yield f"--payload={plan.payload_file}"
    if plan.binary:
        yield "--binary"
    if plan.batch != 1:
        yield f"--batch={plan.batch}"


def _number(value: float) -> str:
    """Without an exponent: a minus sign would be read as a range."""
    text = f"{value:.9f}".rstrip("0").rstrip(".")
    return text or "0"
