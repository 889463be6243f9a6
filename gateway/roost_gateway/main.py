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
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing
from datetime import UTC, datetime
from typing import NoReturn

import uvloop
from prometheus_client import ProcessCollector
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from roost_gateway.access.authentication import Authenticator
from roost_gateway.access.directory import Directory
from roost_gateway.access.keys import Keys
from roost_gateway.access.tenants import Tenants
from roost_gateway.api.app import create_api
from roost_gateway.artifacts import ArtifactDoor
from roost_gateway.charging import Charging
from roost_gateway.deployments.deployments import Deployments
from roost_gateway.deployments.following import Following
from roost_gateway.door import Door
from roost_gateway.engines import knative_engine, local_engine, ray_engine
from roost_gateway.health import DatabasePulse, Readiness, judge_serving, judge_usage
from roost_gateway.holding import Holding
from roost_gateway.logs import configure_logs
from roost_gateway.metering import Metering
from roost_gateway.metrics.engine import EngineFiguresCollector
from roost_gateway.metrics.page import make_page
from roost_gateway.metrics.quotas import QuotaFigures
from roost_gateway.metrics.uploads import UploadFigures
from roost_gateway.operator_key import operator_key
from roost_gateway.predict.access_log import AccessLog
from roost_gateway.predict.app import PredictApp
from roost_gateway.predict.figures import PredictFigures
from roost_gateway.predict.lane import Lane
from roost_gateway.server import listen, make_server, stop_on_signals, url_of
from roost_gateway.settings import Settings
from roost_gateway.tapping import Tapping
from roost_gateway.tracing.wish import NOT_TRACED, Opened, tracing
from roost_platform.database.connection import Database, sqlite_url
from roost_platform.database.gateways import Gateways
from roost_platform.database.leadership import Leadership
from roost_platform.database.lock import DataFolder
from roost_platform.database.opening import open_for_serving
from roost_platform.domain.errors import RoostError
from roost_platform.domain.service_secrets import ServiceSecrets
from roost_platform.domain.tenants import Quota, hash_secret
from roost_platform.engines.port import Engine
from roost_platform.metering.journal import Journal
from roost_platform.registry.checking import Checker
from roost_platform.registry.registry import Registry
from roost_platform.registry.stores import make_store
from roost_platform.registry.versions import storage_by_tenant

logger = logging.getLogger(__name__)

_ORPHAN_AGE_S = 6 * 3600.0
"""Longer than any upload takes: what other gateways put into a shared store, and have no version of yet, is let be."""
_SPREAD_S = 1.0
"""Within this time every gateway knows of a change."""
_PR_SET_DUMPABLE = 4  # from <linux/prctl.h>


def run(settings: Settings, *, make_journal: Callable[..., Journal] = Journal) -> None:
    """Serve until SIGTERM or SIGINT; a second one ends at once. Exits with status 1 and a sentence when it cannot.

    `make_journal`: another one than the real is for those who measure what metering costs.
    """
    configure_logs()
    try:
        settings.check_exposure()
        os.umask(0o077)  # what is kept here is nobody else's to read
        _refuse_inspection()
        uvloop.run(_serve(settings, make_journal))
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


async def _serve(settings: Settings, make_journal: Callable[..., Journal]) -> None:
    with ExitStack() as listening:
        listener = listening.enter_context(contextlib.closing(listen(settings.host, settings.port)))
        url = settings.public_url or url_of(listener)
        traced = listening.enter_context(tracing(os.environ))  # ends last: calls that drain are traced
        async with platform(settings, url=url, traced=traced, make_journal=make_journal) as app:
            servers = [
                (make_server(app.door, lane=app.lane, grace_s=settings.grace_s, limits=settings.limits), listener)
            ]
            if app.internal_door is not None:
                internal = listening.enter_context(
                    contextlib.closing(listen(settings.internal_address, settings.internal_port))
                )
                server = make_server(app.internal_door, lane=None, grace_s=settings.grace_s, limits=settings.limits)
                servers.append((server, internal))
                logger.info("serving_internally", extra={"url": url_of(internal)})
            stop_on_signals([server for server, _ in servers], before=app.not_serving)
            (settings.data / "server.json").write_text(json.dumps({"url": url, "pid": os.getpid()}))
            # What is there now stays: a full collection that walks it would stop every call for a tenth of a second.
            gc.collect()
            gc.freeze()
            gc.enable()  # `serve` had switched it off
            app.serving = True
            logger.info("serving", extra={"url": url, "data": str(settings.data)})
            try:
                await asyncio.gather(*(server.serve(sockets=[listener]) for server, listener in servers))
            finally:
                app.not_serving()


class Platform:
    """What is running; `serving` is what `/readyz` says."""

    def __init__(self) -> None:
        self.serving = False
        self.door: Door
        self.lane: Lane
        self.internal_door: ArtifactDoor | None = None
        """What replicas in a cluster ask for; None where they are processes of this machine."""

    def not_serving(self) -> None:
        self.serving = False


@asynccontextmanager
async def platform(
    settings: Settings,
    *,
    url: str,
    traced: Opened = NOT_TRACED,
    make_journal: Callable[..., Journal] = Journal,
) -> AsyncIterator[Platform]:
    """Start every part in order, and stop them in the reverse one."""
    running = Platform()
    async with AsyncExitStack() as stack:
        stack.enter_context(DataFolder(settings.data))
        database = Database(settings.database_url or sqlite_url(settings.data / "roost.db"))
        stack.callback(database.close)
        leadership = Leadership(database)
        directory = Directory()
        store = make_store(
            settings.data,
            url=settings.artifacts.url,
            endpoint_url=settings.artifacts.endpoint_url,
            region=settings.artifacts.region,
            cache_bytes=settings.artifacts.cache_bytes,
        )
        shared_store = settings.artifacts.url is not None
        holding = await stack.enter_async_context(
            Holding(settings, database=database, directory=directory, leads=lambda: leadership.held, clock=_now)
        )
        registry = Registry(
            database=database,
            store=store,
            checker=Checker(),
            staging=settings.data / "staging",
            clock=_now,
            leads=lambda: leadership.held or not shared_store,
            orphan_age_s=_ORPHAN_AGE_S if shared_store else 0,
            on_usage=holding.tell,
            on_deleted=holding.storage.deleted,
        )

        secrets_of = _service_secrets(settings)
        # The runtime imports its libraries while the database is opened: on two cores that costs a restart nothing.
        engine = _engine(settings, registry, directory, leadership, secrets_of, holding=holding)
        engine_start = asyncio.create_task(engine.start())
        stack.push_async_callback(_give_up_start, engine, engine_start)

        await asyncio.to_thread(open_for_serving, database.engine, kept=settings.data / "artifacts")
        stack.push_async_callback(_cancel, asyncio.create_task(leadership.run()))

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
        metering = Metering(
            settings, database=database, leads=lambda: leadership.held, clock=_now, make_journal=make_journal
        )
        stack.push_async_callback(metering.stop)
        await metering.start()
        stack.push_async_callback(engine.stop)
        await engine_start

        deployments = Deployments(
            database=database,
            registry=registry,
            engine=engine,
            directory=directory,
            clock=_now,
            spread_s=_SPREAD_S if database.shared else 0,
        )
        await deployments.start()
        stack.push_async_callback(deployments.stop)

        gateways = Gateways(database, url=url, on_count=directory.count_gateways)
        await gateways.join()
        stack.push_async_callback(gateways.leave)

        figures = PredictFigures(models=directory.keys_of_models, has_version=directory.has_version)
        predict = PredictApp(
            directory=directory,
            authenticator=authenticator,
            engine=engine,
            journal=metering.journal,
            figures=figures,
            limits=settings.limits,
            serving=lambda: running.serving,
            access=AccessLog.of(settings.access_log),
            traces=traced.traces,
        )
        charging = Charging(
            settings,
            database=database,
            directory=directory,
            metering=metering,
            holding=holding,
            answered=figures,
            leads=lambda: leadership.held,
            clock=_now,
        )
        await charging.start()
        tapping = stack.enter_context(
            closing(
                Tapping(
                    settings,
                    database=database,
                    directory=directory,
                    deployments=deployments,
                    engine=engine,
                    journal=metering.journal,
                    answered=figures,
                    taps=predict.taps,
                    leads=lambda: leadership.held,
                    clock=_now,
                )
            )
        )
        quotas = QuotaFigures(
            directory=directory, storage=lambda: database.read(storage_by_tenant), leads=lambda: leadership.held
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
            drain=charging.drain,
            books=charging.books,
            statements=charging.statements,
            documents=charging.documents,
            budgets=charging.budgets,
            reconciliation=charging.reconciliation,
            drift=tapping.drift,
            rollouts=tapping.rollouts,
            shadows=tapping.shadows,
            limits=settings.limits,
            runtimes=engine.runtimes,
            url=url,
            clock=_now,
            serving=lambda: running.serving,
        )
        pulse = DatabasePulse(lambda: database.read(_answer))
        for loop in (
            *metering.loops(),
            *holding.loops(),
            predict.watch.run(),
            registry.run(),
            gateways.run(),
            pulse.run(),
            Following(database=database, tenants=tenants, deployments=deployments).run(),
            _flush_keys(authenticator),
            quotas.run(),
            *charging.loops(),
            *tapping.loops(),
        ):
            stack.push_async_callback(_cancel, asyncio.create_task(loop))
        running.lane = predict.lane
        running.door = Door(
            predict=predict,
            api=api,
            authenticator=authenticator,
            metrics_page=make_page(
                figures,
                EngineFiguresCollector(engine),
                UploadFigures(registry.checks),
                quotas,
                metering.figures,
                *holding.figures,
                *charging.figures,
                *tapping.figures,
                *traced.figures,
                ProcessCollector(namespace="roost", registry=None),
            ),
            ready=lambda: Readiness.of(
                judge_serving(running.serving), judge_usage(metering.backlog.full), pulse.part()
            ),
        )
        if secrets_of is not None:
            running.internal_door = ArtifactDoor(
                directory=directory, secrets=secrets_of, store=store, redirect=settings.artifacts.redirect
            )
        yield running


def _service_secrets(settings: Settings) -> ServiceSecrets | None:
    """None for the local engine: its replicas can be reached by nobody else."""
    if settings.engine == "local":
        return None
    given = settings.service_secret_key
    assert given is not None or settings.own_ray, "settings are checked when they are read"
    return ServiceSecrets(secrets.token_bytes(32) if given is None else given.get_secret_value().encode())


def _engine(
    settings: Settings,
    registry: Registry,
    directory: Directory,
    leadership: Leadership,
    secrets_of: ServiceSecrets | None,
    *,
    holding: Holding,
) -> Engine:
    if secrets_of is None:
        return local_engine(settings.local, registry, on_usage=holding.tell)
    if settings.engine == "ray":
        return ray_engine(settings, secrets=secrets_of, leads=lambda: leadership.held, on_usage=holding.tell)

    def quota_of(tenant: str) -> Quota | None:
        found = directory.tenant(tenant)
        return None if found is None else found.quota

    return knative_engine(
        settings,
        secrets=secrets_of,
        quota_of=quota_of,
        leads=lambda: leadership.held,
        on_usage=holding.tell,
        told_until=holding.told_until,
    )


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


def _answer(connection: Connection) -> None:
    connection.execute(text("SELECT 1"))


def _now() -> datetime:
    return datetime.now(UTC)
