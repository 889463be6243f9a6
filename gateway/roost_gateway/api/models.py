"""Routes about models: what there is, how it is, and changes that need no upload."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Response

from roost_gateway.access.routes import Route
from roost_gateway.api import views
from roost_gateway.api.callers import AnyCaller, Deployer, Reader, actor, model_key
from roost_gateway.api.documents import (
    ModelDetails,
    ModelDocument,
    ModelList,
    RollbackRequest,
    ScalingDocument,
    StatusDocument,
    VersionDocument,
    VersionList,
)
from roost_gateway.api.faults import faults
from roost_gateway.api.scaling_schema import EXAMPLE, SCHEMA
from roost_gateway.api.services import Parts, Services
from roost_platform.domain.errors import InvalidRequest, NotFound
from roost_platform.domain.tenants import Tenant

router = APIRouter(prefix="/api/v1/models", tags=["models"])

ScalingOptions = Annotated[
    dict[str, Any],
    Body(examples=[EXAMPLE], json_schema_extra=SCHEMA, description="Options to change; null = back to the default."),
]


def found(parts: Services, tenant: Tenant, model: str) -> Route:
    """Raises NotFound, InvalidRequest for what cannot be a name."""
    key = model_key(tenant, model)
    route = parts.directory.route(key.tenant, key.model)
    if route is None:
        raise NotFound("no such model")
    return route


def _document(parts: Services, route: Route) -> ModelDocument:
    url = views.model_url(parts, route.key)
    return views.model_document(route, parts.deployments.statuses(route), url=url)


@router.get("", summary="List models", responses=faults(403, 404))
async def list_models(tenant: Reader, parts: Parts) -> ModelList:
    return ModelList(models=[_document(parts, route) for route in parts.directory.routes_of(tenant.name)])


@router.get("/{model}", summary="Show a model", responses=faults(403, 404))
async def get_model(tenant: Reader, parts: Parts, model: str) -> ModelDetails:
    route = found(parts, tenant, model)
    document = _document(parts, route)
    versions = await parts.registry.versions(route.key)
    return ModelDetails(
        **document.model_dump(),
        scaling=route.service.scaling.to_json(),
        versions=views.version_documents(versions, route, url=document.url),
    )


@router.get("/{model}/versions", summary="List versions", responses=faults(403, 404))
async def list_versions(tenant: Reader, parts: Parts, model: str) -> VersionList:
    route = found(parts, tenant, model)
    versions = await parts.registry.versions(route.key)
    url = views.model_url(parts, route.key)
    return VersionList(versions=views.version_documents(versions, route, url=url))


@router.get("/{model}/versions/{number}", summary="Show a version", responses=faults(403, 404))
async def get_version(tenant: Reader, parts: Parts, model: str, number: str) -> VersionDocument:
    route = found(parts, tenant, model)
    if not (number.isascii() and number.isdigit() and len(number) <= 9):
        raise InvalidRequest("a version is a whole number", field="number")
    version = await parts.registry.version(route.key, int(number))
    return views.version_documents([version], route, url=views.model_url(parts, route.key))[0]


@router.get("/{model}/status", summary="Show how a model is", responses=faults(403, 404))
async def get_status(tenant: Reader, parts: Parts, model: str) -> StatusDocument:
    """Every revision with its readiness, the reason of a failure, replicas and load, and the last lines of its log.

    Asking wakes nothing.
    """
    route = found(parts, tenant, model)
    return views.status_document(route, parts.deployments.statuses(route), parts.deployments.figures(route))


@router.patch("/{model}/scaling", summary="Change the scaling policy", responses=faults(403, 404, 413, 507))
async def change_scaling(
    tenant: Deployer, caller: AnyCaller, parts: Parts, model: str, options: ScalingOptions
) -> ScalingDocument:
    """Holds for all revisions of the model, from now on."""
    policy = await parts.deployments.scale(model_key(tenant, model), options, by=actor(caller))
    return ScalingDocument(scaling=policy.to_json())


@router.post("/{model}/rollback", summary="Roll back", responses=faults(403, 404, 409, 413, 507))
async def roll_back(
    tenant: Deployer, caller: AnyCaller, parts: Parts, model: str, wish: RollbackRequest
) -> ModelDocument:
    """Gives all traffic to a version that was ready before, at once; a deployment under way is cancelled."""
    route = await parts.deployments.rollback(model_key(tenant, model), wish.version, by=actor(caller))
    return _document(parts, route)


@router.delete(
    "/{model}", status_code=204, response_class=Response, summary="Delete a model", responses=faults(403, 404, 409, 507)
)
async def delete_model(tenant: Deployer, caller: AnyCaller, parts: Parts, model: str) -> None:
    """New calls get 404 at once; the answer comes when calls in flight have ended."""
    await parts.deployments.delete(model_key(tenant, model), by=actor(caller))
