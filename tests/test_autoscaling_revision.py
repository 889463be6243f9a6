"""One revision's whole timeline: requests in, reports each second, ticks each two, replicas that take time to start."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost_platform.autoscaling.decider import TICK_S
from roost_platform.autoscaling.revision import RevisionScaler
from roost_platform.domain.scaling import Metric, ScalingPolicy
from roost_platform.domain.services import Readiness

START_S = 0.75
"""How long a replica of these stories takes from being wanted to being ready."""


class Story:
    """Drives a RevisionScaler as an engine does, by quarter seconds; `wanted` has each change with its time."""

    def __init__(
        self, policy: ScalingPolicy, *, proven: bool = True, reachable: bool = True, starts: bool = True
    ) -> None:
        self.policy = policy
        self.scaler = RevisionScaler(policy, reachable=reachable, proven=proven, now=0)
        self.now = 0.0
        self.starts = starts
        self.replicas: list[float] = []  # when each was asked for
        self.wanted: list[tuple[float, int]] = []
        self._converge(self.scaler.wanted)

    @property
    def ready(self) -> int:
        return sum(self.now - asked >= START_S for asked in self.replicas) if self.starts else 0

    def _converge(self, wanted: int) -> None:
        self.replicas = self.replicas[:wanted] + [self.now] * (wanted - len(self.replicas))
        if not self.wanted or self.wanted[-1][1] != wanted:
            self.wanted.append((self.now, wanted))

    def tick(self) -> None:
        self._converge(self.scaler.tick(self.now, self.ready))

    def request(self, *, seconds: float = 0, count: int = 1) -> None:
        """`count` requests now, that take `seconds`."""
        for _ in range(count):
            if self.scaler.request_in(self.now):
                self.tick()
        if seconds:
            self.run(seconds)
        self.done(count)

    def done(self, count: int = 1) -> None:
        for _ in range(count):
            self.scaler.request_out(self.now)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += 0.25
            if self.now % 1 == 0.5 and self.scaler.report(self.now):
                self.tick()
            if self.now % TICK_S == 0:
                self.tick()


def test_the_first_request_wakes_a_sleeping_revision_at_once():
    story = Story(ScalingPolicy())
    story.run(10.25)
    assert story.wanted == [(0, 0)]
    story.request(seconds=1)
    assert story.wanted == [(0, 0), (10.25, 1)]
    assert story.scaler.active is Readiness.UNKNOWN
    story.run(2)
    assert story.scaler.active is Readiness.TRUE


def test_a_second_request_while_waking_asks_for_nothing_more():
    story = Story(ScalingPolicy())
    story.scaler.request_in(0)
    story.tick()
    assert not story.scaler.request_in(0)


def test_one_request_at_a_time_wakes_two_replicas():
    story = Story(ScalingPolicy(container_concurrency=1))
    story.request(seconds=0.25)
    assert story.wanted[-1] == (0, 2)
    assert story.scaler.panic


@pytest.mark.parametrize("window", [6, 30, 60])
def test_idle_to_zero_takes_a_stable_window_and_a_few_seconds(window):
    story = Story(ScalingPolicy(window_s=window))
    story.request(seconds=0.5)
    idle_since = story.now
    story.run(window + 10)
    (_, asleep), (_, awake), (slept_at, again) = story.wanted
    assert (asleep, awake, again) == (0, 1, 0)
    assert window <= slept_at - idle_since <= window + 6
    assert story.scaler.active is Readiness.FALSE


def test_it_can_be_woken_again_and_again():
    story = Story(ScalingPolicy(window_s=6))
    for _ in range(3):
        story.request(seconds=1)
        story.run(20)
    assert [replicas for _, replicas in story.wanted] == [0, 1, 0, 1, 0, 1, 0]


def test_a_steady_trickle_keeps_it_awake():
    story = Story(ScalingPolicy())
    for _ in range(10):
        story.request(seconds=0.25)
        story.run(50)
    assert [replicas for _, replicas in story.wanted] == [0, 1]


def test_a_new_revision_starts_once_without_requests_and_then_sleeps():
    story = Story(ScalingPolicy(), proven=False)
    assert story.wanted == [(0, 1)]
    story.run(1)
    assert not story.scaler.started
    story.run(1)
    assert story.scaler.started
    story.run(70)
    assert [replicas for _, replicas in story.wanted] == [1, 0]
    assert 60 <= story.wanted[-1][0] <= 68


def test_a_new_revision_starts_at_its_initial_scale_and_falls_to_its_load():
    story = Story(ScalingPolicy(initial_scale=4), proven=False)
    story.run(80)
    assert [replicas for _, replicas in story.wanted] == [4, 2, 1, 0]


def test_a_new_revision_that_cannot_start_is_given_up_in_the_end():
    story = Story(ScalingPolicy(), proven=False, starts=False)
    story.run(600)
    assert story.scaler.wanted == 1
    story.run(40)
    assert story.scaler.wanted == 0
    assert not story.scaler.started


def test_a_proven_revision_ignores_the_initial_scale():
    story = Story(ScalingPolicy(initial_scale=4))
    story.run(10)
    story.request(seconds=1)
    assert [replicas for _, replicas in story.wanted] == [0, 1]


def test_a_proven_revision_with_a_min_scale_is_brought_up_by_its_first_tick():
    story = Story(ScalingPolicy(min_scale=2))
    story.run(300)
    assert story.wanted == [(0, 0), (2, 2)]
    assert story.scaler.active is Readiness.TRUE


def test_a_revision_that_lost_its_traffic_gives_up_its_min_scale():
    story = Story(ScalingPolicy(min_scale=2))
    story.run(100)
    story.scaler.update(story.policy, reachable=False)
    story.run(10)
    assert story.scaler.wanted == 0


def test_a_revision_without_traffic_still_answers_who_names_it():
    story = Story(ScalingPolicy(min_scale=2), reachable=False)
    story.run(10)
    story.request(seconds=1)
    assert story.wanted == [(0, 0), (10, 1)]


def test_the_activation_scale_is_what_a_wake_starts():
    story = Story(ScalingPolicy(activation_scale=3))
    story.request(seconds=1)
    assert story.wanted == [(0, 0), (0, 3)]
    story.run(100)
    assert [replicas for _, replicas in story.wanted][-1] == 0


def test_the_retention_period_keeps_the_last_replica_longer():
    story = Story(ScalingPolicy(scale_to_zero_pod_retention_period_s=90))
    story.request(seconds=0.5)
    story.run(145)
    assert story.scaler.wanted == 1
    assert story.scaler.active is Readiness.FALSE
    story.run(15)
    assert story.scaler.wanted == 0


def test_a_request_during_the_retention_period_asks_for_a_tick_and_begins_a_new_life():
    story = Story(ScalingPolicy(scale_to_zero_pod_retention_period_s=90))
    story.request(seconds=0.5)
    story.run(100)
    assert story.scaler.active is Readiness.FALSE
    story.request(seconds=0.5)
    assert story.scaler.active is Readiness.TRUE
    story.run(140)
    assert [replicas for _, replicas in story.wanted] == [0, 1]


def test_the_scale_down_delay_holds_what_a_burst_started():
    fell = []
    for delay in (0, 60):
        story = Story(ScalingPolicy(container_concurrency=10, window_s=6, scale_down_delay_s=delay))
        story.request(seconds=4, count=50)
        peak = story.scaler.wanted
        assert peak == 8  # 50 in flight, 7 a replica
        story.run(200)
        fell.append(next(at for at, replicas in story.wanted if at > 4 and replicas < peak))
    assert 58 <= fell[1] - fell[0] <= 60


def test_load_beyond_the_max_scale_is_not_followed():
    story = Story(ScalingPolicy(container_concurrency=1, max_scale=3))
    story.request(seconds=10, count=50)
    assert story.scaler.wanted == 3
    assert story.scaler.desired > 3


def test_a_long_request_keeps_its_replica_when_requests_per_second_are_counted():
    story = Story(ScalingPolicy(metric=Metric.RPS, window_s=6))
    story.request(seconds=300)
    assert story.wanted == [(0, 0), (0, 1)]
    story.run(20)
    assert story.scaler.wanted == 0


def test_a_request_asks_for_a_tick_whenever_nothing_is_wanted_even_if_it_is_not_a_first_one():
    """Requests per second read zero while a long one is out; who comes next must not wait for a report."""
    story = Story(ScalingPolicy(metric=Metric.RPS, window_s=6))
    story.request(seconds=30)
    story.tick()
    assert story.scaler.desired == 0
    assert story.scaler.request_in(story.now)
    story.tick()
    assert story.scaler.desired == 1
    assert not story.scaler.request_in(story.now)


def test_a_report_of_load_asks_for_a_tick_while_nothing_is_wanted():
    scaler = RevisionScaler(ScalingPolicy(), reachable=True, proven=True, now=0)
    assert not scaler.report(0.5)
    scaler.request_in(0.5)
    scaler.request_in(0.5)
    assert scaler.report(1.5)
    scaler.tick(1.5, ready=0)
    assert not scaler.report(2.5)


def test_a_report_of_no_load_asks_for_nothing():
    scaler = RevisionScaler(ScalingPolicy(), reachable=True, proven=True, now=0)
    scaler.request_in(0.5)
    scaler.request_out(0.75)
    assert not scaler.report(1.5)  # the first request was told of already


def test_a_longer_window_in_mid_life_keeps_it_awake_for_longer():
    story = Story(ScalingPolicy(window_s=6))
    story.request(seconds=0.5)
    story.run(2)
    story.scaler.update(ScalingPolicy(window_s=60), reachable=True)
    story.run(50)
    assert story.scaler.wanted == 1
    story.run(20)
    assert story.scaler.wanted == 0


def test_a_max_scale_in_mid_life_takes_effect_at_the_next_tick():
    story = Story(ScalingPolicy(container_concurrency=1))
    for _ in range(10):
        story.scaler.request_in(story.now)
    story.run(10)
    assert story.scaler.wanted > 4
    story.scaler.update(ScalingPolicy(container_concurrency=1, max_scale=2), reachable=True)
    story.run(2)
    assert story.scaler.wanted == 2
    assert story.scaler.in_flight == 10


def test_a_higher_target_in_mid_life_needs_fewer_replicas_once_panic_is_over():
    story = Story(ScalingPolicy(container_concurrency=1, window_s=6))
    for _ in range(10):
        story.scaler.request_in(story.now)
    story.run(10)
    assert story.scaler.wanted == 15  # 10 in flight, 0.7 a replica
    story.scaler.update(ScalingPolicy(container_concurrency=100, window_s=6), reachable=True)
    story.run(20)
    assert story.scaler.wanted == 1


def test_replicas_that_are_there_at_the_start_are_kept_until_their_load_is_known():
    scaler = RevisionScaler(ScalingPolicy(), reachable=True, proven=True, now=0, ready=5)
    assert scaler.decision is None
    assert not scaler.panic
    assert scaler.tick(2, ready=5) == 5
    assert scaler.panic
    assert [scaler.tick(62, ready=5), scaler.tick(64, ready=2)] == [2, 1]


def test_the_averages_of_the_last_tick_can_be_read():
    story = Story(ScalingPolicy())
    story.request()
    decision = story.scaler.decision
    assert decision is not None
    assert (decision.stable, decision.panic, decision.excess_burst_capacity) == (1, 1, -1)


POLICIES = st.builds(
    ScalingPolicy,
    min_scale=st.integers(0, 2),
    max_scale=st.sampled_from([0, 2, 5]),
    initial_scale=st.integers(1, 8),
    activation_scale=st.integers(1, 8),
    metric=st.sampled_from([Metric.CONCURRENCY, Metric.RPS]),
    container_concurrency=st.sampled_from([0, 1, 10]),
    window_s=st.sampled_from([6, 10]),
    scale_down_delay_s=st.sampled_from([0, 4]),
    scale_to_zero_pod_retention_period_s=st.sampled_from([0, 5]),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("in"), st.integers(1, 20)),
        st.tuples(st.just("out"), st.integers(1, 20)),
        st.tuples(st.just("run"), st.floats(1e-7, 30)),
        st.tuples(st.just("report"), st.none()),
        st.tuples(st.just("tick"), st.integers(0, 8)),
        st.tuples(st.just("update"), POLICIES),
    ),
    max_size=60,
)


@given(POLICIES, STEPS, st.booleans(), st.booleans())
def test_what_is_wanted_stays_within_bounds_and_never_drops_a_request(policy, steps, proven, reachable):
    """Whatever the order of events: even with reports that never come, come late, or twice."""
    scaler = RevisionScaler(policy, reachable=reachable, proven=proven, now=0)
    now, in_flight = 0.0, 0
    for what, value in steps:
        if what == "run":
            now += value
        elif what == "in":
            asked = [scaler.request_in(now) for _ in range(value)]
            in_flight += value
            assert scaler.desired > 0 or all(asked)
        elif what == "out":
            for _ in range(min(value, in_flight)):
                scaler.request_out(now)
            in_flight = max(0, in_flight - value)
        elif what == "report":
            scaler.report(now)
        elif what == "update":
            policy = value
            scaler.update(policy, reachable=reachable)
        else:
            wanted = scaler.tick(now, value)
            assert wanted == scaler.wanted
            assert scaler.in_flight == in_flight
            assert wanted >= (policy.min_scale if reachable else 0)
            assert wanted >= (in_flight > 0)
            assert not policy.max_scale or wanted <= policy.max_scale


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(1, 9)), min_size=1, max_size=15), st.sampled_from([1, 10]))
def test_with_requests_counted_by_concurrency_the_load_alone_never_asks_for_zero_in_flight(
    bursts, container_concurrency
):
    """The reference's own rules do this, with reports in time; the guard is for the rest."""
    story = Story(ScalingPolicy(container_concurrency=container_concurrency, window_s=6))
    for seconds, count in bursts:
        for _ in range(count):
            if story.scaler.request_in(story.now):
                story.tick()
        for _ in range(4 * seconds):
            story.run(0.25)
            assert story.scaler.decision is not None
            assert story.scaler.decision.desired > 0
        story.done(count)
        story.run(seconds)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=20))
def test_more_load_never_gets_fewer_replicas(loads):
    """Two revisions with the same replicas ready; one sees at each moment at least as many requests as the other."""
    policy = ScalingPolicy(container_concurrency=2, window_s=6)
    less, more = (RevisionScaler(policy, reachable=True, proven=True, now=0) for _ in range(2))
    less.request_in(0)
    more.request_in(0)
    for second, (base, extra) in enumerate(loads, 1):
        for scaler, count in ((less, base), (more, base + extra)):
            for _ in range(count):
                scaler.request_in(second)
        for scaler, count in ((less, base), (more, base + extra)):
            scaler.report(second + 0.5)
            for _ in range(count):
                scaler.request_out(second + 0.5)
        if second % 2:
            assert less.tick(second + 0.75, ready=3) <= more.tick(second + 0.75, ready=3)
