"""The thread that reads samples and counts them, beside the event loop. Bounded: what there is no room for is dropped."""

import asyncio
import math
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from roost_gateway.drift.reading import Rows, read_call
from roost_gateway.drift.settings import DriftWish
from roost_gateway.open_inference import Unreadable
from roost_gateway.predict.headers import Pair
from roost_gateway.predict.taps import Seen
from roost_platform.domain.services import ServiceKey
from roost_platform.drift.profiles import Counted, Profile, features_of
from roost_platform.drift.store import Answer, VersionKey, Window

MOST_WAITING = 64
MOST_BYTES = 256 * 1024
"""Of a call's two bodies together."""
MOST_COLLECTING = 100
"""Versions whose first calls are gathered at a time: their values are in memory."""
MOST_ANSWERS = 10_000
"""That wait for the database."""


@dataclass(slots=True)
class _Sample:
    key: VersionKey
    request_id: str
    at: datetime
    wish: DriftWish
    request: bytes
    headers: list[Pair]
    answer: bytes
    answer_headers: list[Pair]


@dataclass(slots=True)
class _First:
    """The first calls of a version."""

    rows: int = 0
    columns: dict[str, list[float] | list[str]] = field(default_factory=dict)


@dataclass(slots=True)
class Harvest:
    """What the database is to have. `windows` are whole, so to write them twice does no harm."""

    profiles: dict[VersionKey, Profile] = field(default_factory=dict)
    windows: list[Window] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)


def hour_of(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


class Counting:
    """`put` on the event loop; all else that touches the counts runs on the one thread."""

    def __init__(self) -> None:
        self.samples: Counter[VersionKey] = Counter()
        self.dropped: Counter[tuple[ServiceKey, str]] = Counter()
        self._room = threading.BoundedSemaphore(MOST_WAITING)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="drift")
        self._profiles: dict[VersionKey, Profile] = {}
        self._firsts: dict[VersionKey, _First] = {}
        self._made: dict[VersionKey, Profile] = {}
        self._windows: dict[tuple[VersionKey, datetime, str], Counted] = {}
        self._answers: list[Answer] = []

    def put(self, call: Seen, wish: DriftWish, now: datetime) -> None:
        """Take a sample, or drop it."""
        model = call.route.key
        assert call.request is not None
        assert call.answer is not None
        if sum(map(len, call.request)) + len(call.answer) > MOST_BYTES:
            self.dropped[model, "large"] += 1
            return
        if not self._room.acquire(blocking=False):
            self.dropped[model, "full"] += 1
            return
        key = VersionKey(model, call.measured.version)
        body = b"".join(call.request)
        sample = _Sample(
            key,
            call.measured.request_id,
            now,
            wish,
            body,
            list(call.headers),
            bytes(call.answer),
            list(call.answer_headers),
        )
        self._thread.submit(self._work, sample)

    async def harvest(self, now: datetime) -> Harvest:
        """What was counted so far, samples that wait included; of hours that are over for the last time."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._harvest, now)

    async def know(self, profiles: Mapping[VersionKey, Profile]) -> None:
        """These are the references now; what was counted against others is forgotten."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._know, dict(profiles))

    async def take_back(self, harvest: Harvest) -> None:
        """What could not be written: it comes again with the next harvest. Windows are kept anyhow."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._take_back, harvest)

    def stop(self) -> None:
        self._thread.shutdown(cancel_futures=True)

    # On the thread

    def _work(self, sample: _Sample) -> None:
        try:
            wish = sample.wish
            found = read_call(sample.request, sample.headers, sample.answer, sample.answer_headers, skip=wish.skip)
            self._count(sample, found)
        except Unreadable:
            self.dropped[sample.key.model, "unreadable"] += 1
        except Exception:
            self.dropped[sample.key.model, "failed"] += 1
            raise
        finally:
            self._room.release()

    def _count(self, sample: _Sample, found: Rows) -> None:
        key = sample.key
        if sample.wish.keep_answers and _judgeable(found.answers) and len(self._answers) < MOST_ANSWERS:
            self._answers.append(Answer(key, sample.request_id, sample.at, found.answers))
        reference = self._profiles.get(key)
        if reference is None:
            self._gather(sample, found)
        else:
            place = (key, hour_of(sample.at), reference.id)
            counted = self._windows.get(place, Counted({}))
            self._windows[place] = counted.seen(reference, found.columns, found.rows)
        self.samples[key] += 1

    def _gather(self, sample: _Sample, found: Rows) -> None:
        """Towards the reference of a version that has none."""
        key, first = sample.key, self._firsts.get(sample.key)
        if first is None:
            if len(self._firsts) >= MOST_COLLECTING:
                self.dropped[key.model, "full"] += 1
                return
            first = self._firsts[key] = _First()
        first.rows += found.rows
        for name, values in found.columns.items():
            first.columns.setdefault(name, []).extend(values)  # type: ignore[arg-type]
        if first.rows >= sample.wish.reference_rows:
            made = Profile(uuid4().hex, sample.at, "calls", first.rows, features_of(first.columns))
            self._made[key] = self._profiles[key] = made
            del self._firsts[key]

    def _harvest(self, now: datetime) -> Harvest:
        made, self._made = self._made, {}
        answers, self._answers = self._answers, []
        windows = dict(self._windows)
        before = hour_of(now) - timedelta(hours=1)  # twice written: the last samples of an hour may come late
        self._windows = {place: counted for place, counted in windows.items() if place[1] >= before}
        return Harvest(made, [Window(*place, counted) for place, counted in windows.items()], answers)

    def _take_back(self, harvest: Harvest) -> None:
        self._made = harvest.profiles | self._made
        self._answers = (harvest.answers + self._answers)[:MOST_ANSWERS]

    def _know(self, profiles: dict[VersionKey, Profile]) -> None:
        self._profiles = profiles | {key: made for key, made in self._made.items() if key not in profiles}
        known = {(key, kept.id) for key, kept in self._profiles.items()}
        self._windows = {place: seen for place, seen in self._windows.items() if (place[0], place[2]) in known}
        self._firsts = {key: first for key, first in self._firsts.items() if key not in profiles}


def _judgeable(answers: list[float] | list[str]) -> bool:
    """There are some, and all can be written down: JSON knows no NaN."""
    return bool(answers) and all(isinstance(answer, str) or math.isfinite(answer) for answer in answers)
