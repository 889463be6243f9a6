"""Who may call a route, as FastAPI dependencies. The door has checked the key; these check what it may do."""

from typing import Annotated, cast

from fastapi import Depends, Query, Request, Security
from fastapi.security import HTTPBearer

from roost_gateway.access.principals import Principal
from roost_gateway.api.door import PRINCIPAL_KEY
from roost_gateway.api.services import Parts
from roost_platform.database.history import OPERATOR
from roost_platform.domain.errors import InvalidRequest, NotFound
from roost_platform.domain.names import check_name
from roost_platform.domain.services import ServiceKey
from roost_platform.domain.tenants import Scope, Tenant

_BEARER = HTTPBearer(auto_error=False, scheme_name="key", description="A tenant's key, or the operator's.")


async def _principal(request: Request, _documented: Annotated[object, Security(_BEARER)]) -> Principal:
    return cast(Principal, request.scope[PRINCIPAL_KEY])


AnyCaller = Annotated[Principal, Depends(_principal)]


async def _operator(caller: AnyCaller) -> Principal:
    caller.require_operator()
    return caller


OperatorCaller = Annotated[Principal, Depends(_operator)]

TenantQuery = Annotated[
    str | None,
    Query(alias="tenant", description="The tenant to act for. The operator must name one; a tenant's key need not."),
]


def actor(caller: Principal) -> str:
    """How the history of changes names who calls."""
    return OPERATOR if caller.operator else caller.key_id


class _Acting:
    """The tenant that a request acts for, if the key's scopes allow it."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    async def __call__(self, caller: AnyCaller, parts: Parts, named: TenantQuery = None) -> Tenant:
        caller.require(self._scope)
        if caller.operator and named is None:
            raise InvalidRequest("the operator must say for which tenant: ?tenant=NAME", field="tenant")
        if named is not None:
            check_name(named, field="tenant")
        return visible_tenant(caller, parts, named or caller.tenant)


def visible_tenant(caller: Principal, parts: Parts, name: str) -> Tenant:
    """A tenant by name. Raises NotFound when it is absent or another's, which must look the same."""
    if not caller.operator and name != caller.tenant:
        raise NotFound("no such tenant")
    return parts.tenants.get(name)


READING = _Acting(Scope.READ)
Reader = Annotated[Tenant, Depends(READING)]
Deployer = Annotated[Tenant, Depends(_Acting(Scope.DEPLOY))]
Admin = Annotated[Tenant, Depends(_Acting(Scope.ADMIN))]
Predictor = Annotated[Tenant, Depends(_Acting(Scope.PREDICT))]


def model_key(tenant: Tenant, model: str) -> ServiceKey:
    """Raises InvalidRequest when the model's name cannot be one."""
    return ServiceKey(tenant.name, check_name(model, field="model"))


async def refuse_unknown_query(request: Request) -> None:
    """Raises InvalidRequest naming a query parameter that the route does not document: a typo must not pass unseen."""
    route = request.scope["route"]
    known = request.app.query_names(request.method, route.path)
    for name in request.query_params:
        # `tenant` is fine everywhere, so that an operator's client can send it with every call.
        if name not in known and name != "tenant":
            raise InvalidRequest(f"unknown query parameter {name[:64]!r}", field=name[:64])
