"""Which database a test's folder has: SQLite in that folder, or one on the run's PostgreSQL that belongs to it.

A test that asks for the fixture `each_database` runs on both. For everything else `ROOST_TEST_DATABASE=postgresql` decides;
tests with the mark `sqlite` are about the file itself and stay with it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from postgres_server import database_at, drop_at, shared_server
from roost_platform.database.connection import sqlite_url

KINDS = ("sqlite", "postgresql")
_MARK = "roost.db-kind"
"""A file that says so to whoever is handed the folder or one below, in another process too: empty, or a server's port."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "each_database" in metafunc.fixturenames:
        kinds = KINDS[:1] if metafunc.definition.get_closest_marker("sqlite") else KINDS
        metafunc.parametrize("each_database", kinds, indirect=True)


@pytest.fixture
def each_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Runs the test once for each kind; `url_of` knows which."""
    with _kind_of(tmp_path, request.param):
        yield request.param


@pytest.fixture(autouse=True, scope="session")
def _database_of_the_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """As ROOST_TEST_DATABASE says, for folders that do not say otherwise."""
    with _kind_of(tmp_path_factory.getbasetemp(), _chosen()):
        yield


@pytest.fixture(autouse=True)
def _database_of_the_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """The same for one test, whose databases are dropped with it; tests with the mark `sqlite` have no choice."""
    asked = set(request.fixturenames)
    if _chosen() == KINDS[0] or "tmp_path" not in asked or asked & {"each_database", "on_postgres"}:
        yield
        return
    kind = KINDS[0] if request.node.get_closest_marker("sqlite") else _chosen()
    with _kind_of(request.getfixturevalue("tmp_path"), kind):
        yield


def _chosen() -> str:
    chosen = os.environ.get("ROOST_TEST_DATABASE", KINDS[0])
    assert chosen in KINDS, f"ROOST_TEST_DATABASE must be one of {KINDS}"
    return chosen


@contextmanager
def _kind_of(folder: Path, kind: str) -> Iterator[None]:
    port = shared_server().port if kind == "postgresql" else ""
    (folder / _MARK).write_text(str(port))
    yield
    if port:
        drop_at(int(port), _prefix_of(folder))


@pytest.fixture
def on_postgres(tmp_path: Path) -> Iterator[str]:
    """The URL of a database on PostgreSQL, with its tables, for the test's folder."""
    with _kind_of(tmp_path, "postgresql"):
        yield url_of(tmp_path)


def url_of(folder: Path, file: str = "roost.db", *, empty: bool = False) -> str:
    """The database of this folder; on PostgreSQL it has its tables already, unless it shall be `empty`."""
    for each in (folder, *folder.parents):
        mark = each / _MARK
        if mark.exists():
            port = mark.read_text()
            if not port:
                break
            return database_at(int(port), _prefix_of(each) + _digest(folder / file), empty=empty)
    return sqlite_url(folder / file)


def _prefix_of(folder: Path) -> str:
    """What the names of all databases of one test's folder begin with."""
    return f"t_{_digest(folder)}_"


def _digest(path: Path) -> str:
    return sha256(str(path).encode()).hexdigest()[:16]
