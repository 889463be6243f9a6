"""Shadows: a copy of a model's calls to another version, whose answers nobody gets; and what came of them. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from roost_platform.domain.comparing import Agreement, Comparison

MOST_EXAMPLES = 10
"""That are told, and kept by each run of a gateway."""


@dataclass(frozen=True, slots=True)
class ShadowPlan:
    """What is asked for."""

    to: int
    """The version that gets copies."""
    percent: int = 100
    """Of the calls that others answer, 1 to 100; in even turns."""
    wake: bool = False
    """Whether a copy may wake the version; else it gets none while it sleeps."""
    keep_bodies: bool = False
    """Whether examples hold what was asked and answered."""
    comparison: Comparison = field(default_factory=Comparison)

    def to_json(self) -> dict[str, Any]:
        return {
            "to": self.to, "percent": self.percent, "wake": self.wake, "keep_bodies": self.keep_bodies,
            "compare": self.comparison.to_json(),
        }  # fmt: skip

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Of what `to_json` made."""
        rest = {name: value for name, value in document.items() if name != "compare"}
        return cls(**rest, comparison=Comparison.of(**document["compare"]))


@dataclass(frozen=True, slots=True)
class Shadow:
    """As stored."""

    id: str
    """Another one each time it is set: what was counted for an earlier one is not this one's."""
    plan: ShadowPlan
    began_at: datetime


@dataclass(frozen=True, slots=True)
class Example:
    """One difference."""

    at: str
    """ISO 8601, UTC."""
    request_id: str
    version: int
    """Whose answer the caller got."""
    difference: str
    where: str
    request: str | None = None
    """The beginnings of the bodies; None unless they are to be kept."""
    served: str | None = None
    copied: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class ShadowSums:
    """What was counted of one shadow. Of several gateways they add up."""

    answered: int = 0
    """Copies that the version answered."""
    alike: int = 0
    differences: Counter[str] = field(default_factory=Counter)
    """By kind."""
    uncompared: Counter[str] = field(default_factory=Counter)
    """Copies that were answered but not compared, by why."""
    failed: Counter[str] = field(default_factory=Counter)
    """Copies that got no answer of the version, by code."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Calls whose turn it was, and which were not copied, by why."""
    largest: float = 0.0
    compute_us: int = 0
    """That the version took for what it answered."""
    served_us: int = 0
    """That was taken for the same calls by those whose answers the callers got."""
    examples: list[Example] = field(default_factory=list)
    """The last ones."""

    @property
    def compared(self) -> int:
        return self.alike + self.differences.total()

    def add(self, agreement: Agreement) -> None:
        self.largest = max(self.largest, agreement.largest)
        if agreement.difference is None:
            self.alike += 1
        else:
            self.differences[agreement.difference] += 1

    def show(self, example: Example) -> None:
        self.examples = [*self.examples, example][-MOST_EXAMPLES:]

    def to_json(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in _NUMBERS} | {name: dict(getattr(self, name)) for name in _COUNTS}
        return plain | {"largest": self.largest, "examples": [example.to_json() for example in self.examples]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        counts = {name: Counter(document[name]) for name in _COUNTS}
        examples = [Example(**example) for example in document["examples"]]
        return cls(**{**document, **counts, "examples": examples})

    @classmethod
    def together(cls, parts: Sequence["ShadowSums"]) -> Self:
        whole = cls()
        for part in parts:
            for name in _NUMBERS:
                setattr(whole, name, getattr(whole, name) + getattr(part, name))
            for name in _COUNTS:
                getattr(whole, name).update(getattr(part, name))
            whole.largest = max(whole.largest, part.largest)
        examples = sorted((each for part in parts for each in part.examples), key=lambda each: each.at)
        whole.examples = examples[-MOST_EXAMPLES:]
        return whole


_NUMBERS = ("answered", "alike", "compute_us", "served_us")
_COUNTS = ("differences", "uncompared", "failed", "dropped")
