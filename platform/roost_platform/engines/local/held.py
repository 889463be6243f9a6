"""What this engine's replicas hold: each one's timeline, who of a revision is reserved, and telling of it now and then.

Of the ready replicas of a revision, those with a request are active. Of the others as many are *reserved* as min-scale
asks for beyond the active ones, those that have been ready the longest first; the rest is idle.
"""

import secrets
from datetime import UTC, datetime, timedelta
from itertools import count

from roost_platform.domain.resources import ResourceKind, ResourceUsage
from roost_platform.domain.services import Revision, RevisionKey
from roost_platform.engines.local.clocks import Clocks
from roost_platform.engines.local.timeline import Part, Stretch, Timeline
from roost_platform.engines.port import OnUsage

RESOURCE_CLASS = "cpu-1"
"""No replica of this engine is promised more than one core: they share those of the machine."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Held:
    """All replicas of one engine. Everything happens on the event loop."""

    def __init__(self, *, on_usage: OnUsage, clocks: Clocks) -> None:
        self.clocks = clocks
        self._on_usage = on_usage
        self._source = f"local-{secrets.token_hex(8)}"
        self._numbers = count(1)
        self._living: dict[HeldReplica, None] = {}

    def revision(self, key: RevisionKey, revision: Revision) -> "HeldRevision":
        return HeldRevision(self, key, revision)

    def report(self) -> None:
        """Tell of what there was since the last time."""
        self.clocks.look()
        now, offset = self.clocks.now_us(), self.clocks.offset_us
        for replica in list(self._living):
            self._tell(replica, replica.cut(now, offset_us=offset))

    def end(self) -> None:
        """Tell of what there was, and nothing more: whatever still runs is on its way out."""
        for replica in list(self._living):
            replica.ends()

    def began(self, replica: "HeldReplica") -> str:
        """Its name, which no other replica ever had or gets."""
        self._living[replica] = None
        return f"{self._source}-{next(self._numbers)}"

    def ended(self, replica: "HeldReplica") -> None:
        if replica in self._living:
            del self._living[replica]
            self._tell(replica, replica.end(self.clocks.now_us()))

    def _tell(self, replica: "HeldReplica", stretches: list[Stretch]) -> None:
        for stretch in stretches:
            self._on_usage(self._usage(replica, stretch))

    def _usage(self, replica: "HeldReplica", stretch: Stretch) -> ResourceUsage:
        spent, key = stretch.spent_us, replica.of.key
        return ResourceUsage(
            source=self._source,
            id=f"{replica.name}/{stretch.number}",
            kind=ResourceKind.REPLICA,
            start=_EPOCH + timedelta(microseconds=stretch.start_us),
            end=_EPOCH + timedelta(microseconds=stretch.end_us),
            tenant=key.service.tenant,
            model=key.service.model,
            version=replica.of.version,
            revision=key.name,
            replica=replica.name,
            resource_class=RESOURCE_CLASS,
            setup_us=spent[Part.SCHEDULE] + spent[Part.PULL] + spent[Part.LOAD],
            active_us=spent[Part.ACTIVE],
            idle_us=spent[Part.IDLE],
            reserved_us=spent[Part.RESERVED],
            cold_starts=stretch.cold_starts,
            pull_us=spent[Part.PULL],
            schedule_us=spent[Part.SCHEDULE],
            load_us=spent[Part.LOAD],
            final=stretch.final,
        )


class HeldRevision:
    """The replicas of one revision."""

    def __init__(self, held: Held, key: RevisionKey, revision: Revision) -> None:
        self.key = key
        self.version = revision.version
        self.held = held
        self.min_scale = 0
        self.ready: list[HeldReplica] = []
        """Those that may be given work, the one that is ready for the longest first."""
        self._asked: HeldReplica | None = None
        self._active = 0  # exact while crowded
        self._crowded = False

    def ask(self, *, called: bool) -> None:
        """There is no room for a replica that is wanted, and none that is ready: it is being scheduled from now on.

        `called`: a request that came in wants it.
        """
        if self._asked is None and not self.ready:
            self._asked = HeldReplica(self, woken=called)

    def ask_no_more(self) -> None:
        """It is not wanted any more, or not that much."""
        if self._asked is not None:
            self._asked.ends()
            self._asked = None

    def begin(self, *, called: bool) -> "HeldReplica":
        """There is room for a replica: the one that was asked for, or another."""
        asked, self._asked = self._asked, None
        return asked or HeldReplica(self, woken=called and not self.ready)

    def keep(self, min_scale: int) -> None:
        """From now on so many are kept whether anybody calls or not."""
        if min_scale != self.min_scale:
            self.min_scale = min_scale
            self.settle(self.held.clocks.now_us())

    def settle(self, now_us: int) -> None:
        """Say of each replica without a request whether it is reserved."""
        for replica in self.ready:
            replica.catch_up()
        self._active = sum(replica.part is Part.ACTIVE for replica in self.ready)
        left = self.min_scale - self._active
        # Where all are reserved, or none ever is, what one does says nothing about the others.
        self._crowded = 0 < self.min_scale < len(self.ready)
        for replica in self.ready:
            if replica.part is not Part.ACTIVE:
                replica.enter(Part.RESERVED if left > 0 else Part.IDLE, now_us)
                left -= 1
            replica.count_lightly(alone=not self._crowded)

    def moved(self, now_us: int, *, active: int) -> None:
        """One of them became active (1) or idle (-1). While at least as many as are kept stay active, that is all."""
        fewest = min(self._active, self._active + active)
        self._active += active
        if not self._crowded or fewest < self.min_scale:
            self.settle(now_us)


class HeldReplica(Timeline):
    """One replica, from the moment that it was asked for.

    `busy` and `idle` are told for most calls. As a rule they only add up how long it was busy; the timeline gets the sum when
    anything else happens (`catch_up`). At the end of an hour, and where the others of the revision have to be looked at, each
    is entered at once.
    """

    __slots__ = ("_busy_ns", "_busy_since_ns", "_exact_after_ns", "_now_ns", "_woken", "name", "of")

    def __init__(self, of: HeldRevision, *, woken: bool) -> None:
        clocks = of.held.clocks
        super().__init__(clocks.now_us(), offset_us=clocks.offset_us)
        self.of = of
        self.name = of.held.began(self)
        self._now_ns = clocks.now_ns
        self._woken = woken
        self._busy_ns = 0  # not entered yet,
        self._busy_since_ns = 0  # besides what is going on; 0 = nothing is, or it was entered
        self._exact_after_ns = 0

    def does(self, part: Part) -> None:
        """A step of its setup."""
        self.enter(part, self._now_us())

    def becomes_ready(self) -> None:
        now_us = self._now_us()
        self.enter(Part.IDLE, now_us)
        if self._woken:
            self.count_cold_start()
        self.of.ready.append(self)
        self.of.settle(now_us)
        self.of.ask_no_more()

    def busy(self) -> None:
        """Its first request came in."""
        now = self._now_ns()
        if now > self._exact_after_ns:
            self._enter_exactly(Part.ACTIVE, now)
        else:
            self._busy_since_ns = now

    def idle(self) -> None:
        """Its last request is out."""
        now = self._now_ns()
        if now > self._exact_after_ns:
            self._enter_exactly(Part.IDLE, now)
        else:
            self._busy_ns += now - self._busy_since_ns
            self._busy_since_ns = 0

    def leaves(self) -> None:
        """It gets no more work, and is on its way out."""
        if self in self.of.ready:
            now_us = self._now_us()
            self.catch_up()
            self._exact_after_ns = 0
            self.of.ready.remove(self)
            self.enter(Part.ACTIVE if self.part is Part.ACTIVE else Part.IDLE, now_us)
            self.of.settle(now_us)

    def ends(self) -> None:
        """It is gone. No harm when it was before."""
        self.leaves()
        self.of.held.ended(self)

    def catch_up(self) -> None:
        """Enter what was only added up so far."""
        added_us, self._busy_ns = divmod(self._busy_ns, 1000)
        self.active_us += added_us
        if self._busy_since_ns:
            self.enter(Part.ACTIVE, self._busy_since_ns // 1000)
            self._busy_since_ns = 0
            self._exact_after_ns = 0

    def count_lightly(self, *, alone: bool) -> None:
        """From now on, until the hour ends, if it is `alone` and idle."""
        light = alone and self.part is not Part.ACTIVE
        self._exact_after_ns = self.hour_ends_us * 1000 if light else 0

    def cut(self, at_us: int, *, offset_us: int) -> list[Stretch]:
        self.catch_up()
        done = super().cut(at_us, offset_us=offset_us)
        if self._exact_after_ns:
            self._exact_after_ns = self.hour_ends_us * 1000
        return done

    def _enter_exactly(self, part: Part, now_ns: int) -> None:
        now_us = now_ns // 1000
        self.catch_up()
        self.enter(part, now_us)
        if self in self.of.ready:
            self.of.moved(now_us, active=1 if part is Part.ACTIVE else -1)

    def _now_us(self) -> int:
        return self._now_ns() // 1000
