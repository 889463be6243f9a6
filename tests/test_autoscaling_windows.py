"""The sliding windows: what counts, what has rolled out, and what the sum is divided by."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost_platform.autoscaling.windows import Aggregation, BucketWindow, MaxWindow


def filled(window_s: int, values: dict[int, float]) -> BucketWindow:
    window = BucketWindow(window_s)
    for second, value in values.items():
        window.record(second, value)
    return window


def test_an_empty_window_is_zero():
    assert BucketWindow(60).average(100) == 0
    assert BucketWindow(60).weighted_average(100) == 0


def test_a_fresh_window_divides_only_by_its_age():
    assert filled(60, {10: 4, 11: 8}).average(11) == 6


def test_values_of_one_second_are_summed_whatever_their_fraction():
    window = BucketWindow(60)
    window.record(10.1, 4)
    window.record(10.9, 5)
    assert window.average(10.5) == 9


def test_a_full_window_forgets_its_oldest_second():
    assert filled(3, {0: 30, 1: 1, 2: 2, 3: 3}).average(3) == 2


def test_a_gap_counts_as_zero():
    assert filled(60, {0: 6, 5: 6}).average(5) == 2


def test_a_stale_tail_shortens_the_divisor():
    window = filled(5, {0: 1, 1: 2, 2: 3, 3: 4, 4: 5})
    assert window.average(4) == 3
    assert window.average(6) == 4  # (3 + 4 + 5) / 3
    assert window.average(8) == 5
    assert window.average(9) == 0
    assert window.average(10) == 0


def test_a_stale_young_window_divides_by_its_age_until_less_is_left():
    window = filled(10, {0: 4, 1: 8})
    assert window.average(9) == 6
    assert window.average(10) == 8
    assert window.average(11) == 0


def test_a_question_about_the_past_gives_the_newest_average():
    assert filled(60, {10: 4, 11: 8}).average(5) == 6


def test_a_late_value_inside_the_window_is_added_to_its_second():
    window = filled(5, {0: 5, 4: 5})
    window.record(2, 10)
    assert window.average(4) == 4
    assert window.average(7) == 2.5  # second 2 has rolled out with seconds 0 and 1


def test_a_value_before_the_first_one_makes_the_window_older():
    window = filled(60, {10: 6})
    window.record(8, 3)
    assert window.average(10) == 3


def test_a_value_a_whole_window_late_is_ignored():
    window = filled(5, {10: 5})
    window.record(5, 1000)
    assert window.average(10) == 5
    window.record(6, 5)
    assert window.average(10) == 2


def test_a_write_after_a_whole_window_of_silence_begins_afresh():
    window = filled(5, {0: 100, 1: 100})
    window.record(6, 8)
    assert window.average(6) == 8


def test_averages_have_six_decimals_and_halves_go_away_from_zero():
    assert filled(60, {0: 1, 1: 0, 2: 0}).average(2) == 0.333333
    assert filled(60, {0: 0.0000005}).average(0) == 0.000001
    assert filled(60, {0: -0.0000005}).average(0) == -0.000001


def test_a_value_that_rolled_out_leaves_exactly_nothing():
    window = filled(3, {0: 0.1, 1: 0.2, 2: 0.3, 3: 0, 4: 0, 5: 0})
    assert window.average(5) == 0


@pytest.mark.parametrize(("window_s", "decay"), [(6, 0.78456), (40, 0.20567), (60, 0.2), (3600, 0.2)])
def test_the_first_value_of_a_weighted_window_reads_as_its_decay(window_s, decay):
    assert filled(window_s, {0: 1}).weighted_average(0) == pytest.approx(decay, abs=1e-5)


def test_weights_shrink_with_age_and_with_staleness():
    window = filled(60, {0: 10, 1: 5})
    assert window.weighted_average(1) == pytest.approx(0.2 * 5 + 0.2 * 0.8 * 10)
    assert window.weighted_average(3) == pytest.approx(0.8**2 * (0.2 * 5 + 0.2 * 0.8 * 10))
    assert window.weighted_average(60) == pytest.approx(0.8**59 * 0.2 * 5)
    assert window.weighted_average(61) == 0


def test_the_aggregation_chooses_the_average():
    window = filled(60, {0: 10})
    assert window.aggregate(Aggregation.LINEAR, 0) == 10
    assert window.aggregate(Aggregation.WEIGHTED_EXPONENTIAL, 0) == 2


def test_a_window_needs_a_second():
    with pytest.raises(ValueError, match="at least one second"):
        BucketWindow(0)


def test_a_longer_window_keeps_its_age():
    window = filled(3, {0: 9, 1: 1, 2: 2, 3: 3})
    window.resize(6, now=3)
    assert window.average(3) == 2  # second 0 was gone before
    window.record(4, 6)
    assert window.average(4) == 3


def test_a_shorter_window_keeps_its_newest_seconds():
    window = filled(6, {0: 9, 1: 1, 2: 2, 3: 3})
    window.resize(2, now=3)
    assert window.average(3) == 2.5
    assert window.average(4) == 3


def test_what_rolled_out_does_not_come_back_with_a_longer_window():
    window = filled(3, {0: 9, 1: 1, 2: 2})
    window.resize(60, now=4)
    assert window.average(4) == 2
    window = filled(3, {0: 9})
    window.resize(60, now=3)
    assert window.average(3) == 0


def test_a_resized_window_takes_the_decay_of_its_length():
    window = BucketWindow(60)
    window.resize(6, now=0)
    window.record(0, 1)
    assert window.weighted_average(0) == pytest.approx(0.78456, abs=1e-5)


@given(
    size=st.integers(1, 12),
    writes=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 100)), max_size=30),
    now=st.integers(0, 60),
)
def test_the_ring_agrees_with_a_plain_list_of_writes(size, writes, now):
    window = BucketWindow(size)
    kept: list[tuple[int, int]] = []
    for second, value in writes:
        window.record(second, value)
        last = max((s for s, _ in kept), default=None)
        if last is None or second - last >= size:
            kept = [(second, value)]
        elif second + size > last:
            kept.append((second, value))
    if not kept:
        assert window.average(now) == 0
        return
    first, last = min(s for s, _ in kept), max(s for s, _ in kept)
    now = max(now, last)
    total = sum(v for s, v in kept if s > now - size)
    left = size - (now - last)
    assert window.average(now) == pytest.approx(total / min(last - first + 1, left) if left > 0 else 0, abs=1e-6)


def test_the_largest_value_stays_for_the_length_of_the_window():
    window = MaxWindow(6, 2)
    assert [window.record(t, v) for t, v in [(0, 5), (2, 3), (4, 1), (6, 1), (8, 1), (10, 0)]] == [5, 5, 5, 3, 1, 1]


def test_a_larger_value_takes_over_at_once():
    window = MaxWindow(60, 2)
    assert [window.record(t, v) for t, v in [(0, 5), (2, 8), (4, 8), (6, 2)]] == [5, 8, 8, 8]


def test_within_one_step_the_largest_value_stays():
    window = MaxWindow(2, 2)
    assert [window.record(t, v) for t, v in [(0, 5), (1, 3), (2, 3), (3, 4)]] == [5, 5, 3, 4]


@given(
    length=st.integers(1, 20),
    steps=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), min_size=1, max_size=40),
)
def test_the_maximum_agrees_with_a_plain_list(length, steps):
    window, seen, now = MaxWindow(length, 2), [], 0
    for pause, value in steps:
        now += pause
        seen.append((now // 2, value))
        assert window.record(now, value) == max(v for s, v in seen if s > now // 2 - -(-length // 2))


def test_a_shorter_maximum_forgets_from_the_next_value_on():
    window = MaxWindow(60, 2)
    window.record(0, 9)
    window.resize(2)
    assert window.record(10, 1) == 1
