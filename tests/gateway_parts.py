"""What the tests of the gateway's control side share: real parts on a folder, and an engine that does as it is told."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

from databases import url_of
from roost_gateway.access.authentication import Authenticator
from roost_gateway.access.directory import Directory
from roost_gateway.access.keys import Keys
from roost_gateway.access.routes import Route
from roost_gateway.access.tenants import Tenants
from roost_gateway.api.app import ControlApi, create_api
from roost_gateway.deployments.deployments import Deployments
from roost_gateway.drift.drift import Drift
from roost_gateway.money.budgets import Budgets
from roost_gateway.money.checks.check import ThisRun
from roost_gateway.money.documents import Documents
from roost_gateway.money.reconcile import Reconciliation
from roost_gateway.money.spending import Spending
from roost_gateway.money.statements import Statements
from roost_gateway.predict.figures import PredictFigures
from roost_gateway.predict.taps import Taps
from roost_gateway.rollouts.rollouts import Rollouts
from roost_gateway.settings import DriftSettings, LimitSettings
from roost_gateway.shadowing.shadows import Shadows
from roost_platform.billing.exports import Issuer
from roost_platform.billing.price_file import default_price_books
from roost_platform.database.connection import Database
from roost_platform.database.migrations import migrate
from roost_platform.domain.output import OutputLine
from roost_platform.domain.services import Readiness, RevisionKey, RevisionStatus, Service, ServiceKey, ServiceStatus
from roost_platform.domain.signatures import Signature, Tensor
from roost_platform.domain.tenants import Quota, hash_secret
from roost_platform.engines.port import Engine, EngineFigures, RevisionFigures, Upstream
from roost_platform.metering.journal import Journal
from roost_platform.metering.shipper import Shipper
from roost_platform.registry.checking import Checker
from roost_platform.registry.registry import Registry
from roost_platform.registry.store import DiskStore
from roost_platform.registry.versions import NewVersion, add_version

NOON = datetime(2026, 11, 3, 12, tzinfo=UTC)
OPERATOR_KEY = "operator-key-of-the-tests"
SIGNATURE = Signature(inputs=(Tensor("x", "FP32", (-1, 4)),), outputs=(Tensor("y", "FP32", (-1, 1)),))
IRIS = ServiceKey("acme", "iris")


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now

    def move(self, **by: float) -> None:
        self.now += timedelta(**by)


class ScriptedEngine(Engine):
    """Keeps what it was told, and says of each revision what the test wrote into `says`."""

    def __init__(self) -> None:
        self.services: dict[ServiceKey, Service] = {}
        self.applied: list[Service] = []
        self.deleted: list[ServiceKey] = []
        self.says: dict[str, RevisionStatus] = {}
        self.figures_say: dict[str, RevisionFigures] = {}
        self.printed: dict[str, list[OutputLine]] = {}
        self.apply_failures = 0
        self.delete_failures = 0
        self.drained = asyncio.Event()
        self.drained.set()
        self.draining = asyncio.Event()

    def ready(self, name: str) -> None:
        self.says[name] = RevisionStatus(name, Readiness.TRUE, wanted=1, running=1)

    def asleep(self, name: str) -> None:
        self.says[name] = RevisionStatus(name, Readiness.TRUE)

    def broken(self, name: str, reason: str = "ExitedAtStart", message: str = "it ended with status 1") -> None:
        self.says[name] = RevisionStatus(
            name, Readiness.FALSE, reason=reason, message=message, log=("loading", "Traceback: boom")
        )

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def apply(self, service: Service) -> None:
        if self.apply_failures:
            self.apply_failures -= 1
            raise ConnectionError("the engine is out of reach")
        self.services[service.key] = service
        self.applied.append(service)

    async def delete(self, key: ServiceKey) -> None:
        self.draining.set()
        await self.drained.wait()
        if self.delete_failures:
            self.delete_failures -= 1
            raise ConnectionError("the engine is out of reach")
        self.services.pop(key, None)
        self.deleted.append(key)

    def status(self, key: ServiceKey) -> ServiceStatus:
        service = self.services.get(key)
        revisions = service.revisions if service else ()
        unknown = Readiness.UNKNOWN
        return ServiceStatus(key, tuple(self.says.get(r.name, RevisionStatus(r.name, unknown)) for r in revisions))

    def lease(self, revision: RevisionKey, deadline: float) -> AbstractAsyncContextManager[Upstream]:
        raise AssertionError("the control side asks for no lease")

    def output(self, revision: RevisionKey) -> list[OutputLine]:
        return self.printed.get(revision.name, [])

    def figures_of(self, key: ServiceKey) -> dict[str, RevisionFigures]:
        return dict(self.figures_say)

    def figures(self) -> EngineFigures:
        return EngineFigures()


@dataclass
class Parts:
    folder: Path
    database: Database
    directory: Directory
    tenants: Tenants
    keys: Keys
    authenticator: Authenticator
    registry: Registry
    engine: ScriptedEngine
    deployments: Deployments
    clock: Clock
    closing: ExitStack = field(default_factory=ExitStack)

    async def add_tenant(self, name: str = "acme", **quota: Any) -> str:
        """The secret of the new tenant's admin key."""
        _, new = await self.tenants.create(name, quota)
        return new.secret

    async def add_version(self, key: ServiceKey = IRIS, *, digest: str = "") -> int:
        """A version as the registry leaves it behind, without a file; returns its number."""
        count = len(self.directory.route(key.tenant, key.model).records) if self._known(key) else 0
        made = digest or f"{key}{count}{len(self.engine.applied)}".encode().hex()
        new = NewVersion(
            key=key,
            digest=made.ljust(64, "0")[:64] if digest else hash_secret(made).hex(),
            size=1000,
            signature=SIGNATURE,
            memory_bytes=5000,
            created_at=self.clock(),
        )
        version, _ = await self.database.write(add_version, new, Quota())
        return version.number

    def _known(self, key: ServiceKey) -> bool:
        return self.directory.route(key.tenant, key.model) is not None

    async def deploy(self, version: int, key: ServiceKey = IRIS, **changes: Any) -> str:
        """The name of the revision."""
        settings = {"scaling_options": {}, "max_batch_size": 1, "runtime": "onnx-cpu"} | changes
        record = await self.deployments.deploy(key, version, **settings)
        return record.revision.name

    async def serve(self, key: ServiceKey = IRIS) -> tuple[int, str]:
        """A new version brought to ready; its number and revision."""
        number = await self.add_version(key)
        name = await self.deploy(number, key)
        self.engine.ready(name)
        await self.deployments.settled(key)
        return number, name

    def api(self, *, budgets: Budgets | None = None, **limits: Any) -> ControlApi:
        (self.folder / "journal").mkdir(exist_ok=True)
        return create_api(
            database=self.database,
            directory=self.directory,
            authenticator=self.authenticator,
            tenants=self.tenants,
            keys=self.keys,
            registry=self.registry,
            deployments=self.deployments,
            engine=self.engine,
            drain=Shipper(journal_folder=self.folder / "journal", database=self.database).drain,
            books=default_price_books(),
            statements=self.statements(),
            documents=Documents(Issuer()),
            budgets=budgets or self.budgets(),
            reconciliation=self.reconciliation(),
            drift=self.drift(),
            rollouts=self.rollouts(),
            shadows=self.shadows(),
            limits=LimitSettings(**limits),
            url="http://roost.test",
            clock=self.clock,
        )

    def statements(self) -> Statements:
        folder = self.folder / "journal"
        return Statements(
            database=self.database,
            books=default_price_books(),
            drain=Shipper(journal_folder=folder, database=self.database).drain,
            clock=self.clock,
        )

    def reconciliation(self) -> Reconciliation:
        """Of a gateway that has no prediction path."""
        folder = self.folder / "journal"
        return Reconciliation(
            database=self.database,
            journal=folder,
            outbox=self.folder / "outbox",
            books=default_price_books(),
            run=ThisRun(source="run", opened=lambda: 0, unstored=lambda: 0, in_flight=lambda: 0, answered=dict),
            drain=Shipper(journal_folder=folder, database=self.database).drain,
            clock=self.clock,
        )

    def drift(self) -> Drift:
        return Drift(
            DriftSettings(),
            database=self.database,
            directory=self.directory,
            taps=Taps(),
            leads=lambda: True,
            clock=self.clock,
        )

    def rollouts(self, *, taps: Taps | None = None, told: asyncio.Event | None = None) -> Rollouts:
        return Rollouts(
            database=self.database,
            deployments=self.deployments,
            taps=taps or Taps(),
            mirrors=self.shadows(),
            leads=lambda: True,
            clock=self.clock,
            told=told,
        )

    def shadows(self, taps: Taps | None = None) -> Shadows:
        """Of a gateway that has no prediction path."""
        return Shadows(
            database=self.database,
            deployments=self.deployments,
            engine=self.engine,
            journal=self.journal,
            answered=PredictFigures(models=list),
            taps=taps or Taps(),
            known=self._known,
        )

    @cached_property
    def journal(self) -> Journal:
        """Apart from the folder that is shipped from."""
        made = Journal(self.folder / "copies", source="copies")
        self.closing.callback(made.close)
        return made

    def budgets(self, **how: Any) -> Budgets:
        books = default_price_books()
        given: dict[str, Any] = {
            "spent": Spending(database=self.database, books=books),
            "currency": books.currency,
            "leads": lambda: True,
            "clock": self.clock,
        }
        return Budgets(database=self.database, directory=self.directory, **given | how)

    def client(self, secret: str | None = OPERATOR_KEY, **how: Any) -> httpx.AsyncClient:
        """A client of the control API, in this process."""
        headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
        transport = httpx.ASGITransport(self.api(**how))
        return httpx.AsyncClient(transport=transport, base_url="http://roost.test", headers=headers)


def database_in(folder: Path) -> Database:
    database = Database(url_of(folder))
    migrate(database.engine)
    return database


@asynccontextmanager
async def gateway_parts(
    folder: Path, *, engine: ScriptedEngine | None = None, database: Database | None = None
) -> AsyncIterator[Parts]:
    """All parts on `folder`, loaded and started; a second time on the same folder is a restart."""
    clock = Clock()
    database = database or database_in(folder)
    directory = Directory()
    engine = engine or ScriptedEngine()
    tenants = Tenants(database=database, directory=directory, clock=clock)
    registry = Registry(
        database=database, store=DiskStore(folder), checker=Checker(), staging=folder / "staging", clock=clock
    )
    deployments = Deployments(
        database=database,
        registry=registry,
        engine=engine,
        directory=directory,
        clock=clock,
        poll_s=0.001,
        retry_s=0.001,
    )
    await tenants.load()
    await deployments.start()
    closing = ExitStack()
    try:
        yield Parts(
            folder=folder,
            database=database,
            directory=directory,
            tenants=tenants,
            keys=Keys(database=database, directory=directory, clock=clock),
            authenticator=Authenticator(
                directory=directory, database=database, operator_key_hash=hash_secret(OPERATOR_KEY), clock=clock
            ),
            registry=registry,
            engine=engine,
            deployments=deployments,
            clock=clock,
            closing=closing,
        )
    finally:
        closing.close()
        await deployments.stop()
        await registry.stop()
        database.close()


def route_of(parts: Parts) -> Route:
    route = parts.directory.route(IRIS.tenant, IRIS.model)
    assert route is not None
    return route


def states_of(parts: Parts) -> dict[str, str]:
    return {r.revision.name: str(r.state) for r in route_of(parts).records}


def serving(parts: Parts) -> dict[str, int]:
    """Traffic as calls see it; checks that the engine was told the same."""
    route = route_of(parts)
    assert parts.engine.services[IRIS] == route.service
    return {t.revision: t.percent for t in route.service.traffic}


async def until(condition: Callable[[], bool]) -> None:
    """Let other tasks run until the condition holds; the test's own time limit bounds it."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.001)  # the condition is a database's or an engine's, which has no event


def refusal(response: httpx.Response) -> tuple[int, str, str | None]:
    """Status, code and field; checks the shape that every error has."""
    document = response.json()
    at_a_quota = {"limit", "used", "reset"} if response.status_code == 429 else set()
    assert set(document) - {"field"} == {"error", "code", "request_id"} | at_a_quota
    assert document["request_id"] == response.headers["x-request-id"]
    assert document["error"]
    return response.status_code, document["code"], document.get("field")
