"""Whether two versions gave the same answer: by values, by the order of classes, or by what a JSON path finds. Pure.

Floating-point numbers a and b are alike when |a - b| <= absolute + relative * max(|a|, |b|); what is relative and absolute
follows from the datatype unless the user says it. Everything else is alike when it is equal.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest
from typing import Any, Self

from roost_platform.domain.errors import InvalidRequest

MOST_PATH = 200
MOST_TOP = 100

_TOLERANCES = {"FP64": (1e-6, 1e-9), "FP32": (1e-3, 1e-5), "FP16": (1e-2, 1e-3), "BF16": (2e-2, 1e-2)}
"""Relative and absolute: some tens of units in the last place of a sum, so another order of adding up is no difference."""
_UNTYPED = _TOLERANCES["FP32"]
"""Of numbers that a path finds: JSON does not tell how exact they are."""


class By(StrEnum):
    VALUES = "values"
    RANK = "rank"
    """The classes with the highest scores, in their order; of outputs that are no scores, values."""
    PATH = "path"


class Difference(StrEnum):
    """Why two answers differ. A bounded set: it labels series."""

    STATUS = "status"
    OUTPUTS = "outputs"
    """Other names, datatypes or shapes; a path that finds another number of values."""
    VALUES = "values"
    RANK = "rank"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a user calls alike."""

    by: By = By.VALUES
    relative: float | None = None
    absolute: float | None = None
    """None = as the datatype has it."""
    top: int = 1
    """By rank: so many of the highest scores."""
    path: str = ""
    """By path."""

    @classmethod
    def of(
        cls, *, by: str, relative: float | None = None, absolute: float | None = None, top: int = 1, path: str = ""
    ) -> Self:
        """Raises InvalidRequest naming the field. Whether the path is one is for who can read it to say."""
        if by not in set(By):
            raise InvalidRequest(f"by is one of {', '.join(By)}", field="by")
        for name, value in (("relative", relative), ("absolute", absolute)):
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise InvalidRequest(f"{name} is a number from 0 upwards", field=name)
        if not 1 <= top <= MOST_TOP:
            raise InvalidRequest(f"top is from 1 to {MOST_TOP}", field="top")
        if (by == By.PATH) != bool(path) or len(path) > MOST_PATH:
            raise InvalidRequest(f"a path of up to {MOST_PATH} characters goes with by=path", field="path")
        return cls(By(by), relative, absolute, top, path)

    def to_json(self) -> dict[str, Any]:
        return {
            "by": str(self.by), "relative": self.relative, "absolute": self.absolute, "top": self.top,
            "path": self.path,
        }  # fmt: skip

    def tolerance(self, *datatypes: str) -> tuple[float, float]:
        """Relative and absolute, of the coarsest of these datatypes; (0, 0) for numbers that are whole."""
        found = [_TOLERANCES.get(name, (0.0, 0.0)) for name in datatypes]
        relative, absolute = (max(each) for each in zip(*found, strict=True))
        return self._or(relative, absolute) if absolute else (0.0, 0.0)

    def untyped(self) -> tuple[float, float]:
        return self._or(*_UNTYPED)

    def _or(self, relative: float, absolute: float) -> tuple[float, float]:
        return (
            relative if self.relative is None else self.relative,
            absolute if self.absolute is None else self.absolute,
        )


@dataclass(frozen=True, slots=True)
class Tensor:
    """One output, flat in row-major order. JSON's null and NaN are the same."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Agreement:
    """`difference` is None where the answers are alike."""

    difference: Difference | None = None
    where: str = ""
    """The first place at which they differ; no value of an answer."""
    largest: float = 0.0
    """The largest absolute difference of two finite numbers, alike or not."""

    @property
    def alike(self) -> bool:
        return self.difference is None


def compare_statuses(one: int, other: int) -> Agreement:
    """Two calls of which at least one failed: alike when they failed in the same way."""
    return Agreement() if one == other else Agreement(Difference.STATUS, f"{one} and {other}")


def compare_outputs(one: Sequence[Tensor], other: Sequence[Tensor], how: Comparison) -> Agreement:
    """By values or by rank. Outputs are told by their names, whatever order they came in."""
    here, there = ({tensor.name: tensor for tensor in side} for side in (one, other))
    if here.keys() != there.keys():
        return Agreement(Difference.OUTPUTS, ", ".join(sorted(here.keys() ^ there.keys())))
    found = [_compare_tensors(tensor, there[name], how) for name, tensor in here.items()]
    return _together(found)


def compare_found(one: Sequence[Any], other: Sequence[Any], how: Comparison) -> Agreement:
    """What a path found in two JSON documents, in order: numbers as near as FP32, all else equal."""
    if len(one) != len(other):
        return Agreement(Difference.OUTPUTS, f"{len(one)} and {len(other)} values")
    return _together(
        _compare_json(a, b, how, f"[{place}]") for place, (a, b) in enumerate(zip(one, other, strict=True))
    )


def _compare_tensors(one: Tensor, other: Tensor, how: Comparison) -> Agreement:
    are_floats = [tensor.datatype in _TOLERANCES for tensor in (one, other)]
    if one.shape != other.shape or (one.datatype != other.datatype and not all(are_floats)):
        return Agreement(Difference.OUTPUTS, one.name)
    tolerance = how.tolerance(one.datatype, other.datatype)
    if how.by is By.RANK and all(are_floats) and one.shape and one.shape[-1] > 1:
        return _compare_ranks(one, other, how.top, tolerance)
    return _compare_values(one.values, other.values, tolerance, one.name)


def _compare_values(one: Sequence[Any], other: Sequence[Any], tolerance: tuple[float, float], name: str) -> Agreement:
    """Of equal length."""
    where, largest = "", 0.0
    for place, (a, b) in enumerate(zip_longest(one, other)):
        if a == b and isinstance(a, bool) == isinstance(b, bool):
            continue
        if _is_number(a) and _is_number(b):
            distance = abs(a - b)
            if math.isfinite(distance):
                largest = max(largest, distance)
        if not where and not _near(a, b, tolerance):
            where = f"{name}[{place}]"
    return Agreement(Difference.VALUES if where else None, where, largest)


def _compare_ranks(one: Tensor, other: Tensor, top: int, tolerance: tuple[float, float]) -> Agreement:
    """Row by row; what is nearly a tie in either answer may stand in either order."""
    width = one.shape[-1]
    largest = _compare_values(one.values, other.values, tolerance, one.name).largest
    for row, start in enumerate(range(0, len(one.values), width)):
        a, b = (_scores(side.values[start : start + width]) for side in (one, other))
        if not (_ranked(a, b, top, tolerance) or _ranked(b, a, top, tolerance)):
            return Agreement(Difference.RANK, f"{one.name}, row {row}", largest)
    return Agreement(largest=largest)


def _ranked(scores: list[float], by: list[float], top: int, tolerance: tuple[float, float]) -> bool:
    """Whether the classes in the order of `by` are in an order that these scores allow, too."""
    order = sorted(range(len(by)), key=by.__getitem__, reverse=True)[:top]
    best = sorted(scores, reverse=True)[:top]
    return all(
        _near(scores[place], score, tolerance) and (scores[place] == -math.inf) == (by[place] == -math.inf)
        for place, score in zip(order, best, strict=True)
    )


def _scores(values: Sequence[Any]) -> list[float]:
    """What is no number is the least."""
    return [-math.inf if value is None or math.isnan(value) else float(value) for value in values]


def _compare_json(one: Any, other: Any, how: Comparison, where: str) -> Agreement:
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return _together(_compare_json(a, b, how, f"{where}[{place}]") for place, (a, b) in pairs)
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return _together(_compare_json(value, other[name], how, f"{where}.{name}") for name, value in one.items())
    numbers = _is_number(one) and _is_number(other)
    found = _compare_values([one], [other], how.untyped() if numbers else (0.0, 0.0), "")
    return found if found.alike else Agreement(found.difference, where, found.largest)


def _together(parts: Iterable[Agreement]) -> Agreement:
    """The first difference, and the largest of all."""
    whole = Agreement()
    for part in parts:
        first = part if whole.alike else whole
        whole = Agreement(first.difference, first.where, max(whole.largest, part.largest))
    return whole


def _near(a: Any, b: Any, tolerance: tuple[float, float]) -> bool:
    if _is_nothing(a) or _is_nothing(b):
        return _is_nothing(a) and _is_nothing(b)
    if a == b and isinstance(a, bool) == isinstance(b, bool):
        return True
    if not (_is_number(a) and _is_number(b)) or math.isinf(a) or math.isinf(b):
        return False
    relative, absolute = tolerance
    return bool(abs(a - b) <= absolute + relative * max(abs(a), abs(b)))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
