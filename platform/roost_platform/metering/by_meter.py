"""Usage one meter a row: calls and resources in one table, whose rows all have the same form."""

from collections.abc import Iterable, Iterator
from typing import Any

from roost_platform.domain.meters import Meter
from roost_platform.metering.ledger import UsageReport
from roost_platform.metering.resource_report import Key, ResourceReport

_OF_CALLS = {
    Meter.REQUESTS: ("requests", "requests"),
    Meter.INFERENCES: ("rows", "rows"),
    Meter.COMPUTE: ("compute_us", "microseconds"),
    Meter.BYTES_IN: ("bytes_in", "bytes"),
    Meter.BYTES_OUT: ("bytes_out", "bytes"),
}
"""The figure of a report and its unit."""
_OF_RESOURCES = {
    Meter.SETUP: ("setup_us", "microseconds"),
    Meter.ACTIVE: ("active_us", "microseconds"),
    Meter.IDLE: ("idle_us", "microseconds"),
    Meter.RESERVED: ("reserved_us", "microseconds"),
    Meter.PULL: ("pull_us", "microseconds"),
    Meter.SCHEDULE: ("schedule_us", "microseconds"),
    Meter.LOAD: ("load_us", "microseconds"),
    Meter.COLD_STARTS: ("cold_starts", "cold starts"),
    Meter.STORAGE: ("byte_seconds", "byte-seconds"),
    Meter.CHECK: ("job_us", "microseconds"),
}


def by_meter(keys: Iterable[str], calls: UsageReport, resources: ResourceReport) -> list[dict[str, Key]]:
    """`keys`, then `meter`, `quantity` and `unit`; ordered by keys, then as `Meter` lists them.

    A key that a meter does not have (calls have no class, replicas no outcome) is empty. Meters of which there was
    nothing are left out.
    """
    names = tuple(dict.fromkeys(keys))
    rows = [*_rows(names, calls.rows, _OF_CALLS), *_rows(names, resources.rows, _OF_RESOURCES)]
    order = {str(meter): place for place, meter in enumerate(Meter)}
    return sorted(rows, key=lambda row: ([row[name] for name in names], order[str(row["meter"])]))


def _rows(
    names: tuple[str, ...], rows: Iterable[Any], meters: dict[Meter, tuple[str, str]]
) -> Iterator[dict[str, Key]]:
    for row in rows:
        keys = {name: row.keys.get(name, "") for name in names}
        for meter, (figure, unit) in meters.items():
            if quantity := getattr(row.figures, figure):
                yield keys | {"meter": str(meter), "quantity": quantity, "unit": unit}
