"""How far each run of a gateway has brought its usage to the database: so that a month can be said to be complete.

A run that lives says it now and then. One that is closed has brought everything; one that was killed says nothing more, and
what it left lies on its disk until it is started there again. Functions of a connection.
"""

from datetime import datetime

from sqlalchemy import Connection, func, or_, select, update

from roost_platform.database.money_tables import resource_usage, sources, usage_corrections
from roost_platform.database.tables import usage_events


def note_shipped(connection: Connection, source: str, until: datetime) -> None:
    """Write down that all usage of a run from before this moment is in the database."""
    row = sources.c
    behind = or_(row.shipped_until.is_(None), row.shipped_until < until)
    connection.execute(update(sources).where(row.source == source, behind).values(shipped_until=until))


def runs_behind(connection: Connection, until: datetime) -> list[str]:
    """The runs that may still hold usage of before this moment; by name."""
    row = sources.c
    waiting = or_(row.shipped_until.is_(None), row.shipped_until < until)
    query = select(row.source).where(row.started_at < until, row.closed_at.is_(None), waiting).order_by(row.source)
    return list(connection.scalars(query))


_USED = (
    (usage_events.c.tenant, usage_events.c.time),
    (usage_corrections.c.tenant, usage_corrections.c.time),
    (resource_usage.c.tenant, resource_usage.c.start),
)


def users(connection: Connection) -> list[str]:
    """Every tenant that ever used anything, deleted ones as well. From one to the next by the indexes."""
    found = set()
    for tenant, _ in _USED:
        last = connection.scalar(select(func.min(tenant)))
        while last is not None:
            found.add(last)
            last = connection.scalar(select(func.min(tenant)).where(tenant > last))
    return sorted(found)


def first_use(connection: Connection, tenant: str, since: datetime) -> datetime | None:
    """When a tenant first used anything from this moment on."""
    found = [connection.scalar(select(func.min(time)).where(column == tenant, time >= since)) for column, time in _USED]
    return min((time for time in found if time is not None), default=None)
