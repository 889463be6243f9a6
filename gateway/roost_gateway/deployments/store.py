"""Revisions and traffic in the database: each function is one transaction and returns the model as it is after it.

The database is the truth about rollouts. Whatever moment a gateway dies at, these rows hold a state that `start` of the
next one can carry on from: a revision is deploying, ready or failed, and traffic goes to ready revisions only. Whoever
changes a model locks its row first, so that of two gateways the second one sees what the first one did.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Table, and_, delete, insert, select, update

from roost_gateway.access.routes import RevisionRecord, RevisionState, Route, generation_of, revision_name
from roost_platform.database.changes import note_change
from roost_platform.database.tables import models, revisions, versions
from roost_platform.domain.errors import Conflict, NotFound
from roost_platform.domain.scaling import ScalingPolicy
from roost_platform.domain.services import Revision, ServiceKey, TrafficTarget
from roost_platform.domain.signatures import Signature

REVISIONS_KEPT = 20
"""Per model. Those with traffic and those being deployed are kept besides; versions are never dropped."""
_REASON_LENGTH = 1000


@dataclass(frozen=True, slots=True)
class Wish:
    """What a deployment asks for. `scaling_options` in Knative's spelling; they change the model's policy."""

    version: int
    scaling_options: Mapping[str, Any]
    max_batch_size: int
    runtime: str


def load_routes(connection: Connection) -> list[Route]:
    """All models of all tenants."""
    records: dict[ServiceKey, list[RevisionRecord]] = {}
    for row in connection.execute(_revisions_query()).mappings():
        records.setdefault(ServiceKey(row["tenant"], row["model"]), []).append(_record(row))
    rows = connection.execute(select(models)).mappings()
    return [_route(row, records.get(ServiceKey(row["tenant"], row["name"]), ())) for row in rows]


def load_route(connection: Connection, key: ServiceKey) -> Route | None:
    """One model as stored, or None."""
    return _load(connection, key, select(models).where(_is_model(key)))


def add_revision(
    connection: Connection, key: ServiceKey, wish: Wish, now: datetime, check: Callable[[ScalingPolicy], None]
) -> tuple[Route, str]:
    """Make a revision for the wish, state deploying, and return its name; traffic stays as it is.

    A revision that is the same and did not fail is taken instead; one that failed is left as it is and tried again
    under a new name. Raises NotFound when there is no such version, InvalidRequest for the scaling options, and what
    `check` raises for the policy that they make.
    """
    route = _existing(connection, key)
    if not _has_version(connection, key, wish.version):
        raise NotFound("no such version")
    scaling = route.service.scaling.with_changes(wish.scaling_options)
    if scaling != route.service.scaling:
        check(scaling)
        _change_model(connection, key, scaling=scaling.to_json())
    same = _same(route.records, wish)
    if same is not None:
        return _changed(connection, key), same
    query = select(models.c.last_generation).where(_is_model(key))
    generation = connection.execute(query).scalar_one() + 1
    name = revision_name(key.model, generation)
    _change_model(connection, key, last_generation=generation)
    connection.execute(
        insert(revisions).values(
            tenant=key.tenant,
            model=key.model,
            name=name,
            version=wish.version,
            runtime=wish.runtime,
            max_batch_size=wish.max_batch_size,
            state=RevisionState.DEPLOYING,
            reason="",
            created_at=now,
        )
    )
    _drop_old(connection, _existing(connection, key))
    return _changed(connection, key), name


def mark_ready(connection: Connection, key: ServiceKey, name: str) -> Route:
    """A revision under way became ready, and takes all traffic unless something newer has it already.

    A revision that is no longer under way (cancelled, say) stays as it is. Raises NotFound when the model is gone.
    """
    route = _existing(connection, key)
    record = route.record(name)
    if record is None or record.state is not RevisionState.DEPLOYING:
        return route
    _change_revision(connection, key, name, RevisionState.READY, "")
    newest_serving = max((generation_of(t.revision) for t in route.service.traffic), default=0)
    if record.generation > newest_serving:
        _all_traffic_to(connection, key, name)
    return _changed(connection, key)


def mark_failed(connection: Connection, key: ServiceKey, name: str, reason: str) -> Route:
    """A revision under way will not become ready. Raises NotFound when the model is gone."""
    route = _existing(connection, key)
    record = route.record(name)
    if record is None or record.state is not RevisionState.DEPLOYING:
        return route
    _change_revision(connection, key, name, RevisionState.FAILED, reason)
    return _changed(connection, key)


def roll_back(connection: Connection, key: ServiceKey, version: int) -> Route:
    """Give all traffic to the newest ready revision of a version, and cancel what is being deployed.

    Cancelled, because a revision that became ready a moment later would take the traffic right back. Raises NotFound
    when there is no such version, Conflict when it has no ready revision.
    """
    route = _existing(connection, key)
    if not _has_version(connection, key, version):
        raise NotFound("no such version")
    record = route.record_of_version(version)
    if record is None:
        raise Conflict(f"version {version} is no longer deployed; upload it again", code="version_not_deployed")
    if record.state is RevisionState.FAILED:
        raise Conflict(f"version {version} did not become ready: {record.reason}", code="version_failed")
    if record.state is RevisionState.DEPLOYING:
        raise Conflict(f"version {version} is still being deployed", code="version_deploying")
    for other in route.records:
        if other.state is RevisionState.DEPLOYING:
            reason = f"Cancelled: the model was rolled back to version {version} first"
            _change_revision(connection, key, other.revision.name, RevisionState.FAILED, reason)
    _all_traffic_to(connection, key, record.revision.name)
    return _changed(connection, key)


def change_scaling(
    connection: Connection, key: ServiceKey, options: Mapping[str, Any], check: Callable[[ScalingPolicy], None]
) -> Route:
    """Raises NotFound, InvalidRequest naming the option, and what `check` raises for the policy that they make."""
    scaling = _existing(connection, key).service.scaling.with_changes(options)
    check(scaling)
    _change_model(connection, key, scaling=scaling.to_json())
    return _changed(connection, key)


def _existing(connection: Connection, key: ServiceKey) -> Route:
    """One model, its row locked where the database has row locks. Raises NotFound."""
    route = _load(connection, key, select(models).where(_is_model(key)).with_for_update())
    if route is None:
        raise NotFound("no such model")
    return route


def _changed(connection: Connection, key: ServiceKey) -> Route:
    """One model after its last change in this transaction, of which other gateways are told."""
    route = _existing(connection, key)
    note_change(connection, key.tenant, key.model)
    return route


def _load(connection: Connection, key: ServiceKey, query: Select[Any]) -> Route | None:
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        return None
    found = connection.execute(_revisions_query().where(_of_model(revisions, key))).mappings()
    return _route(row, [_record(r) for r in found])


def _same(records: Iterable[RevisionRecord], wish: Wish) -> str | None:
    """The newest revision with the wish's version and settings that did not fail."""
    names = [
        r.revision.name
        for r in records
        if r.state is not RevisionState.FAILED
        and (r.revision.version, r.revision.runtime, r.revision.max_batch_size)
        == (wish.version, wish.runtime, wish.max_batch_size)
    ]
    return names[-1] if names else None


def _drop_old(connection: Connection, route: Route) -> None:
    serving = {t.revision for t in route.service.traffic}
    surplus = len(route.records) - REVISIONS_KEPT
    idle = [r for r in route.records if r.state is not RevisionState.DEPLOYING and r.revision.name not in serving]
    for record in idle[: max(0, surplus)]:
        connection.execute(delete(revisions).where(_is_revision(route.key, record.revision.name)))


def _all_traffic_to(connection: Connection, key: ServiceKey, name: str) -> None:
    _change_model(connection, key, traffic=[{"revision": name, "percent": 100}])


def _change_model(connection: Connection, key: ServiceKey, **values: Any) -> None:
    connection.execute(update(models).where(_is_model(key)).values(**values))


def _change_revision(connection: Connection, key: ServiceKey, name: str, state: RevisionState, reason: str) -> None:
    values = {"state": state, "reason": reason[:_REASON_LENGTH]}
    connection.execute(update(revisions).where(_is_revision(key, name)).values(values))


def _has_version(connection: Connection, key: ServiceKey, number: int) -> bool:
    query = select(versions.c.number).where(_of_model(versions, key), versions.c.number == number)
    return connection.execute(query).first() is not None


def _is_model(key: ServiceKey) -> ColumnElement[bool]:
    return and_(models.c.tenant == key.tenant, models.c.name == key.model)


def _of_model(table: Table, key: ServiceKey) -> ColumnElement[bool]:
    return and_(table.c.tenant == key.tenant, table.c.model == key.model)


def _is_revision(key: ServiceKey, name: str) -> ColumnElement[bool]:
    return and_(_of_model(revisions, key), revisions.c.name == name)


def _revisions_query() -> Select[Any]:
    """Revisions, each with the columns of its version that an engine needs."""
    facts = (versions.c.digest, versions.c.size, versions.c.signature, versions.c.memory_bytes)
    matching = and_(
        versions.c.tenant == revisions.c.tenant,
        versions.c.model == revisions.c.model,
        versions.c.number == revisions.c.version,
    )
    return select(revisions, *facts).join(versions, matching)


def _record(row: Mapping[Any, Any]) -> RevisionRecord:
    state = RevisionState(row["state"])
    revision = Revision(
        name=row["name"],
        version=row["version"],
        digest=row["digest"],
        size=row["size"],
        signature=Signature.from_json(row["signature"]),
        runtime=row["runtime"],
        max_batch_size=row["max_batch_size"],
        memory_bytes=row["memory_bytes"],
        proven=state is RevisionState.READY,
    )
    return RevisionRecord(revision=revision, state=state, reason=row["reason"], created_at=row["created_at"])


def _route(row: Mapping[Any, Any], records: Sequence[RevisionRecord]) -> Route:
    return Route(
        key=ServiceKey(row["tenant"], row["name"]),
        scaling=ScalingPolicy.from_json(row["scaling"]),
        traffic=tuple(TrafficTarget(t["revision"], t["percent"]) for t in row["traffic"]),
        records=records,
        last_version=row["last_version"],
        created_at=row["created_at"],
    )
