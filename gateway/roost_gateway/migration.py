"""Brings the database to this release, and ends: for a cluster, whose gateways wait for it and never do it themselves."""

import logging
import os
import sys

from sqlalchemy.exc import SQLAlchemyError

from roost_gateway.logs import configure_logs
from roost_gateway.settings import Settings
from roost_platform.database.connection import Database, sqlite_url
from roost_platform.database.lock import DataFolder
from roost_platform.database.migrations import migrate
from roost_platform.domain.errors import RoostError

logger = logging.getLogger(__name__)


def run(settings: Settings) -> None:
    """Migrate. Exits with status 1 and a sentence when it cannot; nothing is changed then."""
    configure_logs()
    os.umask(0o077)  # what is kept here is nobody else's to read
    try:
        with DataFolder(settings.data):
            database = Database(settings.database_url or sqlite_url(settings.data / "roost.db"))
            try:
                before = migrate(database.engine, kept=settings.data / "artifacts")
            finally:
                database.close()
    except RoostError as error:
        sys.exit(f"roost: {error.message}")
    except SQLAlchemyError as error:
        logger.debug("database_failed", exc_info=error)
        sys.exit(
            "roost: the database cannot be used; is ROOST_DATABASE_URL right, its driver installed and the server up?"
        )
    except OSError as error:
        sys.exit(f"roost: cannot migrate: {error.strerror or error} ({error.filename or 'no file'})")
    logger.info("migrated", extra={"from": before})
