"""Routes about a tenant's keys."""

from fastapi import APIRouter, Response

from roost_gateway.api.callers import Admin
from roost_gateway.api.documents import KeyList, NewKeyDocument, NewKeyRequest
from roost_gateway.api.faults import faults
from roost_gateway.api.services import Parts
from roost_gateway.api.views import key_document, new_key_document

router = APIRouter(prefix="/api/v1/keys", tags=["keys"])


@router.post("", status_code=201, summary="Create a key", responses=faults(403, 404, 409, 413, 507))
async def create_key(tenant: Admin, parts: Parts, wish: NewKeyRequest) -> NewKeyDocument:
    """The secret is in the answer, and nowhere else ever after."""
    new = await parts.keys.create(
        tenant.name, name=wish.name, scopes=frozenset(wish.scopes), expires_at=wish.expires_at
    )
    return new_key_document(new)


@router.get("", summary="List keys", responses=faults(403, 404))
async def list_keys(tenant: Admin, parts: Parts) -> KeyList:
    """Revoked and expired ones too, oldest first."""
    return KeyList(keys=[key_document(key) for key in parts.keys.list(tenant.name)])


@router.delete(
    "/{key_id}", status_code=204, response_class=Response, summary="Revoke a key", responses=faults(403, 404, 507)
)
async def revoke_key(tenant: Admin, parts: Parts, key_id: str) -> None:
    """It has stopped working when the answer comes. Revoking again is fine."""
    await parts.keys.revoke(tenant.name, key_id)
