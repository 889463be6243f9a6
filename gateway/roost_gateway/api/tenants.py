"""Routes about tenants; all but one are the operator's."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Response

from roost_gateway.api.callers import AnyCaller, OperatorCaller, visible_tenant
from roost_gateway.api.documents import NewTenant, NewTenantDocument, TenantChange, TenantDocument, TenantList
from roost_gateway.api.faults import faults
from roost_gateway.api.services import Parts
from roost_gateway.api.views import new_key_document, tenant_document
from roost_platform.database.history import OPERATOR
from roost_platform.domain.names import check_name

router = APIRouter(prefix="/api/v1/tenants", tags=["tenants"])


@router.post("", status_code=201, summary="Create a tenant and its first key", responses=faults(403, 409, 413, 507))
async def create_tenant(_operator: OperatorCaller, parts: Parts, wish: NewTenant) -> NewTenantDocument:
    """The admin key's secret is in the answer, and nowhere else ever after."""
    tenant, new = await parts.tenants.create(wish.name, wish.quota.model_dump(exclude_unset=True))
    return NewTenantDocument(**tenant_document(tenant).model_dump(), key=new_key_document(new))


@router.get("", summary="List tenants", responses=faults(403))
async def list_tenants(_operator: OperatorCaller, parts: Parts) -> TenantList:
    return TenantList(tenants=[tenant_document(tenant) for tenant in parts.directory.tenants()])


@router.get("/{name}", summary="Show a tenant", responses=faults(404))
async def get_tenant(caller: AnyCaller, parts: Parts, name: str) -> TenantDocument:
    """The operator sees every tenant, a tenant's key only its own."""
    return tenant_document(visible_tenant(caller, parts, check_name(name, field="name")))


@router.patch("/{name}", summary="Change a tenant's quota", responses=faults(403, 404, 413, 507))
async def change_tenant(_operator: OperatorCaller, parts: Parts, name: str, change: TenantChange) -> TenantDocument:
    changes = change.quota.model_dump(exclude_unset=True)
    return tenant_document(await parts.tenants.change(check_name(name, field="name"), changes))


@router.delete(
    "/{name}", status_code=204, response_class=Response, summary="Delete a tenant", responses=faults(403, 404, 409)
)
async def delete_tenant(
    _operator: OperatorCaller,
    parts: Parts,
    name: str,
    force: Annotated[bool, Query(description="Delete its models too; calls in flight are answered first.")] = False,
) -> None:
    """Its keys stop working at once. Usage stays in the ledger, so that it can still be billed."""

    async def delete_models() -> None:
        routes = parts.directory.routes_of(name)
        await asyncio.gather(*(parts.deployments.delete(route.key, by=OPERATOR) for route in routes))

    await parts.tenants.delete(check_name(name, field="name"), delete_models=delete_models if force else None)
