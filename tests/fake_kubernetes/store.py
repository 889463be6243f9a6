"""What the fake API server holds: objects, and the history of what happened to them.

Objects in the store are never changed in place: each write puts a new one, with the next resourceVersion.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from fake_kubernetes.errors import Refused
from fake_kubernetes.kinds import Kind
from fake_kubernetes.schemas import copied

Object = dict[str, Any]
Matches = Callable[[Object], bool]


class Key(NamedTuple):
    kind: Kind
    namespace: str
    name: str


class Event(NamedTuple):
    """One change; `before` tells a watch with a selector what its reader has seen."""

    version: int
    type: str
    kind: Kind
    thing: Object
    before: Object | None


class Store:
    """Objects by key; the last `history` events can be watched from."""

    def __init__(self, history: int) -> None:
        self._objects: dict[Key, Object] = {}
        self._events: deque[Event] = deque(maxlen=history)
        self._readers: set[asyncio.Event] = set()
        self.version = 1
        self.forgotten = 0
        """Watches from this version or an older one are told 410."""

    def get(self, key: Key) -> Object | None:
        return self._objects.get(key)

    def must_get(self, key: Key) -> Object:
        found = self._objects.get(key)
        if found is None:
            raise Refused(
                404,
                f'{key.kind.resource} "{key.name}" not found',
                details={"name": key.name, "group": key.kind.group, "kind": key.kind.plural},
            )
        return found

    def select(self, kind: Kind, namespace: str = "", matches: Matches = lambda _: True) -> list[Object]:
        """Those of one kind, of one namespace or of all, by name."""
        found = [
            (key.namespace, key.name, thing)
            for key, thing in self._objects.items()
            if key.kind is kind and namespace in ("", key.namespace) and matches(thing)
        ]
        return [thing for _, _, thing in sorted(found, key=lambda entry: entry[:2])]

    def everything(self, namespace: str) -> list[Key]:
        return [key for key in self._objects if key.namespace == namespace]

    def all_keys(self) -> list[Key]:
        return list(self._objects)

    def put(self, key: Key, thing: Object) -> Object:
        before = self._objects.get(key)
        self.version += 1
        thing = copied(thing)
        thing["metadata"]["resourceVersion"] = str(self.version)
        self._objects[key] = thing
        self._tell(Event(self.version, "ADDED" if before is None else "MODIFIED", key.kind, thing, before))
        return thing

    def remove(self, key: Key) -> Object:
        before = self._objects.pop(key)
        self.version += 1
        last = copied(before)
        last["metadata"]["resourceVersion"] = str(self.version)
        self._tell(Event(self.version, "DELETED", key.kind, last, before))
        return last

    def events_after(self, version: int) -> list[Event]:
        """Raises Refused 410 when some of them are forgotten."""
        if version < self.forgotten:
            raise Refused(410, f"too old resource version: {version} ({self.forgotten + 1})")
        return [event for event in self._events if event.version > version]

    def last_events(self, count: int) -> list[Event]:
        return list(self._events)[-count:]

    def forget(self) -> None:
        """No watch can go on from before now."""
        self._events.clear()
        self.forgotten = self.version

    def reader(self) -> asyncio.Event:
        """Set at every change, and by `wake`; `leave` ends that."""
        reader = asyncio.Event()
        self._readers.add(reader)
        return reader

    def leave(self, reader: asyncio.Event) -> None:
        self._readers.discard(reader)

    def wake(self) -> None:
        for reader in self._readers:
            reader.set()

    def _tell(self, event: Event) -> None:
        if len(self._events) == self._events.maxlen:
            self.forgotten = self._events[0].version
        self._events.append(event)
        self.wake()


def dependents(store: Store, uid: str) -> Iterator[tuple[Key, Object]]:
    """Those that name an owner of this uid."""
    for key in store.all_keys():
        thing = store.get(key)
        if thing is not None and any(o["uid"] == uid for o in thing["metadata"].get("ownerReferences", ())):
            yield key, thing
