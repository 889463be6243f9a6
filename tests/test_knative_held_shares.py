"""What replicas on a cluster held, from what is known of pods at each moment: whole, once, and never more than was."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost_platform.domain.resources import ResourceUsage
from roost_platform.domain.services import ServiceKey
from roost_platform.engines.knative.asking import STRETCH_US, Told
from roost_platform.engines.knative.pod_life import PodLife, us_of
from roost_platform.engines.knative.shares import PATIENCE_US, SETTLED_US, START_US, Kept, Replica, due

SECOND = 1_000_000
HOUR = 3600 * SECOND
NOON = 1_700_049_600 * SECOND - 17 * SECOND
"""Seventeen seconds before a full hour."""
WHOLE = Kept(min_scale=0, proven_us=NOON - HOUR)


def pod(uid: str, **fields: object) -> PodLife:
    usual = PodLife(
        uid=uid,
        name=f"iris-{uid}",
        namespace="roost-acme",
        variant="iris-00001-abcdef",
        key=ServiceKey("acme", "iris"),
        revision="iris-00001",
        version=1,
        resource_class="cpu-2",
        born_us=NOON,
    )
    return replace(usual, **fields)


@dataclass
class Truth:
    """A pod as it really was; microseconds. `busy` are its requests, one after the other."""

    uid: str
    born: int
    scheduled: int
    started: int
    fetch: int
    ready: int
    end: int
    busy: tuple[tuple[int, int], ...]
    comes: bool
    """Whether it ever becomes ready."""

    def pod_at(self, now: int) -> PodLife:
        """As the API server shows it then."""
        ready = self.ready if self.comes else 1 << 60
        ended = self.end <= now
        return pod(
            self.uid,
            born_us=self.born,
            scheduled_us=_if_past(self.scheduled, min(now, self.end)),
            started_us=_if_past(self.started, min(now, self.end)),
            ready_us=_if_past(-(-ready // SECOND) * SECOND, min(now, self.end)),
            serves=ready <= now < self.end,
            over=ended,
            ended_us=self.end if ended else None,
        )

    def told_at(self, now: int, since: int) -> Told | None:
        """What it answers then."""
        if not self.comes or not self.ready <= now < self.end:
            return None
        current = now // STRETCH_US
        first = max(since, current - 360)
        first = min(first, current)
        busy = [self.busy_in(number, now) for number in range(first, current + 1)]
        return Told(self.ready, self.fetch, first, tuple(busy[:-1]), busy[-1])

    def busy_in(self, number: int, now: int) -> int:
        low, high = number * STRETCH_US, min((number + 1) * STRETCH_US, now)
        return sum(max(0, min(end, high) - max(begin, low)) for begin, end in self.busy)


def _if_past(moment: int, now: int) -> int | None:
    return moment if moment <= now else None


@st.composite
def truths(draw: st.DrawFn, uid: str) -> Truth:
    def length(most_s: int) -> int:
        return draw(st.integers(0, most_s * SECOND))

    born = NOON + draw(st.integers(0, 40)) * SECOND
    scheduled = born + length(5)
    started = scheduled + length(25)
    ready = started + length(25)
    fetch = draw(st.integers(0, ready - started))
    end = ready + length(60)
    now, busy = ready, []
    for _ in range(draw(st.integers(0, 4))):
        begin = now + length(15)
        now = begin + length(15)
        busy.append((min(begin, end), min(now, end)))
    comes = draw(st.integers(0, 4)) > 0
    return Truth(uid, born, scheduled, started, fetch, ready, end, tuple(busy) if comes else (), comes)


class Leader:
    """Knows what it has seen and was told; tells what is certain."""

    def __init__(self, told_until: dict[str, int] | None = None) -> None:
        self.replicas: dict[str, Replica] = {}
        self.told_until = told_until or {}

    def look(self, everybody: Sequence[Truth], now: int, *, answers: bool = True, kept: Kept = WHOLE) -> list:
        for truth in everybody:
            if truth.born > now:
                continue
            seen = truth.pod_at(now)
            one = self.replicas.get(truth.uid)
            if one is None:
                told = self.told_until.get(truth.uid, truth.born)
                one = self.replicas[truth.uid] = Replica(seen, alive_us=truth.born, told_us=told)
            one.pod = one.pod.followed_by(seen)
            one.see(now)
            told_now = truth.told_at(now, one.told_us // STRETCH_US) if answers else None
            if told_now is not None and one.end_us is None:
                one.hear(told_now, at_us=now)
        return due(self.replicas.values(), kept, now_us=now)


def check_whole(usages: Sequence[ResourceUsage], truth: Truth) -> None:
    """They follow each other from birth to end, each within its hour and adding up."""
    own = [usage for usage in usages if usage.replica == truth.uid]
    at = truth.born
    for usage in own:
        assert us_of(usage.start) == at
        at = us_of(usage.end)
        assert usage.setup_us + usage.active_us + usage.idle_us + usage.reserved_us == at - us_of(usage.start)
        assert usage.pull_us + usage.schedule_us + usage.load_us == usage.setup_us
        assert (at - 1) // HOUR == us_of(usage.start) // HOUR
        assert usage.source == "knative"
    assert at == max(truth.end, truth.born)
    assert [usage.final for usage in own] == [False] * (len(own) - 1) + [True] * bool(own)
    assert len({usage.id for usage in own}) == len(own)


PODS = st.lists(st.integers(0, 3), min_size=1, max_size=3).flatmap(
    lambda numbers: st.tuples(*(truths(str(place)) for place, _ in enumerate(numbers)))
)
SPAN = st.tuples(st.integers(0, 100), st.integers(0, 100))
MOMENTS = st.lists(st.integers(0, 30 * SECOND), min_size=1, max_size=12)


@given(PODS, MOMENTS, st.lists(st.booleans(), min_size=13, max_size=13), st.integers(0, 3))
def test_a_life_is_told_whole_whenever_and_however_often_it_is_looked_at(everybody, pauses, answers, min_scale):
    leader, now, usages = Leader(), NOON, []
    for pause, answered in zip(pauses, answers, strict=False):
        now += pause
        usages += leader.look(everybody, now, answers=answered, kept=Kept(min_scale, NOON - HOUR))
        for usage in usages:
            assert us_of(usage.end) <= now
    usages += leader.look(everybody, now + 400 * SECOND, kept=Kept(min_scale, NOON - HOUR))
    for truth in everybody:
        check_whole(usages, truth)
        own = [usage for usage in usages if usage.replica == truth.uid]
        assert sum(usage.active_us for usage in own) <= sum(end - begin for begin, end in truth.busy)
        if not truth.comes:
            assert {(usage.load_us, usage.active_us, usage.idle_us, usage.reserved_us) for usage in own} <= {
                (0, 0, 0, 0)
            }


@given(PODS, st.integers(0, 3), st.integers(3 * SECOND, 9 * SECOND), SPAN, st.data())
def test_two_leaders_that_can_ask_say_the_same_and_leave_nothing_out(everybody, min_scale, step, span, data):
    """The second one goes on from what the ledger has by then, and begins while the first one still goes on. Where
    a replica is over before the second one can ask it, what it did may differ, when it was there does not.
    """
    kept = Kept(min_scale, NOON - HOUR)
    first, begins = Leader(), NOON + min(span) * SECOND
    stops = NOON + max(span) * SECOND
    told, now = [], NOON
    while now <= stops:
        told += first.look(everybody, now, kept=kept)
        now += step
    arrived = {}  # what was told comes to the ledger in order, but late
    for truth in everybody:
        own = [usage for usage in told if usage.replica == truth.uid]
        own = own[: data.draw(st.integers(0, len(own)))]
        if own:
            arrived[truth.uid] = us_of(own[-1].end)
    second, now = Leader(arrived), begins
    told_again = []
    while now <= NOON + 250 * SECOND:
        told_again += second.look(everybody, now, kept=kept)
        now += step
    by_id = {usage.id: usage for usage in told}
    asked_all = all(second.replicas[truth.uid].ready_us for truth in everybody if truth.comes)
    for usage in told_again:
        kept_one = by_id.setdefault(usage.id, usage)
        assert (kept_one.start, kept_one.end) == (usage.start, usage.end)
        if asked_all:
            assert kept_one == usage
    for truth in everybody:
        check_whole(sorted(by_id.values(), key=lambda usage: usage.start), truth)


@given(PODS, st.integers(0, 3))
def test_what_is_reserved_is_what_min_scale_holds_less_what_is_busy(everybody, min_scale):
    kept = Kept(min_scale, NOON - HOUR)
    leader = Leader()
    usages = [u for second in range(0, 250, 5) for u in leader.look(everybody, NOON + second * SECOND, kept=kept)]
    by_stretch: dict[int, list[ResourceUsage]] = {}
    for usage in usages:
        by_stretch.setdefault(us_of(usage.start) // STRETCH_US, []).append(usage)
    for together in by_stretch.values():
        free = sum(usage.idle_us + usage.reserved_us for usage in together)
        wanted = min_scale * STRETCH_US - sum(usage.active_us for usage in together)
        assert sum(usage.reserved_us for usage in together) == max(0, min(free, wanted))


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
