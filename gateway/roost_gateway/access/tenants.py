"""Tenants: made, changed and removed, in the database and the directory together."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from roost_gateway.access.directory import Directory
from roost_gateway.access.keys import NewKey, insert_key, load_keys, make_key
from roost_platform.billing.budget_store import caps
from roost_platform.billing.budgets import Cap
from roost_platform.database.changes import note_change
from roost_platform.database.connection import Database
from roost_platform.database.money_tables import (
    budget_alerts,
    resource_usage,
    statements,
    unknown_calls,
    usage_corrections,
)
from roost_platform.database.tables import models, tenants, usage_events
from roost_platform.domain.errors import Conflict, InvalidRequest, NotFound
from roost_platform.domain.names import check_name
from roost_platform.domain.tenants import ApiKey, Quota, Scope, Tenant

_LARGEST = 2**53
"""Quotas stay exact in every JSON reader."""
_WHOLE = {name: isinstance(value, int) for name, value in asdict(Quota()).items()}
"""Each limit, and whether it counts whole things."""
_OF_BILLS = (
    usage_events.c.tenant,
    usage_corrections.c.tenant,
    resource_usage.c.tenant,
    unknown_calls.c.tenant,
    statements.c.tenant,
    budget_alerts.c.tenant,
)
_OF_CLUSTERS = ("cpu_millicores", "memory_bytes", "replicas", "gpus")


class Tenants:
    """What the operator does with tenants."""

    def __init__(self, *, database: Database, directory: Directory, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._directory = directory
        self._clock = clock

    async def load(self) -> None:
        """Fill the directory with all tenants, keys and used-up budgets; once, at start."""
        for tenant in await self._database.read(_load_tenants):
            self._directory.put_tenant(tenant)
        for key, digest in await self._database.read(load_keys):
            self._directory.put_key(key, digest)
        for name, cap in (await self._database.read(caps)).items():
            self._directory.put_cap(name, cap)

    async def reload(self, name: str) -> None:
        """Bring the directory's tenant, its keys and its cap to what the database says. Raises Unavailable."""
        async with self._directory.changing(name):
            tenant, found, cap = await self._database.read(_load_tenant, name)
            if tenant is None:
                self._directory.remove_tenant(name)
            else:
                self._directory.put_tenant(tenant)
                self._directory.set_keys(name, found)
            self._directory.put_cap(name, cap)

    async def outdated(self) -> set[str]:
        """Tenants of which the database says something else than the directory, which knows them or not."""
        stored = {tenant.name: tenant for tenant in await self._database.read(_load_tenants)}
        keys: dict[str, set[ApiKey]] = {}
        for key, _ in await self._database.read(load_keys):
            keys.setdefault(key.tenant, set()).add(replace(key, last_used_at=None))
        capped = await self._database.read(caps)
        names = stored.keys() | {tenant.name for tenant in self._directory.tenants()}
        return {
            name
            for name in names
            if stored.get(name) != self._directory.tenant(name)
            or capped.get(name) != self._directory.caps.get(name)
            or keys.get(name, set()) != {replace(key, last_used_at=None) for key in self._directory.keys_of(name)}
        }

    async def create(self, name: str, quota: Mapping[str, Any]) -> tuple[Tenant, NewKey]:
        """A new tenant and its first key, an admin one. Raises InvalidRequest, or Conflict when the name is taken."""
        now = self._clock()
        tenant = Tenant(name=check_name(name, field="name"), quota=changed_quota(Quota(), quota), created_at=now)
        new = make_key(tenant=name, name="admin", scopes=frozenset({Scope.ADMIN}), now=now, expires_at=None)
        async with self._directory.changing(name):
            await self._database.write(_insert_tenant, tenant, new)
            self._directory.put_cap(name, None)
            self._directory.put_tenant(tenant)
            self._directory.put_key(new.key, new.digest)
        return tenant, new

    def get(self, name: str) -> Tenant:
        """Raises NotFound."""
        tenant = self._directory.tenant(name)
        if tenant is None:
            raise NotFound("no such tenant")
        return tenant

    async def change(self, name: str, quota: Mapping[str, Any]) -> Tenant:
        """Change some limits of a tenant; they hold from the next request on. Raises NotFound or InvalidRequest."""
        self.get(name)
        async with self._directory.changing(name):
            changed = await self._database.write(_change_quota, name, quota)
            self._directory.put_tenant(changed)
        return changed

    async def delete(self, name: str, *, delete_models: Callable[[], Awaitable[None]] | None = None) -> None:
        """Remove a tenant with its keys; usage stays in the ledger.

        `delete_models` is awaited after the keys stopped working and must delete the tenant's models; without it a
        tenant that has models raises Conflict. When a step fails, the tenant and its keys are put back.
        """
        tenant = self.get(name)
        if delete_models is None and self._directory.routes_of(name):
            raise _has_models()
        async with self._directory.changing(name):
            keys = await self._database.read(load_keys, tenant=name)
            self._directory.remove_tenant(name)
            try:
                if delete_models is not None:
                    await delete_models()
                await self._database.write(_delete_tenant, name)
            except BaseException:
                self._directory.put_tenant(tenant)
                self._directory.set_keys(name, keys)
                raise
            self._directory.put_cap(name, None)


def changed_quota(quota: Quota, changes: Mapping[str, Any]) -> Quota:
    """`quota` with some limits changed. Raises InvalidRequest naming the limit that is unknown or out of range."""
    values: dict[str, Any] = {}
    for name, value in changes.items():
        whole = _WHOLE.get(name)
        if whole is None:
            raise InvalidRequest(f"unknown quota {name[:64]!r}; known: {', '.join(_WHOLE)}", field=f"quota.{name[:64]}")
        number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if not number or not 0 <= value <= _LARGEST:
            wanted = "a whole number" if whole else "a number"
            raise InvalidRequest(f"quota.{name} must be {wanted} from 0 (no limit) to 2^53", field=f"quota.{name}")
        values[name] = value if whole else float(value)
    return replace(quota, **values)


def _has_models() -> Conflict:
    return Conflict("the tenant still has models; delete them first, or use ?force=true", code="tenant_has_models")


def _load_tenants(connection: Connection) -> list[Tenant]:
    return [_tenant(row) for row in connection.execute(select(tenants)).mappings()]


def _load_tenant(connection: Connection, name: str) -> tuple[Tenant | None, list[tuple[ApiKey, bytes]], Cap | None]:
    row = connection.execute(select(tenants).where(tenants.c.name == name)).mappings().one_or_none()
    tenant = None if row is None else _tenant(row)
    return tenant, load_keys(connection, tenant=name), caps(connection, tenant=name).get(name)


def _tenant(row: Mapping[Any, Any]) -> Tenant:
    return Tenant(name=row["name"], quota=Quota(**row["quota"]), created_at=row["created_at"])


def _stored(quota: Quota) -> dict[str, float]:
    """Limits of a cluster only where they are set: a gateway of the version before knows none and still reads the rest."""
    unset = Quota()
    return {
        name: value
        for name, value in asdict(quota).items()
        if name not in _OF_CLUSTERS or value != getattr(unset, name)
    }


def _insert_tenant(connection: Connection, tenant: Tenant, new: NewKey) -> None:
    # A bill is found by its tenant's name: who comes later must not see, or pay, what another used.
    if any(connection.scalar(select(column).where(column == tenant.name).limit(1)) for column in _OF_BILLS):
        raise Conflict("this name belonged to a tenant whose usage is kept; choose another", code="tenant_name_used")
    row = {"name": tenant.name, "quota": _stored(tenant.quota), "created_at": tenant.created_at}
    try:
        connection.execute(insert(tenants).values(row))
    except IntegrityError as error:
        raise Conflict("a tenant of this name exists", code="tenant_exists", field="name") from error
    insert_key(connection, new)
    note_change(connection, tenant.name)


def _change_quota(connection: Connection, name: str, changes: Mapping[str, Any]) -> Tenant:
    """What another gateway changed a moment ago, and `changes` do not name, stays."""
    tenant = _locked(connection, name)
    changed = replace(tenant, quota=changed_quota(tenant.quota, changes))
    connection.execute(update(tenants).where(tenants.c.name == name).values(quota=_stored(changed.quota)))
    note_change(connection, name)
    return changed


def _delete_tenant(connection: Connection, name: str) -> None:
    _locked(connection, name)
    # An upload that began before may have added a model meanwhile; it must not vanish with its replicas running.
    if connection.scalar(select(func.count()).select_from(models).where(models.c.tenant == name)):
        raise _has_models()
    connection.execute(delete(tenants).where(tenants.c.name == name))
    note_change(connection, name)


def _locked(connection: Connection, name: str) -> Tenant:
    """The tenant, whose row nobody else changes, and to which no model is added, before the transaction ends."""
    row = connection.execute(select(tenants).where(tenants.c.name == name).with_for_update()).mappings().one_or_none()
    if row is None:
        raise NotFound("no such tenant")
    return _tenant(row)
