"""Routes about corrections of usage: the operator adds them, and the tenant sees its own."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from roost_gateway.api.callers import OperatorCaller, Reader
from roost_gateway.api.correction_events import body_documentation, read_events
from roost_gateway.api.documents import Moment
from roost_gateway.api.faults import faults
from roost_gateway.api.services import Parts
from roost_gateway.money import corrections
from roost_platform.billing.months import month_of
from roost_platform.domain.errors import RoostError
from roost_platform.domain.usage import Outcome
from roost_platform.metering.corrections import CorrectionRefused, Recorded, list_corrections

router = APIRouter(prefix="/api/v1/usage/corrections", tags=["usage and money"])


class TakenDocument(BaseModel):
    source: str
    id: str
    duplicate: bool = Field(description="It was there already, with the same content; nothing has changed.")


class TakenList(BaseModel):
    corrections: list[TakenDocument] = Field(description="In the order in which they were sent.")


class CorrectedDocument(BaseModel):
    source: str
    sequence: int


class CorrectionDocument(BaseModel):
    source: str
    id: str
    time: datetime = Field(description="Decides hour, month and price.")
    recorded_at: datetime
    model: str
    version: int
    outcome: Outcome
    requests: int
    rows: int
    compute_us: int
    bytes_in: int
    bytes_out: int
    corrects: CorrectedDocument | None = Field(description="The one call that was meant, where there was one.")
    reason: str


class CorrectionList(BaseModel):
    tenant: str
    corrections: list[CorrectionDocument]


@router.post(
    "",
    status_code=201,
    summary="Correct usage",
    response_model=TakenDocument | TakenList,
    responses={
        200: {"model": TakenDocument | TakenList, "description": "All of it was there already."},
        **faults(403, 404, 409, 413, 415, 507),
    },
    openapi_extra=body_documentation(),
)
async def add_corrections(
    _operator: OperatorCaller, parts: Parts, request: Request, response: Response
) -> TakenDocument | TakenList:
    """CloudEvents 1.0 in JSON: one, or up to 1,000 that are all taken or not at all.

    (`source`, `id`) is unique for ever: the same event again is a duplicate, one with other content 409, and the first
    stays. All corrections of one call together cannot take away more than it had.
    """
    events, batch = read_events(request.headers.get("content-type", ""), await request.body())
    try:
        repeated = await corrections.record(parts.database, events, parts.clock())
    except CorrectionRefused as refused:
        raise _placed(refused, batch=batch) from refused
    if all(repeated):
        response.status_code = 200
    taken = [
        TakenDocument(source=event.source, id=event.id, duplicate=again)
        for event, again in zip(events, repeated, strict=True)
    ]
    return TakenList(corrections=taken) if batch else taken[0]


@router.get("", summary="List corrections of usage", responses=faults(403, 404))
async def get_corrections(
    tenant: Reader,
    parts: Parts,
    *,
    start: Annotated[
        Moment | None, Query(alias="from", description="Of their time, inclusive; default: this month's start (UTC).")
    ] = None,
    end: Annotated[Moment | None, Query(alias="to", description="Exclusive; default: the end of this month.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, le=2**31, description="Skip so many.")] = 0,
) -> CorrectionList:
    """In the order in which they came."""
    month = month_of(parts.clock())
    found = await parts.database.read(
        list_corrections,
        tenant=tenant.name,
        start=start or month.start,
        end=end or month.end,
        limit=limit,
        offset=offset,
    )
    return CorrectionList(tenant=tenant.name, corrections=[_document(each) for each in found])


def _placed(refused: CorrectionRefused, *, batch: bool) -> RoostError:
    """The error, which in a batch says of which event it is."""
    error = refused.error
    if not batch:
        return error
    field = f"{refused.index}.{error.field}" if error.field else str(refused.index)
    return type(error)(f"event {refused.index}: {error.message}", code=error.code, field=field)


def _document(found: Recorded) -> CorrectionDocument:
    correction = found.correction
    corrects = None
    if correction.corrects_source:
        corrects = CorrectedDocument(source=correction.corrects_source, sequence=correction.corrects_sequence)
    names = [name for name in CorrectionDocument.model_fields if name not in ("corrects", "recorded_at")]
    values = {name: getattr(correction, name) for name in names}
    return CorrectionDocument(**values, corrects=corrects, recorded_at=found.recorded_at)
