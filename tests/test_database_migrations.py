"""Migrations end where the tables say, once; damaged and newer databases are refused in words."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from databases import url_of
from roost_platform.database import migrations
from roost_platform.database.connection import Database, sqlite_url
from roost_platform.database.migrations import check_integrity, migrate
from roost_platform.database.tables import metadata
from roost_platform.domain.errors import Conflict, Unavailable


@pytest.fixture
def database(tmp_path, each_database):
    made = Database(url_of(tmp_path, empty=True))
    yield made
    made.close()


def differences(engine) -> list:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return compare_metadata(context, metadata)


def constraint_names(engine) -> dict:
    found = inspect(engine)
    return {
        table: (
            found.get_pk_constraint(table)["name"],
            sorted(c["name"] for c in found.get_unique_constraints(table)),
            sorted((c["name"], str(c["options"])) for c in found.get_foreign_keys(table)),
        )
        for table in metadata.tables
    }


def test_an_empty_database_gets_the_tables_of_this_release(database):
    migrate(database.engine)
    assert differences(database.engine) == []


def test_constraints_have_the_same_names_as_in_the_tables(tmp_path, database):
    migrate(database.engine)
    direct = Database(url_of(tmp_path, "direct.db", empty=True))
    metadata.create_all(direct.engine)
    assert constraint_names(database.engine) == constraint_names(direct.engine)
    direct.close()


def test_migrating_again_changes_nothing(database):
    migrate(database.engine)
    with database.engine.begin() as connection:
        connection.execute(text("INSERT INTO tenants VALUES ('acme', '{}', '2026-11-22')"))
    migrate(database.engine)
    with database.engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM tenants")) == 1


def test_every_migration_can_be_taken_back(database):
    migrate(database.engine)
    config = Config()
    config.set_main_option("script_location", str(migrations.Path(migrations.__file__).parent))
    scripts = ScriptDirectory.from_config(config)
    with database.engine.begin() as connection:
        steps = {"fn": lambda current, _: scripts._downgrade_revs("base", current)}
        context = MigrationContext.configure(connection, opts=steps)
        with Operations.context(context):
            context.run_migrations()
    assert set(inspect(database.engine).get_table_names()) == {"alembic_version"}


def test_a_database_of_a_newer_release_is_refused_and_untouched(database):
    migrate(database.engine)
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        connection.execute(text("UPDATE schema_facts SET readable_since = '9999'"))
    with pytest.raises(Conflict, match="newer release"):
        migrate(database.engine)


def test_a_failing_migration_changes_nothing(database):
    with database.engine.begin() as connection:
        connection.execute(text("CREATE TABLE revisions (x INTEGER)"))
    with pytest.raises(Exception, match="already exists"):
        migrate(database.engine)
    assert inspect(database.engine).get_table_names() == ["revisions"]


def test_a_sound_database_passes(database):
    migrate(database.engine)
    check_integrity(database.engine)


@pytest.mark.parametrize("damage", ["page", "header", "text"])
def test_a_damaged_database_is_refused(tmp_path, damage):
    path = tmp_path / "roost.db"
    database = Database(sqlite_url(path))
    migrate(database.engine)
    database.close()
    data = bytearray(path.read_bytes())
    if damage == "page":
        data[4096:8192] = b"\xee" * 4096
    elif damage == "header":
        data[:100] = bytes(100)
    else:
        data = bytearray(b"this is no database\n" * 1000)
    path.write_bytes(data)
    database = Database(sqlite_url(path))
    with pytest.raises(Unavailable) as raised:
        migrate(database.engine)
    assert raised.value.code == "database_corrupt"
    assert str(tmp_path) not in raised.value.message
    database.close()
    assert path.read_bytes() == bytes(data)
