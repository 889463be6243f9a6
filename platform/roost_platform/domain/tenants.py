"""Tenants, their quotas, and the keys that act for them. Only hashes of keys are ever stored."""

import secrets
import zlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256

KEY_PREFIX = "roost_"


class Scope(StrEnum):
    """What a key may do. ADMIN implies the others; DEPLOY and PREDICT imply READ."""

    ADMIN = "admin"
    DEPLOY = "deploy"
    PREDICT = "predict"
    READ = "read"


_IMPLIED = {
    Scope.ADMIN: frozenset(Scope),
    Scope.DEPLOY: frozenset({Scope.DEPLOY, Scope.READ}),
    Scope.PREDICT: frozenset({Scope.PREDICT, Scope.READ}),
    Scope.READ: frozenset({Scope.READ}),
}


def granted(scopes: frozenset[Scope]) -> frozenset[Scope]:
    """All scopes that these ones give, the implied ones included."""
    return frozenset().union(*(_IMPLIED[s] for s in scopes))


@dataclass(frozen=True, slots=True)
class Quota:
    """Limits of one tenant; 0 means no limit."""

    models: int = 100
    storage_bytes: int = 10 * 1024**3
    """Sum of the sizes of all versions."""
    concurrent_requests: int = 1000
    """Predictions in flight at once, waiting ones included."""
    requests_per_second: float = 0.0
    """Sustained predictions per second."""
    burst: int = 0
    """Predictions that may come at once above the sustained rate; 0 = one second's worth."""
    cpu_millicores: int = 0
    """Thousandths of a core that all replicas may use together, on a cluster; what runs beside each of them counts."""
    memory_bytes: int = 0
    """Memory that all replicas may hold together, on a cluster; what runs beside each of them counts."""
    replicas: int = 0
    """Replicas at once, of all models together, on a cluster."""
    gpus: int = 0
    """GPUs that all replicas may hold together, on a cluster."""


@dataclass(frozen=True, slots=True)
class Tenant:
    name: str
    quota: Quota
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key's record. `id` is public and names the key; the secret itself is not here."""

    id: str
    tenant: str
    name: str
    scopes: frozenset[Scope]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None

    def valid_at(self, now: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def make_secret() -> str:
    """A new key: 256 random bits and a CRC-32, so that a mistyped key is told apart without a look-up."""
    body = secrets.token_hex(32)
    return f"{KEY_PREFIX}{body}{zlib.crc32(body.encode()):08x}"


def hash_secret(secret: str) -> bytes:
    """SHA-256 of the whole key: enough for 256 random bits (a slow hash is for passwords)."""
    return sha256(secret.encode()).digest()
