"""Schedules: the same seed the same one, the burstiness that was asked for, and parts that make up the whole."""

from itertools import chain, pairwise
from statistics import mean, stdev

import pytest

from roost_loadtest.arrivals import Process, due_times
from roost_loadtest.shapes import constant, ramp, steps


def gaps(process, **how):
    return [b - a for a, b in pairwise(due_times(constant(100, 200), process, **how))]


@pytest.mark.parametrize(
    ("process", "burstiness", "variation"),
    [(Process.POISSON, 1.0, 1.0), (Process.GAMMA, 0.5, 0.5), (Process.GAMMA, 1.5, 1.5), (Process.GAMMA, 3.0, 3.0)],
)
def test_gaps_have_the_mean_of_the_rate_and_the_variation_that_was_asked_for(process, burstiness, variation):
    found = gaps(process, burstiness=burstiness, seed=1)
    # Of 20,000 gaps, the mean is known to variation/sqrt(20,000): 2 % for the burstiest.
    assert mean(found) == pytest.approx(0.01, rel=0.06)
    assert stdev(found) / mean(found) == pytest.approx(variation, rel=0.08)


def test_equal_distances_are_equal_and_begin_half_a_one_in():
    assert list(due_times(constant(4, 1), Process.UNIFORM)) == pytest.approx([0.125, 0.375, 0.625, 0.875])
    # On a ramp they are equal in requests: the n-th is due when the area is n - 1/2.
    shape = ramp(0, 20, 10)
    times = list(due_times(shape, Process.UNIFORM))
    assert [shape.due_by(t) for t in times] == pytest.approx([n + 0.5 for n in range(100)])


@pytest.mark.parametrize("process", list(Process))
def test_the_same_seed_gives_the_same_schedule_and_another_one_another(process):
    def schedule(seed):
        return list(due_times(constant(50, 10), process, seed=seed, burstiness=1.5))

    assert schedule(7) == schedule(7)
    assert (schedule(7) == schedule(8)) == (process is Process.UNIFORM)


def test_a_schedule_is_ascending_and_inside_its_shape():
    times = list(due_times(steps([(10, 2), (0, 2), (500, 2)]), Process.POISSON, seed=3))
    assert all(a <= b for a, b in pairwise(times))
    assert not [t for t in times if 2 < t < 4 or t >= 6]
    assert len([t for t in times if t >= 4]) == pytest.approx(1000, rel=0.15)


@pytest.mark.parametrize("process", list(Process))
def test_the_parts_of_several_generators_are_the_whole_schedule(process):
    shape = ramp(10, 200, 5)
    whole = list(due_times(shape, process, seed=5))
    parts = [list(due_times(shape, process, seed=5, part=part, parts=3)) for part in range(3)]
    assert sorted(chain(*parts)) == whole
    assert {len(part) for part in parts} <= {len(whole) // 3, len(whole) // 3 + 1}


@pytest.mark.parametrize("how", [{"burstiness": 0}, {"part": 2, "parts": 2}, {"part": -1}])
def test_what_cannot_be_is_refused(how):
    with pytest.raises(ValueError, match=r"burstiness|part"):
        next(due_times(constant(1, 1), **how))
