"""What replicas on a cluster held, from what is known of pods at a moment: told when it is certain, never more than was."""

from dataclasses import replace

import pytest

from knative_held_parts import NOON, SECOND, WHOLE, pod
from roost_platform.domain.resources import ResourceUsage
from roost_platform.engines.knative.asking import STRETCH_US, Told
from roost_platform.engines.knative.pod_life import us_of
from roost_platform.engines.knative.shares import PATIENCE_US, SETTLED_US, START_US, Kept, Replica, due


def ready_replica(uid: str = "a", *, ready_s: int = 3, **fields: object) -> Replica:
    """Born at NOON, loaded by its own account, asked until `alive_s` seconds after."""
    seen = pod(uid, scheduled_us=NOON, started_us=NOON + SECOND, ready_us=NOON + (ready_s + 1) * SECOND, serves=True)
    return Replica(replace(seen, **fields), alive_us=seen.born_us, told_us=seen.born_us)


def told(until_us: int, *busy: int, ready_us: int = NOON + 3 * SECOND, current: int = 0, fetch: int = 0) -> Told:
    """What it says at `until_us` of the stretches before."""
    number = until_us // STRETCH_US
    return Told(ready_us, fetch, number - len(busy), tuple(busy), current)


def parts(usage: ResourceUsage) -> tuple[int, ...]:
    return tuple(
        getattr(usage, f"{name}_us") / SECOND for name in ("schedule", "pull", "load", "active", "reserved", "idle")
    )


def test_a_start_is_told_by_its_parts_and_the_wait_for_the_file_is_no_load():
    # 12:00:00 less 17 s: stretches end 7 s and 17 s after it
    one = ready_replica(ready_s=5)
    one.pod = replace(one.pod, scheduled_us=NOON + SECOND, started_us=NOON + 2 * SECOND)
    now = NOON + 17 * SECOND
    one.hear(told(now, 2 * SECOND, 0, ready_us=NOON + 5 * SECOND, fetch=500_000), at_us=now)
    (usage,) = due([one], WHOLE, now_us=now)
    assert parts(usage) == (1, 1.5, 2.5, 2, 0, 0)
    assert (usage.cold_starts, usage.final, usage.resource_class, usage.id) == (1, False, "cpu-2", f"a/{NOON}")


def test_a_stretch_waits_until_nothing_can_change_it():
    one = ready_replica()
    end = NOON + 7 * SECOND
    one.see(end + SETTLED_US - 1)
    assert due([one], WHOLE, now_us=end + SECOND) == []
    one.see(end + SETTLED_US)
    assert due([one], WHOLE, now_us=end + SETTLED_US) == []  # it was not asked yet
    one.hear(told(end + 3 * SECOND, SECOND), at_us=end + 3 * SECOND)
    (usage,) = due([one], WHOLE, now_us=end + 3 * SECOND)
    assert parts(usage) == (0, 1, 2, 1, 0, 3)
    assert due([one], WHOLE, now_us=end + 9 * SECOND) == []


def test_one_that_never_says_how_busy_it_was_is_taken_for_idle():
    one = ready_replica()
    end = NOON + 7 * SECOND
    ready = NOON + 4 * SECOND
    one.see(end + PATIENCE_US)
    assert due([one], WHOLE, now_us=end + PATIENCE_US - 1) == []
    (usage,) = due([one], WHOLE, now_us=end + PATIENCE_US)
    assert us_of(usage.end) == end
    assert parts(usage) == (0, 1, (ready - NOON) / SECOND - 1, 0, 0, 3)


def test_a_start_that_comes_to_nothing_is_no_load_however_it_ends():
    seen = pod("a", scheduled_us=NOON + SECOND, started_us=NOON + 2 * SECOND)
    one = Replica(seen, alive_us=NOON, told_us=NOON)
    one.see(NOON + 4 * SECOND)
    assert due([one], WHOLE, now_us=NOON + 30 * SECOND) == []
    one.gone = True
    (usage,) = due([one], WHOLE, now_us=NOON + 30 * SECOND)
    assert parts(usage) == (1, 3, 0, 0, 0, 0)
    assert (usage.final, usage.cold_starts) == (True, 0)


def test_a_start_that_goes_on_for_an_hour_is_told_as_nobodys_load():
    seen = pod("a", scheduled_us=NOON, started_us=NOON + SECOND)
    one = Replica(seen, alive_us=NOON, told_us=NOON)
    end = NOON + 7 * SECOND
    one.see(end + START_US)
    assert due([one], WHOLE, now_us=end + START_US - 1) == []
    (usage,) = due([one], WHOLE, now_us=end + START_US)
    assert parts(usage) == (0, 7, 0, 0, 0, 0)


def test_one_that_is_gone_unseen_ends_when_it_was_seen_last():
    one = ready_replica()
    one.hear(told(NOON + 8 * SECOND, 0), at_us=NOON + 8 * SECOND)
    one.see(NOON + 9 * SECOND)
    one.gone = True
    usages = due([one], WHOLE, now_us=NOON + 500 * SECOND)
    assert [parts(usage) for usage in usages] == [(0, 1, 2, 0, 0, 4), (0, 0, 0, 0, 0, 2)]
    assert us_of(usages[-1].end) == NOON + 9 * SECOND


def test_one_on_a_node_that_is_lost_is_not_held_for_longer_than_it_was_well():
    one = ready_replica()
    one.hear(told(NOON + 8 * SECOND, 0), at_us=NOON + 8 * SECOND)
    one.pod = replace(one.pod, serves=False)
    one.see(NOON + 300 * SECOND)
    assert [us_of(u.end) for u in due([one], WHOLE, now_us=NOON + 300 * SECOND)] == []
    one.pod = one.pod.followed_by(replace(one.pod, limit_us=NOON + 600 * SECOND))
    one.gone = True
    assert [us_of(u.end) for u in due([one], WHOLE, now_us=NOON + 700 * SECOND)] == [
        NOON + 7 * SECOND,
        NOON + 8 * SECOND,
    ]


def test_one_that_is_being_deleted_is_not_held_beyond_its_time_for_finishing():
    one = ready_replica(limit_us=NOON + 5 * SECOND)
    one.see(NOON + 30 * SECOND)
    one.gone = True
    (usage,) = due([one], WHOLE, now_us=NOON + 40 * SECOND)
    assert (us_of(usage.end), usage.final) == (NOON + 5 * SECOND, True)


def test_what_is_busy_in_a_stretch_that_nobody_can_ask_for_any_more_counts_as_far_as_it_was_told():
    one = ready_replica()
    one.hear(told(NOON + 5 * SECOND, current=1_500_000), at_us=NOON + 5 * SECOND)
    one.pod = replace(one.pod, over=True, ended_us=NOON + 6 * SECOND)
    (usage,) = due([one], WHOLE, now_us=NOON + 6 * SECOND)
    assert parts(usage) == (0, 1, 2, 1.5, 0, 1.5)


def test_a_process_that_was_started_again_in_its_pod_begins_nothing_anew():
    one = ready_replica()
    one.hear(told(NOON + 8 * SECOND, 2 * SECOND), at_us=NOON + 8 * SECOND)
    later = NOON + 30 * SECOND
    one.pod = one.pod.followed_by(
        replace(one.pod, restarted=True, started_us=NOON + 20 * SECOND, ready_us=NOON + 24 * SECOND)
    )
    one.hear(told(later, 7 * SECOND, 7 * SECOND, ready_us=NOON + 24 * SECOND), at_us=later)
    usages = due([one], WHOLE, now_us=later)
    assert [parts(usage) for usage in usages] == [(0, 1, 2, 2, 0, 2), (0, 0, 0, 0, 0, 10), (0, 0, 0, 7, 0, 3)]


def test_of_one_that_was_started_again_before_it_was_seen_the_start_is_no_load_and_nobodys():
    one = ready_replica(restarted=True, started_us=NOON + 2 * SECOND)
    now = NOON + 17 * SECOND
    one.hear(told(now, 0), at_us=now)
    (usage,) = due([one], WHOLE, now_us=now)
    assert parts(usage) == (0, 3, 0, 0, 0, 4)
    assert usage.cold_starts == 0


@pytest.mark.parametrize(
    ("kept", "cold"),
    [
        (Kept(0, NOON - SECOND), 1),
        (Kept(0, None), 0),  # the first one of a revision
        (Kept(0, NOON), 0),
        (Kept(1, NOON - SECOND), 0),  # kept in any case
    ],
)
def test_a_replica_is_woken_where_none_was_kept_and_the_revision_had_worked(kept, cold):
    one = ready_replica()
    one.hear(told(NOON + 17 * SECOND, 0), at_us=NOON + 17 * SECOND)
    (usage,) = due([one], kept, now_us=NOON + 17 * SECOND)
    assert usage.cold_starts == cold


@pytest.mark.parametrize(("ends_s", "cold"), [(None, 0), (-1, 1)])
def test_a_replica_beside_another_that_served_was_not_woken(ends_s, cold):
    before = ready_replica("b", born_us=NOON - 60 * SECOND, scheduled_us=None, started_us=None)
    before.hear(told(NOON - 3 * SECOND, 0, 0, 0, 0, ready_us=NOON - 50 * SECOND, current=0), at_us=NOON - 3 * SECOND)
    before.told_us = NOON - 60 * SECOND
    now = NOON + 17 * SECOND
    if ends_s is None:
        before.hear(told(now, 0, 0, 0, ready_us=NOON - 50 * SECOND), at_us=now)
    else:
        before.pod = replace(before.pod, over=True, ended_us=NOON + ends_s * SECOND)
    one = ready_replica()
    one.hear(told(now, 0), at_us=now)
    usages = due([before, one], WHOLE, now_us=now)
    assert [usage.cold_starts for usage in usages if usage.replica == "a"] == [cold]


def test_what_has_gathered_without_a_leader_is_told_in_portions():
    one = ready_replica()
    one.told_us = one.pod.born_us
    now = NOON + 987 * SECOND
    one.hear(told(now, *[SECOND] * 99), at_us=now)
    portions = []
    while usages := due([one], WHOLE, now_us=now, most=40):
        portions.append(len(usages))
    assert portions == [40, 40, 18]
    assert due([one], WHOLE, now_us=now) == []


def test_one_that_another_leader_took_for_ended_goes_on_from_there():
    one = ready_replica()
    one.told_us = NOON + 4 * SECOND
    now = NOON + 17 * SECOND
    one.hear(told(now, 0, 0), at_us=now)
    (usage,) = due([one], WHOLE, now_us=now)
    assert (us_of(usage.start), us_of(usage.end)) == (NOON + 4 * SECOND, NOON + 7 * SECOND)
    assert parts(usage) == (0, 0, 0, 0, 0, 3)


def test_a_revision_that_has_slept_within_the_second_in_which_it_was_tried_was_woken_all_the_same():
    """Times of Kubernetes cannot tell; that another replica served and ended does."""
    before = ready_replica("b")
    before.ready_us = NOON + 200_000
    before.alive_us = NOON + 600_000
    before.gone = True
    one = ready_replica()
    now = NOON + 17 * SECOND
    one.hear(told(now, 0), at_us=now)
    usages = due([before, one], Kept(0, NOON), now_us=now)
    assert [(usage.replica, usage.cold_starts) for usage in usages] == [("b", 0), ("a", 1)]


def test_one_that_has_answered_in_the_second_in_which_it_ended_was_there_until_then():
    one = ready_replica()
    one.hear(told(NOON + 6 * SECOND), at_us=NOON + 5 * SECOND + 600_000)
    one.pod = replace(one.pod, over=True, ended_us=NOON + 5 * SECOND)
    (usage,) = due([one], WHOLE, now_us=NOON + 6 * SECOND)
    assert us_of(usage.end) == NOON + 5 * SECOND + 600_000
