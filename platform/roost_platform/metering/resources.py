"""Adding to what tenants held over time, which takes each (source, id) once, for ever. Functions of a connection.

The same stretch again changes nothing. Another one under a known key is put aside beside the ledger, and the first stays.
The hours that are added to are marked in the same transaction: their roll-ups are behind.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, func, select, tuple_

from roost_platform.database.money_tables import resource_usage
from roost_platform.domain.hours import hour_of
from roost_platform.domain.resources import ResourceKind, ResourceUsage
from roost_platform.metering.conflicts import put_aside
from roost_platform.metering.recording import insert_for, mark_dirty
from roost_platform.metering.resource_lines import to_values

RESOURCES = "resources"
"""The kind of dirty hours whose stretches these are."""
_AT_ONCE = 200
"""Keys in one question."""
_Key = tuple[str, str]


class RecordedResources(NamedTuple):
    """What became of stretches."""

    new: int
    repeated: int
    conflicts: int
    """They were put aside: others are held under their keys. Those that came before as well are not counted."""


def record_resources(connection: Connection, usages: Iterable[ResourceUsage]) -> RecordedResources:
    """Add the stretches that are not held yet."""
    given = list(usages)
    first: dict[_Key, ResourceUsage] = {}
    for usage in given:
        first.setdefault((usage.source, usage.id), usage)
    added = _insert(connection, first)
    mark_dirty(connection, RESOURCES, {(first[key].tenant, hour_of(first[key].start)) for key in added})
    held = first | _read(connection, [key for key in first if key not in added])
    others = [usage for usage in given if held[usage.source, usage.id] != usage]
    conflicts = put_aside(connection, [tuple(to_values(usage)) for usage in others])
    return RecordedResources(len(added), len(given) - len(added) - len(others), conflicts)


def told_until(connection: Connection, source: str, replicas: Sequence[str]) -> dict[str, datetime]:
    """By replica, the end of the last of its stretches from this source; those of which there is none are left out.

    For sources whose ids are `<replica>/<digits>`: the primary key is enough to find them, in any collation.
    """
    stretch = resource_usage.c
    ends = {}
    for replica in replicas:
        ids = stretch.id.between(f"{replica}/0", f"{replica}/{'9' * 20}")
        end: datetime | None = connection.scalar(
            select(func.max(stretch.end)).where(stretch.source == source, ids, stretch.replica == replica)
        )
        if end is not None:
            ends[replica] = end
    return ends


def _insert(connection: Connection, usages: dict[_Key, ResourceUsage]) -> set[_Key]:
    """The keys that were not there."""
    if not usages:
        return set()
    # In the order of their keys: of two that add the same stretches in two orders, each would wait for the other.
    rows = [asdict(usages[key]) for key in sorted(usages)]
    stretch = resource_usage.c
    insert = insert_for(connection.dialect)(resource_usage).on_conflict_do_nothing()
    return {(source, id_) for source, id_ in connection.execute(insert.returning(stretch.source, stretch.id), rows)}


def _read(connection: Connection, keys: list[_Key]) -> dict[_Key, ResourceUsage]:
    found = {}
    stretch = resource_usage.c
    for start in range(0, len(keys), _AT_ONCE):
        these = tuple_(stretch.source, stretch.id).in_(keys[start : start + _AT_ONCE])
        for row in connection.execute(resource_usage.select().where(these)).mappings():
            usage = ResourceUsage(**{**row, "kind": ResourceKind(row["kind"])})
            found[usage.source, usage.id] = usage
    return found
