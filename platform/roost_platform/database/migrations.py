"""Bringing a database to the tables of this release, and refusing one that must not be touched."""

from pathlib import Path

from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import ResolutionError
from alembic.util import CommandError
from sqlalchemy import Engine, text
from sqlalchemy.exc import DatabaseError

from roost_platform.database.tables import metadata
from roost_platform.domain.errors import Conflict, Unavailable

_LARGEST_QUICK_CHECK = 32 * 1024**2
"""Bytes of a SQLite file up to which every start reads it whole; beyond, the check would hold up a restart."""


def migrate(engine: Engine) -> None:
    """Run the migrations that the database has not seen, all in one transaction. An empty one gets every table.

    Raises Conflict when a newer release wrote it, Unavailable when it is damaged.
    """
    check_integrity(engine)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    with engine.begin() as connection:
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
            raise Conflict("the database was written by a newer release of Roost", code="database_too_new") from error


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


def _damaged(finding: str) -> Unavailable:
    return Unavailable(
        f"the database is damaged and is not opened; restore it from a backup ({finding[:200]})",
        code="database_corrupt",
    )
