"""What the registry's tests share: pieces of a body, a registry on a temporary folder, small good models."""

from collections.abc import AsyncIterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from onnx import TensorProto, helper
from sqlalchemy import insert

from databases import url_of
from hostile_models import model, value
from roost_platform.database.connection import Database
from roost_platform.database.migrations import migrate
from roost_platform.database.tables import tenants
from roost_platform.domain.services import ServiceKey
from roost_platform.registry.checking import Checker
from roost_platform.registry.registry import Registry
from roost_platform.registry.store import DiskStore

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
IRIS = ServiceKey("acme", "iris")


def adding(number: float) -> bytes:
    """A model that adds a number: other numbers are other bytes."""
    constant = helper.make_tensor("c", TensorProto.FLOAT, [1], [number])
    made = model([helper.make_node("Add", ["x", "c"], ["y"])], [value("x", ["N"])], [value("y", ["N"])], [constant])
    return made.SerializeToString()


async def body(data: bytes, piece: int = 65536) -> AsyncIterator[bytes]:
    for start in range(0, len(data), piece):
        yield data[start : start + piece]


def add_tenants(database: Database, *names: str) -> None:
    with database.engine.begin() as connection:
        for name in names:
            connection.execute(insert(tenants).values(name=name, quota={}, created_at=NOON))


@contextmanager
def open_database(folder: Path, *names: str):
    database = Database(url_of(folder))
    try:
        migrate(database.engine)
        add_tenants(database, *names)
        yield database
    finally:
        database.close()


def build_registry(folder: Path, database: Database, *, store: DiskStore | None = None, checker: Checker | None = None):
    return Registry(
        database=database,
        store=store or DiskStore(folder),
        checker=checker or Checker(),
        staging=folder / "staging",
        clock=lambda: NOON,
    )


def files_in(folder: Path) -> list[str]:
    """Every file of a data folder but the database and the lock."""
    return sorted(
        str(f.relative_to(folder))
        for f in folder.rglob("*")
        if f.is_file() and not f.name.startswith(("roost.db", "lock"))
    )
