"""The route that reports usage: calls from the ledger, and what was held."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from sqlalchemy import Connection

from roost_gateway.api.callers import READING, AnyCaller, TenantQuery
from roost_gateway.api.documents import Moment
from roost_gateway.api.faults import faults
from roost_gateway.api.services import Parts
from roost_gateway.api.usage_documents import UsageDocument
from roost_platform.billing.months import month_of
from roost_platform.domain.errors import InvalidRequest
from roost_platform.domain.names import check_name
from roost_platform.domain.tenants import Tenant
from roost_platform.metering.by_meter import by_meter
from roost_platform.metering.ledger import usage_report
from roost_platform.metering.resource_report import KEYS as RESOURCE_KEYS
from roost_platform.metering.resource_report import resource_report

router = APIRouter(prefix="/api/v1", tags=["usage and money"])


_KEYS = (*RESOURCE_KEYS, "outcome", "meter")


async def _tenant_or_all(caller: AnyCaller, parts: Parts, named: TenantQuery = None) -> Tenant | None:
    """As `Reader`, but an operator who names no tenant asks about all of them."""
    return None if caller.operator and named is None else await READING(caller, parts, named)


TenantOrAll = Annotated[Tenant | None, Depends(_tenant_or_all)]


@router.get("/usage", summary="Report usage", response_model_exclude_unset=True, responses=faults(403, 404))
async def report_usage(
    tenant: TenantOrAll,
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
        str,
        Query(
            description="Any of model, version, outcome, class, day, hour and meter, with commas between; for the operator"
            " tenant, too. Calls have no class and resources no outcome: they are summed over it.",
            max_length=64,
        ),
    ] = "model",
) -> UsageDocument:
    """Calls whose answer was ready in [from, to), including those of a moment ago, and what was held in that time."""
    month = month_of(parts.clock())
    keys = _keys(group_by, for_all=tenant is None)
    await parts.drain()
    document = await parts.database.read(
        _usage,
        tenant=None if tenant is None else tenant.name,
        start=start or month.start,
        end=end or month.end,
        keys=keys,
        model=None if model is None else check_name(model, field="model"),
    )
    return UsageDocument.model_validate(document)


def _keys(group_by: str, *, for_all: bool) -> tuple[str, ...]:
    """Raises InvalidRequest for a key that there is not, or not for this caller."""
    keys = tuple(dict.fromkeys(name.strip() for name in group_by.split(",") if name.strip()))
    known = [name for name in _KEYS if name != "tenant" or for_all]
    for name in keys:
        if name not in known:
            raise InvalidRequest(f"group_by takes {', '.join(known)}, not {name[:64]!r}", field="group_by")
    if for_all and "tenant" not in keys:
        raise InvalidRequest("say for which tenant (?tenant=NAME), or group by tenant to see all", field="tenant")
    return keys


def _usage(
    connection: Connection,
    *,
    tenant: str | None,
    start: datetime,
    end: datetime,
    keys: tuple[str, ...],
    model: str | None,
) -> dict[str, Any]:
    """Both reports on one state of the database."""
    about: dict[str, Any] = {"tenant": tenant, "start": start, "end": end, "model": model}
    calls = usage_report(connection, group_by=[key for key in keys if key not in ("class", "meter")], **about)
    resources = resource_report(connection, group_by=[key for key in keys if key in RESOURCE_KEYS], **about)
    document = calls.to_json() | {"resources": resources.to_json()}
    if "meter" in keys:
        document["meters"] = by_meter([key for key in keys if key != "meter"], calls, resources)
    return document
