"""A copy of all objects of one kind, kept by list and watch; readable, if old, while the API server is away.

Resource versions are compared for equality only. A watch is resumed from the last version seen, is ended by the server
after `watch_s` seconds and taken for stalled soon after that; whatever it missed is found by the next list.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import NamedTuple

from roost_platform.engines.knative.cluster import Cluster, ClusterError, Document, Event, Gone, Kind, NotNow

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 15.0
_REMEMBERED_VERSIONS = 16
_REMEMBERED_ENDS = 1024


class Place(NamedTuple):
    """Where an object is; `namespace` is empty for kinds without."""

    namespace: str
    name: str


Changed = Callable[[Document | None, Document | None], None]
"""Takes an object as it was and as it is; None = it was not, or is not, there."""


def _whole(_: Document) -> None:
    """Keeps all of an object."""


class Informer:
    """Runs as one task. `changed` is called on the event loop, after the copy has changed."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        kind: Kind,
        selector: str,
        changed: Changed,
        thin: Callable[[Document], None] = _whole,
        watch_s: float = 40.0,
        relist_s: float = 300.0,
        utc: Callable[[], float] = time.time,
    ) -> None:
        """`watch_s` bounds how long a silent connection is believed, `relist_s` the time between two lists. `thin` takes
        away what nobody reads; with many pods that would be most of what this process holds. `utc`: seconds since 1970.
        """
        self._cluster = cluster
        self._kind = kind
        self._selector = selector
        self._changed = changed
        self._thin = thin
        self._watch_s = watch_s
        self._relist_s = relist_s
        self._utc = utc
        self._objects: dict[Place, Document] = {}
        self._seen: dict[str, OrderedDict[str, None]] = {}  # uid -> its last resource versions
        self._ended: OrderedDict[str, None] = OrderedDict()  # uids that are gone, or out of the selector's sight
        self._version = ""
        self._listed_at = 0.0
        self._away = False
        self._pause_s = _FIRST_PAUSE_S
        self.synced = asyncio.Event()
        """Set when everything was listed once."""
        self.sure_until = float("-inf")
        """What this shows was so at that time, in seconds since 1970: what has changed later may not be known yet. While
        `changed` is told of something, that is as of before.
        """

    @property
    def objects(self) -> Mapping[Place, Document]:
        return self._objects

    async def run(self) -> None:
        """Until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            began = clock()
            try:
                await self._follow()
                if clock() - began >= self._watch_s / 2:
                    continue  # the ordinary end of a watch
            except Gone:
                self._version = ""
                logger.info("watch_too_old", extra=self._fields())
            except ClusterError as error:
                self._lost(error)
            except Exception:  # an object that this code cannot read must not end the watch for good
                logger.exception("watch_failed", extra=self._fields())
                self._version = ""
            # Ended too soon, be it by the server or by an error: not again at once, and not all gateways together.
            await asyncio.sleep(self._pause_s * random.uniform(0.5, 1.5))  # noqa: S311 - spreads load
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)

    async def _follow(self) -> None:
        """List where that is due, then watch until the watch ends."""
        now = asyncio.get_running_loop().time()
        if not self._version or now - self._listed_at >= self._relist_s:
            asked = self._utc()
            listing = await self._cluster.find(self._kind, selector=self._selector)
            self._replace(listing.items)
            self._version, self._listed_at, self.sure_until = listing.version, now, asked
            self._back()
            self.synced.set()
        events = self._cluster.watch(
            self._kind, selector=self._selector, version=self._version, timeout_s=self._watch_s
        )
        async with contextlib.aclosing(events):
            async for event in events:
                self._back()
                self._take(event)
                self.sure_until = self._utc()
        self.sure_until = self._utc()  # the server has ended it in order: there was nothing more

    def _replace(self, items: list[Document]) -> None:
        found = {_place(item): item for item in items}
        for place in [p for p in self._objects if p not in found]:
            self._remove(place)
        for place, item in found.items():
            before = self._objects.get(place)
            if before is None or _version(before) != _version(item):
                self._put(place, item)

    def _take(self, event: Event) -> None:
        if not _is_object(event.object):
            raise NotNow("the API server sent an event without an object")
        self._version = _version(event.object) or self._version
        if event.type == "BOOKMARK":
            return
        place, uid = _place(event.object), _uid(event.object)
        if event.type == "DELETED":
            known = self._objects.get(place)
            if known is not None and _uid(known) == uid:
                self._remove(place)
            return
        if not self._is_replay(event.object):
            self._put(place, event.object)

    def _is_replay(self, new: Document) -> bool:
        """Whether this state was seen before, or is older than what is known."""
        uid = _uid(new)
        if _version(new) in self._seen.get(uid, ()):
            return True
        known = self._objects.get(_place(new))
        return known is not None and _uid(known) == uid and _generation(new) < _generation(known)

    def _put(self, place: Place, item: Document) -> None:
        before = self._objects.get(place)
        if before is not None and _uid(before) != _uid(item):
            self._remove(place)
            before = None
        item["metadata"].pop("managedFields", None)  # as long as the object, and nobody reads it
        self._thin(item)
        self._ended.pop(_uid(item), None)
        versions = self._seen.setdefault(_uid(item), OrderedDict())
        versions[_version(item)] = None
        if len(versions) > _REMEMBERED_VERSIONS:
            versions.popitem(last=False)
        self._objects[place] = item
        self._changed(before, item)

    def _remove(self, place: Place) -> None:
        before = self._objects.pop(place)
        self._ended[_uid(before)] = None
        if len(self._ended) > _REMEMBERED_ENDS:
            forgotten, _ = self._ended.popitem(last=False)
            self._seen.pop(forgotten, None)
        self._changed(before, None)

    def _lost(self, error: ClusterError) -> None:
        if not self._away:
            logger.warning("watch_lost", extra=self._fields(error=type(error).__name__, message_text=error.message))
        self._away = True

    def _back(self) -> None:
        if self._away:
            logger.info("watch_back", extra=self._fields())
        self._away = False
        self._pause_s = _FIRST_PAUSE_S

    def _fields(self, **more: str) -> dict[str, str]:
        return {"kind": self._kind.plural, **more}


def _is_object(document: Document) -> bool:
    return isinstance(document, dict) and isinstance(document.get("metadata"), dict)


def _place(document: Document) -> Place:
    return Place(document["metadata"].get("namespace", ""), document["metadata"]["name"])


def _uid(document: Document) -> str:
    return str(document["metadata"].get("uid", ""))


def _version(document: Document) -> str:
    return str(document["metadata"].get("resourceVersion", ""))


def _generation(document: Document) -> int:
    return int(document["metadata"].get("generation", 0))
