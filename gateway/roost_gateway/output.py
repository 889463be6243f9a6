"""What models printed, as readers get it: merged over revisions, filtered, and followed while they wait."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import orjson

from roost_gateway.access.directory import Directory
from roost_gateway.access.routes import RevisionRecord
from roost_gateway.deployments.deployments import Deployments
from roost_platform.domain.errors import Throttled
from roost_platform.domain.output import OutputLine
from roost_platform.domain.services import ServiceKey

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLLOWERS = 20
"""Answers of one tenant that are held open at a time by this gateway."""
FOLLOW_S = 300.0
"""How long one is held open: its key is looked at again after that."""
LOOK_S = 0.5
_SIGN_S = 10.0
"""After so long without a line an empty one is sent: so a reader that is gone is noticed, and proxies keep the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    key: ServiceKey
    since: datetime | None = None
    """Aware; what was printed at this time is not wanted, either."""
    limit: int = 100
    """Most lines of those that are there already."""
    revision: str | None = None
    replica: str | None = None


class ModelOutput:
    """Reads what the engine keeps. All on the event loop."""

    def __init__(
        self,
        *,
        directory: Directory,
        deployments: Deployments,
        serving: Callable[[], bool] = lambda: True,
        look_s: float = LOOK_S,
        follow_s: float = FOLLOW_S,
    ) -> None:
        """`serving`: whether answers may be held open; `look_s` between two looks at the engine, `follow_s` in all."""
        self._directory = directory
        self._deployments = deployments
        self._serving = serving
        self._look_s = look_s
        self._follow_s = follow_s
        self._followers: Counter[str] = Counter()

    def last(self, asked: Asked) -> bytes:
        """The lines there are, oldest first, as NDJSON."""
        return b"".join(_json(record, line) for record, line in self._found(asked)[-asked.limit :])

    def follow(self, asked: Asked) -> AsyncIterator[bytes]:
        """`last`, and then what is printed, in the order in which it becomes known. Ends with the model, with the
        server, and after a while. Raises Throttled at once where a tenant follows too much.
        """
        if self._followers[asked.key.tenant] >= FOLLOWERS:
            raise Throttled(
                f"{FOLLOWERS} logs are being followed; end one first", code="too_many_followers",
                limit=FOLLOWERS, used=FOLLOWERS, reset_s=5,
            )  # fmt: skip
        return self._follow(asked)

    async def _follow(self, asked: Asked) -> AsyncIterator[bytes]:
        clock = asyncio.get_running_loop().time
        with self._counted(asked.key.tenant):
            found = self._found(asked)
            seen = _newest(found, {})
            yield b"".join(_json(record, line) for record, line in found[-asked.limit :]) or b"\n"
            end, said = clock() + self._follow_s, clock()
            while clock() < end and self._serving() and self._directory.route(*asked.key) is not None:
                await asyncio.sleep(self._look_s)
                found = self._found(asked)
                news = [(r, line) for r, line in found if line.number > seen.get(r.revision.name, 0)]
                seen = _newest(news, seen)
                if news or clock() - said > _SIGN_S:
                    said = clock()
                    yield b"".join(_json(record, line) for record, line in news) or b"\n"

    @contextmanager
    def _counted(self, tenant: str) -> "Iterator[None]":
        self._followers[tenant] += 1
        try:
            yield
        finally:
            self._followers[tenant] -= 1
            if not self._followers[tenant]:
                del self._followers[tenant]

    def _found(self, asked: Asked) -> list[tuple[RevisionRecord, OutputLine]]:
        route = self._directory.route(*asked.key)
        if route is None:
            return []
        printed = self._deployments.output(route)
        found = [
            (record, line)
            for record in route.records
            if asked.revision in (None, record.revision.name)
            for line in printed.get(record.revision.name, ())
            if asked.replica in (None, line.replica) and (asked.since is None or line.at > asked.since)
        ]
        return sorted(found, key=lambda pair: pair[1].at)


def _newest(found: list[tuple[RevisionRecord, OutputLine]], before: dict[str, int]) -> dict[str, int]:
    """The highest number of each revision's lines that were seen."""
    seen = dict(before)
    for record, line in found:
        name = record.revision.name
        seen[name] = max(seen.get(name, 0), line.number)
    return seen


def _json(record: RevisionRecord, line: OutputLine) -> bytes:
    at = line.at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    revision = record.revision
    document = {
        "time": at,
        "revision": revision.name,
        "version": revision.version,
        "replica": line.replica,
        "text": line.text,
    }
    return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)
