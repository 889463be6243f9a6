"""A data folder in which many models are registered and asleep, as their uploads would have left it.

The registry itself takes each file in: staged, stored, baked, numbered. Only the checker's verdict is not asked a thousand
times: the first model is really checked, and the others are the same graph with another constant. So each model has bytes
of its own, and its answer tells which one it is.
"""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from onnx import TensorProto, helper
from sqlalchemy import Connection

from databases import url_of
from roost_gateway.access.directory import Directory
from roost_gateway.access.tenants import Tenants
from roost_gateway.deployments import store as deployments
from roost_platform.database.connection import Database
from roost_platform.database.history import Act
from roost_platform.database.migrations import migrate
from roost_platform.domain.services import ServiceKey
from roost_platform.domain.tenants import Quota
from roost_platform.registry.check_process import JobTime
from roost_platform.registry.checking import Checker, CheckReport
from roost_platform.registry.registry import Registry
from roost_platform.registry.store import DiskStore
from roost_runtimes.bake import open_raw, quiet_environment

TENANT = "acme"
_RUNTIME = "onnx-cpu"


def adding(number: float) -> bytes:
    """A model: x float[N, 4] -> y float[N, 4] = x + number."""
    constant = helper.make_tensor("c", TensorProto.FLOAT, [1], [number])
    inputs, outputs = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Add", ["x", "c"], ["y"])], "graph", [inputs], [outputs], [constant])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def name_of(number: int) -> str:
    """The model that adds `number`."""
    return f"add-{number}"


async def register_many(data: Path, count: int, **scaling: int) -> str:
    """Register `count` models that add 1, 2, 3 … for one tenant, proven and asleep; the secret of its admin key."""
    database = _made(data)
    try:
        tenants = Tenants(database=database, directory=Directory(), clock=_now)
        _, key = await tenants.create(TENANT, {"models": 0, "storage_bytes": 0})
        staging = data / "staging"
        registry = Registry(database=database, store=DiskStore(data), checker=_OneCheck(), staging=staging)
        await registry.start()
        options = {name.replace("_", "-"): value for name, value in scaling.items()}
        for number in range(1, count + 1):
            service = ServiceKey(TENANT, name_of(number))
            body = _body(adding(number))
            registered = await registry.register(service, body, limit_bytes=10**6, quota=Quota(models=0))
            wish = deployments.Wish(registered.version.number, options, 1, _RUNTIME)
            await database.write(_deployed, service, wish)
        return key.secret
    finally:
        database.close()


class _OneCheck(Checker):
    """Really checks the first file; bakes the others here and says the same of them."""

    _first: CheckReport | None = None

    async def check(self, path: Path, bake_dir: Path, spent: JobTime | None = None) -> CheckReport:
        if self._first is None:
            self._first = await super().check(path, bake_dir, spent)
            return self._first
        return replace(self._first, baked=_baked(path, bake_dir))


def _baked(path: Path, folder: Path) -> dict[str, str]:
    """Bake the file into the folder; sha256 by name of what lies there then."""
    quiet_environment()
    open_raw(path, bake_into=folder)
    return {file.name: sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def _made(data: Path) -> Database:
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = Database(url_of(data))
    migrate(database.engine)
    return database


def _deployed(connection: Connection, service: ServiceKey, wish: deployments.Wish) -> None:
    act = Act(_now())
    _, revision = deployments.add_revision(connection, service, wish, act, lambda _policy: None)
    deployments.mark_ready(connection, service, revision, act)


async def _body(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _now() -> datetime:
    return datetime.now(UTC)
