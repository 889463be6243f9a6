"""Load shapes and arrival processes as one writes them on a command line.

    100                          so many requests a second, for the given duration
    steps:50x30s,200x60s         levels, one after the other
    ramp:10-200x60s              straight from one rate to another; several one after the other with commas
    spike:50-400,20s,10s,30s     base and peak; how long before, at the peak, and after
    diurnal:20-200,120s          a sine from lowest to highest and back, in 120 s; goes on for the given duration
    trace:FILE,speed=60,…        a CSV trace (trace.py); row=#3 or a hash, scale=, from= and minutes= choose from it

Durations are seconds: 30, 30s, 500ms, 2m, 1h.
"""

import re
from pathlib import Path

from roost_loadtest import trace
from roost_loadtest.arrivals import Process
from roost_loadtest.shapes import Shape, constant, diurnal, spike, steps

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


def seconds(text: str) -> float:
    """Raises ValueError for what is no duration."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no duration such as 30s, 500ms or 2m")
    return float(found[1]) * _UNITS[found[2]]


def process(text: str) -> tuple[Process, float]:
    """`poisson`, `constant` or `gamma:1.5`, with the gaps' coefficient of variation. Raises ValueError."""
    kind, _, value = text.partition(":")
    if kind == "gamma" and value:
        burstiness = _number(value)
        if burstiness <= 0:
            raise ValueError("gamma's coefficient of variation is above 0")
        return Process.GAMMA, burstiness
    if text in {"constant", "uniform"}:
        return Process.UNIFORM, 1.0
    if text == "poisson":
        return Process.POISSON, 1.0
    raise ValueError(f"{text!r} is no arrival process: poisson, constant or gamma:1.5")


def shape(text: str, *, duration_s: float) -> Shape:
    """`duration_s` is for the shapes that have no length of their own. Raises ValueError, naming what is wrong, and OSError."""
    kind, colon, rest = text.partition(":")
    if not colon:
        return constant(_number(text), duration_s)
    if kind == "steps":
        return steps(_level(each) for each in rest.split(","))
    if kind == "ramp":
        return _ramps(rest)
    if kind == "spike":
        return _spike(rest)
    if kind == "diurnal":
        rates, *period = rest.split(",")
        if len(period) != 1:
            raise ValueError("a day's curve is diurnal:LOW-HIGH,PERIOD")
        low, high = _range(rates)
        return diurnal(low, high, period_s=seconds(period[0]), duration_s=duration_s)
    if kind == "trace":
        return _trace(rest)
    raise ValueError(f"{kind!r} is no load shape: steps, ramp, spike, diurnal or trace")


def _level(text: str) -> tuple[float, float]:
    rate, x, duration = text.partition("x")
    if not x:
        raise ValueError(f"{text!r} is no step such as 50x30s")
    return _number(rate), seconds(duration)


def _ramps(text: str) -> Shape:
    knots: list[tuple[float, float]] = []
    now = 0.0
    for piece in text.split(","):
        rates, x, duration = piece.partition("x")
        if not x:
            raise ValueError(f"{piece!r} is no ramp such as 10-200x60s")
        (begin, end), length = _range(rates), seconds(duration)
        knots += [(now, begin), (now + length, end)]
        now += length
    return Shape(tuple(knots))


def _spike(text: str) -> Shape:
    rates, *lengths = text.split(",")
    if len(lengths) != 3:
        raise ValueError("a spike is spike:BASE-PEAK,BEFORE,SPIKE,AFTER, as in spike:50-400,20s,10s,30s")
    base, peak = _range(rates)
    before, at_peak, after = (seconds(each) for each in lengths)
    return spike(base, peak, before_s=before, spike_s=at_peak, after_s=after)


def _trace(text: str) -> Shape:
    file, *options = text.split(",")
    chosen = dict(option.partition("=")[::2] for option in options)
    if unknown := chosen.keys() - {"row", "speed", "scale", "from", "minutes"}:
        raise ValueError(f"a trace has no option {min(unknown)!r}: row, speed, scale, from, minutes")
    return trace.shape_of(
        trace.choose(trace.read(Path(file)), chosen.get("row", "")),
        speed=_number(chosen.get("speed", "1")),
        scale=_number(chosen.get("scale", "1")),
        first_minute=int(_number(chosen.get("from", "1"))),
        minutes=int(_number(chosen["minutes"])) if "minutes" in chosen else None,
    )


def _range(text: str) -> tuple[float, float]:
    low, dash, high = text.partition("-")
    if not dash:
        raise ValueError(f"{text!r} is no pair of rates such as 10-200")
    return _number(low), _number(high)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number") from None
