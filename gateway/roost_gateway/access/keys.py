"""Keys of tenants: made, listed and revoked. A secret is shown once, when it is made; only its hash is stored."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from roost_gateway.access.directory import Directory
from roost_platform.database.changes import note_change
from roost_platform.database.connection import Database
from roost_platform.database.tables import api_keys
from roost_platform.domain.errors import Conflict, InvalidRequest, NotFound
from roost_platform.domain.tenants import ApiKey, Scope, hash_secret, make_secret

KEYS_PER_TENANT = 1000
"""Revoked ones included: they are kept, so that a listing shows what a key once was."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key at the one moment its secret is known; the secret is not in its `repr`."""

    key: ApiKey
    secret: str = field(repr=False)

    @property
    def digest(self) -> bytes:
        return hash_secret(self.secret)


class Keys:
    """What an admin of a tenant does with keys."""

    def __init__(self, *, database: Database, directory: Directory, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._directory = directory
        self._clock = clock

    async def create(self, tenant: str, *, name: str, scopes: frozenset[Scope], expires_at: datetime | None) -> NewKey:
        """A new key. Raises InvalidRequest (no scope, expiry in the past), Conflict at the limit of keys."""
        now = self._clock()
        if not scopes:
            raise InvalidRequest("scopes must name at least one scope", field="scopes")
        if expires_at is not None and expires_at <= now:
            raise InvalidRequest("expires_at must be in the future", field="expires_at")
        if len(self._directory.keys_of(tenant)) >= KEYS_PER_TENANT:
            raise Conflict(f"a tenant has at most {KEYS_PER_TENANT} keys", code="too_many_keys")
        new = make_key(tenant=tenant, name=name, scopes=scopes, now=now, expires_at=expires_at)
        async with self._directory.changing(tenant):
            try:
                await self._database.write(_add_key, new)
            except IntegrityError as error:
                raise NotFound("no such tenant") from error
            self._directory.put_key(new.key, new.digest)
        return new

    def list(self, tenant: str) -> list[ApiKey]:
        """All keys of a tenant, oldest first, with their last use up to this moment."""
        return [
            replace(key, last_used_at=self._directory.last_used(key.id) or key.last_used_at)
            for key in self._directory.keys_of(tenant)
        ]

    async def revoke(self, tenant: str, key_id: str) -> None:
        """End a key; it stops working before this returns. Again is fine. Raises NotFound."""
        async with self._directory.changing(tenant):
            key = self._directory.key_by_id(key_id)
            if key is None or key.tenant != tenant:
                raise NotFound("no such key")
            if key.revoked_at is None:
                revoked = replace(key, revoked_at=self._clock())
                await self._database.write(_update_revoked, revoked)
                self._directory.change_key(revoked)


def make_key(*, tenant: str, name: str, scopes: frozenset[Scope], now: datetime, expires_at: datetime | None) -> NewKey:
    key = ApiKey(
        id=secrets.token_hex(8), tenant=tenant, name=name, scopes=scopes, created_at=now, expires_at=expires_at
    )
    return NewKey(key=key, secret=make_secret())


def _add_key(connection: Connection, new: NewKey) -> None:
    insert_key(connection, new)
    note_change(connection, new.key.tenant)


def insert_key(connection: Connection, new: NewKey) -> None:
    key = new.key
    connection.execute(
        insert(api_keys).values(
            id=key.id,
            tenant=key.tenant,
            name=key.name,
            hash=new.digest,
            scopes=sorted(key.scopes),
            created_at=key.created_at,
            expires_at=key.expires_at,
        )
    )


def load_keys(connection: Connection, *, tenant: str | None = None) -> list[tuple[ApiKey, bytes]]:
    """All keys (of one tenant) with the hashes of their secrets."""
    query = select(api_keys) if tenant is None else select(api_keys).where(api_keys.c.tenant == tenant)
    return [(_key(row), row["hash"]) for row in connection.execute(query).mappings()]


def _key(row: Mapping[Any, Any]) -> ApiKey:
    return ApiKey(
        id=row["id"],
        tenant=row["tenant"],
        name=row["name"],
        scopes=frozenset(Scope(s) for s in row["scopes"]),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        last_used_at=row["last_used_at"],
    )


def _update_revoked(connection: Connection, key: ApiKey) -> None:
    connection.execute(update(api_keys).where(api_keys.c.id == key.id).values(revoked_at=key.revoked_at))
    note_change(connection, key.tenant)
