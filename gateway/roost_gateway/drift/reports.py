"""What was seen of a version lately, beside its reference or another version."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from roost_platform.drift.profiles import Counted, Profile
from roost_platform.drift.shift import Shift, alarms, compare, compare_across

FALSE_ALARMS = 0.001
"""The probability of any alarm at one look at a version that has not shifted, over all its features and outputs."""
ENOUGH_ROWS = 1000
"""Hours are added up, the newest first, until there are so many: a shift is not thinned by what came before it."""


@dataclass(frozen=True, slots=True)
class VersionReport:
    version: int
    profile: Profile
    since: datetime | None
    """Begin of the oldest hour that was looked at; None when there is none."""
    counted: Counted
    shifts: Mapping[str, Shift]
    alarms: Sequence[str]

    @property
    def outliers(self) -> float:
        return self.counted.outliers / self.counted.rows if self.counted.rows else 0.0

    @property
    def missing(self) -> float:
        missing = sum(sketch.missing for sketch in self.counted.sketches.values())
        seen = missing + sum(sketch.size for sketch in self.counted.sketches.values())
        return missing / seen if seen else 0.0


def report_of(
    version: int, profile: Profile, windows: Sequence[tuple[datetime, dict[str, Any]]], *, enough: int = ENOUGH_ROWS
) -> VersionReport:
    """`windows`: the newest first. Raises Unavailable without SciPy."""
    counted, since = Counted({}), None
    for start, document in windows:
        if counted.rows >= enough and start != since:
            break
        counted, since = counted.merged(Counted.from_json(document, profile)), start
    shifts = {name: compare(profile.features[name].sketch, sketch) for name, sketch in counted.sketches.items()}
    return VersionReport(version, profile, since, counted, shifts, alarms(shifts, false_alarms=FALSE_ALARMS))


def between(one: VersionReport, other: VersionReport) -> dict[str, Shift]:
    """What was seen of `one` lately, against what was seen of `other`; only what both have alike."""
    return {
        name: compare_across(other.counted.sketches[name], sketch)
        for name, sketch in one.counted.sketches.items()
        if name in other.counted.sketches and one.profile.features[name].classes == other.profile.features[name].classes
    }
