"""The timeline of a replica: every microsecond is in one part of one stretch, however often and wherever it is cut."""

from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from roost_platform.domain.resources import ResourceUsage
from roost_platform.domain.services import Revision, RevisionKey, ServiceKey
from roost_platform.domain.signatures import Signature
from roost_platform.engines.local.clocks import STEP_US, Clocks
from roost_platform.engines.local.held import Held, HeldReplica
from roost_platform.engines.local.timeline import Part, Stretch, Timeline

SECOND = 10**6
HOUR = 3600 * SECOND
MICROSECOND = timedelta(microseconds=1)
NOON_US = int(datetime(2026, 11, 3, 12, tzinfo=UTC).timestamp()) * SECOND

GAPS = st.one_of(
    st.integers(0, 20 * SECOND), st.integers(0, 3 * HOUR), st.sampled_from([0, 1, HOUR - 1, HOUR, HOUR + 1])
)
LIVES = st.lists(st.tuples(GAPS, st.sampled_from(list(Part))), max_size=30)
REPORTS = st.lists(st.integers(0, 20 * HOUR), max_size=30)


def live(
    life: list[tuple[int, Part]], reports: list[int], begin: int, *, steps: dict[int, int] | None = None
) -> list[Stretch]:
    """A replica that does this, looked at after so many microseconds; `steps`: what the time of day is set forward by."""
    timeline, told, moment = Timeline(begin, offset_us=NOON_US), [], begin
    moments: list[tuple[int, Part | None]] = []
    for gap, part in life:
        moment += gap
        moments.append((moment, part))
    moments += [(begin + after, None) for after in reports if begin + after <= moment]
    for at, part in sorted(moments, key=lambda each: each[0]):
        if part is None:
            step = sum(by for after, by in (steps or {}).items() if at - begin >= after)
            told += timeline.cut(at, offset_us=NOON_US + step)
        else:
            timeline.enter(part, at)
    return told + timeline.end(moment)


def by_hour(stretches: list[Stretch]) -> Counter[tuple[int, Part]]:
    sums: Counter[tuple[int, Part]] = Counter()
    for stretch in stretches:
        for part in Part:
            sums[stretch.start_us // HOUR, part] += stretch.spent_us[part]
    return +sums


@given(life=LIVES, reports=REPORTS, begin=st.integers(0, 2 * HOUR))
def test_the_parts_of_all_stretches_add_up_to_the_life_without_gap_or_overlap(life, reports, begin):
    told = live(life, reports, begin)
    assert [stretch.number for stretch in told] == list(range(len(told)))
    assert [stretch.final for stretch in told] == [False] * (len(told) - 1) + [True]
    assert told[0].start_us == NOON_US + begin
    assert told[-1].end_us == NOON_US + begin + sum(gap for gap, _ in life)
    assert all(before.end_us == after.start_us for before, after in pairwise(told))
    for stretch in told:
        assert sum(stretch.spent_us) == stretch.end_us - stretch.start_us
        assert min(stretch.spent_us) >= 0
        assert stretch.end_us <= stretch.start_us // HOUR * HOUR + HOUR
        assert stretch.final or stretch.end_us > stretch.start_us


@given(life=LIVES, one=REPORTS, other=REPORTS, begin=st.integers(0, 2 * HOUR))
def test_whenever_it_is_looked_at_every_hour_has_the_same_sums(life, one, other, begin):
    assert by_hour(live(life, one, begin)) == by_hour(live(life, other, begin))


@given(life=LIVES, reports=REPORTS, after=st.integers(0, 10 * HOUR), by=st.integers(-30 * HOUR, 30 * HOUR))
def test_setting_the_time_of_day_changes_when_but_not_for_how_long(life, reports, after, by):
    told = live(life, reports, 0, steps={after: by})
    sums = [sum(stretch.spent_us[part] for stretch in told) for part in Part]
    undisturbed = live(life, reports, 0)
    assert sums == [sum(stretch.spent_us[part] for stretch in undisturbed) for part in Part]
    assert all(sum(stretch.spent_us) == stretch.end_us - stretch.start_us for stretch in told)
    assert all(stretch.end_us <= stretch.start_us // HOUR * HOUR + HOUR for stretch in told)


def test_a_moment_earlier_than_the_last_one_counts_as_that():
    timeline = Timeline(100, offset_us=0)
    timeline.enter(Part.ACTIVE, 150)
    timeline.enter(Part.IDLE, 120)
    (stretch,) = timeline.end(160)
    assert (stretch.start_us, stretch.end_us) == (100, 160)
    assert stretch.spent_us == (50, 0, 0, 0, 10, 0)


def test_a_cold_start_is_counted_in_the_stretch_in_which_it_became_ready():
    timeline = Timeline(0, offset_us=HOUR - 10)
    timeline.enter(Part.IDLE, 20)
    timeline.count_cold_start()
    assert [(s.start_us, s.end_us, s.cold_starts) for s in timeline.cut(20, offset_us=HOUR - 10)] == [
        (HOUR - 10, HOUR, 0),
        (HOUR, HOUR + 10, 1),
    ]
    timeline.count_cold_start()
    assert timeline.cut(20, offset_us=HOUR) == []  # nothing is lost where there is no time to tell of
    (last,) = timeline.end(25)
    assert (last.cold_starts, last.final, last.start_us) == (1, True, HOUR + 20)


class Time:
    """Both clocks, moved by hand."""

    def __init__(self) -> None:
        self.steady = 5 * HOUR
        self.of_day = NOON_US
        self.clocks = Clocks(steady_ns=lambda: self.steady * 1000, time_of_day_ns=lambda: self.of_day * 1000)

    def passes(self, us: int) -> None:
        self.steady += us
        self.of_day += us


def test_leap_seconds_and_slow_corrections_are_not_followed_and_larger_steps_are():
    time = Time()
    before = time.clocks.offset_us
    for step, followed in ((SECOND, False), (-2 * SECOND, False), (STEP_US, False), (-STEP_US - SECOND - 1, True)):
        time.of_day += step
        time.clocks.look()
        assert (time.clocks.offset_us != before) is followed, step
    assert time.clocks.offset_us == time.of_day - time.steady


KEY = RevisionKey(ServiceKey("acme", "iris"), "iris-00001")
REVISION = Revision(name=KEY.name, version=3, digest="0" * 64, size=1, signature=Signature((), ()))
ACTS = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 90 * SECOND), st.sampled_from([300 * SECOND, 1300 * SECOND, 2900 * SECOND, HOUR])),
        st.sampled_from([*["busy", "idle"] * 4, "begin", "ready", "leave", "end", "keep", "report"]),
        st.integers(0, 5),
    ),
    min_size=10,
    max_size=60,
)


class Reference:
    """Plays acts on a revision, and knows nothing of single replicas but how many there are of a kind at each moment."""

    def __init__(self) -> None:
        self.time = Time()
        self.told: list[ResourceUsage] = []
        self.held = Held(on_usage=self.told.append, clocks=self.time.clocks)
        self.revision = self.held.revision(KEY, REVISION)
        self.setup: list[HeldReplica] = []
        self.ready: list[HeldReplica] = []
        self.leaving: list[HeldReplica] = []
        self.busy: list[HeldReplica] = []
        self.expected: Counter[tuple[int, str]] = Counter()
        """Microseconds by hour and state."""

    def passes(self, gap: int) -> None:
        while gap > (left := HOUR - self.time.of_day % HOUR):
            self._passes(left)
            gap -= left
        self._passes(gap)

    def _passes(self, gap: int) -> None:
        busy = sum(one in self.busy for one in self.ready)
        reserved = min(max(self.revision.min_scale - busy, 0), len(self.ready) - busy)
        idle = len(self.ready) + len(self.leaving) - len(self.busy) - reserved
        numbers = {"setup": len(self.setup), "active": len(self.busy), "idle": idle, "reserved": reserved}
        hour = self.time.of_day // HOUR
        self.expected.update({(hour, state): number * gap for state, number in numbers.items()})
        self.time.passes(gap)

    def act_begin(self, _: int) -> None:
        self.setup.append(self.revision.begin(called=False))

    def act_ready(self, number: int) -> None:
        one = self.setup.pop(number % len(self.setup))
        one.becomes_ready()
        self.ready.append(one)

    def act_busy(self, number: int) -> None:
        free = [one for one in self.ready if one not in self.busy]
        self.busy.append(free[number % len(free)])
        self.busy[-1].busy()

    def act_idle(self, number: int) -> None:
        self.busy.pop(number % len(self.busy)).idle()

    def act_leave(self, number: int) -> None:
        self.leaving.append(self.ready.pop(number % len(self.ready)))
        self.leaving[-1].leaves()

    def act_end(self, number: int) -> None:
        living = self.setup + self.ready + self.leaving
        one = living[number % len(living)]
        one.ends()
        for some in (self.setup, self.ready, self.leaving, self.busy):
            some[:] = [each for each in some if each is not one]

    def act_keep(self, number: int) -> None:
        self.revision.keep(number)

    def act_report(self, _: int) -> None:
        self.held.report()


@settings(max_examples=300)
@given(acts=ACTS, ready=st.integers(1, 4), kept=st.integers(0, 3))
def test_so_many_are_reserved_as_min_scale_asks_for_beyond_those_that_are_busy(acts, ready, kept):
    play = Reference()
    play.act_keep(kept)
    for _ in range(ready):
        play.act_begin(0)
        play.act_ready(0)
    for gap, act, number in acts:
        play.passes(gap)
        with suppress(ZeroDivisionError):  # there is none that it could happen to
            getattr(play, f"act_{act}")(number)
    play.held.end()
    found: Counter[tuple[int, str]] = Counter()
    for usage in play.told:
        hour = int(usage.start.timestamp()) // 3600
        found.update(
            {(hour, state): getattr(usage, f"{state}_us") for state in ("setup", "active", "idle", "reserved")}
        )
        assert sum((usage.setup_us, usage.active_us, usage.idle_us, usage.reserved_us)) == lasted_us(usage)
    assert +found == +play.expected
    assert len({(usage.source, usage.id) for usage in play.told}) == len(play.told)
    assert sum(usage.final for usage in play.told) == len({usage.replica for usage in play.told})


def lasted_us(usage: ResourceUsage) -> int:
    return (usage.end - usage.start) // MICROSECOND


@given(gaps=st.lists(st.integers(0, 10**10), max_size=40), since=st.integers(1, 10**15))
def test_what_clocks_show_below_a_microsecond_makes_no_difference_over_many_calls(gaps, since):
    """Busy for every second gap, in nanoseconds, with a report now and then."""
    now, told = since, []
    clocks = Clocks(steady_ns=lambda: now, time_of_day_ns=lambda: now + NOON_US * 1000)
    held = Held(on_usage=told.append, clocks=clocks)
    replica = held.revision(KEY, REVISION).begin(called=False)
    replica.becomes_ready()
    for number, gap in enumerate(gaps):
        now += gap
        if number % 2:
            replica.idle()
        else:
            replica.busy()
        if number % 7 == 0:
            held.report()
    held.end()
    exact = sum(gaps[1::2]) / 1000
    assert abs(sum(usage.active_us for usage in told) - exact) <= 2 + len(gaps)
    for usage in told:
        assert min(usage.active_us, usage.idle_us) >= 0
        assert usage.active_us + usage.idle_us == lasted_us(usage)


def test_calls_on_both_sides_of_the_full_hour_are_each_counted_in_theirs():
    play = Reference()
    play.act_begin(0)
    play.act_ready(0)
    minute = 60 * SECOND
    for gap, act in ((50, play.act_busy), (5, play.act_idle), (20, play.act_busy), (10, play.act_idle)):
        play.passes(gap * minute)
        act(0)
    play.passes(minute)
    play.held.end()
    before, after = play.told
    assert (before.active_us, before.idle_us) == (5 * minute, 55 * minute)
    assert (after.active_us, after.idle_us) == (10 * minute, 16 * minute)
