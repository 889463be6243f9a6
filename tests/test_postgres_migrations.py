"""Migrations of a database that gateways share: once, by whoever is first; and releases next to each other read it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from databases import url_of
from postgres_server import execute
from roost_platform.database.connection import Database
from roost_platform.database.migrations import HEAD, migrate, require_tables
from roost_platform.database.opening import open_for_serving
from roost_platform.domain.errors import Conflict, Unavailable

pytestmark = pytest.mark.usefixtures("on_postgres")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return url_of(tmp_path, "empty", empty=True)


@pytest.fixture
def database(url: str):
    made = Database(url)
    yield made
    made.close()


def test_of_several_that_migrate_at_once_one_does_it_and_all_succeed(url: str, database: Database):
    others = [Database(url) for _ in range(6)]
    with ThreadPoolExecutor(len(others)) as pool:
        list(pool.map(lambda each: migrate(each.engine), others))
    for each in others:
        each.close()
    assert execute(url, "SELECT version_num FROM alembic_version") == [(HEAD,)]
    assert migrate(database.engine) == HEAD
    assert require_tables(database.engine)


def test_a_gateway_never_migrates_and_says_what_to_do(url: str, database: Database, tmp_path: Path):
    with pytest.raises(Unavailable, match=f"has no tables yet, this release needs {HEAD}: run `roost migrate` first"):
        open_for_serving(database.engine, kept=tmp_path, wait_s=0)
    migrate(database.engine)
    execute(url, "UPDATE alembic_version SET version_num = '0001'")
    with pytest.raises(
        Unavailable, match=f"is at migration 0001, this release needs {HEAD}: run `roost migrate` first"
    ):
        open_for_serving(database.engine, kept=tmp_path, wait_s=0)
    assert execute(url, "SELECT version_num FROM alembic_version") == [("0001",)]


def test_what_a_newer_release_only_added_to_is_still_served(url: str, database: Database, tmp_path: Path, caplog):
    """As while one release takes the place of another, and when one goes back."""
    migrate(database.engine)
    execute(url, "ALTER TABLE tenants ADD COLUMN motto TEXT")
    execute(url, "UPDATE alembic_version SET version_num = '9999'")
    open_for_serving(database.engine, kept=tmp_path, wait_s=0)
    assert [record.message for record in caplog.records] == ["database_of_a_newer_release"]
    assert migrate(database.engine) == "9999"
    assert execute(url, "SELECT version_num FROM alembic_version") == [("9999",)]


def test_what_a_newer_release_changed_in_earnest_is_refused_at_once(url: str, database: Database, tmp_path: Path):
    migrate(database.engine)
    execute(url, "UPDATE alembic_version SET version_num = '9999'")
    execute(url, "UPDATE schema_facts SET readable_since = '9998'")
    with pytest.raises(Conflict, match="newer release"):
        open_for_serving(database.engine, kept=tmp_path)
    with pytest.raises(Conflict, match="newer release"):
        migrate(database.engine)
