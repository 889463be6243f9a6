"""What the routes work with, handed to `create_api` in one piece and found again through the application."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, cast

from fastapi import Depends, Request

from roost_gateway.access.directory import Directory
from roost_gateway.access.keys import Keys
from roost_gateway.access.tenants import Tenants
from roost_gateway.deployments.deployments import Deployments
from roost_gateway.drift.drift import Drift
from roost_gateway.money.budgets import Budgets
from roost_gateway.money.documents import Documents
from roost_gateway.money.reconcile import Reconciliation
from roost_gateway.money.statements import Statements
from roost_gateway.output import ModelOutput
from roost_gateway.rollouts.rollouts import Rollouts
from roost_gateway.shadowing.shadows import Shadows
from roost_platform.billing.prices import PriceBooks
from roost_platform.database.connection import Database
from roost_platform.registry.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The parts behind the control API."""

    database: Database
    directory: Directory
    tenants: Tenants
    keys: Keys
    registry: Registry
    deployments: Deployments
    drain: Callable[[], Awaitable[None]]
    """Brings what this gateway has metered to the database. Raises Unavailable or StorageFull."""
    prices: PriceBooks
    statements: Statements
    documents: Documents
    budgets: Budgets
    reconciliation: Reconciliation
    drift: Drift
    rollouts: Rollouts
    shadows: Shadows
    output: ModelOutput
    clock: Callable[[], datetime]
    """Aware UTC."""
    url: str
    """How clients reach this gateway, without a slash at the end."""
    upload_limit_bytes: int
    """Largest artifact taken."""
    engine_name: str
    """As `GET /api/v1/info` shows it."""
    runtimes: Sequence[str]
    """Runtimes a version may be deployed with; the first is the default."""


async def services_of(request: Request) -> Services:
    return cast(Services, request.app.state.services)


Parts = Annotated[Services, Depends(services_of)]
