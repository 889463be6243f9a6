"""Looks at the platform while it is under load: replicas, queues, averages and bills, from Roost's control API.

It only reads, once a second, which wakes nothing; it waits on sockets only, so that the send schedule goes on meanwhile;
and it never raises during a run: what is not known is missing in the record, and an event says since when.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from roost_loadtest.asking import Asker, NoAnswer
from roost_loadtest.billing import Bills
from roost_loadtest.policy import Policy
from roost_loadtest.readings import ColdStarts, PodAutoscaler, changes, cold_starts_of, replicas_of
from roost_loadtest.record import Billing, Replicas, Target
from roost_loadtest.to_zero import longest_s
from roost_loadtest.to_zero import replicas_of as all_replicas

_MARGIN_S = 10.0
"""A model is watched for so much longer than it may take to sleep, so that being late shows by how much."""
_SURE_S = 2.5
"""For so long there must be no replica: one that ends may be followed by another."""


class Autoscalers(Protocol):
    """Where else replicas are told."""

    def look(self, target: Target) -> Sequence[PodAutoscaler]:
        """Raises NoAnswer."""


class Watcher:
    """Of the targets of one run; for one greenlet at a time."""

    def __init__(
        self,
        url: str,
        targets: Sequence[Target],
        *,
        key_of: Callable[[str], str],
        billed: bool = True,
        autoscalers: Autoscalers | None = None,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`key_of` gives the key for a tenant; it needs the scope `read`. `now`: seconds since 1970 UTC."""
        self._asker = Asker(url)
        self._targets = {str(target): target for target in targets}
        self._key_of = key_of
        self._autoscalers = autoscalers
        self._now = now
        self._bills = Bills(self._asker, targets=targets, key_of=key_of, sleep=sleep) if billed else None
        self._events: list[tuple[float, str]] = []
        self._silent: set[str] = set()
        self._last: dict[str, Mapping[str, Any]] = {}
        self._cold_before: dict[str, ColdStarts] = {}
        self._cold_now: dict[str, ColdStarts] = {}
        self._asleep_from: float | None = None

    def facts(self) -> dict[str, Any]:
        """What the platform says of itself and of the targets' scaling."""
        found: dict[str, Any] = {"scaling": {}}
        for name, target in self._targets.items():
            status = self._status(target)
            if status is not None:
                found["scaling"][name] = dict(status["scaling"])
        try:
            info = self._asker.get("/api/v1/info", self._key_of(next(iter(self._targets.values())).tenant))
            found |= {"engine": info["engine"], "version": info["version"]}
        except (NoAnswer, KeyError) as error:
            self._tell(f"the platform does not say what it is: {error}")
        return found

    def before(self) -> None:
        """Remember how things are, to tell what the run changes."""
        for name, target in self._targets.items():
            status = self._status(target)
            if status is not None:
                self._last[name] = status
                self._cold_before[name] = cold_starts_of(status, target.version)
        if self._bills is not None:
            try:
                self._bills.before()
            except (NoAnswer, KeyError) as error:
                self._bills = None
                self._tell(f"the platform does not tell what it bills: {error}")

    def look(self) -> dict[str, Replicas]:
        """How the targets stand now, by name; those that are not known are left out."""
        found = {}
        statuses: dict[tuple[str, str], Mapping[str, Any] | None] = {}
        for name, target in self._targets.items():
            model = (target.tenant, target.model)
            if model not in statuses:
                statuses[model] = self._status(target)
            status = statuses[model]
            if status is not None:
                found[name] = self._replicas(name, target, status)
        return found

    def events(self) -> list[tuple[float, str]]:
        """What was noticed: seconds since 1970 UTC, and words."""
        return list(self._events)

    def billing(self, charged: dict[str, int]) -> tuple[Billing, ...]:
        """What was billed since `before`, against the answers that are to be; empty when that is not known."""
        if self._bills is None:
            return ()
        try:
            return self._bills.after(charged)
        except (NoAnswer, KeyError) as error:
            self._tell(f"the platform does not tell what it billed: {error}")
            return ()
        finally:
            self.close()  # this is the last question of a run; another would open it again

    def settled(self, replicas: dict[str, Replicas], waited_s: float) -> bool:
        """Whether nothing more is to be watched after the last request: all sleep that may, or have had time enough."""
        policies = {name: Policy.of(last["scaling"]) for name, last in self._last.items()}
        sleepers = [name for name in self._targets if name not in policies or not policies[name].min_scale]
        longest = max((longest_s(policies[name]) for name in sleepers if name in policies), default=0.0)
        asleep = all(name in replicas and not all_replicas(replicas[name]) for name in sleepers)
        since = waited_s if self._asleep_from is None else self._asleep_from
        self._asleep_from = since if asleep else None
        return (asleep and waited_s - since >= _SURE_S) or waited_s > longest + _MARGIN_S

    def close(self) -> None:
        self._asker.close()

    def _status(self, target: Target) -> Mapping[str, Any] | None:
        what = f"{target.tenant}/{target.model}"
        try:
            status = self._asker.get(f"/api/v1/models/{target.model}/status", self._key_of(target.tenant))
        except NoAnswer as error:
            self._lost(what, f"the platform does not tell how {what} is: {error}")
            return None
        self._back(what, f"the platform tells how {what} is again")
        return status

    def _replicas(self, name: str, target: Target, status: Mapping[str, Any]) -> Replicas:
        now = cold_starts_of(status, target.version).and_before(self._cold_now.get(name, ColdStarts()))
        self._cold_now[name] = now
        if (before := self._last.get(name)) is not None:
            for text in changes(name, before, status):
                self._tell(text)
        self._last[name] = status
        return replicas_of(
            status,
            target.version,
            cold_starts=now.since(self._cold_before.get(name, ColdStarts())),
            autoscalers=self._of_cluster(target),
        )

    def _of_cluster(self, target: Target) -> Sequence[PodAutoscaler]:
        if self._autoscalers is None:
            return ()
        try:
            found = self._autoscalers.look(target)
        except NoAnswer as error:
            self._lost("cluster", str(error))
            return ()
        self._back("cluster", "the cluster shows its objects again")
        return found

    def _lost(self, what: str, text: str) -> None:
        """Told once, until it is back."""
        if what not in self._silent:
            self._silent.add(what)
            self._tell(text)

    def _back(self, what: str, text: str) -> None:
        if what in self._silent:
            self._silent.remove(what)
            self._tell(text)

    def _tell(self, text: str) -> None:
        self._events.append((self._now(), text))
