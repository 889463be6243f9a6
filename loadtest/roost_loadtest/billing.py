"""The bill against the answers: what the platform charged for the models of a run while it ran, to the unit."""

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

from roost_loadtest.asking import Asker
from roost_loadtest.record import Billing, Target

SHIPPED_WITHIN_S = 10.0
"""Gateways write down what they have counted at once, but each hands it to the ledger in its own time."""
SHIPPED_EACH_S = 1.2
"""So long apart two readings must agree: a little more than the time between two shipments."""
_AGAIN_S = 0.5


class Bills:
    """Reads usage before a run and after it, over a time that holds all of it and stays the same.

    One bill per model: a call of a version is one of its model. Calls that others make meanwhile are on it, too.
    """

    def __init__(
        self,
        asker: Asker,
        *,
        targets: Iterable[Target],
        key_of: Callable[[str], str],
        now: datetime | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`now` is of the clock of this machine; the platform's may be an hour off."""
        self._asker = asker
        self._models = dict.fromkeys((target.tenant, target.model) for target in targets)
        self._key_of = key_of
        self._sleep = sleep
        now = now or datetime.now(UTC)
        self._from, self._to = (now + timedelta(hours=hours) for hours in (-1, 24 * 30))
        self._before: dict[tuple[str, str], int] = {}

    def before(self) -> None:
        """Waits until what was called before is in the ledger. Raises NoAnswer: then there will be no bills."""
        now, waited_s = self._read(), 0.0
        while now != self._before and waited_s < SHIPPED_WITHIN_S:
            self._before = now
            self._sleep(SHIPPED_EACH_S)
            waited_s += SHIPPED_EACH_S
            now = self._read()

    def after(self, charged: dict[str, int]) -> tuple[Billing, ...]:
        """`charged`: answers that are to be billed, by target. Waits until the ledger has them all, or for long enough.

        Raises NoAnswer.
        """
        answered = dict.fromkeys(self._models, 0)
        for target, count in charged.items():
            tenant, _, model = target.partition("@")[0].partition("/")
            answered[tenant, model] += count
        waited_s = 0.0
        while True:
            now = self._read() if self._before else {}
            bills = tuple(
                Billing("/".join(model), self._before[model], after, answered[model]) for model, after in now.items()
            )
            if waited_s >= SHIPPED_WITHIN_S or all(bill.after - bill.before >= bill.answered for bill in bills):
                return bills
            self._sleep(_AGAIN_S)
            waited_s += _AGAIN_S

    def _read(self) -> dict[tuple[str, str], int]:
        return {model: self._billed(*model) for model in self._models}

    def _billed(self, tenant: str, model: str) -> int:
        times = {"from": self._from.isoformat(), "to": self._to.isoformat()}
        usage = self._asker.get("/api/v1/usage", self._key_of(tenant), model=model, group_by="model", **times)
        return sum(int(row["billed_requests"]) for row in usage["rows"])
