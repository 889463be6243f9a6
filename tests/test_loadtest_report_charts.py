"""What the charts are made of: seconds thinned without losing the highest, axes, pictures, the command that repeats a run."""

import math
import re
from dataclasses import replace

import pytest

from loadtest_parts import a_run
from loadtest_records import from_second, latencies, plan_of, record_of, slower, with_replicas
from roost_loadtest import shape_text, shapes
from roost_loadtest.arrivals import Process
from roost_loadtest.record import Aims, Plan, Replicas, Second, Stream, Target
from roost_loadtest.report import charts, command
from roost_loadtest.report.chart import Chart, Line, short
from roost_loadtest.report.figures import milliseconds, moment
from roost_loadtest.report.scale import Scale, times
from roost_loadtest.report.stills import stack, still
from roost_loadtest.report.timeline import Timeline, predicted

SPIKE = from_second(1234, 1235, slower(2.0))


def test_of_an_hour_no_peak_is_lost():
    line = Timeline.of(record_of(plan_of(shapes.constant(5, 3600)), second=SPIKE), points=400)
    assert (line.step, len(line.times)) == (9, 400)
    p99 = line.quantile(2)
    assert max(value or 0 for value in p99) == pytest.approx(2000, rel=0.002)
    assert p99.index(max(p99, key=lambda value: value or 0)) == 1234 // 9


def test_rates_are_averages_and_counts_are_sums():
    line = Timeline.of(record_of(plan_of(shapes.constant(6, 30))), points=10)
    assert line.mean(lambda second: second.answered) == (6.0,) * 10
    assert line.total(lambda second: second.answered) == (18,) * 10


def test_of_seconds_that_nobody_saw_nothing_is_said():
    record = record_of(plan_of(shapes.constant(4, 6)))
    line = Timeline.of(replace(record, seconds=(record.seconds[0], record.seconds[4])), points=100)
    assert line.highest(lambda second: second.sent) == (4, None, None, None, 4)


def test_cold_starts_are_shown_when_they_happen():
    reached = [None, 1, 1, None, 3, 3]
    record = record_of(
        plan_of(shapes.constant(4, 6)), second=with_replicas(lambda at: Replicas(cold_starts=reached[at]))
    )
    line = Timeline.of(record, points=100)
    assert line.grown("acme/iris", lambda told: told.cold_starts) == (None, 1, 0, None, 2, 0)


@pytest.mark.parametrize(
    ("told", "curve"),
    [
        ([], (None,) * 6),
        ([[0, 1], [2, 4], [4.5, 2]], (1, 1, 4, 4, 2, 2)),
        ([[n, n * n] for n in range(6)], (0, 1, 4, 9, 16, 25)),
        ([[3, 7]], (None, None, None, 7, 7, 7)),
    ],
)
def test_a_prediction_stays_until_it_changes(told, curve):
    record = record_of(plan_of(shapes.constant(4, 6)))
    platform = record.platform | {"prediction": {"acme/iris": told}}
    assert Timeline.of(record, points=100).curve(predicted(platform, "acme/iris")) == curve


def test_what_the_platform_did_after_the_run_is_on_the_same_axis():
    record = a_run(shape=shapes.constant(50, 20), after_s=40)
    line = Timeline.of(record, points=100)
    assert line.length == 60
    ready = line.replicas("acme/iris", lambda told: told.ready)
    assert (ready[19], ready[59]) == (1, 0)
    assert line.mean(lambda second: second.sent)[20:] == (None,) * 40


def test_each_model_has_its_replicas_and_those_not_in_the_plan_too():
    record = a_run(shape=shapes.constant(50, 20), targets=[Target("a", "x"), Target("b", "y", 3)])
    titles = [chart.title for chart in charts.over_time(Timeline.of(record, points=100))]
    assert titles[2:4] == ["Replicas of a/x", "Replicas of b/y@3"]


def test_rare_errors_share_a_line():
    record = a_run(shape=shapes.constant(90, 20), error_share=0.5, errors=[f"class {n}" for n in range(9)])
    chart = charts.over_time(Timeline.of(record, points=100))[-1]
    assert [line.name for line in chart.lines][5:] == ["4 other classes"]
    assert sum(sum(filter(None, line.values)) for line in chart.lines) == sum(each.failed for each in record.seconds)


def test_panic_is_shaded():
    panic = {3, 4, 5, 9}
    record = record_of(
        plan_of(shapes.constant(4, 12)), second=with_replicas(lambda at: Replicas(ready=1, panic=at in panic))
    )
    chart = next(c for c in charts.over_time(Timeline.of(record, points=100)) if c.id == "replicas-0")
    assert chart.bands == ((3, 6), (9, 10))


def test_the_distribution_goes_as_far_as_the_requests_do():
    chart = charts.distribution(record_of(plan_of(shapes.constant(100, 10))))
    assert chart.xs[-1] == 3.0
    assert charts.distribution(replace(record_of(), seconds=(), service=latencies())).empty


def test_bars_stand_on_each_other():
    lines = (
        Line("a", (1, None, 3), "red", "bars"),
        Line("b", (2, 2, None), "blue", "bars"),
        Line("c", (9, 9, 9), "grey"),
    )
    assert stack(lines) == [(1, 0, 3), (3, 2, 3), (9, 9, 9)]
    # The picture reaches as high as all of them together.
    assert Chart("e", "Errors", lines[:2]).reach == (0, 3)


@pytest.mark.parametrize(("low", "high"), [(0.004, 2900.0), (1.0, 40.0), (5.0, 5.0), (99.0, 101.0), (1e-3, 3.6e6)])
def test_a_logarithmic_axis_holds_all_and_is_not_crowded(low, high):
    scale = Scale.over(low, high, log=True)
    assert scale.low <= low <= high <= scale.high
    assert 0 <= scale.share(low) <= scale.share(high) <= 1
    ticks = scale.ticks(whole=False)
    assert 1 <= len(ticks) <= 12
    assert all(scale.low <= tick <= scale.high * 1.001 for tick in ticks)


@pytest.mark.parametrize("high", [0, 0.3, 1, 7, 40, 999, 123456])
def test_a_straight_axis_begins_at_nothing_and_counts_whole(high):
    ticks = Scale.over(0, high, log=False).ticks(whole=True)
    assert ticks[0] == 0
    assert 1 <= len(ticks) <= 7
    assert all(tick == int(tick) for tick in ticks)


@pytest.mark.parametrize("length", [1, 30, 61, 3600, 86400])
def test_times_under_an_axis(length):
    assert times(length)[0] == 0
    assert 1 <= len(times(length)) <= 10


def test_a_picture_stays_small_and_inside():
    values = tuple(float(100 + 50 * math.sin(n / 40)) for n in range(3600))
    picture = still(Chart("x", "X", (Line("a", values, "blue", fill=True),)), step=1, length=3600)
    assert len(picture) < 9000
    assert "nan" not in picture
    (points,) = re.findall(r'class="line blue" d="M\d+ (\d+)', picture)
    assert 0 <= int(points) <= 380


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 ms"), (0.0042, "4.2 µs"), (0.5, "0.5 ms"), (12.34, "12.3 ms"), (999.4, "999 ms"), (1900, "1.9 s")],
)
def test_times_are_written_shortly(value, text):
    assert milliseconds(value) == text


def test_moments_and_figures():
    assert [moment(at) for at in (0, 67, 3723)] == ["0:00", "1:07", "1:02:03"]
    assert [short(value) for value in (None, math.inf, 12.3456789, 3.0, 0.00012345)] == [
        None,
        None,
        12.35,
        3,
        0.0001234,
    ]


SHAPES = [
    shapes.constant(12.5, 60), shapes.steps([(50, 30), (200, 60.5)]), shapes.ramp(0.001, 200, 60),
    shapes.spike(10, 100, before_s=5, spike_s=5, after_s=5), shapes.diurnal(1, 9, period_s=60, duration_s=15),
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_the_command_makes_the_same_shape_again(shape):
    again = shape_text.shape(command.shape_text(shape), duration_s=1)
    moments = [shape.duration_s * n / 97 for n in range(97)]
    assert [again.rate(at) for at in moments] == pytest.approx([shape.rate(at) for at in moments], rel=1e-6, abs=1e-6)


def test_the_command_has_what_differs_from_the_default():
    streams = (
        Stream(Target("acme", "iris"), shapes.constant(200, 60), Process.GAMMA, 1.5, seed=7),
        Stream(Target("acme", "digits", 3), shapes.constant(20, 60), Process.GAMMA, 1.5, seed=8),
        Stream(Target("b", "x"), shapes.steps([(1, 30), (2, 30)]), Process.GAMMA, 1.5, seed=9),
    )
    plan = Plan("", streams, Aims(p50_s=0.0105, p99_s=0.1, errors=0, back_to_zero=True, billed=False), processes=2)
    assert command.command(plan) == (
        "roost loadtest acme/iris --qps=200 --duration=60s --also=acme/digits@3=20 --also=b/x=steps:1x30s,2x30s "
        "--process=gamma:1.5 --seed=7 --p50=10.5ms --p99=100ms --errors=0 --back-to-zero --no-billing --processes=2"
    )


def test_the_command_has_what_requests_hold():
    stream = Stream(Target("acme", "iris"), shapes.constant(1, 1))
    end = str(command.command(Plan("", (stream,), payload_file="my request.json"))).partition("--seed=0 ")[2]
    assert end == "'--payload=my request.json'"
    made = Plan("", (stream,), binary=True, batch=8)
    assert str(command.command(made)).endswith("--seed=0 --binary --batch=8")
    assert Plan.from_json(made.to_json()) == made


def test_there_is_no_command_for_what_a_command_line_cannot_say():
    stream = Stream(Target("acme", "iris"), shapes.constant(200, 60), seed=7)
    assert command.command(Plan("", (stream, stream))) is None  # both with the same seed
    day = replace(stream, shape=shapes.diurnal(1, 9, period_s=60, duration_s=60))
    assert command.command(Plan("", (day,))) is None


def test_a_name_cannot_end_the_command():
    stream = Stream(Target("acme", "x; rm -rf ~"), shapes.constant(1, 1))
    assert command.command(Plan("", (stream,))) == (
        "roost loadtest 'acme/x; rm -rf ~' --qps=1 --duration=1s --process=poisson --seed=0"
    )


def test_a_second_that_only_has_a_histogram_is_enough():
    record = replace(record_of(), seconds=(Second(0, 1.0, latency=latencies(0.01)),))
    assert [chart.id for chart in charts.over_time(Timeline.of(record, points=10))] == ["rates", "latency", "in-flight"]
