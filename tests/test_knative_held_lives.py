"""Any lives of pods, looked at by leaders at any moments: told whole, once, and by two leaders alike."""

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from knative_held_parts import HOUR, NOON, SECOND, WHOLE, pod
from roost_platform.domain.resources import ResourceUsage
from roost_platform.engines.knative.asking import STRETCH_US, Told
from roost_platform.engines.knative.pod_life import PodLife, us_of
from roost_platform.engines.knative.shares import Kept, Replica, due


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
