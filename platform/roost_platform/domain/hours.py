"""Full hours of UTC, at which everything that lasts is cut: roll-ups are by the hour, and every period begins at one."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

HOUR = timedelta(hours=1)


def hour_of(moment: datetime) -> datetime:
    """The full hour of UTC that an aware moment lies in."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def pieces(start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    """[start, end) cut at full hours, the first piece first; nothing when it is empty."""
    while start < end:
        until = min(end, hour_of(start) + HOUR)
        yield start, until
        start = until
