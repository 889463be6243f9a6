"""Routes about usage and money: reports from the ledger, statements, and the prices in force."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from roost_gateway.api.callers import AnyCaller, Reader
from roost_gateway.api.documents import Moment, PriceBookDocument, StatementDocument, UsageDocument
from roost_gateway.api.faults import faults
from roost_gateway.api.services import Parts, Services
from roost_platform.billing import exports
from roost_platform.billing.months import Month, month_of, parse_month
from roost_platform.billing.statements import Statement, UsageFigure, make_statement
from roost_platform.domain.names import check_name
from roost_platform.domain.usage import Outcome
from roost_platform.metering.ledger import usage_report

router = APIRouter(prefix="/api/v1", tags=["usage and money"])


@router.get("/usage", summary="Report usage", responses=faults(403, 404))
async def report_usage(
    tenant: Reader,
    parts: Parts,
    *,
    start: Annotated[
        Moment | None,
        Query(alias="from", description="ISO 8601 with an offset, inclusive; default: this month's start (UTC)."),
    ] = None,
    end: Annotated[
        Moment | None,
        Query(alias="to", description="ISO 8601 with an offset, exclusive; default: the end of this month."),
    ] = None,
    model: Annotated[str | None, Query(description="Only this model; it may be deleted.")] = None,
    group_by: Annotated[
        str, Query(description="Any of model, version, outcome, day, hour, with commas between.", max_length=64)
    ] = "model",
) -> UsageDocument:
    """Calls whose answer was ready in [from, to), including those of a moment ago."""
    month = month_of(parts.clock())
    await parts.shipper.drain()
    report = await parts.database.read(
        usage_report,
        tenant=tenant.name,
        start=start or month.start,
        end=end or month.end,
        group_by=[name.strip() for name in group_by.split(",") if name.strip()],
        model=None if model is None else check_name(model, field="model"),
    )
    return UsageDocument.model_validate(report.to_json())


@router.get(
    "/statements/{month}",
    summary="Make a statement",
    response_model=StatementDocument,
    responses={
        200: {"content": {"text/csv": {"schema": {"type": "string"}}}, "description": "The statement."},
        **faults(403, 404),
    },
)
async def get_statement(
    tenant: Reader,
    parts: Parts,
    month: str,
    form: Annotated[Literal["json", "csv"], Query(alias="format", description="csv: one record a line.")] = "json",
) -> StatementDocument | Response:
    """The tenant's bill for a calendar month in UTC, written like 2026-11; of a running month, what it is so far."""
    statement = await _statement(parts, tenant.name, parse_month(month))
    if form == "json":
        return StatementDocument.model_validate(exports.to_json(statement))
    name = f"{tenant.name}-{statement.month}.csv"
    return Response(
        exports.to_csv(statement),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@router.get("/prices", summary="Show the prices in force", responses=faults(404))
async def get_prices(_caller: AnyCaller, parts: Parts) -> PriceBookDocument:
    return PriceBookDocument.model_validate(parts.prices.in_force(parts.clock()).to_json())


async def _statement(parts: Services, tenant: str, month: Month) -> Statement:
    await parts.shipper.drain()
    usage: list[UsageFigure] = []
    # Summed on each side of a change of prices on its own: a sum across it could not be rated.
    for period in parts.prices.periods(month.start, month.end):
        usage += await _figures(parts, tenant, period.start, period.end)
    return make_statement(tenant=tenant, month=month, usage=usage, books=parts.prices, now=parts.clock())


async def _figures(parts: Services, tenant: str, start: datetime, end: datetime) -> list[UsageFigure]:
    report = await parts.database.read(usage_report, tenant=tenant, start=start, end=end, group_by=("model", "outcome"))
    return [
        UsageFigure(
            model=str(row.keys["model"]),
            outcome=Outcome(str(row.keys["outcome"])),
            start=start,
            end=end,
            requests=row.figures.requests,
            compute_us=row.figures.compute_us,
            rows=row.figures.rows,
            bytes_out=row.figures.bytes_out,
        )
        for row in report.rows
    ]
