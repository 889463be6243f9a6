"""What each replica on the cluster held in each stretch of ten seconds: whether that is certain, and how it divides. Pure.

    pod's life (API server) + activity (the replica itself) ─▶ certain? ─▶ setup, active, reserved, idle

A stretch is told of once nothing can change it any more, so that whoever tells of it says the same. Until then it waits;
what cannot be known in the end is in the tenant's favour: not active, and not load.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from roost_platform.domain.resources import ResourceKind, ResourceUsage
from roost_platform.engines.knative.asking import STRETCH_US, Told
from roost_platform.engines.knative.pod_life import PodLife
from roost_platform.engines.local.timeline import Part, Stretch, Timeline

SOURCE = "knative"
"""The cluster: a platform has one, and no pod of another has the same uid. Not the gateway that tells."""
SETTLED_US = 2_000_000
"""Within this the API server has heard from a node what happened there."""
PATIENCE_US = 60_000_000
"""So long after a stretch its replica is asked for it."""
START_US = 3600_000_000
"""So long after a stretch of starting it is waited for how the start ends."""
SECOND_US = 1_000_000
"""So exact are births and ends."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Replica:
    """What is known of one pod."""

    pod: PodLife
    alive_us: int = 0
    """It was there, and well, at this time."""
    gone: bool = False
    """The API server has it no more."""
    ready_us: int | None = None
    """When its model was loaded, by its own account."""
    fetch_us: int = 0
    busy: dict[int, int] = field(default_factory=dict)
    """Its own account of stretches, by number; microseconds."""
    known_until: int = 0
    """Number of the first stretch that it has given no account of."""
    told_us: int = 0
    """Everything before this time was told of."""

    def hear(self, told: Told, *, at_us: int) -> None:
        """Take its account, for which it was asked at that time."""
        self.alive_us = max(self.alive_us, at_us)
        if self.ready_us is None:
            self.ready_us, self.fetch_us = told.ready_us, told.fetch_us
        own = told.ready_us // STRETCH_US  # of what was before, only an earlier process in the same pod could tell
        for number, busy in enumerate((*told.busy_us, told.current_us), told.first):
            if number >= own:
                self.busy[number] = max(busy, self.busy.get(number, 0))
        self.known_until = max(self.known_until, told.first + len(told.busy_us))
        needed = (self.told_us - 2 * PATIENCE_US) // STRETCH_US  # by those that share the stretch, too
        for number in [number for number in self.busy if number < needed]:
            del self.busy[number]

    def see(self, sure_us: int) -> None:
        """The API server has it, as it is known here, at this time."""
        if self.pod.over:
            return
        starting = self.ready_us is None and self.pod.ready_us is None
        if starting or self.pod.serves:  # one that failed is nobody's, unless it recovers and tells so itself
            self.alive_us = max(self.alive_us, sure_us)

    @property
    def end_us(self) -> int | None:
        """When it ended; None = not yet, as far as is known. Never later than it was there."""
        pod = self.pod
        if pod.ended_us is not None:  # the second in which it ended
            end = max(pod.ended_us, min(self.alive_us, pod.ended_us + SECOND_US - 1))
        elif pod.over or self.gone:
            end = self.alive_us if pod.limit_us is None else min(self.alive_us, pod.limit_us)
        else:
            return None
        return max(end, pod.born_us, self.told_us)

    @property
    def horizon_us(self) -> int:
        """Until when it was there for sure."""
        end = self.end_us
        if end is not None:
            return end
        return self.alive_us if self.pod.limit_us is None else min(self.alive_us, self.pod.limit_us)

    @property
    def marks(self) -> tuple[int, int, int]:
        """When it had a place, its image and file, and its model loaded: in this order, whatever clocks say. What never
        came is taken to come after its end, and a start whose beginning nobody knows is no load.
        """
        pod = self.pod
        never = 1 << 62
        ready = self.ready_us if self.ready_us is not None else pod.ready_us
        ready = never if ready is None else max(ready, pod.born_us)
        started = ready if pod.started_us is None or pod.restarted or ready == never else pod.started_us + self.fetch_us
        scheduled = never if pod.scheduled_us is None else pod.scheduled_us
        scheduled = min(max(scheduled, pod.born_us), ready)
        return scheduled, min(max(started, scheduled), ready), ready

    def is_certain(self, end_us: int, now_us: int) -> bool:
        """Whether nothing that was before `end_us`, the end of a stretch, can turn out to be otherwise."""
        if self.end_us is not None:
            return True
        if end_us + SETTLED_US > self.horizon_us:
            return False
        if self.ready_us is None:
            return self._is_start_certain(end_us, now_us)
        known = end_us <= self.ready_us or (end_us - 1) // STRETCH_US < self.known_until
        return known or now_us >= end_us + PATIENCE_US

    def _is_start_certain(self, end_us: int, now_us: int) -> bool:
        if self.pod.ready_us is not None:  # it says when itself, and more exactly, when it is asked
            return now_us >= max(end_us, self.pod.ready_us) + PATIENCE_US
        started = self.pod.started_us
        return started is None or end_us <= started or now_us >= end_us + START_US


@dataclass(frozen=True, slots=True)
class Kept:
    """What is wished of a revision, and when it had first worked; None = not yet."""

    min_scale: int = 0
    proven_us: int | None = None


@dataclass(slots=True)
class Share:
    """One replica's part of one stretch; microseconds."""

    replica: Replica
    start_us: int
    end_us: int
    active_us: int
    free_us: int
    """Ready and not busy."""
    reserved_us: int = 0

    def cut(self) -> Stretch:
        """What it was spent on. Of a replica's work it is known how much there was in the stretch, not when."""
        scheduled, started, ready = (min(mark, self.end_us) for mark in self.replica.marks)
        line = Timeline(self.start_us, offset_us=0, part=Part.SCHEDULE)
        line.enter(Part.PULL, scheduled)
        line.enter(Part.LOAD, started)
        line.enter(Part.ACTIVE, ready)
        free_from = max(ready, self.start_us) + self.active_us
        line.enter(Part.RESERVED, free_from)
        line.enter(Part.IDLE, free_from + self.reserved_us)
        final = self.end_us == self.replica.end_us
        (stretch,) = line.end(self.end_us) if final else line.cut(self.end_us, offset_us=0)
        return stretch


def share_of(replica: Replica, number: int) -> Share | None:
    """None where it was not there."""
    start = max(number * STRETCH_US, replica.pod.born_us)
    end = (number + 1) * STRETCH_US
    if start < replica.told_us < end:  # it was taken for ended there
        start = replica.told_us
    if replica.end_us is not None:
        end = min(end, replica.end_us)
    if end <= start:
        return None
    ready = end - min(max(replica.marks[2], start), end)
    active = min(replica.busy.get(number, 0), ready)
    return Share(replica, start, end, active, ready - active)


def reserve(shares: Sequence[Share], *, min_scale: int) -> None:
    """Divide what was free in one stretch among the replicas of a revision: what `min_scale` replicas hold, less what was
    busy, is reserved, the oldest first.
    """
    left = max(0, min_scale * STRETCH_US - sum(share.active_us for share in shares))
    for share in sorted(shares, key=lambda share: (share.replica.pod.born_us, share.replica.pod.uid)):
        share.reserved_us = min(share.free_us, left)
        left -= share.reserved_us


def due(replicas: Iterable[Replica], kept: Kept, *, now_us: int, most: int = 1000) -> list[ResourceUsage]:
    """What can be told now of the replicas of one revision, in the order of time; it counts as told from then on. When it
    is more than about `most`, the rest is due the next time.

    Where they share what is reserved, one that gives no account holds up the others, for as long as it is asked.
    """
    everyone = list(replicas)
    left = [one for one in everyone if one.end_us is None or one.told_us < one.end_us]
    ready = [_next(one) for one in left if one.is_certain((_next(one) + 1) * STRETCH_US, now_us)]
    usages: list[ResourceUsage] = []
    for number in range(min(ready, default=now_us), now_us // STRETCH_US + 1):
        shares = [share for one in everyone if (share := share_of(one, number)) is not None]
        certain = [share for share in shares if share.replica.is_certain(share.end_us, now_us)]
        waits = kept.min_scale > 0 and now_us < (number + 1) * STRETCH_US + PATIENCE_US
        if len(usages) >= most or (waits and len(certain) < len(shares)):
            break
        reserve(certain, min_scale=kept.min_scale)
        for share in certain:
            if share.start_us == share.replica.told_us:
                share.replica.told_us = share.end_us
                usages.append(_usage(share, woken=is_woken(share.replica, everyone, kept)))
    return usages


def is_woken(replica: Replica, everyone: Sequence[Replica], kept: Kept) -> bool:
    """Whether it was made for a call that found its revision asleep: none was there that it could have gone to, none is
    kept in any case, and it is not the one that a new revision is tried with.
    """
    born = replica.pod.born_us
    if kept.min_scale or replica.pod.restarted:
        return False
    others = [other for other in everyone if other is not replica]
    ended = [other for other in others if other.end_us is not None and other.end_us < born + SECOND_US]
    tried = kept.proven_us is not None and kept.proven_us < born
    if not tried and not any(other.marks[2] < other.horizon_us for other in ended):
        return False
    return not any(other.marks[2] <= born for other in others if other not in ended)


def _next(replica: Replica) -> int:
    """Number of the stretch that is to be told of next."""
    return replica.told_us // STRETCH_US


def _usage(share: Share, *, woken: bool) -> ResourceUsage:
    replica, stretch = share.replica, share.cut()
    pod, spent, ready_us = replica.pod, stretch.spent_us, replica.marks[2]
    return ResourceUsage(
        source=SOURCE,
        id=f"{pod.uid}/{stretch.start_us}",
        kind=ResourceKind.REPLICA,
        start=_time(stretch.start_us),
        end=_time(stretch.end_us),
        tenant=pod.key.tenant,
        model=pod.key.model,
        version=pod.version,
        revision=pod.revision,
        replica=pod.uid,
        resource_class=pod.resource_class,
        setup_us=spent[Part.SCHEDULE] + spent[Part.PULL] + spent[Part.LOAD],
        active_us=spent[Part.ACTIVE],
        idle_us=spent[Part.IDLE],
        reserved_us=spent[Part.RESERVED],
        cold_starts=int(woken and stretch.start_us <= ready_us < stretch.end_us),
        pull_us=spent[Part.PULL],
        schedule_us=spent[Part.SCHEDULE],
        load_us=spent[Part.LOAD],
        final=stretch.final,
    )


def _time(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)
