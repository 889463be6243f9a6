"""The access log: off unless wanted, then a line for an even share of the predictions; never a header or a body."""

import logging
from time import perf_counter
from typing import Self

from roost_gateway.predict.meter import Measured, outcome_of

logger = logging.getLogger(__name__)


class AccessLog:
    """Called on the event loop for each call that was metered."""

    def __init__(self, share: float) -> None:
        """`share`: above 0, at most 1."""
        self._share = share
        self._due = 0.0

    @classmethod
    def of(cls, share: float) -> Self | None:
        """None for a share of 0."""
        return cls(share) if share else None

    def answered(self, measured: Measured) -> None:
        self._due += self._share
        if self._due < 1 - 1e-9:
            return
        self._due -= 1
        logger.info(
            "predicted",
            extra=measured.about()
            | {
                "status": measured.status,
                "outcome": str(outcome_of(measured.status)),
                "seconds": round(perf_counter() - measured.started, 6),
                "queue_us": measured.queue_us,
                "compute_us": measured.compute_us,
                "cold_start_us": measured.cold_start_us,
                "bytes_in": measured.bytes_in,
                "bytes_out": measured.bytes_out,
            },
        )
