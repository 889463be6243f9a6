"""The route of a model's own output: what its replicas printed, a JSON object a line, and what they print from now on."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, BaseModel, Field

from roost_gateway.api.callers import Reader, model_key
from roost_gateway.api.faults import faults
from roost_gateway.api.services import Parts
from roost_gateway.output import Asked
from roost_platform.domain.errors import NotFound

router = APIRouter(prefix="/api/v1/models", tags=["models"])

NDJSON = "application/x-ndjson"


class LogLine(BaseModel):
    """One line of the answer. Empty lines between them keep a followed answer open."""

    time: AwareDatetime = Field(description="When it was printed.")
    revision: str = Field(examples=["iris-00001"])
    version: int
    replica: str = Field(description="Process id or pod; empty for the last lines of a revision that failed.")
    text: str = Field(description="What was printed, at most 4096 bytes of a line; anything the model likes.")


class Wish(NamedTuple):
    """Which lines are asked for."""

    since: datetime | None
    limit: int
    revision: str | None
    replica: str | None


async def _wish(
    since: Annotated[AwareDatetime | None, Query(description="Only what was printed after this time.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Most lines from before now, the last ones.")] = 100,
    revision: Annotated[str | None, Query(description="Only this revision.", examples=["iris-00001"])] = None,
    replica: Annotated[str | None, Query(max_length=253, description="Only this replica.")] = None,
) -> Wish:
    return Wish(since, limit, revision, replica)


@router.get(
    "/{model}/logs",
    summary="Show what a model printed",
    response_class=StreamingResponse,
    responses={200: {"content": {NDJSON: {"schema": LogLine.model_json_schema()}}}, **faults(403, 404, 429)},
)
async def get_logs(
    tenant: Reader,
    parts: Parts,
    model: str,
    wish: Annotated[Wish, Depends(_wish)],
    follow: Annotated[bool, Query(description="Go on with what is printed from now on, for five minutes.")] = False,
) -> StreamingResponse:
    """The last 500 lines of a revision are kept, those of replicas that have ended included. Asking wakes nothing."""
    key = model_key(tenant, model)
    route = parts.directory.route(key.tenant, key.model)
    if route is None:
        raise NotFound("no such model")
    if wish.revision is not None and route.record(wish.revision) is None:
        raise NotFound("no such revision")
    asked = Asked(key=key, **wish._asdict())
    lines = parts.output.follow(asked) if follow else _once(parts.output.last(asked))
    return StreamingResponse(lines, media_type=NDJSON)


async def _once(lines: bytes) -> AsyncIterator[bytes]:
    yield lines
