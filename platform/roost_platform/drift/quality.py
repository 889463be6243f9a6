"""How right answers were: one request's feedback, and sums of it that add up over days and groups."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sums:
    answers: int = 0
    right: int = 0
    """Equal to their labels."""
    numbers: int = 0
    """Of which both are numbers; the sums below are theirs."""
    predicted: float = 0.0
    labelled: float = 0.0
    missed: float = 0.0
    """Absolute differences."""

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(*(getattr(self, name) + getattr(other, name) for name in Sums.__slots__))

    @property
    def accuracy(self) -> float | None:
        return self.right / self.answers if self.answers else None

    @property
    def bias(self) -> float | None:
        """By how much answers lie over their labels, on average; of classes 0 and 1: how much too often 1 is said."""
        return (self.predicted - self.labelled) / self.numbers if self.numbers else None

    @property
    def error(self) -> float | None:
        """Mean absolute difference."""
        return self.missed / self.numbers if self.numbers else None

    @property
    def mean(self) -> float | None:
        """Of the answers; of classes 0 and 1: how often 1 is said. Compared between groups, this is their parity."""
        return self.predicted / self.numbers if self.numbers else None


@dataclass(frozen=True, slots=True)
class Judged:
    """Feedback on one request: the true answer of each of its rows."""

    request_id: str
    labels: Sequence[float | str]
    group: str = ""
    version: int | None = None
    predicted: Sequence[float | str] | None = None
    """What was answered, if whoever tells knows."""

    def sums(self, predicted: Sequence[float | str]) -> Sums:
        """Rows without a label, or without an answer, are left out."""
        total = Sums()
        for answer, label in zip(predicted, self.labels, strict=False):
            a, b = _number(answer), _number(label)
            if a is None or b is None:
                total += Sums(1, int(str(answer) == str(label)))
            else:
                total += Sums(1, int(a == b), 1, a, b, abs(a - b))
        return total


def _number(value: float | str) -> float | None:
    if isinstance(value, str):
        return None
    return float(value) if math.isfinite(value) else None
