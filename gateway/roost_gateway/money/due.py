"""Which statements are due: of whom, for which months. Functions of a connection; they ask and write nothing."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select

from roost_platform.billing.late import LATEST, still_corrected
from roost_platform.billing.months import Month, month_of, parse_month
from roost_platform.billing.statements import Kind
from roost_platform.database.money_tables import statements
from roost_platform.metering.progress import first_use, users

_BEGINNING = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


@dataclass(frozen=True, slots=True)
class Due:
    """A tenant's month that ended long enough ago and has no statement."""

    tenant: str
    month: Month
    quiet: bool = False
    """Nothing was used in it: its statement is made if it has corrections of earlier months."""


def find_due(connection: Connection, *, before: datetime, since: datetime | None = None) -> list[Due]:
    """Months that ended by then, in which a tenant used something, and that have no statement; the oldest first.

    `since`: only months from the one on that holds this moment; None = all. Among them are quiet ones, of the last weeks.
    To be run by `Database.read`.
    """
    found = []
    for tenant in users(connection):
        row = statements.c
        final = set(connection.scalars(select(row.month).where(row.tenant == tenant, row.kind == Kind.STATEMENT)))
        at = _BEGINNING if since is None else month_of(since).start
        used_in = set()
        while (used := first_use(connection, tenant, at)) is not None and (month := month_of(used)).end <= before:
            used_in.add(month)
            at = month.end
        found += [Due(tenant, month) for month in used_in if str(month) not in final]
        found += [
            Due(tenant, month, quiet=True)
            for month in just_over(before)
            if month not in used_in and str(month) not in final and _may_correct(month, final)
        ]
    return sorted(found, key=lambda due: (due.month, due.tenant))


def just_over(before: datetime) -> list[Month]:
    """The months that ended within the time in which usage may come late."""
    found, month = [], month_of(month_of(before).start - datetime.resolution)
    while month.end > before - LATEST:
        found.append(month)
        month = month_of(month.start - datetime.resolution)
    return found


def _may_correct(month: Month, final: set[str]) -> bool:
    return any(still_corrected(parse_month(earlier), month) for earlier in final)


def is_final(connection: Connection, tenant: str, month: Month) -> bool:
    row = statements.c
    query = select(row.id).where(row.tenant == tenant, row.month == str(month), row.kind == Kind.STATEMENT)
    return connection.scalar(query) is not None
