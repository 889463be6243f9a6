"""Billing months: calendar months in UTC."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from roost_platform.domain.errors import InvalidRequest

_MONTH = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])")


@dataclass(frozen=True, slots=True, order=True)
class Month:
    """[start, end) in UTC: a call answered at midnight belongs to the month that begins."""

    start: datetime
    end: datetime

    def __str__(self) -> str:
        return f"{self.start:%Y-%m}"


def parse_month(text: str) -> Month:
    """Read `2026-11`. Raises InvalidRequest for anything else (years 1970 to 9998)."""
    found = _MONTH.fullmatch(text)
    year = int(found[1]) if found else 0
    if found is None or not 1970 <= year <= 9998:
        raise InvalidRequest("month must be written like 2026-11", code="invalid_month", field="month")
    return _month(year, int(found[2]))


def month_of(at: datetime) -> Month:
    """The month that holds this moment."""
    utc = at.astimezone(UTC)
    return _month(utc.year, utc.month)


def _month(year: int, number: int) -> Month:
    following = (year, number + 1) if number < 12 else (year + 1, 1)
    return Month(datetime(year, number, 1, tzinfo=UTC), datetime(*following, 1, tzinfo=UTC))
