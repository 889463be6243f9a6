"""What a model's owner wants looked at."""

from dataclasses import dataclass
from typing import Any, Self

MOST_RATE = 100.0


@dataclass(frozen=True, slots=True)
class DriftWish:
    """Of one model."""

    rate: float = 1.0
    """Calls that each gateway looks at, a second, at most; 0 = none."""
    skip: tuple[str, ...] = ()
    """Inputs and outputs that are not looked at."""
    keep_answers: bool = False
    """Whether answers that were looked at are kept for feedback, by request id."""
    reference_rows: int = 1000
    """The first so many rows are a version's reference, unless it is given one."""

    def to_json(self) -> dict[str, Any]:
        return {
            "rate": self.rate, "skip": list(self.skip), "keep_answers": self.keep_answers,
            "reference_rows": self.reference_rows,
        }  # fmt: skip

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        return cls(**{**document, "skip": tuple(document["skip"])})
