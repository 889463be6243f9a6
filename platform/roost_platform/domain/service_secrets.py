"""The secret that each service's replicas ask for, so that no neighbour in a cluster can call a model past the gateway."""

import hmac
from hashlib import sha256

from roost_platform.domain.services import ServiceKey


class ServiceSecrets:
    """Derives one secret per service from one key (HMAC-SHA256), so that all gateways agree and nothing is stored."""

    def __init__(self, key: bytes) -> None:
        """`key`: at least 32 random bytes, the same for every gateway of a platform; another key makes other secrets."""
        self._key = key

    def of(self, service: ServiceKey) -> str:
        """64 hexadecimal digits. Tenant and model names hold no slash, so no two services share a text."""
        return hmac.new(self._key, f"service/{service}".encode(), sha256).hexdigest()

    def fingerprint(self, service: ServiceKey) -> str:
        """12 hexadecimal digits that tell one secret from another and give nothing of it away."""
        return sha256(self.of(service).encode()).hexdigest()[:12]

    def matches(self, service: ServiceKey, given: bytes) -> bool:
        """Compares in constant time."""
        return hmac.compare_digest(self.of(service).encode(), given)
