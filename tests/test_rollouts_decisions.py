"""The pure decisions under a rollout: splits, guards, evidence."""

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost_platform.domain.errors import InvalidRequest
from roost_platform.domain.evidence import Counts, Verdict, judge
from roost_platform.domain.guards import Guard, Measure, parse
from roost_platform.domain.rollouts import breaks
from roost_platform.domain.signatures import Signature, Tensor
from roost_platform.domain.splits import Sticking, turns


@given(st.lists(st.integers(0, 100), max_size=5))
def test_every_hundred_turns_are_exact(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), 100]
    percents = {f"v{i}": high - low for i, (low, high) in enumerate(itertools.pairwise(edges))}
    assert Counter(turns(percents)) == Counter({name: percent for name, percent in percents.items() if percent})


def test_two_versions_are_never_a_whole_turn_from_their_share() -> None:
    for percent in range(101):
        taken = turns({"a": percent, "b": 100 - percent})
        assert all(abs(taken[:n].count("a") - n * percent / 100) < 1 for n in range(101))


def test_a_changed_split_moves_keys_one_way_only_and_shares_hold() -> None:
    keys = [b"user-%d" % n for n in range(4000)]
    before = [Sticking({"a": 90, "b": 10}).of(key) for key in keys]
    after = [Sticking({"a": 75, "b": 25}).of(key) for key in keys]
    assert not [1 for old, new in zip(before, after, strict=True) if (old, new) == ("b", "a")]
    expected = {"a": 3000, "b": 1000}
    assert sum((after.count(n) - e) ** 2 / e for n, e in expected.items()) < 10.83  # chi-square, 1 degree, 0.1 %


@pytest.mark.parametrize("percents", [{}, {"a": 99}, {"a": 101, "b": -1}])
def test_shares_that_are_not_a_hundred_are_refused(percents: dict[str, int]) -> None:
    with pytest.raises(InvalidRequest):
        turns(percents)


def test_guards_are_read() -> None:
    latency, errors = parse("p99<120ms, errors<0.5%")
    assert (latency.measure, latency.threshold_s, round(latency.limit, 9)) == (Measure.LATENCY, 0.12, 0.01)
    assert errors == Guard("errors<0.5%", Measure.ERRORS, 0.005)
    assert parse("disagreement<1%") == (Guard("disagreement<1%", Measure.DISAGREEMENT, 0.01),)


@pytest.mark.parametrize(
    "text", ["", "p99<120", "p00<1ms<", "errors<0%", "errors<100%", "p99>1ms", "errors<1%,errors<2%", "disagreement<1"]
)
def test_a_guard_that_is_wrong_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(text)
    assert caught.value.field == "guard"


def _run(seed: int, *, candidate: float, serving: float | None, limit: float) -> Verdict:
    """Looks after every 50 requests of the candidate, 20,000 at most."""
    draw = random.Random(seed)
    bad = bad_serving = 0
    for total in range(50, 20_001, 50):
        bad += sum(draw.random() < candidate for _ in range(50))
        bad_serving += sum(draw.random() < (serving or 0) for _ in range(50))
        other = None if serving is None else Counts(total, bad_serving)
        verdict = judge(Counts(total, bad), other, limit=limit, alpha=0.01, minimum=100)
        if verdict is not Verdict.OPEN:
            return verdict
    return Verdict.OPEN


@pytest.mark.parametrize(
    ("candidate", "serving", "limit", "wanted"),
    [
        (0.02, 0.0, 0.01, Verdict.VIOLATED),
        (0.1353, 0.0025, 0.01, Verdict.VIOLATED),
        (0.001, 0.001, 0.005, Verdict.PASSED),
        (0.05, 0.05, 0.01, Verdict.SHARED),
    ],
    ids=["2 % wrong", "3 x slower: exponential of 20 and 60 ms over 120 ms", "equal", "both bad"],
)
def test_of_a_hundred_seeded_runs_at_least_95_end_as_they_should(
    candidate: float, serving: float, limit: float, wanted: Verdict
) -> None:
    ends = Counter(_run(seed, candidate=candidate, serving=serving, limit=limit) for seed in range(100))
    assert ends[wanted] >= 95, ends


@pytest.mark.parametrize(("share", "wanted"), [(0.02, Verdict.VIOLATED), (0.001, Verdict.PASSED)])
def test_what_is_measured_by_the_serving_version_is_judged_alone(share: float, wanted: Verdict) -> None:
    ends = Counter(_run(seed, candidate=share, serving=None, limit=0.01) for seed in range(100))
    assert ends[wanted] >= 95, ends


def test_three_requests_prove_nothing() -> None:
    assert judge(Counts(3, 0), Counts(1000, 0), limit=0.5, alpha=0.01, minimum=100) is Verdict.OPEN


def _signature(*inputs: Tensor, outputs: tuple[Tensor, ...] = (Tensor("y", "FP32", (-1,)),)) -> Signature:
    return Signature(tuple(inputs), outputs)


X = Tensor("x", "FP32", (-1, 4))


@pytest.mark.parametrize(
    ("candidate", "why"),
    [
        (_signature(X), ""),
        (_signature(Tensor("x", "FP32", (-1, -1))), ""),
        (_signature(Tensor("x", "FP32", (-1, 5))), "its input x has the shape [-1, 5] instead of [-1, 4]"),
        (_signature(Tensor("x", "FP32", (1, 4))), "its input x has the shape [1, 4] instead of [-1, 4]"),
        (_signature(Tensor("x", "FP32", (4,))), "its input x has the shape [4] instead of [-1, 4]"),
        (_signature(Tensor("x", "FP64", (-1, 4))), "its input x is FP64 instead of FP32"),
        (_signature(), "its inputs are none instead of x"),
        (_signature(X, Tensor("z", "FP32", (1,))), "its inputs are x, z instead of x"),
        (_signature(X, outputs=(Tensor("p", "FP32", (-1,)),)), "its outputs are p instead of y"),
        (_signature(X, outputs=(Tensor("y", "INT64", (-1,)),)), "its output y is INT64 instead of FP32"),
        (_signature(X, outputs=(Tensor("y", "FP32", (-1, 2)),)), ""),
    ],
)
def test_a_version_that_would_break_its_callers_is_known(candidate: Signature, why: str) -> None:
    assert breaks(_signature(X), candidate) == why
