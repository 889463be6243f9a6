"""Several gateways on one PostgreSQL, in one process: each with its own folder, directory, engine and connections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway_parts import Parts, ScriptedEngine, gateway_parts
from predict_parts import Client
from roost_gateway.deployments.following import Following
from roost_gateway.predict.app import PredictApp
from roost_gateway.predict.figures import PredictFigures
from roost_gateway.settings import LimitSettings
from roost_platform.database.connection import Database
from roost_platform.metering.backlog import Backlog
from roost_platform.metering.journal import Journal
from roost_platform.metering.shipper import Shipper


@dataclass
class Gateway:
    """The parts of one, and what keeps it in step with the others."""

    parts: Parts
    following: asyncio.Task[None]


@asynccontextmanager
async def gateway(folder: Path, url: str, *, poll_s: float = 0.5, engine: ScriptedEngine | None = None):
    """One that follows. Before it is handed out it has caught up once."""
    folder.mkdir(exist_ok=True)  # noqa: ASYNC240
    async with gateway_parts(folder, database=Database(url), engine=engine) as parts:
        following = Following(
            database=parts.database, tenants=parts.tenants, deployments=parts.deployments, poll_s=poll_s, retry_s=0.01
        )
        task = asyncio.create_task(following.run())
        try:
            yield Gateway(parts, task)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def gateways(folder: Path, url: str, count: int = 2, **how: float) -> AsyncIterator[list[Parts]]:
    """So many gateways that follow each other."""
    async with AsyncExitStack() as stack:
        made = [await stack.enter_async_context(gateway(folder / f"g{n}", url, **how)) for n in range(count)]
        yield [each.parts for each in made]
        for each in made:
            assert not each.following.done(), each.following


@dataclass
class Predicting:
    """The prediction path of a gateway, with its usage on the way to the ledger."""

    client: Client
    journal: Journal
    shipper: Shipper
    backlog: Backlog


@asynccontextmanager
async def predicting(parts: Parts, secret: str, *, backlog_bytes: int = 2**30) -> AsyncIterator[Predicting]:
    backlog = Backlog(backlog_bytes)
    folder = parts.folder / "journal"
    journal = Journal(folder, source=parts.folder.name, backlog=backlog)
    shipper = Shipper(journal_folder=folder, database=parts.database, interval_s=0.05, backlog=backlog)
    app = PredictApp(
        directory=parts.directory,
        authenticator=parts.authenticator,
        engine=parts.engine,
        journal=journal,
        figures=PredictFigures(models=lambda: [route.key for route in parts.directory.routes()]),
        limits=LimitSettings(),
        serving=lambda: True,
    )
    shipping = asyncio.create_task(shipper.run())
    try:
        yield Predicting(Client(app, secret), journal, shipper, backlog)
    finally:
        assert not shipping.done(), shipping
        shipping.cancel()
        await asyncio.gather(shipping, return_exceptions=True)
        journal.close()
