"""What a version's values looked like when all was well, and counts of what they look like now.

A column is one number or one text for each row; texts are counted as the place of their class in the reference.
"""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from roost_platform.drift.sketch import Sketch, profile

Columns = Mapping[str, Sequence[float] | Sequence[str]]
"""By feature. Not all need be of the same length: a scalar input has one value, however many rows there are."""

MOST_CLASSES = 60
MOST_FEATURES = 256
_LARGEST = sys.float_info.max
_FENCE = 3.0
"""A value so many interquartile ranges beyond the quartiles is an outlier: Tukey's far fence."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One input or output, or an element of one."""

    sketch: Sketch
    """Of the reference."""
    fences: tuple[float, float]
    classes: tuple[str, ...] | None = None
    """The texts of the reference, most frequent first; None for numbers."""

    def numbers(self, values: Sequence[float] | Sequence[str]) -> list[float]:
        """Texts that the reference did not have lie beyond its range; what is of the other kind is missing."""
        if self.classes is None:
            return [value if isinstance(value, float) else float("nan") for value in values]
        places = {text: float(place) for place, text in enumerate(self.classes)}
        return [places.get(value, float(len(places))) if isinstance(value, str) else float("nan") for value in values]

    def to_json(self) -> dict[str, Any]:
        return {"sketch": self.sketch.to_json(), "fences": list(self.fences), "classes": self.classes}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        classes = document["classes"]
        return cls(
            Sketch.from_json(document["sketch"]),
            (document["fences"][0], document["fences"][1]),
            None if classes is None else tuple(classes),
        )


@dataclass(frozen=True, slots=True)
class Profile:
    """The reference of a version."""

    id: str
    made_at: datetime
    origin: str
    """`calls` (the first ones) or `file`."""
    rows: int
    features: Mapping[str, Feature]

    def to_json(self) -> dict[str, Any]:
        return {"rows": self.rows, "features": {name: found.to_json() for name, found in self.features.items()}}

    @classmethod
    def from_json(cls, document: dict[str, Any], *, id: str, made_at: datetime, origin: str) -> Self:  # noqa: A002
        features = {name: Feature.from_json(found) for name, found in document["features"].items()}
        return cls(id=id, made_at=made_at, origin=origin, rows=document["rows"], features=features)


def features_of(columns: Columns) -> dict[str, Feature]:
    """One for each column that has anything to go by, at most MOST_FEATURES."""
    made: dict[str, Feature] = {}
    for name, values in columns.items():
        if len(made) == MOST_FEATURES:
            break
        texts = [value for value in values if isinstance(value, str)]
        classes = tuple(text for text, _ in Counter(texts).most_common(MOST_CLASSES)) if texts else None
        blank = Feature(Sketch((0.0,), (0, 0)), (0.0, 0.0), classes)
        try:
            sketch = profile(blank.numbers(values))
        except ValueError:  # not one number
            continue
        made[name] = Feature(sketch, _fences(sketch, classes), classes)
    return made


def _fences(sketch: Sketch, classes: tuple[str, ...] | None) -> tuple[float, float]:
    """Of few distinct values, and of texts, all that the reference never had is an outlier."""
    low, high = _quantile(sketch, 0.25), _quantile(sketch, 0.75)
    if classes is not None or low == high:
        return sketch.low, sketch.high
    beyond = min(_FENCE * (high - low), _LARGEST)
    return max(min(sketch.low, low - beyond), -_LARGEST), min(max(sketch.high, high + beyond), _LARGEST)


def _quantile(sketch: Sketch, share: float) -> float:
    """The upper edge of the bin in which it lies."""
    passed = 0
    for count, edge in zip(sketch.counts, (*sketch.edges, sketch.high), strict=True):
        passed += count
        if passed >= share * sketch.size:
            return max(edge, sketch.low)
    return sketch.high


@dataclass(frozen=True, slots=True)
class Counted:
    """What was seen of a version, against one profile. Sums of the same profile add up."""

    sketches: Mapping[str, Sketch]
    rows: int = 0
    outliers: int = 0
    """Rows with an input beyond its fences."""

    def seen(self, reference: Profile, columns: Columns, rows: int) -> Self:
        """With these rows. Columns that the profile does not know are left out."""
        sketches, odd = dict(self.sketches), set[int]()
        for name, values in columns.items():
            feature = reference.features.get(name)
            if feature is None:
                continue
            numbers = feature.numbers(values)
            sketches[name] = sketches.get(name, feature.sketch.empty()).seen(numbers)
            if name.startswith("input.") and len(numbers) == rows:
                low, high = feature.fences
                odd.update(row for row, number in enumerate(numbers) if number < low or number > high)
        return type(self)(sketches, self.rows + rows, self.outliers + len(odd))

    def merged(self, other: "Counted") -> Self:
        sketches = dict(self.sketches)
        for name, sketch in other.sketches.items():
            sketches[name] = sketches[name].merged(sketch) if name in sketches else sketch
        return type(self)(sketches, self.rows + other.rows, self.outliers + other.outliers)

    def to_json(self) -> dict[str, Any]:
        """Without the edges: the profile has them."""
        sketches = {
            name: [list(sketch.counts), sketch.missing, sketch.below, sketch.above]
            for name, sketch in self.sketches.items()
        }
        return {"rows": self.rows, "outliers": self.outliers, "sketches": sketches}

    @classmethod
    def from_json(cls, document: dict[str, Any], reference: Profile) -> Self:
        sketches = {}
        for name, (counts, missing, below, above) in document["sketches"].items():
            blank = reference.features[name].sketch
            sketches[name] = Sketch(blank.edges, tuple(counts), missing, below, above, blank.low, blank.high)
        return cls(sketches, document["rows"], document["outliers"])
