"""Routes about statements: what a month costs, in all forms, down to its events; and what the operator does with them."""

import base64
import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Response

from roost_gateway.api.callers import READING, AnyCaller, OperatorCaller, TenantQuery
from roost_gateway.api.faults import faults
from roost_gateway.api.money_documents import (
    EventList,
    ListedDocument,
    MarkWish,
    NoteWish,
    StatementDocument,
    StatementList,
)
from roost_gateway.api.services import Parts
from roost_gateway.money.behind import events_behind
from roost_platform.billing.exports import Form
from roost_platform.billing.months import parse_month
from roost_platform.billing.statement_store import Listed
from roost_platform.billing.statements import Statement
from roost_platform.domain.errors import InvalidRequest, NotFound
from roost_platform.metering.browsing import Event, Place
from roost_platform.metering.progress import first_use

router = APIRouter(prefix="/api/v1/statements", tags=["usage and money"])

_EVER = datetime(1970, 1, 1, tzinfo=UTC)
_MONTH = "A calendar month in UTC, like 2026-11."
_TEXTS = ("text/csv", "text/html", "application/pdf")
_FILE: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {media: {"schema": {"type": "string"}} for media in _TEXTS}
        | {"application/cloudevents+json": {"schema": {"type": "object"}}},
        "description": "The document; all forms but `json` and `html` as a file to save.",
    }
}


async def _billed(caller: AnyCaller, parts: Parts, named: TenantQuery = None) -> str:
    """As `Reader`; to the operator also a tenant that is deleted: it still gets its bill."""
    try:
        return (await READING(caller, parts, named)).name
    except NotFound:
        if not caller.operator or named is None or await parts.database.read(first_use, named, _EVER) is None:
            raise
        return named


Billed = Annotated[str, Depends(_billed)]
MonthPath = Annotated[str, Path(description=_MONTH)]
FormQuery = Annotated[
    Form, Query(alias="format", description="focus: FOCUS 1.2 for cost management tools; csv: one record a line.")
]


@router.get("", summary="List final statements and notes", responses=faults(403, 404))
async def list_statements(caller: AnyCaller, parts: Parts, named: TenantQuery = None) -> StatementList:
    """Of the tenant; the operator who names none sees those of all."""
    tenant = None if caller.operator and named is None else await _billed(caller, parts, named)
    return StatementList(statements=[_listed(each) for each in await parts.statements.list(tenant)])


@router.get(
    "/{month}",
    summary="Show a statement",
    response_model=StatementDocument,
    responses={**_FILE, **faults(403, 404)},
)
async def get_statement(tenant: Billed, parts: Parts, month: MonthPath, form: FormQuery = Form.JSON) -> Response:
    """The tenant's bill for a month. A final one is the same bytes for ever; of a running month, it is what it costs so far."""
    return await _rendered(parts, await parts.statements.get(tenant, parse_month(month)), form)


@router.get(
    "/{month}/notes/{note}",
    summary="Show a credit or debit note",
    response_model=StatementDocument,
    responses={**_FILE, **faults(403, 404)},
)
async def get_note(tenant: Billed, parts: Parts, month: MonthPath, note: str, form: FormQuery = Form.JSON) -> Response:
    """`note` is its number on the statement: C1, D2."""
    return await _rendered(parts, await parts.statements.get_note(tenant, parse_month(month), note), form)


@router.get("/{month}/lines/{line}/events", summary="List the events behind a line", responses=faults(403, 404))
async def get_events(
    tenant: Billed,
    parts: Parts,
    month: MonthPath,
    *,
    line: Annotated[int, Path(ge=1, le=10**9, description="Its number on the statement, from 1.")],
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[str | None, Query(max_length=500, description="`next` of the answer before.")] = None,
) -> EventList:
    """All that the line's quantity is the sum of. Lines of one sku that differ in tier, and credits, share their events."""
    place = None if after is None else _place(after)
    statement = await parts.statements.get(tenant, parse_month(month))
    if line > len(statement.lines):
        raise NotFound(f"the statement has {len(statement.lines)} lines", code="line_not_found", field="line")
    found = await events_behind(
        parts.database,
        statement.lines[line - 1],
        tenant=tenant,
        books=parts.prices,
        after=place,
        limit=limit + 1,
    )
    more = len(found) > limit
    return EventList(
        events=[_event(each) for each in found[:limit]], next=_cursor(found[limit - 1].place) if more else None
    )


@router.post(
    "/{month}/finalize",
    summary="Make a statement final",
    response_model=StatementDocument,
    responses=faults(403, 404),
)
async def finalize(_operator: OperatorCaller, tenant: Billed, parts: Parts, month: MonthPath) -> Response:
    """It never changes again: what becomes known of the month later is on the next one. Doing it again changes nothing."""
    return await _rendered(parts, await parts.statements.finalize(tenant, parse_month(month)), Form.JSON)


@router.post(
    "/{statement}/notes",
    status_code=201,
    summary="Write a credit or debit note",
    response_model=StatementDocument,
    responses=faults(403, 404, 409),
)
async def add_note(_operator: OperatorCaller, parts: Parts, statement: str, wish: NoteWish) -> Response:
    """For a final statement. The same amount for the same reason is one note, however often it is sent."""
    return await _rendered(parts, await parts.statements.note(statement, wish.note()), Form.JSON, status=201)


@router.post("/{statement}/marks", summary="Mark a final document", responses=faults(403, 404, 409))
async def set_mark(_operator: OperatorCaller, parts: Parts, statement: str, wish: MarkWish) -> ListedDocument:
    """`paid`, or `void`: nothing of it is owed. A mark cannot be taken back."""
    return _listed(await parts.statements.mark(statement, wish.state, wish.note))


async def _rendered(parts: Parts, statement: Statement, form: Form, *, status: int = 200) -> Response:
    made = await parts.documents.render(statement, form)
    saved = {} if form in (Form.JSON, Form.HTML) else _attached(made.filename)
    return Response(made.body, status_code=status, media_type=made.media_type, headers=saved)


def _attached(filename: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{filename}"'}


def _listed(found: Listed) -> ListedDocument:
    return ListedDocument.model_validate(asdict(found))


def _event(event: Event) -> dict[str, Any]:
    row = {name: _shown(value) for name, value in event.row.items() if name not in ("tenant", "content_hash")}
    return {"kind": event.kind, "quantity": event.quantity} | {k: v for k, v in row.items() if k != "kind"}


def _shown(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _cursor(place: Place) -> str:
    """Opaque to clients, and safe in a URL."""
    values = [place.time.isoformat(), place.rank, place.source, place.key]
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


def _place(cursor: str) -> Place:
    """Raises InvalidRequest for what `_cursor` did not make."""
    try:
        values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        time, rank, source, key = values
        place = Place(datetime.fromisoformat(time).astimezone(UTC), rank, source, key)
        if not (isinstance(rank, int) and isinstance(source, str) and isinstance(key, (str, int))):
            raise TypeError
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidRequest("after must be what an answer gave as next", field="after") from error
    return place
