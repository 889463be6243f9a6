"""Everything a call needs to be let in and routed, in memory: keys, tenants, used-up budgets and routes.

The database is not on the prediction path. The directory is loaded at start, changed in the same operation as each write,
and brought up to date when another gateway wrote; always from the event loop, so that a reader needs no lock.
"""

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from itertools import count

from roost_gateway.access.routes import Route
from roost_gateway.access.shares import share_of
from roost_platform.billing.budgets import Cap
from roost_platform.domain.services import ServiceKey
from roost_platform.domain.tenants import ApiKey, Quota, Tenant
from roost_platform.registry.finishing import KeyedLocks


class Directory:
    """Look-ups by hash, name and route; holds no secret, only hashes."""

    def __init__(self) -> None:
        self._changing = KeyedLocks()
        self._tenants: dict[str, Tenant] = {}
        self._shares: dict[str, Quota] = {}
        self._gateways = 1
        self._keys: dict[bytes, ApiKey] = {}
        self._hash_of: dict[str, bytes] = {}
        self._routes: dict[tuple[str, str], Route] = {}
        self._last_used: dict[str, datetime] = {}
        self._key_changes = count(1)
        self.keys_changed = 0
        """Another number after every change of a key or tenant; caches of authentication compare it."""
        self.caps: dict[str, Cap] = {}
        """By tenant: budgets that were found used up. Only to be read; a cap may be over by now, its `until` says."""

    # Tenants

    def changing(self, tenant: str) -> AbstractAsyncContextManager[None]:
        """Held by whoever changes a tenant or its keys, from before the database is asked until this says the same: what
        one read before must not overwrite what another wrote after.
        """
        return self._changing.hold(tenant)

    def tenant(self, name: str) -> Tenant | None:
        return self._tenants.get(name)

    def tenants(self) -> list[Tenant]:
        return sorted(self._tenants.values(), key=lambda tenant: tenant.name)

    def share(self, name: str) -> Quota | None:
        """What this gateway admits of a tenant's calls; None when there is no such tenant."""
        return self._shares.get(name)

    def count_gateways(self, number: int) -> None:
        """So many gateways, this one included, admit calls from now on."""
        if number != self._gateways:
            self._gateways = number
            self._shares = {name: share_of(tenant.quota, number) for name, tenant in self._tenants.items()}

    def put_tenant(self, tenant: Tenant) -> None:
        self._tenants[tenant.name] = tenant
        self._shares[tenant.name] = share_of(tenant.quota, self._gateways)
        self._note_key_change()

    def put_cap(self, tenant: str, cap: Cap | None) -> None:
        """From the next call on, what a tenant's budget says; None = nothing. It outlasts `remove_tenant`."""
        if cap is None:
            self.caps.pop(tenant, None)
        else:
            self.caps[tenant] = cap

    def remove_tenant(self, name: str) -> None:
        """Forget a tenant and its keys; its routes stay until each model is deleted."""
        self._tenants.pop(name, None)
        self._shares.pop(name, None)
        for key in self.keys_of(name):
            self._keys.pop(self._hash_of.pop(key.id), None)
            self._last_used.pop(key.id, None)
        self._note_key_change()

    # Keys

    def key_for(self, digest: bytes) -> ApiKey | None:
        """The key whose secret has this SHA-256; it may be expired or revoked."""
        return self._keys.get(digest)

    def key_by_id(self, key_id: str) -> ApiKey | None:
        digest = self._hash_of.get(key_id)
        return None if digest is None else self._keys[digest]

    def keys_of(self, tenant: str) -> list[ApiKey]:
        return sorted((key for key in self._keys.values() if key.tenant == tenant), key=lambda key: key.created_at)

    def put_key(self, key: ApiKey, digest: bytes) -> None:
        self._keys[digest] = key
        self._hash_of[key.id] = digest
        self._note_key_change()

    def set_keys(self, tenant: str, keys: Iterable[tuple[ApiKey, bytes]]) -> None:
        """Exactly these are the keys of a tenant from now on."""
        found = list(keys)
        kept = {key.id for key, _ in found}
        for key in [key for key in self.keys_of(tenant) if key.id not in kept]:
            self._keys.pop(self._hash_of.pop(key.id), None)
            self._last_used.pop(key.id, None)
        for key, digest in found:
            self._keys[digest] = key
            self._hash_of[key.id] = digest
        self._note_key_change()

    def change_key(self, key: ApiKey) -> None:
        """Replace the record of a known key. Raises KeyError when it is unknown."""
        self.put_key(key, self._hash_of[key.id])

    def mark_used(self, key_id: str, now: datetime) -> None:
        self._last_used[key_id] = now

    def last_used(self, key_id: str) -> datetime | None:
        """When a key was last used since this process started."""
        return self._last_used.get(key_id)

    def uses(self) -> Iterable[tuple[str, datetime]]:
        return tuple(self._last_used.items())

    def _note_key_change(self) -> None:
        self.keys_changed = next(self._key_changes)

    # Routes

    def route(self, tenant: str, model: str) -> Route | None:
        return self._routes.get((tenant, model))

    def has_version(self, key: ServiceKey, version: int) -> bool:
        """Whether a revision of that version is kept."""
        route = self.route(key.tenant, key.model)
        return route is not None and route.record_of_version(version) is not None

    def routes_of(self, tenant: str) -> list[Route]:
        return sorted((r for (owner, _), r in self._routes.items() if owner == tenant), key=lambda r: r.key.model)

    def routes(self) -> list[Route]:
        return list(self._routes.values())

    def keys_of_models(self) -> list[ServiceKey]:
        return [route.key for route in self.routes()]

    def put_route(self, route: Route) -> None:
        self._routes[(route.key.tenant, route.key.model)] = route

    def remove_route(self, key: ServiceKey) -> None:
        self._routes.pop((key.tenant, key.model), None)
