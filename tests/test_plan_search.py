"""The capacity search: what a sample says about a share, and that it finds the rate that holds, whatever chance does."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost_gateway.planning.search import Answer, Search, answer, at_most, requests_needed


def test_a_sample_answers_only_what_it_can():
    assert requests_needed(confidence=0.95) == 299
    assert answer(299, 0, confidence=0.95) is Answer.HOLDS
    assert answer(298, 0, confidence=0.95) is Answer.OPEN
    assert answer(0, 0, confidence=0.95) is Answer.OPEN
    assert answer(1000, 4, confidence=0.95) is Answer.HOLDS
    assert answer(1000, 5, confidence=0.95) is Answer.OPEN
    assert answer(1000, 15, confidence=0.95) is Answer.OPEN
    assert answer(1000, 16, confidence=0.95) is Answer.FAILS
    assert answer(10, 10, confidence=0.95) is Answer.FAILS


@pytest.mark.parametrize(("k", "n", "p"), [(0, 10, 0.1), (3, 10, 0.3), (9, 10, 0.5), (5, 400, 0.01)])
def test_the_binomial_tail_is_the_sum_of_its_terms(k: int, n: int, p: float):
    exact = sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1))
    assert at_most(k, n, p) == pytest.approx(exact, rel=1e-9)


def test_the_binomial_tail_at_its_ends():
    assert (at_most(-1, 10, 0.5), at_most(10, 10, 0.5)) == (0.0, 1.0)
    assert at_most(5000, 100_000, 0.01) == pytest.approx(1.0)


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_an_answer_is_wrong_as_seldom_as_it_says(confidence: float):
    """At a true share of exactly 1 %, `holds` is the error that the confidence bounds."""
    chance = random.Random(6)
    trials = 600
    held = 0
    for _ in range(trials):
        late = sum(chance.random() < 0.01 for _ in range(400))
        held += answer(400, late, confidence=confidence) is Answer.HOLDS
    assert held / trials <= 1 - confidence + 0.03


@given(st.floats(0.5, 2000), st.floats(0.5, 2000), st.floats(0.3, 2000))
def test_it_finds_the_highest_rate_of_a_replica_that_does_as_it_did_before(capacity: float, most: float, start: float):
    search, asked = Search(most=most, start=start), 0
    while (rate := search.next_rate()) is not None:
        assert 0 < rate <= most or search.high < math.inf
        search.tell(rate, held=rate <= capacity)
        asked += 1
    assert asked < 30
    if search.low:
        assert search.low <= capacity
        assert search.low >= min(most, capacity / (1 + search.precision)) * (1 - 1e-9)
    else:
        assert capacity < 1


def test_it_stops_where_nobody_asks_for_more():
    search = Search(most=100, start=60)
    for expected in (60, 100):
        assert search.next_rate() == expected
        search.tell(expected, held=True)
    assert search.next_rate() is None


def test_one_that_holds_nothing_is_said_to():
    search = Search(most=100, start=10)
    while (rate := search.next_rate()) is not None:
        search.tell(rate, held=False)
    assert search.low == 0


def test_a_run_that_fails_later_counts_more_than_what_held_before():
    search = Search(most=1000, start=100)
    search.tell(100, held=True)
    search.tell(110, held=False)
    search.tell(100, held=False)
    assert (search.low, search.high) == (0, 100)
    assert search.next_rate() == 25
    search.tell(25, held=True)
    assert search.next_rate() == 50


@pytest.mark.parametrize("seed", range(5))
def test_by_samples_it_ends_near_the_true_capacity(seed: int):
    """A replica whose share of late requests grows with the rate, 1 % at 200/s: as noisy runs show it."""
    chance = random.Random(seed)
    search = Search(most=1000, start=20)

    def holds(rate: float) -> bool:
        share = min(1.0, 0.01 * (rate / 200) ** 8)
        requests = late = 0
        for _ in range(3):
            requests += 450
            late += sum(chance.random() < share for _ in range(450))
            if (found := answer(requests, late, confidence=0.95)) is not Answer.OPEN:
                return found is Answer.HOLDS
        return False

    while (rate := search.next_rate()) is not None:
        search.tell(rate, held=holds(rate))
    assert 130 <= search.low <= 205
