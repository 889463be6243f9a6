"""One line of a verdict: what was measured, what it is compared with, and what came of it."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Criterion:
    """`id` is stable, for programs; the field names are those of verdict.json."""

    id: str
    title: str
    passed: bool | None
    """None = there was nothing to compare with, or nothing was told: it is shown, and decides nothing."""
    measured: float | None = None
    limit: float | None = None
    relation: str = "<="
    """How `measured` must stand to `limit`."""
    unit: str = ""
    """`s`, `share`, or what is counted."""
    target: str = ""
    """The model, as `acme/iris`; empty = the whole run."""
    from_s: float | None = None
    """Seconds from the start of the run in which it was measured; None = all of it."""
    to_s: float | None = None
    detail: str = ""
    """A sentence for people."""

    def to_json(self) -> dict[str, Any]:
        return {name: _rounded(getattr(self, name)) for name in self.__slots__}

    @property
    def where(self) -> str:
        """Of what: the model, the seconds."""
        times = f"{self.from_s:g}-{self.to_s:g} s" if self.from_s is not None and self.to_s is not None else ""
        return " ".join(filter(None, (self.target, times)))


def at_most(measured: float | None, limit: float | None) -> bool | None:
    return None if measured is None or limit is None else measured <= limit


def at_least(measured: float | None, limit: float | None) -> bool | None:
    return None if measured is None or limit is None else measured >= limit


def shown(value: float | None, unit: str) -> str:
    """A figure for people: `12.3 ms`, `99.2 %`, `400 requests`."""
    if value is None:
        return "-"
    if unit == "s":
        return f"{value:.3g} s" if value >= 1 else f"{value * 1000:.3g} ms"
    if unit == "share":
        return f"{value * 100:.4g} %"
    return f"{value:,.6g} {unit}".rstrip()


def _rounded(value: object) -> object:
    return round(value, 6) if isinstance(value, float) else value
