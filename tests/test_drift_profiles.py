"""Profiles of real data: the stated rate of false alarms holds, shifts of a stated size are found, counts add up, and two
versions are compared. Seeded.
"""

import json
import math
from datetime import UTC, datetime

import numpy as np
import pytest

from roost_gateway.drift.reports import FALSE_ALARMS, between, report_of
from roost_platform.drift.profiles import Counted, Profile, features_of
from roost_platform.drift.shift import compare_across
from roost_platform.drift.sketch import profile

NOW = datetime(2026, 11, 23, tzinfo=UTC)
ROWS = 1000


def columns(random: np.random.Generator, size: int = ROWS) -> dict[str, list[float] | list[str]]:
    """The wine of libraries' own: thirteen measurements of three kinds, resampled."""
    from sklearn.datasets import load_wine

    found = load_wine()
    rows = random.integers(0, len(found.data), size)
    made: dict[str, list[float] | list[str]] = {
        f"input.x[{place}]": found.data[rows, place].tolist() for place in range(found.data.shape[1])
    }
    return made | {"output.kind": [str(found.target_names[kind]) for kind in found.target[rows]]}


def reference(random: np.random.Generator) -> Profile:
    return Profile("p", NOW, "file", ROWS, features_of(columns(random)))


def report(kept: Profile, seen: dict[str, list[float] | list[str]]):
    counted = Counted({}).seen(kept, seen, len(seen["output.kind"]))
    again = Counted.from_json(counted.to_json(), kept)
    assert again == counted
    return report_of(1, kept, [(NOW, counted.to_json())])


def test_without_a_shift_of_real_data_there_are_no_more_alarms_than_stated():
    random = np.random.default_rng(1)
    kept = [reference(random) for _ in range(3)]
    looks = [report(kept[look % 3], columns(random)) for look in range(40)]
    # 40 looks at 0.1 %: more than one alarm comes once in 1,300 such tests.
    assert FALSE_ALARMS == 0.001
    assert sum(bool(look.alarms) for look in looks) <= 1
    assert max(look.outliers for look in looks) < 0.1


def test_a_shift_of_half_a_deviation_is_always_found_and_laid_to_its_feature():
    random = np.random.default_rng(2)
    kept = reference(random)
    for _ in range(10):
        seen = columns(random)
        values = np.array(seen["input.x[3]"])
        seen["input.x[3]"] = (values + 0.5 * values.std()).tolist()
        assert report(kept, seen).alarms == ["input.x[3]"]


def test_another_balance_of_classes_and_a_new_class_are_found():
    random = np.random.default_rng(3)
    kept, seen = reference(random), columns(random)
    assert report(kept, seen | {"output.kind": ["class_0"] * 300 + seen["output.kind"][300:]}).alarms == ["output.kind"]
    new = report(kept, seen | {"output.kind": ["other"] * 300 + seen["output.kind"][300:]})
    assert new.alarms == ["output.kind"]
    assert new.shifts["output.kind"].outside == pytest.approx(0.3)


def test_missing_values_and_outliers_are_told():
    random = np.random.default_rng(4)
    kept, seen = reference(random), columns(random)
    seen["input.x[0]"] = [math.nan] * 100 + seen["input.x[0]"][100:]
    seen["input.x[1]"] = [1e9] * 200 + seen["input.x[1]"][200:]
    found = report(kept, seen)
    assert found.shifts["input.x[0]"].missing == pytest.approx(0.1)
    assert found.outliers == pytest.approx(0.2, abs=0.02)


def test_counts_of_two_gateways_add_up():
    random = np.random.default_rng(5)
    kept, one, other = reference(random), columns(random), columns(random, 77)
    both = Counted({}).seen(kept, one, ROWS).seen(kept, other, 77)
    assert Counted({}).seen(kept, one, ROWS).merged(Counted({}).seen(kept, other, 77)) == both


def test_versions_with_references_of_their_own_are_compared():
    random = np.random.default_rng(6)
    first, second = reference(random), reference(random)
    alike = between(report(first, columns(random)), report(second, columns(random)))
    assert max(shift.distance for shift in alike.values()) < 0.1
    seen = columns(random)
    seen["input.x[3]"] = [float(value) + 5 for value in seen["input.x[3]"]]
    apart = between(report(first, seen), report(second, columns(random)))
    assert apart["input.x[3]"].distance > 0.4
    assert {name for name, shift in apart.items() if shift.distance > 0.1} == {"input.x[3]"}


def test_across_other_bins_no_value_is_lost():
    random = np.random.default_rng(7)
    one, other = profile(random.normal(size=900).tolist()), profile((random.normal(size=700) + 9).tolist())
    shift = compare_across(one, other)
    assert (shift.reference, shift.current) == (900, 700)
    assert shift.distance > 0.99
    assert compare_across(one, one).distance == 0


def test_hours_are_added_until_there_are_enough_rows():
    random = np.random.default_rng(8)
    kept = reference(random)
    hour = Counted({}).seen(kept, columns(random, 600), 600).to_json()
    times = [NOW.replace(day=day) for day in (9, 8, 8, 7)]
    found = report_of(1, kept, [(time, hour) for time in times])
    assert (found.counted.rows, found.since) == (1800, times[2])


def test_what_is_kept_is_json_whatever_the_values():
    values = [-1.7e308, 1.7e308, 0.0, math.nan, math.inf] * 50
    features = features_of({"input.x": values, "input.none": [math.nan] * 9})
    assert list(features) == ["input.x"]
    json.dumps(Profile("p", NOW, "file", 250, features).to_json(), allow_nan=False)
    json.dumps(
        Counted({}).seen(Profile("p", NOW, "file", 250, features), {"input.x": values}, 250).to_json(), allow_nan=False
    )
