"""Histograms and records: what is written is read again, here and by HdrHistogram's own library."""

import json

import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from roost_loadtest.arrivals import Process
from roost_loadtest.histograms import Histogram
from roost_loadtest.record import Aims, Billing, Generator, Plan, Record, Replicas, Second, Stream, Target
from roost_loadtest.shapes import ramp

times = st.lists(st.floats(1e-6, 3600), max_size=60)


def histogram(values):
    made = Histogram()
    for value in values:
        made.add(value)
    return made


@settings(max_examples=15)
@given(times, st.floats(0.001, 1))
def test_quantiles_are_those_of_the_library(values, share):
    reference = HdrHistogram(1, 3_600_000_000, 3)
    for value in values:
        reference.record_value(max(1, round(value * 1e6)))
    ours = histogram(values)
    assert ours.quantile(share) == reference.get_value_at_percentile(share * 100) / 1e6
    assert ours.count == reference.get_total_count()
    assert ours.mean == pytest.approx(reference.get_mean_value() / 1e6, rel=0.001, abs=1e-6)


@settings(max_examples=10)
@given(times, times)
def test_several_add_up_and_survive_being_written(one, other):
    both = Histogram.sum([histogram(one), histogram(other)])
    assert both == histogram(one + other)
    assert Histogram.decode(both.encode()) == both
    assert hash(Histogram.decode(both.encode())) == hash(both)
    if both.count:
        assert HdrHistogram.decode(both.encode()).get_total_count() == both.count


@given(st.lists(st.floats(1e-6, 3600), min_size=1, max_size=60))
def test_a_quantile_is_three_digits_exact(values):
    values.sort()
    found = histogram(values)
    for index, value in enumerate(values):
        assert found.quantile((index + 1) / len(values)) == pytest.approx(value, rel=0.001, abs=1e-6)


def test_what_lies_outside_is_counted_at_the_edge():
    found = histogram([-1.0, 0.0, 1e-9, 7200.0])
    assert (found.count, found.quantile(0.5), found.largest) == (4, 1e-6, pytest.approx(3600, rel=0.001))
    assert (found.above(1.0), found.above(3601)) == (1, 0)
    assert repr(found).startswith("<Histogram of 4, median 0.000001 s")


def test_nothing_is_nothing():
    assert (Histogram().count, Histogram().quantile(0.99), Histogram().largest, Histogram().mean) == (0, 0, 0, 0)
    assert Histogram().encode() == ""
    assert Histogram() != "a histogram"


@pytest.mark.parametrize("text", ["x", "AAAA", "HISTFAAAAC"])
def test_what_is_no_histogram_is_refused(text):
    with pytest.raises(ValueError, match="not a histogram"):
        Histogram.decode(text)


def test_a_record_is_read_as_it_was_written():
    target = Target("acme", "iris", 3)
    shape = ramp(10, 20, 2)
    plan = Plan(
        "http://127.0.0.1:8000",
        (Stream(target, shape, Process.GAMMA, 1.5, 7, "16 made"), Stream(Target("acme", "other"), shape)),
        Aims(p99_s=0.1, back_to_zero=True),
    )
    seconds = (
        Second(0, 24.0, sent=20, answered=18, finished=19, dropped=1, errors={"503": 2}, in_flight=1, latency=histogram([0.1])),
        Second(1, 36.0, replicas={"acme/iris@3": Replicas(wanted=2, ready=1, panic=False)}),
    )  # fmt: skip
    record = Record(
        plan=plan,
        started_at="2026-11-23T04:30:00+00:00",
        seconds=seconds,
        service=histogram([0.09]),
        generator=Generator(lag=histogram([0.0001]), cpu=0.3, starved_s=0.02),
        billing=(Billing("acme/iris", 5, 23, 18),),
        after=(Second(2, 0.0, replicas={"acme/iris@3": Replicas(wanted=0, ready=0)}),),
        events=((1.5, "version 4 is ready"),),
        platform={"engine": "local", "prediction": {"acme/iris": [[0, 1]]}},
    )
    assert Record.from_json(record.to_json()) == record
    assert Plan.from_json(plan.to_json()) == plan
    assert (seconds[0].due, seconds[0].failed, record.latency.count) == (21, 2, 1)
    assert (plan.duration_s, plan.rate(1), plan.offered(0, 2)) == (2, 30, 60)
    assert target.path == "/t/acme/v2/models/iris/versions/3/infer"
    assert "Bearer" not in record.to_json()


def test_what_is_no_record_is_refused():
    for text in ("", "{}", "[]", json.dumps({"plan": {}})):
        with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
            Record.from_json(text)
