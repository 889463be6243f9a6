"""Opening the database when a server starts: a SQLite file is brought up to date, PostgreSQL is waited for."""

import logging
import time
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from roost_platform.database.backends import no_answer
from roost_platform.database.migrations import migrate, require_tables
from roost_platform.domain.errors import Unavailable

log = logging.getLogger(__name__)

WAIT_S = 60.0
"""How long a start waits for PostgreSQL to answer and to be migrated; then it fails, and whoever started it tries again."""
_PAUSE_S = 0.5


def open_for_serving(engine: Engine, *, kept: Path, wait_s: float = WAIT_S) -> None:
    """Return when the database has the tables of this release (blocks; run it on a thread).

    `kept`: see `migrate`. Raises what `migrate` and `require_tables` raise; Unavailable when PostgreSQL does not answer, or
    nobody migrates it, for `wait_s`.
    """
    if engine.dialect.name == "sqlite":
        migrate(engine, kept=kept)
        return
    end, said = time.monotonic() + wait_s, ""
    while True:
        try:
            current = _look(engine)
        except Unavailable as refusal:
            if time.monotonic() > end:
                raise
            if refusal.message != said:
                said = refusal.message
                log.warning("database_awaited", extra={"reason": said})
            time.sleep(_PAUSE_S)
        else:
            if not current:
                log.warning("database_of_a_newer_release")
            return


def _look(engine: Engine) -> bool:
    try:
        return require_tables(engine)
    except OperationalError as error:
        raise no_answer() from error
