"""Rows of models and revisions, read into routes and changed; for the transactions of `store` and `traffic`."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Table, and_, select, update

from roost_gateway.access.routes import RevisionRecord, RevisionState, Route
from roost_platform.database.changes import note_change
from roost_platform.database.tables import models, revisions, versions
from roost_platform.domain.errors import NotFound
from roost_platform.domain.routing import Routing
from roost_platform.domain.scaling import ScalingPolicy
from roost_platform.domain.services import Revision, ServiceKey, TrafficTarget
from roost_platform.domain.signatures import Signature

_REASON_LENGTH = 1000


def load_routes(connection: Connection) -> list[Route]:
    """All models of all tenants."""
    records: dict[ServiceKey, list[RevisionRecord]] = {}
    for row in connection.execute(_revisions_query()).mappings():
        records.setdefault(ServiceKey(row["tenant"], row["model"]), []).append(_record(row))
    rows = connection.execute(select(models)).mappings()
    return [_route(row, records.get(ServiceKey(row["tenant"], row["name"]), ())) for row in rows]


def load_route(connection: Connection, key: ServiceKey) -> Route | None:
    """One model as stored, or None."""
    return _load(connection, key, select(models).where(is_model(key)))


def existing(connection: Connection, key: ServiceKey) -> Route:
    """One model, its row locked where the database has row locks. Raises NotFound."""
    route = _load(connection, key, select(models).where(is_model(key)).with_for_update())
    if route is None:
        raise NotFound("no such model")
    return route


def changed(connection: Connection, key: ServiceKey) -> Route:
    """One model after its last change in this transaction, of which other gateways are told."""
    route = existing(connection, key)
    note_change(connection, key.tenant, key.model)
    return route


def _load(connection: Connection, key: ServiceKey, query: Select[Any]) -> Route | None:
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        return None
    found = connection.execute(_revisions_query().where(of_model(revisions, key))).mappings()
    return _route(row, [_record(r) for r in found])


def change_model(connection: Connection, key: ServiceKey, **values: Any) -> None:
    connection.execute(update(models).where(is_model(key)).values(**values))


def change_revision(connection: Connection, key: ServiceKey, name: str, state: RevisionState, reason: str) -> None:
    values = {"state": state, "reason": reason[:_REASON_LENGTH]}
    connection.execute(update(revisions).where(is_revision(key, name)).values(values))


def has_version(connection: Connection, key: ServiceKey, number: int) -> bool:
    query = select(versions.c.number).where(of_model(versions, key), versions.c.number == number)
    return connection.execute(query).first() is not None


def waits(connection: Connection, key: ServiceKey, name: str) -> bool:
    """Whether a revision is to be without traffic when it is ready."""
    query = select(revisions.c.takes_traffic).where(is_revision(key, name))
    return not connection.execute(query).scalar_one()


def is_model(key: ServiceKey) -> ColumnElement[bool]:
    return and_(models.c.tenant == key.tenant, models.c.name == key.model)


def of_model(table: Table, key: ServiceKey) -> ColumnElement[bool]:
    return and_(table.c.tenant == key.tenant, table.c.model == key.model)


def is_revision(key: ServiceKey, name: str) -> ColumnElement[bool]:
    return and_(of_model(revisions, key), revisions.c.name == name)


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
        routing=Routing.from_json(row["routing"] or {}),
    )
