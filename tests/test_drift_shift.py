"""Sketches and shifts: sums in any order, a false-alarm rate that holds, and shifts that are found. Seeded."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost_platform.drift.shift import Shift, alarms, compare
from roost_platform.drift.sketch import BINS, Sketch, profile

VALUES = st.lists(st.floats(width=32), max_size=60)
FALSE_ALARMS = 0.05


@given(VALUES.filter(lambda v: any(map(math.isfinite, v))), VALUES, VALUES)
def test_sketches_add_up_in_any_order_and_lose_no_value(reference, one, other):
    kept = profile(reference)
    blank = kept.empty()
    a, b = blank.seen(one), blank.seen(other)
    assert a.merged(b) == b.merged(a) == blank.seen(one + other)
    assert a.size + a.missing == len(one)
    assert a.below == sum(v < kept.low for v in one if math.isfinite(v))
    assert len(kept.counts) <= BINS
    assert Sketch.from_json(a.to_json()) == a


def test_sketches_of_different_profiles_are_not_mixed():
    one, other = profile([1, 2, 3]), profile([1, 2, 4])
    with pytest.raises(ValueError, match="different profiles"):
        one.merged(other)
    with pytest.raises(ValueError, match="different profiles"):
        compare(profile([1, 2, 3, 4]), profile([1, 2, 8, 9]))


@given(VALUES.filter(lambda v: any(map(math.isfinite, v))), VALUES)
def test_every_figure_is_finite_and_every_chance_a_probability(reference, values):
    kept = profile(reference)
    shift = compare(kept, kept.empty().seen(values))
    assert math.isfinite(shift.psi)
    assert shift.psi >= 0
    for share in (shift.psi_chance, shift.distance_chance, shift.distance, shift.missing, shift.outside):
        assert 0 <= share <= 1


def _columns(random: np.random.Generator, size: int) -> dict[str, np.ndarray]:
    """Smooth, skewed, heavy-tailed, discrete and rare: what features look like."""
    return {
        "normal": random.normal(size=size),
        "lognormal": random.lognormal(size=size),
        "cauchy": random.standard_cauchy(size=size),
        "class": random.integers(0, 5, size=size).astype(float),
        "rare": (random.random(size) < 0.02).astype(float),
    }


def _looks(random: np.random.Generator, looks: int, size: int, change) -> list[dict[str, Shift]]:
    found = []
    for _ in range(looks):
        reference = {name: profile(values.tolist()) for name, values in _columns(random, 1000).items()}
        now = change(_columns(random, size))
        found.append({name: compare(kept, kept.empty().seen(now[name].tolist())) for name, kept in reference.items()})
    return found


def test_without_a_shift_chances_are_honest_before_any_least_size():
    """Without the sizes that must matter: the share of looks in which anything is improbable enough is as stated."""
    looks = _looks(np.random.default_rng(7), 300, 400, lambda columns: columns)
    limit = FALSE_ALARMS / 10
    improbable = sum(any(min(s.psi_chance, s.distance_chance) < limit for s in shifts.values()) for shifts in looks)
    # 300 looks at 5 %: 15 expected, and 29 or more once in a thousand such tests.
    assert improbable < 29
    assert sum(bool(alarms(shifts, false_alarms=FALSE_ALARMS)) for shifts in looks) <= improbable


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("normal", lambda v: v + 0.5),
        ("normal", lambda v: 1.6 * v),
        ("lognormal", lambda v: 1.7 * v),
        ("cauchy", lambda v: v + 0.8),
        ("class", lambda v: np.where(np.arange(v.size) % 4 == 0, 0, v)),
    ],
)
def test_a_shift_of_this_size_is_found_in_400_values_and_laid_to_its_column_alone(name, change):
    looks = _looks(np.random.default_rng(11), 20, 400, lambda columns: columns | {name: change(columns[name])})
    found = [alarms(shifts, false_alarms=FALSE_ALARMS) for shifts in looks]
    assert sum(name in names for names in found) >= 19
    assert sum(names not in ([], [name]) for names in found) <= 4


def test_what_is_certain_but_tiny_is_no_alarm_and_what_is_few_neither():
    random = np.random.default_rng(3)
    kept = profile(random.normal(size=20_000).tolist())
    tiny = compare(kept, kept.empty().seen((random.normal(size=20_000) + 0.06).tolist()))
    assert tiny.distance_chance < 1e-4
    assert alarms({"x": tiny}, false_alarms=FALSE_ALARMS) == []
    few = compare(kept, kept.empty().seen([100.0] * 99))
    assert (few.outside, alarms({"x": few}, false_alarms=FALSE_ALARMS)) == (1.0, [])
    assert alarms({"x": compare(kept, kept.empty().seen([100.0] * 100))}, false_alarms=FALSE_ALARMS) == ["x"]


@pytest.mark.parametrize(("was", "now"), [([1.0], [2.0]), ([1.0], [0.0]), ([0.0, 1.0, 2.0], [0.0, 1.0, 7.0])])
def test_a_value_that_the_reference_never_had_is_seen_beyond_its_ends(was, now):
    kept = profile(was * 300)
    assert alarms({"x": compare(kept, kept.empty().seen(now * 300))}, false_alarms=FALSE_ALARMS) == ["x"]


def test_the_measures_agree_with_scipys_own():
    from scipy.stats import ks_2samp

    random = np.random.default_rng(5)
    one, other = random.integers(0, 40, 500).astype(float), random.integers(3, 43, 700).astype(float)
    kept = profile(one.tolist())
    shift = compare(kept, kept.empty().seen(other.tolist()))
    theirs = ks_2samp(one, other, method="asymp")
    assert shift.distance == pytest.approx(theirs.statistic, abs=1e-12)
