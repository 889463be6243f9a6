"""One watch: what it sends, from the history and as things happen."""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

from fake_kubernetes.errors import Refused
from fake_kubernetes.kinds import Kind
from fake_kubernetes.store import Event, Store

Object = dict[str, Any]
Matches = Callable[[Object], bool]


class Watch:
    """Follows one kind, of one namespace or all. `step` gives what is to be sent now, oldest first."""

    def __init__(
        self,
        store: Store,
        kind: Kind,
        namespace: str,
        matches: Matches,
        *,
        version: str,
        bookmarks: bool,
        initial: bool,
    ) -> None:
        self._store, self.kind, self._namespace, self._matches = store, kind, namespace, matches
        self.bookmarks = bookmarks
        self._fresh = version in ("", "0") or initial
        self._marks_start = initial
        self._seen = 0 if self._fresh else _number(version)
        if self._seen > store.version:
            raise Refused(504, f"Too large resource version: {version}, current: {store.version}")
        self.extra: list[bytes] = []
        """Lines that a test put in."""

    def step(self) -> Iterator[bytes]:
        """Raises Refused 410 when what it would have to send is forgotten."""
        extra, self.extra = self.extra, []
        yield from extra
        if self._fresh:
            self._fresh = False
            self._seen = self._store.version
            for thing in self._store.select(self.kind, self._namespace, self._matches):
                yield line("ADDED", self._with_type(thing))
            if self._marks_start:
                yield self.bookmark({"k8s.io/initial-events-end": "true"})
            return
        for event in self._store.events_after(self._seen):
            self._seen = event.version
            yield from self.told(event)

    def told(self, event: Event) -> Iterator[bytes]:
        """How this watch's reader learns of an event, if at all: by what it has seen of the object."""
        if event.kind is not self.kind or self._namespace not in ("", event.thing["metadata"].get("namespace", "")):
            return
        seen = event.before is not None and self._matches(event.before)
        fits = event.type != "DELETED" and self._matches(event.thing)
        if seen or fits:
            type_ = "MODIFIED" if seen and fits else "ADDED" if fits else "DELETED"
            yield line(type_, self._with_type(event.thing))

    def bookmark(self, annotations: dict[str, str] | None = None) -> bytes:
        meta: Object = {"resourceVersion": str(self._seen), "creationTimestamp": None}
        if annotations:
            meta["annotations"] = annotations
        return line("BOOKMARK", self._with_type({"metadata": meta}))

    def _with_type(self, thing: Object) -> Object:
        return {"kind": self.kind.kind, "apiVersion": self.kind.api_version, **thing}


def line(type_: str, thing: Object) -> bytes:
    return json.dumps({"type": type_, "object": thing}).encode() + b"\n"


async def wait(reader: asyncio.Event, seconds: float) -> bool:
    """Whether something happened before the time was over."""
    try:
        async with asyncio.timeout(seconds):
            await reader.wait()
    except TimeoutError:
        return False
    reader.clear()
    return True


def _number(version: str) -> int:
    if not version.isdecimal():
        raise Refused(400, f"Invalid value: {version!r}: strconv.ParseUint: parsing {version!r}: invalid syntax")
    return int(version)
