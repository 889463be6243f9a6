"""Bringing a database to the tables of this release, and refusing one that must not be touched."""

from pathlib import Path

from sqlalchemy import Engine, inspect, text
from sqlalchemy.exc import DatabaseError

from roost_platform.database.tables import metadata
from roost_platform.domain.errors import Conflict, Unavailable

HEAD = "0002"
"""The last migration in `versions/`; a database that has seen it needs no Alembic, whose import is a tenth of a start."""

_LARGEST_QUICK_CHECK = 32 * 1024**2
"""Bytes of a SQLite file up to which every start reads it whole; beyond, the check would hold up a restart."""


def migrate(engine: Engine, *, kept: Path | None = None) -> None:
    """Run the migrations that the database has not seen, all in one transaction. An empty one gets every table.

    `kept`: a folder whose files an earlier database described; with files in it, an empty database is a lost one, and
    beginning anew would sweep them away. Raises Conflict when a newer release wrote the database, Unavailable when it
    is damaged or lost.
    """
    check_integrity(engine)
    if kept is not None and _holds_files(kept) and not inspect(engine).get_table_names():
        raise Unavailable(
            "the database is empty, but the data folder holds models; restore the database from a backup, or move the "
            f"folder {kept.name} away to begin anew",
            code="database_lost",
        )
    if not _is_current(engine):
        _upgrade(engine)


def _is_current(engine: Engine) -> bool:
    with engine.connect() as connection:
        table = inspect(connection).has_table("alembic_version")
        return table and connection.scalars(text("SELECT version_num FROM alembic_version")).all() == [HEAD]


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


def _holds_files(folder: Path) -> bool:
    return any(found.is_file() for found in folder.rglob("*"))


def _damaged(finding: str) -> Unavailable:
    return Unavailable(
        f"the database is damaged and is not opened; restore it from a backup ({finding[:200]})",
        code="database_corrupt",
    )
