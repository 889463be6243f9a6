"""Versions as values, and the rows they are kept in. All functions take the connection of a transaction."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, tuple_, update

from roost_platform.database.changes import note_change
from roost_platform.database.history import Act, What, record_change
from roost_platform.database.tables import models, revisions, tenants, versions
from roost_platform.domain.errors import NotFound, Throttled
from roost_platform.domain.scaling import ScalingPolicy
from roost_platform.domain.services import ServiceKey
from roost_platform.domain.signatures import Signature
from roost_platform.domain.tenants import Quota


@dataclass(frozen=True, slots=True)
class Version:
    """An immutable artifact of a model, numbered 1, 2, 3 … within it."""

    tenant: str
    model: str
    number: int
    digest: str
    """sha256 of the artifact, 64 hexadecimal digits."""
    size: int
    """Bytes of the artifact."""
    signature: Signature
    memory_bytes: int
    """What one replica is expected to hold."""
    created_at: datetime

    @property
    def key(self) -> ServiceKey:
        return ServiceKey(self.tenant, self.model)


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A version without its number."""

    key: ServiceKey
    digest: str
    size: int
    signature: Signature
    memory_bytes: int
    created_at: datetime


def find_version(connection: Connection, key: ServiceKey, number: int) -> Version:
    """Raises NotFound."""
    row = connection.execute(select(versions).where(*_of(key), versions.c.number == number)).one_or_none()
    if row is None:
        raise NotFound(f"model {key.model} has no version {number}")
    return _from_row(row)


def find_digest(connection: Connection, key: ServiceKey, digest: str) -> Version | None:
    """The version of this model with these bytes."""
    row = connection.execute(select(versions).where(*_of(key), versions.c.digest == digest)).one_or_none()
    return None if row is None else _from_row(row)


def list_versions(connection: Connection, key: ServiceKey) -> tuple[Version, ...]:
    """Oldest first. Raises NotFound when there is no such model."""
    rows = connection.execute(select(versions).where(*_of(key)).order_by(versions.c.number)).all()
    if not rows and _last_number(connection, key) is None:
        raise NotFound(f"there is no model {key.model}")
    return tuple(_from_row(row) for row in rows)


def list_after(connection: Connection, after: tuple[str, str, int], most: int) -> tuple[Version, ...]:
    """Versions of all tenants, at most so many, by (tenant, model, number), from behind this one on."""
    key = tuple_(versions.c.tenant, versions.c.model, versions.c.number)
    rows = connection.execute(select(versions).where(key > after).order_by(*key).limit(most))
    return tuple(_from_row(row) for row in rows)


def used_digests(connection: Connection) -> set[str]:
    return set(connection.scalars(select(versions.c.digest).distinct()))


def is_used(connection: Connection, digest: str) -> bool:
    return connection.scalar(select(versions.c.number).where(versions.c.digest == digest).limit(1)) is not None


def storage_used(connection: Connection, tenant: str) -> int:
    """Bytes of all versions of a tenant; a file that two versions share counts twice."""
    total = connection.scalar(select(func.sum(versions.c.size)).where(versions.c.tenant == tenant))
    return int(total or 0)


def storage_by_tenant(connection: Connection) -> dict[str, int]:
    """As `storage_used`, of all tenants that have versions."""
    query = select(versions.c.tenant, func.sum(versions.c.size)).group_by(versions.c.tenant)
    return {tenant: int(total) for tenant, total in connection.execute(query)}


def require_room(connection: Connection, key: ServiceKey, size: int, quota: Quota) -> None:
    """Raises Throttled (quota_exceeded) when this version would be one model or some bytes too many."""
    used = storage_used(connection, key.tenant)
    if quota.storage_bytes and used + size > quota.storage_bytes:
        raise Throttled(
            f"the tenant's storage quota is {quota.storage_bytes} bytes: {used} are used, this file has {size}",
            code="quota_exceeded",
            field="storage_bytes",
            limit=quota.storage_bytes,
            used=used,
        )
    if quota.models and _last_number(connection, key) is None:
        count = connection.scalar(select(func.count()).select_from(models).where(models.c.tenant == key.tenant)) or 0
        if count >= quota.models:
            raise Throttled(
                f"the tenant's quota is {quota.models} models: {count} are used",
                code="quota_exceeded",
                field="models",
                limit=quota.models,
                used=count,
            )


def add_version(connection: Connection, new: NewVersion, quota: Quota) -> tuple[Version, bool]:
    """Number and insert a version, and its model when it is the first; False when these bytes have a version already.

    Raises NotFound (no such tenant) or Throttled (quota_exceeded).
    """
    key = new.key
    tenant = select(tenants.c.name).where(tenants.c.name == key.tenant).with_for_update()  # two gateways, one quota
    if connection.scalar(tenant) is None:
        raise NotFound(f"there is no tenant {key.tenant}")
    known = find_digest(connection, key, new.digest)
    if known is not None:
        return known, False
    require_room(connection, key, new.size, quota)
    number = _next_number(connection, key, new.created_at)
    version = Version(
        tenant=key.tenant,
        model=key.model,
        number=number,
        digest=new.digest,
        size=new.size,
        signature=new.signature,
        memory_bytes=new.memory_bytes,
        created_at=new.created_at,
    )
    connection.execute(insert(versions).values(_to_row(version)))
    return version, True


def delete_model_rows(connection: Connection, key: ServiceKey, act: Act) -> tuple[Version, ...]:
    """Delete a model with its versions, which are returned, and its revisions. Raises NotFound."""
    locked = select(models.c.name).where(models.c.tenant == key.tenant, models.c.name == key.model).with_for_update()
    if connection.scalar(locked) is None:  # from here on, no other gateway adds a version
        raise NotFound(f"there is no model {key.model}")
    gone = list_versions(connection, key)
    for table, name in ((revisions, "model"), (versions, "model"), (models, "name")):
        connection.execute(delete(table).where(table.c.tenant == key.tenant, table.c[name] == key.model))
    record_change(connection, key, act, What.DELETE, before={"versions": [version.number for version in gone]})
    note_change(connection, key.tenant, key.model)
    return gone


def _of(key: ServiceKey) -> tuple[Any, Any]:
    return versions.c.tenant == key.tenant, versions.c.model == key.model


def _last_number(connection: Connection, key: ServiceKey) -> int | None:
    return connection.scalar(
        select(models.c.last_version).where(models.c.tenant == key.tenant, models.c.name == key.model)
    )


def _next_number(connection: Connection, key: ServiceKey, now: datetime) -> int:
    same = models.c.tenant == key.tenant, models.c.name == key.model
    # Locked, or the model may be deleted meanwhile.
    last: int | None = connection.scalar(select(models.c.last_version).where(*same).with_for_update())
    if last is None:
        row = {"tenant": key.tenant, "name": key.model, "scaling": ScalingPolicy().to_json(), "traffic": []}
        connection.execute(insert(models).values(**row, last_version=1, last_generation=0, created_at=now))
        return 1
    connection.execute(update(models).where(*same).values(last_version=last + 1))
    return last + 1


def _to_row(version: Version) -> dict[str, Any]:
    return {
        "tenant": version.tenant,
        "model": version.model,
        "number": version.number,
        "digest": version.digest,
        "size": version.size,
        "signature": version.signature.to_json(),
        "memory_bytes": version.memory_bytes,
        "created_at": version.created_at,
    }


def _from_row(row: Row[Any]) -> Version:
    return Version(
        tenant=row.tenant,
        model=row.model,
        number=row.number,
        digest=row.digest,
        size=row.size,
        signature=Signature.from_json(row.signature),
        memory_bytes=row.memory_bytes,
        created_at=row.created_at,
    )
