"""What a tenant used, as rating takes it: where the sums of metering meet the meters of billing."""

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import pairwise

from sqlalchemy import Connection

from roost_platform.billing.lines import MeteredUsage
from roost_platform.domain.meters import Meter
from roost_platform.metering.hours import usage_between

_OF_CALLS = {
    Meter.REQUESTS: "requests",
    Meter.INFERENCES: "rows",
    Meter.COMPUTE: "compute_us",
    Meter.BYTES_IN: "bytes_in",
    Meter.BYTES_OUT: "bytes_out",
}
_OF_RESOURCES = {
    Meter.SETUP: "setup_us",
    Meter.ACTIVE: "active_us",
    Meter.IDLE: "idle_us",
    Meter.RESERVED: "reserved_us",
    Meter.PULL: "pull_us",
    Meter.SCHEDULE: "schedule_us",
    Meter.LOAD: "load_us",
    Meter.COLD_STARTS: "cold_starts",
    Meter.STORAGE: "byte_seconds",
    Meter.CHECK: "job_us",
}


def metered(connection: Connection, *, tenant: str, edges: Iterable[datetime]) -> list[MeteredUsage]:
    """All that the tenant used between the first and the last of these rising moments, summed between each two.

    From the hourly roll-ups, and from the events where those are behind; amounts of nothing are left out.
    """
    return [piece for start, end in pairwise(edges) for piece in _between(connection, tenant, start, end)]


def _between(connection: Connection, tenant: str, start: datetime, end: datetime) -> Iterator[MeteredUsage]:
    sums = usage_between(connection, tenant, start, end)
    found: Counter[tuple[str, Meter, str]] = Counter()  # versions do not matter to prices
    for call in sums.calls:
        for meter, name in _OF_CALLS.items():
            found[call.model, meter, str(call.outcome)] += getattr(call, name)
    for held in sums.resources:
        for meter, name in _OF_RESOURCES.items():
            found[held.model, meter, held.resource_class] += getattr(held, name)
    for (model, meter, variant), quantity in found.items():
        if quantity:
            yield MeteredUsage(model, meter, variant, start, end, quantity)
