"""The control API as one ASGI application: `create_api`."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI

from roost_gateway.access.authentication import Authenticator
from roost_gateway.access.directory import Directory
from roost_gateway.access.keys import Keys
from roost_gateway.access.tenants import Tenants
from roost_gateway.api import budgets as budget_routes
from roost_gateway.api import corrections, docs_page, faults, info, models, prices, uploads, usage
from roost_gateway.api import drift as drift_routes
from roost_gateway.api import keys as key_routes
from roost_gateway.api import logs as log_routes
from roost_gateway.api import overview as overview_routes
from roost_gateway.api import reconciliation as reconciliation_routes
from roost_gateway.api import rollouts as rollout_routes
from roost_gateway.api import shadows as shadow_routes
from roost_gateway.api import statements as statement_routes
from roost_gateway.api import tenants as tenant_routes
from roost_gateway.api import traffic as traffic_routes
from roost_gateway.api.callers import refuse_unknown_query
from roost_gateway.api.documents import NAME_PATTERN
from roost_gateway.api.door import Door
from roost_gateway.api.services import Services
from roost_gateway.deployments.deployments import Deployments
from roost_gateway.drift.drift import Drift
from roost_gateway.money.budgets import Budgets
from roost_gateway.money.documents import Documents
from roost_gateway.money.reconcile import Reconciliation
from roost_gateway.money.statements import Statements
from roost_gateway.output import ModelOutput
from roost_gateway.request_ids import RequestIds
from roost_gateway.rollouts.rollouts import Rollouts
from roost_gateway.settings import LimitSettings
from roost_gateway.shadowing.shadows import Shadows
from roost_platform.billing.prices import PriceBooks
from roost_platform.database.connection import Database
from roost_platform.engines.port import Engine
from roost_platform.registry.registry import Registry

_ROUTERS = (
    tenant_routes.router,
    key_routes.router,
    uploads.router,
    models.router,
    log_routes.router,
    traffic_routes.router,
    rollout_routes.router,
    shadow_routes.router,
    drift_routes.router,
    usage.router,
    statement_routes.router,
    prices.router,
    corrections.router,
    budget_routes.router,
    overview_routes.router,
    reconciliation_routes.router,
    info.router,
)

_PATTERNS = {
    "key_id": "^[0-9a-f]{1,64}$",
    "model": NAME_PATTERN,
    "month": "^(19[7-9][0-9]|[2-8][0-9]{3}|9[0-8][0-9]{2}|99[0-8][0-9]|999[0-8])-(0[1-9]|1[0-2])$",
    "name": NAME_PATTERN,
    "note": "^[CD][1-9][0-9]{0,8}$",
    "number": "^[0-9]{1,9}$",
    "revision": "^[a-z0-9-]{1,80}$",
    "statement": "^[a-z0-9-]{1,63}-[0-9]{4}-[0-9]{2}(-[CD][1-9][0-9]{0,8})?$",
    "tenant": NAME_PATTERN,
}


class ControlApi(FastAPI):
    """FastAPI whose OpenAPI document tells our errors, and which knows the query parameters of each route by it."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = super().openapi()
            for path in document["paths"].values():
                for operation in path.values():
                    _drop_foreign_422(operation)
                    _tell_patterns(operation)
            for name in ("HTTPValidationError", "ValidationError"):
                document["components"]["schemas"].pop(name, None)
        assert self.openapi_schema is not None
        return self.openapi_schema

    def query_names(self, method: str, path: str) -> frozenset[str]:
        """The query parameters that a route takes; `path` as it was declared. Raises KeyError for an unknown route."""
        parameters = self.openapi()["paths"][path][method.lower()].get("parameters", ())
        return frozenset(p["name"] for p in parameters if p["in"] == "query")


def create_api(
    *,
    database: Database,
    directory: Directory,
    authenticator: Authenticator,
    tenants: Tenants,
    keys: Keys,
    registry: Registry,
    deployments: Deployments,
    engine: Engine,
    drain: Callable[[], Awaitable[None]],
    books: PriceBooks,
    statements: Statements,
    documents: Documents,
    budgets: Budgets,
    reconciliation: Reconciliation,
    drift: Drift,
    rollouts: Rollouts,
    shadows: Shadows,
    limits: LimitSettings,
    url: str,
    clock: Callable[[], datetime],
    runtimes: Sequence[str] = ("onnx-cpu",),
    serving: Callable[[], bool] = lambda: True,
) -> ControlApi:
    """The control API over these parts, ready to be served; it starts and stops nothing.

    `drain` brings what this gateway has metered to the database; `url` is how clients reach the gateway, `runtimes` what a version may be deployed with, the default first. Usable on
    its own, and inside another ASGI application that has given the request its id already.
    """
    app = ControlApi(
        title="Roost",
        version=version("roost"),
        summary="Serverless model serving: upload an ONNX file, get a metered endpoint that sleeps at zero.",
        dependencies=[Depends(refuse_unknown_query)],
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.services = Services(
        database=database,
        directory=directory,
        tenants=tenants,
        keys=keys,
        registry=registry,
        deployments=deployments,
        drain=drain,
        prices=books,
        statements=statements,
        documents=documents,
        budgets=budgets,
        reconciliation=reconciliation,
        drift=drift,
        rollouts=rollouts,
        shadows=shadows,
        output=ModelOutput(directory=directory, deployments=deployments, serving=serving),
        clock=clock,
        url=url.rstrip("/"),
        upload_limit_bytes=limits.upload_bytes,
        engine_name=type(engine).__name__.removesuffix("Engine").lower(),  # LocalEngine is `local`
        runtimes=runtimes,
    )
    for router in _ROUTERS:
        app.include_router(router)
    faults.install(app)
    docs_page.install(app)
    # The last one added is the outermost: ids first, then the door, then FastAPI.
    app.add_middleware(Door, authenticator=authenticator, body_idle_s=limits.body_idle_s)
    app.add_middleware(RequestIds)
    return app


def _tell_patterns(operation: dict[str, Any]) -> None:
    """Parameters are checked by the domain, in its words; the document tells what it takes."""
    for parameter in operation.get("parameters", ()):
        pattern = _PATTERNS.get(parameter["name"])
        if pattern is not None:
            schema = parameter["schema"]
            next(iter(schema.get("anyOf", (schema,))))["pattern"] = pattern


def _drop_foreign_422(operation: dict[str, Any]) -> None:
    """FastAPI announces 422 with a body of its own on every route; here such errors are 400 with ours."""
    schema = operation["responses"].get("422", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if schema.get("$ref", "").endswith("/HTTPValidationError"):
        del operation["responses"]["422"]
