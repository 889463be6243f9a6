"""The route with the operator's view of a month over all tenants."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from roost_gateway.api.callers import OperatorCaller
from roost_gateway.api.faults import faults
from roost_gateway.api.services import Parts
from roost_gateway.money.overview import Idle, Overview, TenantMonth, make_overview
from roost_platform.billing.months import month_of, parse_month

router = APIRouter(prefix="/api/v1", tags=["usage and money"])

_TOP_MODELS = 3


class IdleDocument(BaseModel):
    idle_us: int = Field(description="Microseconds of replicas that did nothing and that `min-scale` does not ask for.")
    reserved_us: int = Field(description="The same of those it asks for.")
    unpriced_us: int = Field(description="Of both, those for which no price is known; they are in no amount.")
    worth: str = Field(
        description="What these seconds cost by the price book; those that are free in it at what a second of that class"
        " costs in it when it is reserved, idle, active or computing, the first of these that is not free."
    )
    billed: str = Field(description="What tenants pay for them.")
    not_billed: str = Field(description="The rest: what the operator bears.")


class ModelAmountDocument(BaseModel):
    model: str = Field(description="Empty for what concerns the tenant as a whole.", examples=["iris"])
    amount: str = Field(examples=["12.30"])


class TenantModelDocument(ModelAmountDocument):
    tenant: str = Field(examples=["acme"])


class MonthFigures(BaseModel):
    amount: str = Field(examples=["105.30"])
    calls: int = Field(description="All calls, refused ones included.")
    charged_calls: int
    unknown_calls: int = Field(description="Calls of which nobody knows how they ended; never charged.")
    cold_starts: int = Field(description="Replicas that were woken by a request.")
    idle: IdleDocument


class TenantMonthDocument(MonthFigures):
    tenant: str = Field(examples=["acme"])
    status: str = Field(description="Of the statement that the amount is from.", examples=["open"])
    top_models: list[ModelAmountDocument] = Field(description=f"At most {_TOP_MODELS}, the largest amount first.")


class TotalDocument(MonthFigures):
    tenants: int = Field(description="Who used anything, or has a statement.")


class MoneyDocument(BaseModel):
    """Money is in decimal strings."""

    model_config = ConfigDict(populate_by_name=True)

    month: str = Field(examples=["2026-11"])
    start: str = Field(alias="from")
    end: str = Field(alias="to")
    made_at: str
    currency: str = Field(examples=["USD"])
    total: TotalDocument = Field(description="Of all tenants, also those that are left off.")
    tenants: list[TenantMonthDocument] = Field(description="The largest amount first.")
    more_tenants: int = Field(description="How many are left off.")
    models: list[TenantModelDocument] = Field(description="The models of all tenants, the largest amount first.")
    more_models: int = Field(description="How many are left off.")


@router.get("/money", summary="Show a month over all tenants", responses=faults(403))
async def get_money(
    _operator: OperatorCaller,
    parts: Parts,
    month: Annotated[
        str | None, Query(description="A calendar month in UTC, like 2026-11; default: this month so far.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Most tenants, and most models, in the answer.")] = 100,
) -> MoneyDocument:
    """What a month brings in, from whom and with which models, and what idle replicas cost.

    The statement of every tenant is made for it, except for those that are final: with many tenants that takes seconds.
    """
    now = parts.clock()
    wanted = month_of(now) if month is None else parse_month(month)
    await parts.drain()
    overview = await make_overview(
        wanted, database=parts.database, books=parts.prices, statement_of=parts.statements.current
    )
    return _document(overview, limit=limit, made_at=now.isoformat())


def _document(overview: Overview, *, limit: int, made_at: str) -> MoneyDocument:
    tenants = overview.tenants
    models = overview.models()
    return MoneyDocument(
        month=str(overview.month),
        start=overview.month.start.isoformat(),
        end=overview.month.end.isoformat(),
        made_at=made_at,
        currency=overview.currency,
        total=TotalDocument(
            tenants=len(tenants),
            amount=f"{overview.amount:f}",
            calls=sum(each.calls for each in tenants),
            charged_calls=sum(each.statement.charged_calls for each in tenants),
            unknown_calls=sum(each.unknown_calls for each in tenants),
            cold_starts=sum(each.cold_starts for each in tenants),
            idle=_idle_document(overview.idle),
        ),
        tenants=[_tenant_document(each) for each in tenants[:limit]],
        more_tenants=max(0, len(tenants) - limit),
        models=[
            TenantModelDocument(tenant=tenant, model=model, amount=f"{amount:f}")
            for tenant, model, amount in models[:limit]
        ],
        more_models=max(0, len(models) - limit),
    )


def _tenant_document(each: TenantMonth) -> TenantMonthDocument:
    statement = each.statement
    return TenantMonthDocument(
        tenant=statement.tenant,
        status=str(statement.status),
        amount=f"{statement.total:f}",
        calls=each.calls,
        charged_calls=statement.charged_calls,
        unknown_calls=each.unknown_calls,
        cold_starts=each.cold_starts,
        idle=_idle_document(each.idle),
        top_models=[
            ModelAmountDocument(model=model, amount=f"{amount:f}") for model, amount in each.models()[:_TOP_MODELS]
        ],
    )


def _idle_document(idle: Idle) -> IdleDocument:
    return IdleDocument(
        idle_us=idle.idle_us,
        reserved_us=idle.reserved_us,
        unpriced_us=idle.unpriced_us,
        worth=f"{idle.worth:f}",
        billed=f"{idle.billed:f}",
        not_billed=f"{idle.not_billed:f}",
    )
