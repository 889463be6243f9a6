"""Whole rollouts, from the first step to the end, by the real decisions: seeded calls, a look every five seconds."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from roost_platform.domain.evidence import Counts
from roost_platform.domain.rollouts import Evidence, Move, Rollout, RolloutPlan, RolloutState, decide

BEGIN = datetime(2026, 11, 1, tzinfo=UTC)
PLAN = RolloutPlan.of(to=2, steps=[5, 25, 50, 100], every_s=60, guard="p99<120ms,errors<0.5%,disagreement<1%")
CALLS_PER_LOOK = 2_500
MOST_LOOKS = 240


def late(mean_ms: float) -> float:
    """The share of exponential times of this mean that is over 120 ms."""
    return float(np.exp(-120 / mean_ms))


GOOD = (late(20), 0.001, 0.002)
"""Late, failed, answered otherwise."""


def end_of(seed: int, candidate: tuple[float, ...], serving: tuple[float, ...]) -> str:
    random = np.random.default_rng(seed)
    now, rollout = BEGIN, Rollout(1, PLAN, 1, RolloutState.RUNNING, 0, BEGIN, BEGIN)
    counts = np.zeros((3, 4), int)
    for _ in range(MOST_LOOKS):
        now += timedelta(seconds=5)
        new = int(random.binomial(CALLS_PER_LOOK, rollout.percent / 100))
        old = CALLS_PER_LOOK - new
        for row in (0, 1):
            bad = random.binomial(new, candidate[row]), random.binomial(old, serving[row])
            counts[row] += (new, bad[0], old, bad[1])
        copies = int(random.binomial(old, rollout.percent / 100))
        counts[2] += (copies, random.binomial(copies, candidate[2]), 0, 0)
        decision = decide(rollout, evidence(counts), now)
        if decision.move in (Move.ROLL_BACK, Move.PROMOTE):
            return decision.move
        if decision.move is Move.STEP:
            rollout = replace(rollout, step=rollout.step + 1, step_began_at=now)
            counts = np.zeros((3, 4), int)
    return "held"


def evidence(counts: np.ndarray) -> Evidence:
    sides = [
        {guard.text: Counts(int(row[at]), int(row[at + 1])) for guard, row in zip(PLAN.guards, counts, strict=True)}
        for at in (0, 2)
    ]
    return Evidence(candidate=sides[0], serving=sides[1])


@pytest.mark.parametrize(
    ("candidate", "serving", "wanted"),
    [
        (GOOD, GOOD, "promote"),
        ((late(60), *GOOD[1:]), GOOD, "roll_back"),
        ((GOOD[0], 0.02, GOOD[2]), GOOD, "roll_back"),
        ((*GOOD[:2], 0.02), GOOD, "roll_back"),
        ((GOOD[0], 0.03, GOOD[2]), (GOOD[0], 0.03, GOOD[2]), "held"),
    ],
    ids=["equal", "three times slower", "fails 2 %", "answers 2 % otherwise", "both fail 3 %"],
)
def test_of_a_hundred_seeded_rollouts_at_least_95_end_as_they_should(candidate, serving, wanted):
    seeds = range(100) if wanted != "held" else range(10)
    ends = Counter(end_of(seed, candidate, serving) for seed in seeds)
    assert ends[wanted] >= 0.95 * len(seeds), ends
    if wanted == "roll_back":
        assert ends[wanted] == len(seeds), "always rolled back"
