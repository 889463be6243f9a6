"""Into what a run is cut: stretches of one rate, cut again where another version takes over."""

from loadtest_records import IRIS, plan_of, record_of, with_replicas
from roost_loadtest import shapes
from roost_loadtest.record import Aims, Replicas, Stream, Target
from roost_loadtest.stretches import stretches


def cut(shape: shapes.Shape, **aims: float) -> list[tuple[int, int, int, bool]]:
    found = stretches(record_of(plan_of(shape, aims=Aims(**aims))))
    return [(each.start, each.settled, each.end, each.steady) for each in found]


def test_each_step_is_a_stretch_of_its_own():
    assert cut(shapes.steps([(50, 30), (200, 30), (50, 30)])) == [
        (0, 10, 30, True),
        (30, 40, 60, True),
        (60, 70, 90, True),
    ]


def test_steps_of_the_same_rate_are_one_stretch():
    assert cut(shapes.steps([(50, 30), (50, 30)])) == [(0, 10, 60, True)]


def test_a_short_stretch_gives_a_third_of_itself_to_settling():
    assert cut(shapes.constant(100, 12)) == [(0, 4, 12, True)]
    assert cut(shapes.constant(100, 12), settle_s=0) == [(0, 0, 12, True)]


def test_a_ramp_is_judged_as_one_stretch_that_changes():
    (only,) = stretches(record_of(plan_of(shapes.ramp(10, 110, 60))))
    assert (only.start, only.settled, only.end, only.steady, only.rate) == (0, 10, 60, False, 60)


def test_a_day_is_one_stretch_that_changes():
    assert cut(shapes.diurnal(10, 100, period_s=120, duration_s=120)) == [(0, 10, 120, False)]


def test_a_short_spike_is_no_stretch_and_the_load_around_it_is():
    assert cut(shapes.spike(20, 200, before_s=20, spike_s=3, after_s=20)) == [(0, 6, 20, True), (23, 29, 43, True)]


def test_a_run_that_is_too_short_is_judged_as_a_whole():
    assert cut(shapes.constant(100, 3)) == [(0, 1, 3, False)]


def test_steps_at_broken_seconds_are_judged_in_the_whole_seconds_inside():
    assert cut(shapes.steps([(10, 10.5), (20, 10.5)])) == [(0, 3, 10, True), (11, 14, 21, True)]


def test_streams_together_are_steady_only_where_each_of_them_is():
    plan = plan_of(shapes.steps([(10, 20), (30, 20)]))
    other = Stream(Target("acme", "other"), shapes.steps([(30, 20), (10, 20)]))
    record = record_of(plan)
    both = record_of(plan_of(aims=plan.aims)).__class__(
        plan=plan.__class__(plan.url, (*plan.streams, other), plan.aims), started_at="", seconds=record.seconds
    )
    assert [(each.start, each.end, each.rate) for each in stretches(both)] == [(0, 20, 40), (20, 40, 40)]


def test_another_version_that_takes_over_begins_a_stretch():
    def told(second: int) -> Replicas:
        return Replicas(ready=1, serving="iris-00001" if second < 25 else "iris-00002")

    record = record_of(plan_of(shapes.constant(50, 60)), second=with_replicas(told))
    assert [(each.start, each.settled, each.end, each.cause) for each in stretches(record)] == [
        (0, 8, 25, "the start"),
        (25, 35, 60, "iris-00002 takes over"),
    ]
    assert str(IRIS) == "acme/iris"
