"""Tells what this engine's replicas on the cluster held, second by second of their lives.

    pods, by watch ─▶ replicas ─▶ shares ─▶ on_usage        (the leader only)
                         ▲
       asked each ten seconds, at their own addresses

Every gateway follows the pods; the leader asks them and tells. Ids and contents of what is told follow from the pod alone,
so a new leader goes on from what the ledger has, and may tell again what is still on its way there. `shares.py` says why
no second is told of twice.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime

from roost_platform.domain.errors import RoostError
from roost_platform.engines.knative.asking import STRETCH_US, Asking
from roost_platform.engines.knative.cluster import Document, labels_of
from roost_platform.engines.knative.conditions import condition_of
from roost_platform.engines.knative.pod_life import PodLife, read_pod, us_of
from roost_platform.engines.knative.seen import Seen
from roost_platform.engines.knative.shares import PATIENCE_US, SETTLED_US, START_US, Kept, Replica, due
from roost_platform.engines.port import OnUsage

logger = logging.getLogger(__name__)

ToldUntil = Callable[[Sequence[str]], Awaitable[Mapping[str, datetime]]]
"""By replica, the end of the last stretch that the ledger has of it; those that it knows nothing of are left out. Raises
RoostError while the ledger is out of reach."""
_TRY_AGAIN_US = 1_000_000
_GATHER_S = 0.1
"""Pods change in bursts."""
_MOST_AT_ONCE = 1000
"""Stretches told of in one turn: after a long time without a leader there may be very many."""
_MIN_SCALE = "autoscaling.knative.dev/min-scale"
_ROUTING_STATE = "serving.knative.dev/routingState"


async def nothing_told(_: Sequence[str]) -> Mapping[str, datetime]:
    """Where there is no ledger."""
    return {}


class Held:
    """All replicas of one engine. Everything happens on the event loop; `utc` is in seconds since 1970."""

    def __init__(
        self,
        *,
        seen: Seen,
        asking: Asking,
        leads: Callable[[], bool],
        told_until: ToldUntil,
        on_usage: OnUsage,
        gpu_resource: str,
        utc: Callable[[], float] = time.time,
    ) -> None:
        self._seen = seen
        self._asking = asking
        self._leads = leads
        self._told_until = told_until
        self._on_usage = on_usage
        self._gpu_resource = gpu_resource
        self._utc = utc
        self._replicas: dict[str, Replica] = {}
        self._tried: dict[str, tuple[int, bool]] = {}  # uid -> when it was asked last, and whether it was leaving
        self._new: set[str] = set()  # uids for which the ledger was not looked at since this gateway leads
        self._kept: dict[tuple[str, str], Kept] = {}  # by namespace and Knative's name
        self._changed = asyncio.Event()
        self._leading = False
        self._leading_since = 0

    async def start(self) -> None:
        await self._asking.start()

    async def stop(self) -> None:
        """Tell what is certain; the replicas live on, and the next leader goes on from here."""
        if self._leading and self._leads():
            self._tell(self._now_us())
        await self._asking.stop()

    def pod_changed(self, before: Document | None, now: Document | None) -> None:
        """Take a pod as it was and as it is, from whoever watches."""
        self._changed.set()
        if before is not None:
            self._follow(before)
        if now is not None:
            self._follow(now)
        elif before is not None:
            replica = self._replicas.get(str(before["metadata"].get("uid", "")))
            if replica is not None:
                replica.gone = True

    async def wait(self, seconds: float) -> None:
        """So long, or until a pod has changed: one that leaves can be asked for a moment only."""
        await asyncio.sleep(_GATHER_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):  # wait_for may lose a cancellation that comes with the change
                await self._changed.wait()

    async def turn(self) -> None:
        """What there is to do about once a second."""
        self._changed.clear()
        for replica in self._replicas.values():
            if not replica.gone:
                replica.see(_us(self._seen.pods_sure_until))
            self._remember(replica.pod)
        leads = self._leads()
        if leads and not self._leading:
            self._new.update(self._replicas)
            self._leading_since = self._now_us()
        self._leading = leads
        if leads and self._seen.synced:
            await self._find_told()
            await self._ask_all()
            if self._leads():  # asking takes a while
                self._tell(self._now_us())
        self._forget()

    def _follow(self, document: Document) -> None:
        pod = read_pod(document, gpu_resource=self._gpu_resource)
        if pod is None or self._seen.key_of(document) != pod.key:
            return
        replica = self._replicas.get(pod.uid)
        if replica is None:
            self._replicas[pod.uid] = replica = Replica(pod, alive_us=pod.born_us, told_us=pod.born_us)
            self._new.add(pod.uid)
            self._remember(pod)
        replica.pod, replica.gone = replica.pod.followed_by(pod), False
        replica.see(_us(self._seen.pods_sure_until))

    # What the leader does.

    async def _find_told(self) -> None:
        """Learn from the ledger how far others have come, for those replicas where that is not known."""
        asked = sorted(uid for uid in self._new if not self._is_others(self._replicas[uid]))
        if not asked:
            return
        try:
            ends = await self._told_until(asked)
        except RoostError as error:
            logger.warning("ledger_not_asked", extra={"reason": error.message})
            return
        for uid in asked:
            replica = self._replicas[uid]
            if uid in ends:
                replica.told_us = max(replica.told_us, us_of(ends[uid]))
        self._new.difference_update(asked)

    def _is_others(self, replica: Replica) -> bool:
        """Whether its last account was given to the leader before, from whom the ledger may still hear of it."""
        waits = self._now_us() - self._leading_since < PATIENCE_US
        return waits and replica.end_us is not None and replica.end_us < self._leading_since

    async def _ask_all(self) -> None:
        now = self._now_us()
        await asyncio.gather(*(self._ask(uid, one) for uid, one in self._replicas.items() if self._is_to_ask(one, now)))

    def _is_to_ask(self, one: Replica, now_us: int) -> bool:
        """Once in each stretch when it has loaded its model, and often on its way out: then nobody can be asked again."""
        if one.end_us is not None or (one.ready_us is None and one.pod.ready_us is None):
            return False
        leaves = one.pod.limit_us is not None
        tried_us, left = self._tried.get(one.pod.uid, (0, False))
        if now_us - tried_us < _TRY_AGAIN_US and left == leaves:
            return False
        return leaves or one.known_until < (now_us - SETTLED_US) // STRETCH_US

    async def _ask(self, uid: str, replica: Replica) -> None:
        at_us = self._now_us()
        self._tried[uid] = at_us, replica.pod.limit_us is not None
        told = await self._asking.ask(replica.pod, since=replica.told_us // STRETCH_US)
        if told is not None:
            replica.hear(told, at_us=at_us)

    def _tell(self, now_us: int) -> None:
        groups: dict[tuple[str, str], list[Replica]] = {}
        for replica in self._replicas.values():
            groups.setdefault((replica.pod.namespace, replica.pod.variant), []).append(replica)
        left = _MOST_AT_ONCE
        for name, group in groups.items():
            if left > 0 and not any(replica.pod.uid in self._new for replica in group):
                usages = due(group, self._kept.get(name, Kept()), now_us=now_us, most=left)
                left -= len(usages)
                for usage in usages:
                    self._on_usage(usage)

    def _remember(self, pod: PodLife) -> None:
        """What is wished of its revision, which may be gone before all of its replicas were told of."""
        document = self._seen.revisions(pod.key).get(pod.variant)
        if document is not None:
            name = pod.namespace, pod.variant
            now, before = read_kept(document), self._kept.get(name, Kept())
            proven = now.proven_us if before.proven_us is None else before.proven_us
            self._kept[name] = Kept(now.min_scale, proven)

    def _forget(self) -> None:
        """Those that are over and told of, when nobody shares a stretch with them any more."""
        now = self._now_us()
        for uid, replica in list(self._replicas.items()):
            end = replica.end_us
            if end is not None and now - end > (PATIENCE_US if replica.told_us >= end else START_US):
                del self._replicas[uid]
                self._tried.pop(uid, None)
                self._new.discard(uid)
        for name in self._kept.keys() - {(one.pod.namespace, one.pod.variant) for one in self._replicas.values()}:
            del self._kept[name]

    def _now_us(self) -> int:
        return _us(self._utc())


def read_kept(revision: Document) -> Kept:
    """Of a Knative revision. One that is not routed is not kept, whatever it says."""
    ready = condition_of(revision, "Ready") or {}
    since = ready.get("lastTransitionTime") if ready.get("status") == "True" else None
    wish = (revision["metadata"].get("annotations") or {}).get(_MIN_SCALE, "")
    routed = labels_of(revision).get(_ROUTING_STATE) != "reserve"
    return Kept(
        int(wish) if routed and wish.isascii() and wish.isdecimal() else 0,
        us_of(datetime.fromisoformat(since)) if since else None,
    )


def _us(seconds: float) -> int:
    return int(max(seconds, 0.0) * 1_000_000)
