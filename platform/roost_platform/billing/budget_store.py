"""Budgets, the alerts that were raised, and who is capped, in the database. Functions of a connection.

Whoever looks at what is spent ends here, in `settle`: it locks the budget, so that two who look at once decide one after
the other, and an alert is a row whose key is what it is about: raised once, whoever raises it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, and_, delete, insert, select, true, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.elements import ColumnElement

from roost_platform.billing.budgets import Alert, Budget, Cap, pause_before
from roost_platform.billing.months import Month, parse_month
from roost_platform.database.changes import note_change
from roost_platform.database.money_tables import budget_alerts, budgets
from roost_platform.database.tables import tenants
from roost_platform.domain.errors import NotFound


@dataclass(frozen=True, slots=True)
class Kept:
    """A budget, with what was found out about it before."""

    budget: Budget
    cap: Cap | None
    """It may be of a month that is over: `until` says."""
    told: frozenset[int]
    """The thresholds whose alerts were raised in the month that was asked for, for this amount."""

    def changes(self, spent: Decimal, month: Month, now: datetime) -> bool:
        """Whether `settle` would write anything."""
        return bool(self.budget.due(spent, self.told)) or _cap_after(self, spent, month, now) != self.cap


@dataclass(frozen=True, slots=True)
class Settled:
    """What came of a look at what is spent."""

    cap: Cap | None
    raised: tuple[Alert, ...]
    """Alerts that are new."""


def kept(connection: Connection, month: Month, *, tenant: str | None = None) -> list[Kept]:
    """All budgets, or a tenant's, by name."""
    rows = connection.execute(select(budgets).where(_of(tenant)).order_by(budgets.c.tenant)).mappings().all()
    alert = budget_alerts.c
    told: dict[tuple[str, str], set[int]] = {}
    query = select(alert.tenant, alert.amount, alert.threshold).where(alert.month == str(month))
    for name, amount, threshold in connection.execute(query if tenant is None else query.where(alert.tenant == tenant)):
        told.setdefault((name, amount), set()).add(threshold)
    return [Kept(_budget(row), _cap(row), frozenset(told.get((row["tenant"], row["amount"]), ()))) for row in rows]


def caps(connection: Connection, *, tenant: str | None = None) -> dict[str, Cap]:
    """Whose budget was found used up; some of it may have been in a month that is over."""
    rows = connection.execute(select(budgets).where(_of(tenant), budgets.c.capped_month != "")).mappings()
    return {row["tenant"]: cap for row in rows if (cap := _cap(row)) is not None}


def put_budget(connection: Connection, budget: Budget) -> None:
    """Set a tenant's budget, in place of the one it had. Raises NotFound when there is no such tenant (any more)."""
    found = select(tenants.c.name).where(tenants.c.name == budget.tenant).with_for_update(read=True)
    if connection.scalar(found) is None:
        raise NotFound("no such tenant")
    values: dict[str, Any] = {
        "amount": budget.text(budget.amount),
        "currency": budget.currency,
        "thresholds": list(budget.thresholds),
        "hard_cap": budget.hard_cap,
        "changed_at": budget.changed_at,
    }
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    row = dialect.insert(budgets).values(tenant=budget.tenant, capped_month="", capped_spent="0", **values)
    connection.execute(row.on_conflict_do_update(index_elements=[budgets.c.tenant], set_=values))
    note_change(connection, budget.tenant)


def remove_budget(connection: Connection, tenant: str) -> None:
    """Nobody is told of anything from now on, and nothing is refused. No harm when there is none."""
    if connection.execute(delete(budgets).where(budgets.c.tenant == tenant)).rowcount:
        note_change(connection, tenant)


def settle(
    connection: Connection, tenant: str, *, month: Month, spent: Decimal, now: datetime, tell: bool
) -> Settled | None:
    """Raise the alerts that are due and say whether the tenant is capped; None when there is no budget (any more).

    `spent`: in `month`, which is the running one or one just over; only the running one can be capped. `tell`: the alerts
    are to be delivered to somebody. All gateways are told of a cap that begins or ends.
    """
    connection.execute(select(budgets.c.tenant).where(budgets.c.tenant == tenant).with_for_update())
    for found in kept(connection, month, tenant=tenant):
        raised = _raise(connection, found, month, spent, now, tell=tell)
        cap = _cap_after(found, spent, month, now)
        if cap != found.cap:
            capped = {"capped_month": str(month), "capped_spent": str(cap.used)} if cap else {"capped_month": ""}
            connection.execute(update(budgets).where(_of(tenant)).values(capped))
            note_change(connection, tenant)
        return Settled(cap, raised)
    return None


def alerts_of(connection: Connection, tenant: str, month: Month) -> list[Alert]:
    """Those of a month, in the order in which they were raised."""
    row = budget_alerts.c
    query = select(budget_alerts).where(row.tenant == tenant, row.month == str(month))
    return [_alert(found) for found in connection.execute(query.order_by(row.at, row.threshold)).mappings()]


def undelivered(connection: Connection, now: datetime, *, limit: int) -> list[Alert]:
    """Alerts that somebody has to be told of now, those that wait longest first."""
    row = budget_alerts.c
    query = select(budget_alerts).where(row.next_try_at <= now).order_by(row.next_try_at, row.tenant).limit(limit)
    return [_alert(found) for found in connection.execute(query).mappings()]


def note_tries(connection: Connection, alerts: Mapping[Alert, bool], now: datetime) -> None:
    """Write down what came of sending these: delivered, or to be tried again later."""
    for alert, delivered in alerts.items():
        tries = alert.tries + 1
        outcome = (
            {"delivered_at": now, "next_try_at": None} if delivered else {"next_try_at": now + pause_before(tries)}
        )
        connection.execute(update(budget_alerts).where(_key_is(alert)).values(tries=tries, **outcome))


def _raise(
    connection: Connection, found: Kept, month: Month, spent: Decimal, now: datetime, *, tell: bool
) -> tuple[Alert, ...]:
    budget = found.budget
    alerts = [
        Alert(
            tenant=budget.tenant,
            month=str(month),
            threshold=threshold,
            amount=Decimal(budget.text(budget.amount)),
            currency=budget.currency,
            spent=spent,
            at=now,
            next_try_at=now if tell else None,
        )
        for threshold in budget.due(spent, found.told)
    ]
    if alerts:
        connection.execute(insert(budget_alerts), [_values(alert, budget) for alert in alerts])
    return tuple(alerts)


def _cap_after(found: Kept, spent: Decimal, month: Month, now: datetime) -> Cap | None:
    if not month.start <= now < month.end:
        return found.cap
    if not found.budget.exhausted(spent):
        return None
    if found.cap is not None and found.cap.until == month.end:
        return found.cap
    return Cap(month.end, found.budget.amount, Decimal(found.budget.text(spent)), found.budget.currency)


def _of(tenant: str | None) -> ColumnElement[bool]:
    return true() if tenant is None else budgets.c.tenant == tenant


def _key_is(alert: Alert) -> ColumnElement[bool]:
    row = budget_alerts.c
    return and_(
        row.tenant == alert.tenant,
        row.month == alert.month,
        row.threshold == alert.threshold,
        row.amount == str(alert.amount),
    )


def _budget(row: Mapping[Any, Any]) -> Budget:
    return Budget(
        tenant=row["tenant"],
        amount=Decimal(row["amount"]),
        currency=row["currency"],
        thresholds=tuple(row["thresholds"]),
        hard_cap=row["hard_cap"],
        changed_at=row["changed_at"],
    )


def _cap(row: Mapping[Any, Any]) -> Cap | None:
    if not row["capped_month"]:
        return None
    until = parse_month(row["capped_month"]).end
    return Cap(until, Decimal(row["amount"]), Decimal(row["capped_spent"]), row["currency"])


def _alert(row: Mapping[Any, Any]) -> Alert:
    return Alert(**{**row, "amount": Decimal(row["amount"]), "spent": Decimal(row["spent"])})


def _values(alert: Alert, budget: Budget) -> dict[str, Any]:
    return {
        name: getattr(alert, name)
        for name in ("tenant", "month", "threshold", "currency", "at", "tries", "next_try_at")
    } | {"amount": str(alert.amount), "spent": budget.text(alert.spent)}
