"""Replicas inside the bounds of Knative's own tests, and back to zero: which counts are too few, too many, too late."""

from dataclasses import replace

import pytest

from loadtest_records import IRIS, POLICY, failed, of, plan_of, record_of, with_replicas
from roost_loadtest import shapes
from roost_loadtest.policy import Policy
from roost_loadtest.record import Aims, Record, Replicas, Second, Target
from roost_loadtest.replica_bounds import bounds_of
from roost_loadtest.verdict import judge

BUSY = shapes.constant(400, 60)
"""With answers in 5 ms: two requests in flight all the time."""
NO_AIMS = Aims(billed=False)


def run(ready: int, *, policy: dict[str, object] | None = None, shape: shapes.Shape = BUSY, **more: object) -> Record:
    told = Replicas(wanted=ready, ready=ready, **more)
    return record_of(plan_of(shape, aims=NO_AIMS), second=with_replicas(lambda _: told), policy=policy)


# Two in flight fill two replicas of target 1 to the brim: at least 1, at most ceil(ceil(2 / 0.7) x 1.1) = 4.


@pytest.mark.parametrize(("ready", "broken"), [(0, ["replicas"]), (1, []), (3, []), (4, []), (5, ["replicas"])])
def test_bounds_are_those_of_knatives_own_tests(ready, broken):
    assert failed(run(ready)) == broken


def test_what_is_outside_is_told_with_its_second():
    (found,) = of(judge(run(5)), "replicas")
    assert (found.measured, found.limit, found.target) == (50, 0, "acme/iris")
    assert found.detail.startswith("5 at 10 s, at most 4; ")


def test_a_wish_over_the_bound_counts_as_replicas_do():
    told = Replicas(wanted=5, ready=2)
    assert failed(record_of(plan_of(BUSY, aims=NO_AIMS), second=with_replicas(lambda _: told))) == ["replicas"]


@pytest.mark.parametrize(
    ("policy", "ready", "broken"),
    [
        ({"max-scale": 1}, 1, []),
        ({"max-scale": 3}, 4, ["replicas"]),
        ({"min-scale": 8}, 8, []),
        ({"min-scale": 8}, 7, ["replicas"]),
        ({"activation-scale": 6}, 6, []),
        ({"target": 100}, 1, []),
        ({"target": 100}, 3, ["replicas"]),
        ({"target": None, "container-concurrency": 1}, 4, []),
        ({"metric": "rps", "target": 100}, 3, []),
        ({"metric": "rps", "target": 100}, 2, ["replicas"]),
        ({"metric": "rps", "target": 100}, 7, []),
        ({"metric": "rps", "target": 100}, 8, ["replicas"]),
    ],
)
def test_the_policy_in_force_makes_the_bounds(policy, ready, broken):
    assert failed(run(ready, policy=POLICY | policy)) == broken


def test_a_burst_may_be_held_for_a_stable_window_and_no_longer():
    """KPA never scales down while it panics, and it panics for a window after the burst."""

    def burst(each: Second) -> Second:
        return replace(each, in_flight=20 if 5 <= each.second < 8 else 2)

    policy = Policy.of(POLICY)
    record = record_of(plan_of(BUSY, aims=NO_AIMS), second=burst)
    bounds = bounds_of(record, str(IRIS), policy)
    assert bounds is not None
    # The panic window is one second: all 20 of it show.
    assert bounds[7].most == bounds[27].most == 32
    assert bounds[35].most < 10
    assert max(each.least for each in bounds) == 2, "a short burst raises no floor"


def test_while_it_scales_up_replicas_never_fall_below_those_of_before():
    shape = shapes.steps([(400, 30), (1600, 30)])

    def told(ready_at_30: int, ready_at_35: int):  # type: ignore[no-untyped-def]
        return lambda s: Replicas(ready=3 if s < 30 else ready_at_30 if s < 35 else ready_at_35 if s < 40 else 9)

    plan = plan_of(shape, aims=NO_AIMS)
    assert failed(record_of(plan, second=with_replicas(told(1, 1)))) == []
    assert failed(record_of(plan, second=with_replicas(told(0, 1)))) == ["replicas"]


def test_another_version_that_takes_over_begins_small_and_has_time_to_grow():
    def told(small_until: int):  # type: ignore[no-untyped-def]
        def of_second(n: int) -> Replicas:
            ready = 9 if n < 30 or n >= small_until else 1
            return Replicas(wanted=9, ready=ready, serving="iris-00001" if n < 30 else "iris-00002")

        return of_second

    plan = plan_of(shapes.constant(1600, 60), aims=NO_AIMS)
    assert failed(record_of(plan, second=with_replicas(told(40)))) == []
    assert failed(record_of(plan, second=with_replicas(told(41)))) == ["replicas"]


def test_what_a_panic_called_for_is_held_until_it_ends():
    def panic(until: int):  # type: ignore[no-untyped-def]
        def of_second(each: Second) -> Second:
            told = Replicas(wanted=30, ready=30, panic=3 <= each.second < until)
            return replace(each, in_flight=20 if 3 <= each.second < 6 else 2, replicas={str(IRIS): told})

        return of_second

    plan = plan_of(shapes.constant(400, 40), aims=NO_AIMS)
    assert failed(record_of(plan, second=panic(32))) == []
    assert failed(record_of(plan, second=panic(20))) == ["replicas"]


def test_what_cannot_be_known_is_told_and_decides_nothing():
    unknown = judge(record_of(plan_of(BUSY, aims=NO_AIMS)))
    assert [(c.passed, c.detail) for c in of(unknown, "replicas")] == [(None, "the platform did not tell its replicas")]
    hpa = judge(run(1, policy={"class": "hpa", "min-scale": 1, "metric": "cpu"}))
    assert [c.passed for c in of(hpa, "replicas")] == [None]
    no_policy = replace(run(1), platform={})
    assert [c.detail for c in of(judge(no_policy), "replicas")] == ["the platform did not tell its policy"]


def test_of_several_models_the_platform_says_how_much_load_each_has():
    other = Target("acme", "other")
    plan = plan_of(BUSY, aims=NO_AIMS, targets=(IRIS, other))

    def both(second: Second, ready: int) -> Second:
        told = Replicas(wanted=1, ready=1, queued=0, in_flight=1)
        return replace(second, replicas={str(IRIS): told, str(other): replace(told, wanted=ready, ready=ready)})

    platform = {"scaling": {str(IRIS): POLICY, str(other): POLICY}}
    assert failed(record_of(plan, second=lambda s: both(s, 3), platform=platform)) == []
    broken = judge(record_of(plan, second=lambda s: both(s, 4), platform=platform)).broken
    assert [(each.id, each.target) for each in broken] == [("replicas", "acme/other")]


# Back to zero. The window is 10 s, grace 30 s, and 6 s of ticks and looks: 46 s.


def after(last_ready: int, *, until: int = 80, **more: object) -> tuple[Second, ...]:
    """Replicas until `last_ready`, none from the next second on."""
    return tuple(
        Second(n, 0.0, replicas={str(IRIS): Replicas(ready=1 if n <= last_ready else 0, **more)})
        for n in range(30, until)
    )


ZERO = plan_of(shapes.constant(50, 30), aims=Aims(billed=False, back_to_zero=True))


@pytest.mark.parametrize(("last_ready", "took", "passed"), [(40, 11, True), (75, 46, True), (76, 47, False)])
def test_back_to_zero_within_window_and_grace(last_ready, took, passed):
    (zero,) = of(judge(record_of(ZERO, after=after(last_ready))), "back_to_zero")
    assert (zero.measured, zero.limit, zero.passed) == (took, 46, passed)


def test_a_model_that_is_awake_to_the_end_fails():
    (zero,) = of(judge(record_of(ZERO, after=after(100))), "back_to_zero")
    assert (zero.measured, zero.passed) == (None, False)
    assert zero.detail == "it had replicas for all 50 s that it was watched"


def test_zero_that_does_not_last_is_none():
    seconds = list(after(40))
    seconds[-1] = Second(79, 0.0, replicas={str(IRIS): Replicas(ready=0, starting=1)})
    assert [each.passed for each in of(judge(record_of(ZERO, after=tuple(seconds))), "back_to_zero")] == [False]


def test_a_replica_of_an_earlier_version_is_one_too():
    assert [c.passed for c in of(judge(record_of(ZERO, after=after(40, others=1))), "back_to_zero")] == [False]


def test_the_way_to_zero_begins_with_the_last_answer():
    seconds = tuple(
        replace(each, replicas={str(IRIS): Replicas(ready=1, in_flight=1)}) if each.second < 35 else each
        for each in after(40)
    )
    assert [each.measured for each in of(judge(record_of(ZERO, after=seconds)), "back_to_zero")] == [6]


def test_retention_and_delay_give_more_time_and_min_scale_all_of_it():
    policy = POLICY | {"scale-to-zero-pod-retention-period": 60, "scale-down-delay": 20}
    (zero,) = of(judge(record_of(ZERO, after=after(40), policy=policy)), "back_to_zero")
    assert zero.limit == 10 + 60 + 20 + 6
    (kept,) = of(judge(record_of(ZERO, after=after(100), policy=POLICY | {"min-scale": 1})), "back_to_zero")
    assert (kept.passed, kept.detail) == (None, "min-scale 1 keeps it awake")
    (unknown,) = of(judge(record_of(ZERO, after=after(40), platform={})), "back_to_zero")
    assert (unknown.passed, unknown.detail) == (None, "the platform did not tell its policy")
