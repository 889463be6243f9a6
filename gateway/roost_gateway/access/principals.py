"""Who a request acts as, once its key was accepted."""

from dataclasses import dataclass

from roost_platform.domain.errors import PermissionDenied
from roost_platform.domain.tenants import Scope


@dataclass(frozen=True, slots=True)
class Principal:
    """The operator, or a tenant through one of its keys. `scopes` holds the implied ones too."""

    operator: bool
    tenant: str
    """Empty for the operator."""
    scopes: frozenset[Scope]
    key_id: str

    def require(self, scope: Scope) -> None:
        """Raises PermissionDenied when the key lacks the scope."""
        if scope not in self.scopes:
            raise PermissionDenied(f"this key lacks the scope {scope!r}", code="missing_scope")

    def require_operator(self) -> None:
        """Raises PermissionDenied for every key but the operator's."""
        if not self.operator:
            raise PermissionDenied("this needs the operator key", code="operator_only")
