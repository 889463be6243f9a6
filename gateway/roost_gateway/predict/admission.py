"""How much of a tenant is let in: what its budget leaves, a rate (GCRA) and a number in flight. Pure functions of time."""

from datetime import datetime

from roost_platform.billing.budgets import Cap
from roost_platform.domain.errors import Throttled
from roost_platform.domain.tenants import Quota

_ASK_AGAIN_S = 3600.0
"""A client need not wait for the month's end: the budget may be raised."""


class Gate:
    """One tenant's gate. Times are seconds on one clock that does not run back.

    The rate limit is the generic cell rate algorithm (ITU-T I.371): `_next` is the theoretical arrival time of the next
    request at the sustained rate; a request may come up to `burst` periods before it.
    """

    __slots__ = ("_next", "inflight")

    def __init__(self) -> None:
        self.inflight = 0
        self._next = 0.0

    def enter(self, quota: Quota, now: float) -> None:
        """Count one request in; `leave` must follow. Raises Throttled and counts nothing when it is too much."""
        if quota.concurrent_requests and self.inflight >= quota.concurrent_requests:
            raise Throttled(
                f"{self.inflight} requests of this tenant are in flight, the quota is {quota.concurrent_requests}",
                code="too_many_in_flight",
                limit=quota.concurrent_requests,
                used=self.inflight,
                retry_after_s=1,
            )
        if quota.requests_per_second:
            self._spend(quota, now)
        self.inflight += 1

    def leave(self) -> None:
        self.inflight -= 1

    def _spend(self, quota: Quota, now: float) -> None:
        period = 1 / quota.requests_per_second
        burst = quota.burst or max(1.0, quota.requests_per_second)
        arrival = max(self._next, now)
        early = arrival - now - (burst - 1) * period
        if early > 1e-9:
            raise Throttled(
                f"more than {quota.requests_per_second:g} requests per second (burst {burst:g})",
                code="rate_limited",
                limit=burst,
                used=min(burst, (arrival - now) / period),
                reset_s=early,
            )
        self._next = arrival + period


def require_budget(cap: Cap, now: datetime) -> None:
    """Raises Throttled while a used-up budget is in force. Its `limit` and `used` are in the currency's units, and for
    comparing only: the sentence has them exactly, as `GET /api/v1/budget` does.
    """
    left = (cap.until - now).total_seconds()
    if left > 0:
        raise Throttled(
            f"this month's budget of {cap.limit} {cap.currency} is used up ({cap.used} spent): predictions are refused until "
            f"{cap.until:%Y-%m-%d} (UTC), or until the budget is raised",
            code="budget_exhausted",
            limit=float(cap.limit),
            used=float(cap.used),
            reset_s=left,
            retry_after_s=min(left, _ASK_AGAIN_S),
        )
