"""Routes about a tenant's budget. Everybody who reads a tenant's bill sees it; only the operator sets it."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import BaseModel, BeforeValidator, Field, StrictBool

from roost_gateway.api.callers import OperatorCaller, Reader
from roost_gateway.api.correction_events import to_int
from roost_gateway.api.documents import Request
from roost_gateway.api.faults import faults
from roost_gateway.api.services import Parts
from roost_gateway.money.budgets import Report
from roost_platform.billing.budgets import LARGEST_PERCENT, MOST_THRESHOLDS, Budget

router = APIRouter(prefix="/api/v1/budget", tags=["usage and money"])

_DEFAULT_THRESHOLDS = [50, 80, 100]


_Percent = Annotated[int, Field(strict=True, ge=1, le=LARGEST_PERCENT), BeforeValidator(to_int)]


class BudgetWish(Request):
    amount: str = Field(
        pattern=r"^[0-9]{1,12}(\.[0-9]{1,4})?$",
        description="For each calendar month (UTC), in the currency of the prices: a decimal string over 0.",
        examples=["250.00"],
    )
    thresholds: list[_Percent] = Field(
        default=_DEFAULT_THRESHOLDS,
        max_length=MOST_THRESHOLDS,
        description="Percents of the amount, ascending: an alert is raised at each.",
        examples=[_DEFAULT_THRESHOLDS],
    )
    hard_cap: StrictBool = Field(
        default=False, description="Refuse predictions (429 `budget_exhausted`) once the amount is spent."
    )


class AlertDocument(BaseModel):
    threshold: int = Field(description="Percent of the amount.", examples=[80])
    amount: str = Field(description="The budget when it was raised.")
    spent: str
    at: datetime
    delivered_at: datetime | None = Field(description="When the operator's webhook took it.")


class BudgetDocument(BaseModel):
    """A budget and how it stands; money is in decimal strings."""

    tenant: str = Field(examples=["acme"])
    month: str = Field(examples=["2026-11"])
    currency: str = Field(examples=["USD"])
    amount: str = Field(examples=["250.00"])
    thresholds: list[int] = Field(examples=[_DEFAULT_THRESHOLDS])
    hard_cap: bool
    changed_at: datetime
    spent: str = Field(description="This month so far, as on the statement.", examples=["105.30"])
    ratio: str = Field(description="spent / amount, rounded down to four decimals.", examples=["0.4212"])
    forecast: str | None = Field(
        description="What the month will cost if it goes on as it went so far: spent x length of the month / time that "
        "has passed, a straight line. Null in a month's first 24 hours.",
        examples=["171.90"],
    )
    capped_until: datetime | None = Field(description="Predictions are refused until then; null: they are not.")
    alerts: list[AlertDocument] = Field(description="Those raised this month.")


@router.get("", summary="Show a budget", responses=faults(403, 404, 409))
async def get_budget(tenant: Reader, parts: Parts) -> BudgetDocument:
    """The tenant's budget, what is spent of it, and where that leads. 404 `no_budget` when none is set."""
    await parts.drain()
    return _document(await parts.budgets.report(tenant.name))


@router.put("", summary="Set a budget", responses=faults(403, 404, 413, 507))
async def put_budget(_operator: OperatorCaller, tenant: Reader, parts: Parts, wish: BudgetWish) -> BudgetDocument:
    """In place of the one there was. It holds when the answer comes: thresholds that are passed already are told of, and
    a hard cap that is reached is in force, or one that is no longer reached is not.
    """
    await parts.drain()
    budget = Budget(
        tenant=tenant.name,
        amount=Decimal(wish.amount),
        currency=parts.budgets.currency,
        thresholds=tuple(wish.thresholds),
        hard_cap=wish.hard_cap,
        changed_at=parts.clock(),
    )
    await parts.budgets.put(budget)
    return _document(await parts.budgets.report(tenant.name))


@router.delete("", status_code=204, response_class=Response, summary="Remove a budget", responses=faults(403, 404, 507))
async def delete_budget(_operator: OperatorCaller, tenant: Reader, parts: Parts) -> None:
    """Alerts that were raised are kept. Again is fine."""
    await parts.budgets.remove(tenant.name)


def _document(report: Report) -> BudgetDocument:
    budget, cap = report.kept.budget, report.kept.cap
    return BudgetDocument(
        tenant=budget.tenant,
        month=str(report.month),
        currency=budget.currency,
        amount=budget.text(budget.amount),
        thresholds=list(budget.thresholds),
        hard_cap=budget.hard_cap,
        changed_at=budget.changed_at,
        spent=budget.text(report.spent),
        ratio=f"{budget.ratio(report.spent):f}",
        forecast=None if report.forecast is None else budget.text(report.forecast),
        capped_until=cap.until if cap is not None and report.now < cap.until else None,
        alerts=[
            AlertDocument(
                threshold=alert.threshold,
                amount=budget.text(alert.amount),
                spent=budget.text(alert.spent),
                at=alert.at,
                delivered_at=alert.delivered_at,
            )
            for alert in report.alerts
        ],
    )
