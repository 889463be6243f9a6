"""The upload: a raw file as the body, checked and stored while it streams in, then deployed.

Nothing here touches the body before the caller, the name, the headers and the options were found good; there is no
multipart and no form, so nothing is spooled to disk on the way.
"""

from collections.abc import AsyncIterator
from typing import Annotated, Any, cast

from fastapi import APIRouter, Query, Request, Response
from starlette.requests import ClientDisconnect

from roost_gateway.api import views
from roost_gateway.api.bodies import SCOPE_KEY as BODY_KEY
from roost_gateway.api.bodies import Body
from roost_gateway.api.callers import AnyCaller, Deployer, actor, model_key
from roost_gateway.api.documents import VersionDocument
from roost_gateway.api.faults import faults
from roost_gateway.api.scaling_schema import QUERY_PARAMETERS
from roost_gateway.api.services import Parts, Services
from roost_gateway.api.upload_headers import expected_digest, refuse_other_media
from roost_platform.domain.errors import InvalidRequest, TooLarge
from roost_platform.domain.scaling import OPTION_NAMES, ScalingPolicy
from roost_platform.domain.services import ServiceKey

router = APIRouter(prefix="/api/v1/models", tags=["models"])

_BODY_DOCUMENTATION: dict[str, Any] = {
    "parameters": QUERY_PARAMETERS,
    "requestBody": {
        "required": True,
        "description": "The ONNX file as it is. `Content-Digest: sha-256=:…:` or `X-Content-SHA256` guard the way.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    },
}


@router.post(
    "/{model}/versions",
    status_code=201,
    summary="Upload a version and deploy it",
    responses={
        200: {"model": VersionDocument, "description": "These bytes were uploaded before; this is that version."},
        **faults(403, 404, 409, 413, 415, 422, 429, 507),
    },
    openapi_extra=_BODY_DOCUMENTATION,
)
async def upload_version(
    request: Request,
    response: Response,
    tenant: Deployer,
    caller: AnyCaller,
    parts: Parts,
    *,
    model: str,
    max_batch_size: Annotated[
        int, Query(alias="max-batch-size", ge=1, le=1024, description="Most rows per run; 1 = no dynamic batching.")
    ] = 1,
    runtime: Annotated[str | None, Query(description="Default: the first one this gateway has.")] = None,
    traffic: Annotated[
        bool, Query(description="false = it waits without traffic when it is ready; a model's first version does not.")
    ] = True,
) -> VersionDocument:
    """The answer comes when the model was checked and stored. It takes traffic once it is ready, as `state` tells."""
    key = model_key(tenant, model)
    options = {name: value for name, value in request.query_params.items() if name in OPTION_NAMES}
    _check(request, parts, key, options)
    chosen = _runtime(parts, runtime)
    registered = await parts.registry.register(
        key,
        _chunks(request),
        limit_bytes=parts.upload_limit_bytes,
        declared_size=_declared_size(request, parts.upload_limit_bytes),
        expected_digest=expected_digest(request.headers),
        quota=tenant.quota,
    )
    record = await parts.deployments.deploy(
        key,
        registered.version.number,
        scaling_options=options,
        max_batch_size=max_batch_size,
        runtime=chosen,
        takes_traffic=traffic,
        by=actor(caller),
    )
    response.status_code = 201 if registered.created else 200
    return views.version_document(registered.version, record, url=views.model_url(parts, key))


def _check(request: Request, parts: Services, key: ServiceKey, options: dict[str, str]) -> None:
    """All that can be known to be wrong before the body is read."""
    parts.deployments.check_accepts(key)
    refuse_other_media(request.headers)
    route = parts.directory.route(key.tenant, key.model)
    (route.service.scaling if route is not None else ScalingPolicy()).with_changes(options)


def _runtime(parts: Services, name: str | None) -> str:
    if name is None:
        return parts.runtimes[0]
    if name not in parts.runtimes:
        raise InvalidRequest(f"runtime must be one of: {', '.join(parts.runtimes)}", field="runtime")
    return name


def _declared_size(request: Request, limit: int) -> int | None:
    value = request.headers.get("content-length")
    if value is None:
        return None
    if not (value.isascii() and value.isdigit()):
        raise InvalidRequest("Content-Length must be a whole number", field="Content-Length")
    if int(value) > limit:
        raise TooLarge(f"the model is larger than {limit} bytes", code="model_too_large")
    return int(value)


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    cast(Body, request.scope[BODY_KEY]).lift_limit()  # the registry counts, to a limit of its own
    try:
        async for chunk in request.stream():
            if chunk:
                yield chunk
    except ClientDisconnect:
        raise InvalidRequest("the body ended before it was complete", code="incomplete_body") from None
