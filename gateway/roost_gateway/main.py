"""The server: the one place that builds the object graph and shows the order of start and stop."""

import asyncio
import contextlib
import ctypes
import gc
import json
import logging
import os
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import uvloop
from sqlalchemy.exc import SQLAlchemyError

from roost_gateway.access.authentication import Authenticator
from roost_gateway.access.directory import Directory
from roost_gateway.access.keys import Keys
from roost_gateway.access.tenants import Tenants
from roost_gateway.api.app import create_api
from roost_gateway.deployments.deployments import Deployments
from roost_gateway.door import Door
from roost_gateway.engines import local_engine
from roost_gateway.logs import configure_logs
from roost_gateway.metrics import EngineFiguresCollector, JournalFiguresCollector, make_page
from roost_gateway.operator_key import operator_key
from roost_gateway.predict.app import PredictApp
from roost_gateway.predict.figures import PredictFigures
from roost_gateway.predict.lane import Lane
from roost_gateway.server import listen, make_server, stop_on_signals, url_of
from roost_gateway.settings import Settings
from roost_platform.billing.prices import PriceBooks, default_price_books, load_price_books
from roost_platform.database.connection import Database, sqlite_url
from roost_platform.database.lock import DataFolder
from roost_platform.database.migrations import migrate
from roost_platform.domain.errors import RoostError
from roost_platform.domain.tenants import hash_secret
from roost_platform.engines.port import Engine
from roost_platform.metering.journal import Journal
from roost_platform.metering.shipper import Shipper
from roost_platform.registry.checking import Checker
from roost_platform.registry.registry import Registry
from roost_platform.registry.store import DiskStore

logger = logging.getLogger(__name__)

_PR_SET_DUMPABLE = 4  # from <linux/prctl.h>


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; a second one ends at once. Exits with status 1 and a sentence when it cannot."""
    configure_logs()
    try:
        settings.check_exposure()
        os.umask(0o077)  # what is kept here is nobody else's to read
        _refuse_inspection()
        uvloop.run(_serve(settings))
        logger.info("stopped")
    except RoostError as error:
        _give_up(error.message)
    except SQLAlchemyError as error:
        logger.debug("database_failed", exc_info=error)
        _give_up("the database cannot be used; is ROOST_DATABASE_URL right, its driver installed and the server up?")
    except OSError as error:
        _give_up(f"cannot start: {error.strerror or error} ({error.filename or 'no file'})")


def _refuse_inspection() -> None:
    """Keep processes of the same user, such as replicas, from reading this one's memory: keys pass through it."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _give_up(sentence: str) -> NoReturn:
    print(f"roost: {sentence}", file=sys.stderr)  # noqa: T201 - the last word to the person at the terminal
    sys.exit(1)


async def _serve(settings: Settings) -> None:
    with contextlib.closing(listen(settings.host, settings.port)) as listener:
        url = settings.public_url or url_of(listener)
        async with platform(settings, url=url) as app:
            server = make_server(app.door, lane=app.lane, grace_s=settings.grace_s, limits=settings.limits)
            stop_on_signals([server], before=app.not_serving)
            (settings.data / "server.json").write_text(json.dumps({"url": url, "pid": os.getpid()}))
            # What is there now stays: a full collection that walks it would stop every call for a tenth of a second.
            gc.collect()
            gc.freeze()
            gc.enable()  # `serve` had switched it off
            app.serving = True
            logger.info("serving", extra={"url": url, "data": str(settings.data)})
            try:
                await server.serve(sockets=[listener])
            finally:
                app.not_serving()


class Platform:
    """What is running; `serving` is what `/readyz` says."""

    def __init__(self) -> None:
        self.serving = False
        self.door: Door
        self.lane: Lane

    def not_serving(self) -> None:
        self.serving = False


@asynccontextmanager
async def platform(settings: Settings, *, url: str) -> AsyncIterator[Platform]:
    """Start every part in order, and stop them in the reverse one."""
    running = Platform()
    async with AsyncExitStack() as stack:
        stack.enter_context(DataFolder(settings.data))
        database = Database(settings.database_url or sqlite_url(settings.data / "roost.db"))
        stack.callback(database.close)
        registry = Registry(
            database=database,
            store=DiskStore(settings.data),
            checker=Checker(),
            staging=settings.data / "staging",
            clock=_now,
        )

        def locate(digest: str) -> tuple[Path, bool]:
            located = registry.locate(digest)
            return located.path, located.baked

        # The runtime imports its libraries while the database is opened: on two cores that costs a restart nothing.
        engine = local_engine(settings.local, locate)
        engine_start = asyncio.create_task(engine.start())
        stack.push_async_callback(_give_up_start, engine, engine_start)

        await asyncio.to_thread(migrate, database.engine, kept=settings.data / "artifacts")

        directory = Directory()
        tenants = Tenants(database=database, directory=directory, clock=_now)
        keys = Keys(database=database, directory=directory, clock=_now)
        await tenants.load()
        authenticator = Authenticator(
            directory=directory,
            database=database,
            operator_key_hash=hash_secret(operator_key(settings)),
            clock=_now,
        )

        stack.push_async_callback(authenticator.flush_last_used, final=True)

        await registry.start()
        stack.push_async_callback(registry.stop)

        # The journal is made before the engine is used and stops after it: calls that drain are still metered.
        journal_folder = settings.data / "journal"
        shipper = Shipper(
            journal_folder=journal_folder, database=database, interval_s=settings.metering.ship_interval_s
        )
        journal = Journal(
            journal_folder, source=secrets.token_hex(8), sync_interval_s=settings.metering.sync_interval_s
        )
        stack.push_async_callback(shipper.drain)
        stack.callback(journal.close)
        stack.push_async_callback(engine.stop)
        await engine_start

        deployments = Deployments(database=database, registry=registry, engine=engine, directory=directory, clock=_now)
        await deployments.start()
        stack.push_async_callback(deployments.stop)

        figures = PredictFigures(known=lambda tenant, model: directory.route(tenant, model) is not None)
        predict = PredictApp(
            directory=directory,
            authenticator=authenticator,
            engine=engine,
            journal=journal,
            figures=figures,
            limits=settings.limits,
            serving=lambda: running.serving,
        )
        api = create_api(
            database=database,
            directory=directory,
            authenticator=authenticator,
            tenants=tenants,
            keys=keys,
            registry=registry,
            deployments=deployments,
            engine=engine,
            shipper=shipper,
            books=_price_books(settings),
            limits=settings.limits,
            url=url,
            clock=_now,
        )
        page = make_page(figures, EngineFiguresCollector(engine), JournalFiguresCollector(journal, shipper))
        for loop in (shipper.run(), predict.watch.run(), _flush_keys(authenticator)):
            stack.push_async_callback(_cancel, asyncio.create_task(loop))
        running.lane = predict.lane
        running.door = Door(
            predict=predict, api=api, authenticator=authenticator, metrics_page=page, ready=lambda: running.serving
        )
        yield running


def _price_books(settings: Settings) -> PriceBooks:
    if settings.prices is None:
        return default_price_books()
    try:
        return load_price_books(settings.prices.read_text("utf-8"))
    except UnicodeDecodeError as error:
        raise RoostError(f"ROOST_PRICES: {settings.prices} is not a text file") from error


async def _flush_keys(authenticator: Authenticator) -> None:
    while True:
        await asyncio.sleep(60)
        try:
            await authenticator.flush_last_used()
        except RoostError:
            logger.warning("last_used_not_written")


async def _give_up_start(engine: Engine, start: asyncio.Task[None]) -> None:
    """End an engine whose start nobody waited for, because something else failed meanwhile; no harm after a `stop`."""
    start.cancel()
    await asyncio.gather(start, return_exceptions=True)
    await engine.stop()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _now() -> datetime:
    return datetime.now(UTC)
