"""What is reported of a stream of requests: the mean in flight, the arrivals, and when a revision is forgotten."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost_platform.autoscaling.stats import FIRST_REQUEST, ConcurrencyReporter, Stat


def test_nothing_is_reported_of_a_revision_without_requests():
    assert ConcurrencyReporter().report(1) is None


def test_the_first_request_is_told_at_once_and_taken_off_the_next_report():
    reporter = ConcurrencyReporter()
    assert reporter.request_in(0)
    assert Stat(1, 1) == FIRST_REQUEST
    assert not reporter.request_in(0)
    assert reporter.report(1) == Stat(1, 1)
    assert reporter.report(2) == Stat(2, 0)


def test_a_first_period_less_busy_than_one_is_zero_not_less():
    reporter = ConcurrencyReporter()
    reporter.request_in(0)
    reporter.request_out(0.5)
    assert reporter.report(1) == Stat(0, 0)


def test_concurrency_is_weighted_with_time():
    reporter = ConcurrencyReporter()
    reporter.request_in(0)
    reporter.report(1)
    reporter.request_in(1.5)  # two in flight for a quarter of a second
    reporter.request_out(1.75)
    assert reporter.report(2) == Stat(1.25, 1)


def test_two_half_second_requests_in_a_row_are_one_in_flight():
    reporter = ConcurrencyReporter()
    reporter.request_in(0)
    reporter.request_out(0.5)
    reporter.report(1)
    reporter.request_in(1)
    reporter.request_out(1.5)
    reporter.request_in(1.5)
    reporter.request_out(2)
    assert reporter.report(2) == Stat(1, 2)


def test_the_first_period_counts_from_the_request_not_from_the_last_report():
    reporter = ConcurrencyReporter()
    reporter.request_in(10.75)
    reporter.request_in(10.75)
    assert reporter.report(11) == Stat(1, 1)


def test_a_period_may_be_longer_than_a_second():
    reporter = ConcurrencyReporter()
    reporter.request_in(0)
    reporter.report(1)
    reporter.request_out(2)
    assert reporter.report(3) == Stat(0.5, 0)


def test_a_quiet_period_forgets_the_revision_so_that_the_next_request_is_a_first_one():
    reporter = ConcurrencyReporter()
    reporter.request_in(0)
    reporter.request_out(0.5)
    assert reporter.report(1) is not None
    assert not reporter.request_in(1)  # still known: the last period was busy
    reporter.request_out(1.5)
    assert reporter.report(2) == Stat(0.5, 1)
    assert reporter.report(3) == Stat(0, 0)
    assert reporter.report(4) is None
    assert reporter.request_in(5)


def test_a_request_at_the_very_instant_of_the_report_is_not_forgotten():
    reporter = ConcurrencyReporter()
    reporter.request_in(1)
    assert reporter.report(1) == Stat(0, 0)
    assert reporter.in_flight == 1
    assert not reporter.request_in(1.5)
    reporter.request_out(2)
    assert reporter.report(2) == Stat(1.5, 1)


def test_a_request_of_no_length_still_counts_as_an_arrival():
    reporter = ConcurrencyReporter()
    reporter.request_in(0)
    reporter.report(1)
    reporter.request_out(1)
    reporter.request_in(1.5)
    reporter.request_out(1.5)
    assert reporter.report(2) == Stat(0, 1)


def test_a_clock_that_steps_back_takes_nothing_away():
    reporter = ConcurrencyReporter()
    reporter.request_in(10)
    reporter.request_in(9)
    reporter.request_out(9.5)
    assert reporter.report(11) == Stat(0, 1)
    reporter.request_in(10)
    assert reporter.report(12) == Stat(2, 1)
    assert reporter.report(11) == Stat(0, 0)


def test_a_revision_whose_reports_stopped_is_forgotten_when_nothing_is_in_flight():
    reporter = ConcurrencyReporter()
    reporter.request_in(0)
    reporter.request_out(0.5)
    assert reporter.request_in(100)
    assert reporter.report(101) == Stat(0, 0)
    assert reporter.report(102) == Stat(1, 0)
    assert not reporter.request_in(200)  # one is in flight
    assert reporter.in_flight == 2


@given(
    st.lists(
        st.tuples(st.floats(0, 2.5), st.floats(0, 2.5)).map(lambda pair: (min(pair), max(pair))),
        min_size=1,
        max_size=20,
    )
)
def test_reports_add_up_to_the_time_that_requests_took_and_to_their_number(requests):
    begin = min(came for came, _ in requests)
    events = sorted([(came, 0) for came, _ in requests] + [(left, 1) for _, left in requests])
    reporter, firsts = ConcurrencyReporter(), 0
    for at, is_out in events:
        if is_out:
            reporter.request_out(at)
        else:
            firsts += reporter.request_in(at)
    assert firsts == 1
    stat = reporter.report(3)
    assert stat is not None
    assert stat.requests + 1 == len(requests)
    average = sum(left - came for came, left in requests) / (3 - begin)
    assert stat.concurrency == pytest.approx(max(average - 1, 0), abs=1e-9)
    assert reporter.in_flight == 0
