"""Settings, references, counted hours, answers and the sums of feedback in the database. Functions of a connection."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, and_, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from roost_platform.database.drift_tables import (
    drift_answers,
    drift_profiles,
    drift_quality,
    drift_settings,
    drift_windows,
)
from roost_platform.database.tables import models, versions
from roost_platform.domain.errors import NotFound
from roost_platform.domain.services import ServiceKey
from roost_platform.drift.profiles import Counted, Profile
from roost_platform.drift.quality import Judged, Sums

WINDOWS_KEPT = timedelta(days=35)
ANSWERS_KEPT = timedelta(days=7)
MOST_GROUPS = 50
"""Of a version and day; feedback of further groups is added to that of no group."""


class VersionKey(NamedTuple):
    model: ServiceKey
    version: int


class Window(NamedTuple):
    """An hour as one gateway counted it."""

    key: VersionKey
    start: datetime
    profile: str
    counted: Counted


class Answer(NamedTuple):
    """Waits for feedback."""

    key: VersionKey
    request_id: str
    at: datetime
    predicted: list[float] | list[str]


# Settings


def settings_of(connection: Connection) -> dict[ServiceKey, dict[str, Any]]:
    rows = connection.execute(select(drift_settings)).mappings()
    return {ServiceKey(row["tenant"], row["model"]): row["document"] for row in rows}


def put_settings(connection: Connection, key: ServiceKey, document: Mapping[str, Any]) -> None:
    """Raises NotFound when there is no such model (any more)."""
    found = select(models.c.name).where(models.c.tenant == key.tenant, models.c.name == key.model)
    if connection.scalar(found.with_for_update(read=True)) is None:
        raise NotFound("no such model")
    _put(connection, drift_settings, {"tenant": key.tenant, "model": key.model}, {"document": dict(document)})


# References


def profile_ids(connection: Connection) -> dict[VersionKey, str]:
    column = drift_profiles.c
    rows = connection.execute(select(column.tenant, column.model, column.version, column.id))
    return {VersionKey(ServiceKey(tenant, model), version): found for tenant, model, version, found in rows}


def profiles_of(connection: Connection, keys: Collection[VersionKey]) -> dict[VersionKey, Profile]:
    """Those that there are of these."""
    found = {}
    for key in keys:
        row = connection.execute(select(drift_profiles).where(_of(drift_profiles, key))).mappings().first()
        if row is not None:
            about = {name: row[name] for name in ("id", "made_at", "origin")}
            found[key] = Profile.from_json(row["document"], **about)
    return found


def put_profile(connection: Connection, key: VersionKey, profile: Profile, *, anew: bool) -> None:
    """`anew`: in place of the one there is, whose counts go; otherwise that one stays. Raises NotFound."""
    if not _lock(connection, key):
        raise NotFound("no such version")
    values = {
        "id": profile.id, "made_at": profile.made_at, "origin": profile.origin, "document": profile.to_json(),
    }  # fmt: skip
    _put(connection, drift_profiles, _names(key), values, anew=anew)
    if anew:
        connection.execute(delete(drift_windows).where(_of(drift_windows, key), drift_windows.c.profile != profile.id))


# What was counted


def put_harvest(
    connection: Connection,
    source: str,
    profiles: Mapping[VersionKey, Profile],
    windows: Iterable[Window],
    answers: Iterable[Answer],
) -> None:
    """What a gateway has gathered; nothing of versions that are no more. Again is fine."""
    for key, profile in profiles.items():
        if _lock(connection, key):
            put_profile(connection, key, profile, anew=False)
    for window in windows:
        if _lock(connection, window.key):
            place = _names(window.key) | {"start": window.start, "source": source, "profile": window.profile}
            _put(connection, drift_windows, place, {"document": window.counted.to_json()})
    for answer in answers:
        if _lock(connection, answer.key):
            names = _names(answer.key)
            version = names.pop("version")
            values = {"version": version, "at": answer.at, "predicted": list(answer.predicted), "judged": False}
            _put(connection, drift_answers, names | {"request_id": answer.request_id}, values, anew=False)


def windows_of(
    connection: Connection, since: datetime, *, model: ServiceKey | None = None
) -> dict[tuple[VersionKey, str], list[tuple[datetime, dict[str, Any]]]]:
    """By version and profile, the newest first: hours that began at `since` or later, as documents of Counted."""
    table = drift_windows.c
    query = select(drift_windows).where(table.start >= since).order_by(table.start.desc())
    if model is not None:
        query = query.where(table.tenant == model.tenant, table.model == model.model)
    found: dict[tuple[VersionKey, str], list[tuple[datetime, dict[str, Any]]]] = {}
    for row in connection.execute(query).mappings():
        key = VersionKey(ServiceKey(row["tenant"], row["model"]), row["version"])
        found.setdefault((key, row["profile"]), []).append((row["start"], row["document"]))
    return found


def forget_old(connection: Connection, now: datetime) -> None:
    connection.execute(delete(drift_windows).where(drift_windows.c.start < now - WINDOWS_KEPT))
    connection.execute(delete(drift_answers).where(drift_answers.c.at < now - ANSWERS_KEPT))


# Feedback


def judge(connection: Connection, key: ServiceKey, feedback: Iterable[Judged], now: datetime) -> dict[str, int]:
    """Add feedback, each request once: how many items were `taken`, came `again`, or are about calls that are `unknown`.

    An item that says what was predicted needs no answer that was kept.
    """
    told = {"taken": 0, "again": 0, "unknown": 0}
    for item in feedback:
        told[_judge(connection, key, item, now)] += 1
    return told


def _judge(connection: Connection, key: ServiceKey, item: Judged, now: datetime) -> str:
    answer = drift_answers.c
    place = {"tenant": key.tenant, "model": key.model, "request_id": item.request_id}
    if item.predicted is not None and item.version is not None:
        if not _lock(connection, VersionKey(key, item.version)):
            return "unknown"
        values = {"version": item.version, "at": now, "predicted": list(item.predicted), "judged": False}
        _put(connection, drift_answers, place, values, anew=False)
    here = and_(*(answer[name] == value for name, value in place.items()))
    row = connection.execute(select(answer.version, answer.predicted, answer.judged).where(here)).first()
    if row is None:
        return "unknown"
    taken = connection.execute(update(drift_answers).where(here, answer.judged.is_(False)).values(judged=True))
    if not taken.rowcount:
        return "again"
    sums = item.sums(row.predicted)
    _add(connection, VersionKey(key, row.version), now.date().isoformat(), item.group, sums)
    return "taken"


def quality_of(connection: Connection, key: ServiceKey, since: datetime) -> dict[tuple[int, str, str], Sums]:
    """By version, UTC day and group."""
    table = drift_quality.c
    query = select(drift_quality).where(table.tenant == key.tenant, table.model == key.model)
    rows = connection.execute(query.where(table.day >= since.date().isoformat())).mappings()
    return {
        (row["version"], row["day"], row["group"]): Sums(**{name: row[name] for name in Sums.__slots__}) for row in rows
    }


def quality_by_version(connection: Connection, since: datetime) -> dict[VersionKey, Sums]:
    """Of all models, all groups together."""
    table = drift_quality.c
    columns = [func.sum(table[name]).label(name) for name in Sums.__slots__]
    query = select(table.tenant, table.model, table.version, *columns).where(table.day >= since.date().isoformat())
    rows = connection.execute(query.group_by(table.tenant, table.model, table.version)).mappings()
    return {
        VersionKey(ServiceKey(row["tenant"], row["model"]), row["version"]): Sums(
            **{name: row[name] for name in Sums.__slots__}
        )
        for row in rows
    }


def _add(connection: Connection, key: VersionKey, day: str, group: str, sums: Sums) -> None:
    table = drift_quality
    if group:
        there = select(table.c.group).where(_of(table, key), table.c.day == day)
        known = set(connection.scalars(there))
        group = group if group in known or len(known) < MOST_GROUPS else ""
    added = {name: getattr(sums, name) for name in Sums.__slots__}
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    row = dialect.insert(table).values({**_names(key), "day": day, "group": group, **added})
    connection.execute(
        row.on_conflict_do_update(
            index_elements=list(table.primary_key.columns),
            set_={name: table.c[name] + row.excluded[name] for name in added},
        )
    )


def _lock(connection: Connection, key: VersionKey) -> bool:
    """Whether there is such a version, which stays until the transaction ends."""
    column = versions.c
    found = select(column.number).where(
        column.tenant == key.model.tenant, column.model == key.model.model, column.number == key.version
    )
    return connection.scalar(found.with_for_update(read=True)) is not None


def _names(key: VersionKey) -> dict[str, Any]:
    return {"tenant": key.model.tenant, "model": key.model.model, "version": key.version}


def _of(table: Table, key: VersionKey) -> Any:
    return and_(*(table.c[name] == value for name, value in _names(key).items()))


def _put(
    connection: Connection, table: Table, place: dict[str, Any], values: dict[str, Any], *, anew: bool = True
) -> None:
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    row = dialect.insert(table).values({**place, **values})
    key = list(table.primary_key.columns)
    connection.execute(
        row.on_conflict_do_update(index_elements=key, set_=values)
        if anew
        else row.on_conflict_do_nothing(index_elements=key)
    )
