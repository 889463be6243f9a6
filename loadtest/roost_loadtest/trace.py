"""Replaying what functions in production were asked: invocation counts per minute, as Azure Functions' public trace has them.

The file is CSV with a first line `HashOwner,HashApp,HashFunction,Trigger,1,2,…,1440`: a row is one function's day, a number
one minute's invocations. A file with fewer minutes, or without the hashes, is as good: columns whose name is a number count.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

from roost_loadtest.shapes import Shape, counted

_MINUTE_S = 60.0
_NAMES = ("HashOwner", "HashApp", "HashFunction", "Trigger")


@dataclass(frozen=True, slots=True)
class Row:
    """One function's invocations, minute by minute."""

    owner: str
    app: str
    function: str
    trigger: str
    counts: tuple[int, ...]

    @property
    def calls(self) -> int:
        return sum(self.counts)


def read(path: Path) -> list[Row]:
    """Raises OSError, and ValueError for a file that is no such trace."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file)
        names = [name.strip() for name in next(rows, [])]
        minutes = [index for index, name in enumerate(names) if name.isdecimal()]
        if not minutes:
            raise ValueError(f"{path}: no column is named by the number of a minute")
        places = {name: index for index, name in enumerate(names)}
        found = []
        for cells in rows:
            if not cells:
                continue
            try:
                counts = tuple(int(cells[index] or 0) for index in minutes)
            except (ValueError, IndexError):
                raise ValueError(f"{path}, line {rows.line_num}: a count of invocations is missing or none") from None
            if min(counts) < 0:
                raise ValueError(f"{path}, line {rows.line_num}: fewer than no invocations")
            owner, app, function, trigger = (cells[places[name]] if name in places else "" for name in _NAMES)
            found.append(Row(owner, app, function, trigger, counts))
    if not found:
        raise ValueError(f"{path}: a trace without rows")
    return found


def choose(rows: list[Row], which: str = "") -> list[Row]:
    """Those whose owner, app or function begins so, or the n-th row (`#3`, from 1); all of them without a choice.

    Raises ValueError when there is none.
    """
    if which.startswith("#"):
        if not (which[1:].isdecimal() and 1 <= int(which[1:]) <= len(rows)):
            raise ValueError(f"the trace has rows #1 to #{len(rows)}")
        return [rows[int(which[1:]) - 1]]
    chosen = [row for row in rows if any(each.startswith(which) for each in (row.function, row.app, row.owner))]
    if not chosen:
        raise ValueError(f"no owner, app or function of the trace begins with {which!r}")
    return chosen


def shape_of(
    rows: list[Row], *, speed: float = 1.0, scale: float = 1.0, first_minute: int = 1, minutes: int | None = None
) -> Shape:
    """The rows together, `speed` times as fast: as many calls in less time. `scale`: that many times as many calls.

    `first_minute` counts from 1. Raises ValueError for minutes that the trace does not have.
    """
    if scale <= 0:
        raise ValueError("a trace is scaled by a number above 0")
    length = max(len(row.counts) for row in rows)
    if not 1 <= first_minute <= length:
        raise ValueError(f"the trace has minutes 1 to {length}")
    end = length if minutes is None else min(length, first_minute - 1 + minutes)
    if end < first_minute:
        raise ValueError("a trace of no minutes")
    sums = [sum(row.counts[m] for row in rows if m < len(row.counts)) for m in range(first_minute - 1, end)]
    return counted([count * scale for count in sums], every_s=_MINUTE_S, speed=speed)
