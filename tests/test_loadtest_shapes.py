"""Load shapes: the area under them, its inverse, and what one writes on a command line."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost_loadtest import shape_text
from roost_loadtest.arrivals import Process
from roost_loadtest.shapes import Shape, constant, counted, diurnal, ramp, spike, steps

rates = st.floats(0, 1000)
lengths = st.floats(0.01, 100)
pieces = st.lists(st.tuples(rates, rates, lengths), min_size=1, max_size=6)


def shape_of(parts):
    knots, now = [], 0.0
    for begin, end, length in parts:
        knots += [(now, begin), (now + length, end)]
        now += length
    return Shape(tuple(knots))


@given(pieces, st.floats(0, 1))
def test_the_n_th_request_is_due_when_the_area_is_n(parts, share):
    shape = shape_of(parts)
    count = share * shape.requests
    assert shape.due_by(shape.time_of(count)) == pytest.approx(count, rel=1e-6, abs=1e-6)


@given(pieces, st.floats(0, 1))
def test_the_area_is_what_the_rates_add_up_to(parts, share):
    shape = shape_of(parts)
    until = share * shape.duration_s
    slices = 2000
    width = until / slices
    added = sum(shape.rate((n + 0.5) * width) * width for n in range(slices))
    assert shape.due_by(until) == pytest.approx(added, rel=0.02, abs=shape.peak * width * 2 * len(parts) + 1e-9)


def test_at_a_jump_the_rate_is_the_one_after_it():
    shape = steps([(50, 30), (200, 60)])
    assert [shape.rate(at) for at in (-1, 0, 29.9, 30, 89.9, 90)] == [0, 50, 50, 200, 200, 0]
    assert (shape.duration_s, shape.requests, shape.peak) == (90, 13_500, 200)


def test_a_step_of_no_requests_delays_what_comes_after():
    shape = steps([(10, 1), (0, 5), (10, 1)])
    assert shape.time_of(10.0) == pytest.approx(6.0)
    assert shape.due_by(3.0) == 10
    assert shape.time_of(15.0) == pytest.approx(6.5)


def test_a_day_begins_at_its_lowest_and_is_a_sine():
    shape = diurnal(20, 200, period_s=96, duration_s=192)
    assert (shape.rate(0), shape.rate(48), shape.rate(96)) == pytest.approx((20, 200, 20))
    assert shape.rate(24) == pytest.approx(110, rel=0.001)
    assert shape.requests == pytest.approx(110 * 192, rel=0.001)


def test_a_trace_replayed_faster_has_as_many_calls_in_less_time():
    shape = counted([60, 0, 120], every_s=60, speed=10)
    assert (shape.requests, shape.duration_s, shape.rate(3), shape.rate(9), shape.rate(15)) == (180, 18, 10, 0, 20)


@pytest.mark.parametrize(
    "knots", [((0, 1),), ((1, 1), (2, 1)), ((0, 1), (2, 1), (1, 1)), ((0, -1), (1, 1)), ((0, math.inf), (1, 1))]
)
def test_what_is_no_shape_is_refused(knots):
    with pytest.raises(ValueError, match=r"shape|rate"):
        Shape(knots)


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("100", constant(100, 60)),
        ("2.5", constant(2.5, 60)),
        ("steps:50x30s,200x1m", steps([(50, 30), (200, 60)])),
        ("ramp:10-200x60s", ramp(10, 200, 60)),
        ("ramp:0-50x500ms,50-0x2", Shape(((0, 0), (0.5, 50), (0.5, 50), (2.5, 0)))),
        ("spike:50-400,20s,10s,30s", spike(50, 400, before_s=20, spike_s=10, after_s=30)),
        ("diurnal:20-200,120s", diurnal(20, 200, period_s=120, duration_s=60)),
    ],
)
def test_a_shape_as_one_writes_it(text, shape):
    assert shape_text.shape(text, duration_s=60) == shape


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is no number"),
        ("fast", "'fast' is no number"),
        ("-5", "0 or more"),
        ("nan", "0 or more"),
        ("wave:3", "'wave' is no load shape"),
        ("steps:", "'' is no step"),
        ("steps:5", "'5' is no step"),
        ("steps:5x0s", "longer than no time"),
        ("steps:5x3d", "'3d' is no duration"),
        ("ramp:5x3s", "'5' is no pair of rates"),
        ("ramp:5-10", "'5-10' is no ramp"),
        ("spike:5-10,3s", "a spike is spike:BASE-PEAK"),
        ("diurnal:5-10", "a day's curve is diurnal:LOW-HIGH"),
        ("trace:x.csv,hurry=2", "no option 'hurry'"),
    ],
)
def test_a_shape_that_is_none_is_told_by_what_is_wrong(text, says):
    with pytest.raises(ValueError, match=says):
        shape_text.shape(text, duration_s=60)


def test_an_arrival_process_as_one_writes_it():
    assert shape_text.process("poisson") == (Process.POISSON, 1.0)
    assert shape_text.process("constant") == shape_text.process("uniform") == (Process.UNIFORM, 1.0)
    assert shape_text.process("gamma:1.5") == (Process.GAMMA, 1.5)
    for text in ("gamma", "gamma:", "gamma:x", "gamma:0", "bursts"):
        with pytest.raises(ValueError, match=r"gamma|no number"):
            shape_text.process(text)
