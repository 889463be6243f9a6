"""How long checks of uploads ran: told once for each, whether the file was taken or refused.

Waiting for a checker is not counted, nor is a check that failed for our own reasons. A file whose bytes were judged before is
not checked again.
"""

import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import uuid4

from roost_platform.domain.hours import pieces
from roost_platform.domain.resources import ResourceKind, ResourceUsage
from roost_platform.domain.services import ServiceKey

_MICROSECOND = timedelta(microseconds=1)
Tell = Callable[[ResourceUsage], None]
"""Returns at once and raises nothing."""


def tell_nobody(usage: ResourceUsage) -> None:
    """Where nothing is metered."""


class CheckMeter:
    """Tells of the checks of this run."""

    def __init__(self, *, tell: Tell, clock: Callable[[], datetime]) -> None:
        self._source = f"checks-{secrets.token_hex(8)}"
        self._tell = tell
        self._clock = clock

    def ran(self, key: ServiceKey, version: int, job_us: int) -> None:
        """A check of an upload ended just now; `version` is 0 when none came of it."""
        end, name = self._clock(), uuid4().hex
        for number, (start, until) in enumerate(pieces(end - timedelta(microseconds=job_us), end)):
            self._tell(
                ResourceUsage(
                    source=self._source,
                    id=f"{name}/{number}",
                    kind=ResourceKind.CHECK,
                    start=start,
                    end=until,
                    tenant=key.tenant,
                    model=key.model,
                    version=version,
                    job_us=(until - start) // _MICROSECOND,
                )
            )
