"""A tenant's gate: the cell rate algorithm against what it promises, with time as a parameter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost_gateway.predict.admission import Gate
from roost_platform.domain.errors import Throttled
from roost_platform.domain.tenants import Quota


def enters(gate: Gate, quota: Quota, now: float) -> bool:
    try:
        gate.enter(quota, now)
    except Throttled:
        return False
    gate.leave()
    return True


def test_no_limit_lets_everything_in():
    gate, quota = Gate(), Quota(concurrent_requests=0)
    for _ in range(10_000):
        gate.enter(quota, 0.0)
    assert gate.inflight == 10_000


def test_the_number_in_flight_is_exact():
    gate, quota = Gate(), Quota(concurrent_requests=3)
    for _ in range(3):
        gate.enter(quota, 0.0)
    with pytest.raises(Throttled) as refused:
        gate.enter(quota, 0.0)
    assert (refused.value.code, refused.value.retry_after_s, gate.inflight) == ("too_many_in_flight", 1, 3)
    gate.leave()
    gate.enter(quota, 0.0)


def test_a_burst_then_the_sustained_rate():
    gate, quota = Gate(), Quota(requests_per_second=10, burst=5)
    assert [enters(gate, quota, 100.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert [enters(gate, quota, 100.0 + tick / 100) for tick in range(1, 51)].count(True) == 5  # half a second at 10/s


def test_after_silence_the_burst_is_whole_again_and_not_more():
    gate, quota = Gate(), Quota(requests_per_second=10, burst=5)
    assert [enters(gate, quota, 0.0) for _ in range(5)] == [True] * 5
    assert [enters(gate, quota, 1000.0) for _ in range(7)] == [True] * 5 + [False] * 2


def test_the_burst_is_one_seconds_worth_unless_said_otherwise():
    gate, quota = Gate(), Quota(requests_per_second=20)
    assert [enters(gate, quota, 5.0) for _ in range(30)].count(True) == 20
    gate, quota = Gate(), Quota(requests_per_second=0.5)
    assert [enters(gate, quota, 5.0) for _ in range(3)] == [True, False, False]


def test_a_refused_call_is_told_when_it_would_be_let_in():
    gate, quota = Gate(), Quota(requests_per_second=0.5, burst=1)
    assert enters(gate, quota, 10.0)
    with pytest.raises(Throttled) as refused:
        gate.enter(quota, 10.5)
    assert refused.value.retry_after_s == pytest.approx(1.5)
    assert not enters(gate, quota, 11.99)
    assert enters(gate, quota, 12.0)


def test_what_is_refused_counts_for_nothing():
    gate, quota = Gate(), Quota(requests_per_second=1, burst=1, concurrent_requests=1)
    assert enters(gate, quota, 0.0)
    for tick in range(99):
        assert not enters(gate, quota, tick / 100)
    assert enters(gate, quota, 1.0), "hammering does not move the moment away"
    gate.enter(quota, 2.0)
    with pytest.raises(Throttled, match="in flight"):
        gate.enter(quota, 3.0)
    gate.leave()
    gate.enter(quota, 3.0)  # the refusal at 3.0 spent nothing of the rate


@given(
    st.floats(0.1, 1000),
    st.integers(1, 50),
    st.lists(st.floats(0, 0.5), min_size=1, max_size=300),
)
def test_in_no_stretch_of_time_more_get_in_than_burst_and_rate_allow(rate: float, burst: int, pauses: list[float]):
    gate, quota = Gate(), Quota(requests_per_second=rate, burst=burst, concurrent_requests=0)
    now, let_in = 0.0, []
    for pause in pauses:
        now += pause
        if enters(gate, quota, now):
            let_in.append(now)
    for first in range(len(let_in)):
        for last in range(first, len(let_in)):
            allowed = burst + rate * (let_in[last] - let_in[first])
            assert last - first + 1 <= allowed + 1e-6


@given(st.floats(0.1, 1000), st.integers(1, 20), st.integers(1, 200))
def test_who_keeps_to_the_rate_is_never_refused(rate: float, burst: int, count: int):
    gate, quota = Gate(), Quota(requests_per_second=rate, burst=burst)
    assert all(enters(gate, quota, 7.0 + n / rate) for n in range(count))
