"""Bounds, the first start, and each step on the way to zero and back."""

from dataclasses import replace

import pytest

from roost_platform.autoscaling.scaler import Scaler, ScalerSpec
from roost_platform.domain.services import Readiness

SPEC = ScalerSpec(
    min_scale=0,
    max_scale=0,
    initial_scale=1,
    stable_window_s=60,
    retention_s=0,
    grace_s=30,
    activation_timeout_s=630,
)
TRUE, FALSE, UNKNOWN = Readiness.TRUE, Readiness.FALSE, Readiness.UNKNOWN


def serving(spec: ScalerSpec = SPEC, *, proxied_since: float = float("-inf")) -> Scaler:
    """Active since 0 with one replica."""
    scaler = Scaler(spec, proven=False, now=0, proxied_since=proxied_since)
    scaler.scale(1, ready=spec.initial_scale, now=0)
    assert scaler.active is TRUE
    return scaler


def test_a_new_revision_starts_at_its_initial_scale_before_anything_is_asked_for():
    scaler = Scaler(replace(SPEC, initial_scale=3), proven=False, now=0)
    assert (scaler.wanted, scaler.active, scaler.started) == (3, UNKNOWN, False)


def test_a_min_scale_over_the_initial_scale_wins():
    assert Scaler(replace(SPEC, initial_scale=3, min_scale=5), proven=False, now=0).wanted == 5


def test_the_initial_scale_is_a_floor_only_until_it_was_reached_once():
    scaler = Scaler(replace(SPEC, initial_scale=3), proven=False, now=0)
    assert scaler.scale(1, ready=2, now=2) == 3
    assert scaler.active is UNKNOWN
    assert scaler.scale(1, ready=3, now=4) == 3
    assert (scaler.active, scaler.started) == (TRUE, True)
    assert scaler.scale(1, ready=3, now=6) == 1
    assert scaler.scale(1, ready=1, now=8) == 1
    assert scaler.active is TRUE


def test_a_new_revision_that_nobody_asks_for_is_kept_while_it_starts():
    scaler = Scaler(SPEC, proven=False, now=0)
    assert [scaler.scale(0, ready=0, now=now) for now in (2, 100, 629)] == [1, 1, 1]
    assert scaler.active is UNKNOWN


def test_a_revision_that_never_becomes_ready_is_given_up():
    scaler = Scaler(SPEC, proven=False, now=0)
    assert scaler.scale(0, ready=0, now=630) == 0
    assert (scaler.active, scaler.started) == (FALSE, False)


def test_an_unknown_load_leaves_a_started_revision_as_it_is():
    scaler = serving()
    scaler.scale(4, ready=4, now=2)
    assert scaler.scale(-1, ready=4, now=200) == 4
    assert scaler.active is TRUE
    assert scaler.scale(-1, ready=0, now=202) == 4
    assert scaler.active is UNKNOWN


def test_an_unknown_load_leaves_a_sleeping_revision_asleep():
    scaler = Scaler(SPEC, proven=True, now=0)
    assert scaler.scale(-1, ready=0, now=2) == 0
    assert scaler.active is FALSE


@pytest.mark.parametrize(("desired", "wanted"), [(1, 2), (2, 2), (3, 3), (5, 5), (9, 5)])
def test_what_is_wanted_stays_within_the_bounds(desired, wanted):
    scaler = Scaler(replace(SPEC, min_scale=2, max_scale=5), proven=True, now=0)
    assert scaler.scale(desired, ready=0, now=0) == wanted


def test_without_traffic_the_min_scale_does_not_count():
    scaler = Scaler(replace(SPEC, min_scale=2, reachable=False), proven=True, now=0)
    assert scaler.scale(0, ready=0, now=0) == 0
    assert scaler.scale(1, ready=0, now=2) == 1


def test_with_a_min_scale_it_never_sleeps():
    scaler = serving(replace(SPEC, min_scale=1))
    assert scaler.scale(0, ready=1, now=10_000) == 1
    assert scaler.active is TRUE


def test_it_stays_active_for_a_stable_window_with_at_most_one_replica():
    scaler = serving()
    scaler.scale(3, ready=3, now=10)
    assert scaler.scale(0, ready=3, now=59) == 1
    assert scaler.active is TRUE


def test_then_it_is_inactive_first_and_goes_at_the_next_look():
    scaler = serving()
    assert scaler.scale(0, ready=1, now=60) == 1
    assert scaler.active is FALSE
    assert scaler.scale(0, ready=1, now=62) == 0
    assert scaler.active is FALSE


def test_the_retention_period_keeps_the_last_replica():
    scaler = serving(replace(SPEC, retention_s=100))
    scaler.scale(0, ready=1, now=60)
    assert [scaler.scale(0, ready=1, now=now) for now in (62, 159, 160)] == [1, 1, 0]


def test_the_retention_period_does_not_count_without_traffic():
    scaler = serving(replace(SPEC, retention_s=100, reachable=False))
    scaler.scale(0, ready=1, now=60)
    assert scaler.scale(0, ready=1, now=62) == 0


def test_a_gateway_that_came_late_into_the_path_is_given_its_grace():
    scaler = serving(proxied_since=50)
    scaler.scale(0, ready=1, now=60)
    assert [scaler.scale(0, ready=1, now=now) for now in (62, 79, 80)] == [1, 1, 0]


def test_grace_is_over_when_it_has_been_inactive_for_as_long():
    scaler = serving(proxied_since=float("inf"))
    scaler.scale(0, ready=1, now=60)
    assert [scaler.scale(0, ready=1, now=now) for now in (62, 89, 90)] == [1, 1, 0]


def test_a_long_retention_is_waited_for_even_when_grace_is_not_over():
    scaler = serving(replace(SPEC, retention_s=40), proxied_since=float("inf"))
    scaler.scale(0, ready=1, now=60)
    assert [scaler.scale(0, ready=1, now=now) for now in (90, 99, 100)] == [1, 1, 0]


def test_with_scale_to_zero_switched_off_one_replica_stays():
    scaler = serving(replace(SPEC, scale_to_zero=False))
    assert scaler.scale(0, ready=1, now=10_000) == 1
    assert scaler.active is TRUE


def test_a_request_before_the_last_replica_went_makes_it_active_at_once():
    scaler = serving(replace(SPEC, retention_s=100))
    scaler.scale(0, ready=1, now=60)
    assert scaler.scale(1, ready=1, now=70) == 1
    assert scaler.active is TRUE
    assert scaler.scale(0, ready=1, now=129) == 1  # active since 70: a whole stable window again
    assert scaler.active is TRUE


def test_a_waking_revision_is_unknown_until_enough_replicas_are_ready():
    scaler = Scaler(replace(SPEC, initial_scale=5), proven=True, now=0)
    assert scaler.scale(2, ready=0, now=10) == 2
    assert scaler.active is UNKNOWN
    assert scaler.scale(2, ready=1, now=12) == 2
    assert scaler.active is TRUE


def test_a_waking_revision_with_a_min_scale_is_active_when_that_is_ready():
    scaler = Scaler(replace(SPEC, min_scale=2), proven=True, now=0)
    assert scaler.scale(0, ready=0, now=0) == 2
    scaler.scale(0, ready=1, now=2)
    assert scaler.active is UNKNOWN
    scaler.scale(0, ready=2, now=4)
    assert scaler.active is TRUE


def test_a_slow_wake_is_not_cut_off_when_its_caller_has_gone():
    scaler = Scaler(SPEC, proven=True, now=0)
    scaler.scale(1, ready=0, now=10)
    assert scaler.scale(0, ready=0, now=100) == 1
    assert scaler.scale(0, ready=1, now=102) == 1
    assert scaler.scale(0, ready=1, now=161) == 1
    scaler.scale(0, ready=1, now=162)
    assert scaler.scale(0, ready=1, now=164) == 0


def test_losing_its_replicas_makes_it_unknown_and_the_stable_window_begins_again():
    scaler = serving()
    scaler.scale(1, ready=0, now=50)
    assert scaler.active is UNKNOWN
    scaler.scale(1, ready=1, now=58)
    assert scaler.active is TRUE
    assert scaler.scale(0, ready=1, now=117) == 1
    assert scaler.active is TRUE


def test_an_update_takes_effect_at_the_next_look():
    scaler = serving()
    scaler.scale(5, ready=5, now=10)
    scaler.update(replace(SPEC, max_scale=2))
    assert scaler.wanted == 5
    assert scaler.scale(5, ready=5, now=12) == 2


def test_an_update_bounds_even_what_is_left_as_it_is():
    scaler = Scaler(replace(SPEC, initial_scale=5), proven=False, now=0)
    scaler.update(replace(SPEC, max_scale=2))
    assert scaler.scale(0, ready=0, now=2) == 2
