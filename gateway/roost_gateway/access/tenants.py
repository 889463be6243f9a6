"""Tenants: made, changed and removed, in the database and the directory together."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from roost_gateway.access.directory import Directory
from roost_gateway.access.keys import NewKey, insert_key, load_keys, make_key
from roost_platform.database.connection import Database
from roost_platform.database.tables import models, tenants, usage_events
from roost_platform.domain.errors import Conflict, InvalidRequest, NotFound
from roost_platform.domain.names import check_name
from roost_platform.domain.tenants import Quota, Scope, Tenant

_LARGEST = 2**53
"""Quotas stay exact in every JSON reader."""
_WHOLE = {name: isinstance(value, int) for name, value in asdict(Quota()).items()}
"""Each limit, and whether it counts whole things."""


class Tenants:
    """What the operator does with tenants."""

    def __init__(self, *, database: Database, directory: Directory, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._directory = directory
        self._clock = clock

    async def load(self) -> None:
        """Fill the directory with all tenants and keys; once, at start."""
        for tenant in await self._database.read(_load_tenants):
            self._directory.put_tenant(tenant)
        for key, digest in await self._database.read(load_keys):
            self._directory.put_key(key, digest)

    async def create(self, name: str, quota: Mapping[str, Any]) -> tuple[Tenant, NewKey]:
        """A new tenant and its first key, an admin one. Raises InvalidRequest, or Conflict when the name is taken."""
        now = self._clock()
        tenant = Tenant(name=check_name(name, field="name"), quota=changed_quota(Quota(), quota), created_at=now)
        new = make_key(tenant=name, name="admin", scopes=frozenset({Scope.ADMIN}), now=now, expires_at=None)
        await self._database.write(_insert_tenant, tenant, new)
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
        tenant = self.get(name)
        changed = replace(tenant, quota=changed_quota(tenant.quota, quota))
        await self._database.write(_update_quota, changed)
        self.get(name)  # it may have been deleted meanwhile, and must not come back
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
        self._directory.remove_tenant(name)
        try:
            if delete_models is not None:
                await delete_models()
            await self._database.write(_delete_tenant, name)
        except BaseException:
            self._directory.put_tenant(tenant)
            for key, digest in await self._database.read(load_keys, tenant=name):
                self._directory.put_key(key, digest)
            raise


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


def _tenant(row: Mapping[Any, Any]) -> Tenant:
    return Tenant(name=row["name"], quota=Quota(**row["quota"]), created_at=row["created_at"])


def _insert_tenant(connection: Connection, tenant: Tenant, new: NewKey) -> None:
    # A bill is found by its tenant's name: who comes later must not see, or pay, what another used.
    if connection.scalar(select(usage_events.c.tenant).where(usage_events.c.tenant == tenant.name).limit(1)):
        raise Conflict("this name belonged to a tenant whose usage is kept; choose another", code="tenant_name_used")
    row = {"name": tenant.name, "quota": asdict(tenant.quota), "created_at": tenant.created_at}
    try:
        connection.execute(insert(tenants).values(row))
    except IntegrityError as error:
        raise Conflict("a tenant of this name exists", code="tenant_exists", field="name") from error
    insert_key(connection, new)


def _update_quota(connection: Connection, tenant: Tenant) -> None:
    connection.execute(update(tenants).where(tenants.c.name == tenant.name).values(quota=asdict(tenant.quota)))


def _delete_tenant(connection: Connection, name: str) -> None:
    # An upload that began before may have added a model meanwhile; it must not vanish with its replicas running.
    if connection.scalar(select(func.count()).select_from(models).where(models.c.tenant == name)):
        raise _has_models()
    connection.execute(delete(tenants).where(tenants.c.name == name))
