"""The route that tells a client what it is talking to."""

from importlib.metadata import version

from fastapi import APIRouter

from roost_gateway.api.callers import AnyCaller
from roost_gateway.api.documents import InfoDocument
from roost_gateway.api.faults import faults
from roost_gateway.api.services import Parts

router = APIRouter(prefix="/api/v1", tags=["info"])


@router.get("/info", summary="Show version and engine", responses=faults())
async def get_info(caller: AnyCaller, parts: Parts) -> InfoDocument:
    routes = parts.directory.routes() if caller.operator else parts.directory.routes_of(caller.tenant)
    return InfoDocument(version=version("roost"), engine=parts.engine_name, models=len(routes))
