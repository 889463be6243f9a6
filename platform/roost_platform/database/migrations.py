"""Bringing a database to the tables of this release, and refusing one that must not be touched.

A SQLite file is migrated by the server that opens it. PostgreSQL is shared: there `roost migrate` does it, once for all
gateways, and a gateway only looks.
"""

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import DatabaseError

from roost_platform.database import drift_tables, history, money_tables, rollout_tables, shadow_tables  # noqa: F401 - they add their tables
from roost_platform.database.tables import metadata
from roost_platform.domain.errors import Conflict, Unavailable

HEAD = "0008"
"""The last migration in `versions/`; a database that has seen it needs no Alembic, whose import is a tenth of a start."""

_LARGEST_QUICK_CHECK = 32 * 1024**2
"""Bytes of a SQLite file up to which every start reads it whole; beyond, the check would hold up a restart."""

_LOCK = 0x526F6F7374_01
"""The advisory lock (its key, in PostgreSQL's) of whoever migrates."""


def migrate(engine: Engine, *, kept: Path | None = None) -> str | None:
    """Run the migrations that the database has not seen, all in one transaction; the last one it had seen before.

    An empty database (None) gets every table. Of several that try at once, on PostgreSQL, one does it and the others find
    it done; one that a newer release migrated is left alone while this one can read it. `kept`: a folder whose files an
    earlier SQLite database described; with files in it, an empty database is a lost one, and beginning anew would sweep
    them away. Raises Conflict when a newer release wrote the database, Unavailable when it is damaged or lost.
    """
    check_integrity(engine)
    if kept is not None and _holds_files(kept) and not inspect(engine).get_table_names():
        raise Unavailable(
            "the database is empty, but the data folder holds models; restore the database from a backup, or move the "
            f"folder {kept.name} away to begin anew",
            code="database_lost",
        )
    found = _found(engine)
    if found is not None and found > HEAD and engine.dialect.name == "postgresql":
        require_tables(engine)  # a release that was rolled back to: it has nothing to do, or must not be here
    elif found != HEAD:
        _upgrade(engine)
    return found


def require_tables(engine: Engine) -> bool:
    """Look whether this release can use a database that it may not migrate; False when a newer release has migrated it.

    Raises Unavailable when `roost migrate` must run first, Conflict when this release is too old for what a newer one made.
    """
    found = _found(engine)
    if found == HEAD:
        return True
    if found is None or found < HEAD:
        state = "has no tables yet" if found is None else f"is at migration {found}"
        raise Unavailable(
            f"the database {state}, this release needs {HEAD}: run `roost migrate` first",
            code="database_not_migrated",
            retry_after_s=1,
        )
    with engine.connect() as connection:
        if connection.scalar(text("SELECT max(readable_since) FROM schema_facts")) > HEAD:
            raise _too_new()
    return False


def _found(engine: Engine) -> str | None:
    """The last migration that the database has seen."""
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        last: str | None = connection.scalar(text("SELECT max(version_num) FROM alembic_version"))
        return last


def _upgrade(engine: Engine) -> None:
    """Raises Conflict when a newer release wrote the database."""
    from alembic.config import Config  # noqa: PLC0415 - see HEAD
    from alembic.operations import Operations  # noqa: PLC0415 - see HEAD
    from alembic.runtime.migration import MigrationContext  # noqa: PLC0415 - see HEAD
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - see HEAD
    from alembic.script.revision import ResolutionError  # noqa: PLC0415 - see HEAD
    from alembic.util import CommandError  # noqa: PLC0415 - see HEAD

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    with engine.begin() as connection:
        _wait_for_others(connection)
        context = MigrationContext.configure(
            connection,
            opts={
                "target_metadata": metadata,
                "fn": lambda current, _context: scripts._upgrade_revs("head", current),  # noqa: SLF001  as Alembic's own `upgrade`
            },
        )
        try:
            with Operations.context(context):
                context.run_migrations()
        except (CommandError, ResolutionError) as error:
            raise _too_new() from error


def _wait_for_others(connection: Connection) -> None:
    """On PostgreSQL: until nobody else migrates, and with as much time as it takes."""
    if connection.dialect.name == "postgresql":
        for setting in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
            connection.execute(text(f"SET LOCAL {setting} = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def check_integrity(engine: Engine) -> None:
    """Read a SQLite database through, when it is not too large for that. Raises Unavailable when it is damaged.

    PostgreSQL looks after itself; nothing is done there.
    """
    if engine.dialect.name != "sqlite":
        return
    file = engine.url.database
    if file and Path(file).exists() and Path(file).stat().st_size > _LARGEST_QUICK_CHECK:
        return
    try:
        with engine.connect() as connection:
            found = connection.scalar(text("PRAGMA quick_check(1)"))
    except DatabaseError as error:
        raise _damaged(str(error.orig)) from error
    if found != "ok":
        raise _damaged(str(found))


def _holds_files(folder: Path) -> bool:
    return any(found.is_file() for found in folder.rglob("*"))


def _too_new() -> Conflict:
    return Conflict("the database was written by a newer release of Roost", code="database_too_new")


def _damaged(finding: str) -> Unavailable:
    return Unavailable(
        f"the database is damaged and is not opened; restore it from a backup ({finding[:200]})",
        code="database_corrupt",
    )
