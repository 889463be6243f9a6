"""Corrections of usage, taken as a whole: all of a batch or nothing, and what contradicts the past is kept for a look."""

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from roost_platform.database.connection import Database
from roost_platform.domain.errors import Conflict
from roost_platform.metering.corrections import Correction, CorrectionRefused, note_conflict, record_corrections

log = logging.getLogger(__name__)


async def record(database: Database, corrections: Sequence[Correction], now: datetime) -> list[bool]:
    """Add them; says of each whether it was there already, and had changed what there was to change.

    Raises CorrectionRefused, and has added nothing then.
    """
    try:
        repeated = await database.write(record_corrections, corrections, now)
    except CorrectionRefused as refused:
        if isinstance(refused.error, Conflict) and refused.error.code == "correction_differs":
            # In a transaction of its own: the one that met it was taken back.
            correction = corrections[refused.index]
            await database.write(note_conflict, correction, now)
            log.warning("correction_differs", extra=_about(correction))
        raise
    for correction, again in zip(corrections, repeated, strict=True):
        if not again:
            log.info("usage_corrected", extra=_about(correction) | {"reason": correction.reason})
    return repeated


def _about(correction: Correction) -> dict[str, Any]:
    return {"tenant": correction.tenant, "correction_source": correction.source, "correction_id": correction.id}
