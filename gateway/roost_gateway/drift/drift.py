"""Drift at work: what is sampled goes to the database, is compared with its reference, and is told.

Each gateway writes what it counted, and reads what others decided, every `interval_s`; only the one that leads compares all
versions for the metrics page. A report that somebody asks for is made from the database then.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection

from roost_gateway.access.directory import Directory
from roost_gateway.drift.counting import Counting, Harvest
from roost_gateway.drift.figures import DriftFigures
from roost_gateway.drift.reading import read_document
from roost_gateway.drift.reports import VersionReport, report_of
from roost_gateway.drift.sampling import Sampler
from roost_gateway.drift.settings import DriftWish
from roost_gateway.open_inference import Unreadable
from roost_gateway.predict.taps import Seen, Taps
from roost_gateway.settings import DriftSettings
from roost_platform.database.connection import Database
from roost_platform.domain.errors import InvalidRequest, RoostError
from roost_platform.domain.services import ServiceKey
from roost_platform.drift import store
from roost_platform.drift.profiles import Profile, features_of
from roost_platform.drift.quality import Judged, Sums
from roost_platform.drift.shift import is_installed
from roost_platform.drift.store import VersionKey

log = logging.getLogger(__name__)

_DAY = timedelta(days=1)
_QUALITY = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class ModelReport:
    """A model and how it stands."""

    wish: DriftWish
    versions: dict[int, VersionReport]
    """Those with a reference."""
    quality: dict[tuple[int, str, str], Sums]
    """By version, UTC day and group, of 30 days."""


class Drift:
    """One run of a gateway."""

    def __init__(
        self,
        settings: DriftSettings,
        *,
        database: Database,
        directory: Directory,
        taps: Taps,
        leads: Callable[[], bool],
        clock: Callable[[], datetime],
    ) -> None:
        self._settings = settings
        self._database = database
        self._directory = directory
        self._leads = leads
        self._clock = clock
        self._source = uuid4().hex
        self._default = DriftWish(rate=settings.rate)
        self._wishes: dict[ServiceKey, DriftWish] = {}
        self._profiles: dict[VersionKey, Profile] = {}
        self._counting = Counting()
        self._sampler = Sampler(taps=taps, take=self._take, most_per_s=settings.calls_per_s)
        self.figures = DriftFigures(self._counting, known=lambda key: directory.route(*key) is not None)

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        return [self._follow(), self._keep()] if is_installed() else []

    def stop(self) -> None:
        """Sample no more. What was not written yet is lost."""
        self._sampler.stop()
        self._counting.stop()

    def wish_of(self, key: ServiceKey) -> DriftWish:
        return self._wishes.get(key, self._default)

    async def put_wish(self, key: ServiceKey, wish: DriftWish) -> None:
        """Other gateways know by their next look. Raises NotFound."""
        await self._database.write(store.put_settings, key, wish.to_json())
        self._wishes[key] = wish
        self.follow()

    async def put_profile(self, key: VersionKey, document: bytes) -> Profile:
        """A reference in place of the one there is; counting begins anew. Raises InvalidRequest, NotFound."""
        wish, now = self.wish_of(key.model), self._clock()
        made = await asyncio.to_thread(_profile_from, document, wish, now)
        await self._database.write(store.put_profile, key, made, anew=True)
        self._profiles[key] = made
        await self._counting.know(self._profiles)
        return made

    async def judge(self, key: ServiceKey, feedback: Iterable[Judged]) -> dict[str, int]:
        """Add feedback; see `store.judge`."""
        await self.flush()
        return await self._database.write(store.judge, key, list(feedback), self._clock())

    async def report(self, key: ServiceKey) -> ModelReport:
        """As of now. Raises Unavailable without SciPy."""
        await self.flush()
        now = self._clock()
        found, quality = await self._database.read(_all_of, key, now)
        return ModelReport(self.wish_of(key), {each.version: each for each in found.values()}, quality)

    # What goes on by itself

    def follow(self) -> None:
        """Sample the models that there are now, each as it is wished."""
        keys = self._directory.keys_of_models()
        self._sampler.set_rates({key: rate for key in keys if (rate := self.wish_of(key).rate) > 0})

    async def flush(self) -> None:
        """Bring what was counted to the database, and learn what others decided. Raises RoostError."""
        now = self._clock()
        harvest: Harvest = await self._counting.harvest(now)
        try:
            await self._database.write(
                store.put_harvest, self._source, harvest.profiles, harvest.windows, harvest.answers
            )
        except RoostError:
            await self._counting.take_back(harvest)
            raise
        ids, wishes = await self._database.read(_decided)
        self._wishes = {key: DriftWish.from_json(document) for key, document in wishes.items()}
        missing = [key for key, number in ids.items() if key not in self._profiles or self._profiles[key].id != number]
        new = await self._database.read(store.profiles_of, missing) if missing else {}
        self._profiles = {key: found for key, found in self._profiles.items() if key in ids} | new
        await self._counting.know(self._profiles)

    async def compare(self) -> None:
        """Compare all versions that were seen in the last day, for the metrics page. Raises RoostError."""
        now = self._clock()
        if not self._leads():
            self.figures.compared({}, {})
            return
        await self._database.write(store.forget_old, now)
        windows = await self._database.read(store.windows_of, now - _DAY)
        sums = await self._database.read(store.quality_by_version, now - _DAY)
        reports = {}
        for (key, profile), found in windows.items():
            known = self._profiles.get(key)
            if known is not None and known.id == profile:
                reports[key] = await asyncio.to_thread(report_of, key.version, known, found)
        self.figures.compared(reports, {key: sums[key].accuracy or 0.0 for key in sums if sums[key].answers})

    async def _follow(self) -> None:
        while True:
            self.follow()
            await asyncio.sleep(1.0)

    async def _keep(self) -> None:
        while True:
            try:
                await self.flush()
                await self.compare()
            except RoostError as error:
                log.warning("drift_not_looked_at", extra={"reason": error.message})
            except Exception:  # a mistake in one look must not be the last of all looks
                log.exception("drift_not_looked_at")
            await asyncio.sleep(self._settings.interval_s)

    def _take(self, call: Seen) -> None:
        self._counting.put(call, self.wish_of(call.route.key), self._clock())


def _profile_from(document: bytes, wish: DriftWish, now: datetime) -> Profile:
    try:
        found = read_document(document, skip=wish.skip)
    except Unreadable as error:
        raise InvalidRequest(f"the reference cannot be read: {error}", code="bad_reference") from error
    features = features_of(found.columns)
    if not features:
        raise InvalidRequest("the reference has no values", code="bad_reference")
    return Profile(uuid4().hex, now, "file", found.rows, features)


def _decided(connection: Connection) -> tuple[dict[VersionKey, str], dict[ServiceKey, dict[str, Any]]]:
    return store.profile_ids(connection), store.settings_of(connection)


def _all_of(
    connection: Connection, key: ServiceKey, now: datetime
) -> tuple[dict[VersionKey, VersionReport], dict[tuple[int, str, str], Sums]]:
    kept = [found for found in store.profile_ids(connection) if found.model == key]
    profiles = store.profiles_of(connection, kept)
    windows = store.windows_of(connection, now - _DAY, model=key)
    reports = {
        found: report_of(found.version, profile, windows.get((found, profile.id), []))
        for found, profile in profiles.items()
    }
    return reports, store.quality_of(connection, key, now - _QUALITY)
