"""What can be said of a model without waking it: readiness and metadata, in Open Inference Protocol words."""

from importlib.metadata import version
from typing import Any

from roost_gateway.access.routes import Route
from roost_gateway.predict.paths import Ask, Target
from roost_platform.domain.errors import RoostError
from roost_platform.domain.services import Revision

_FIXED: dict[Ask, dict[str, Any]] = {
    Ask.ALIVE: {"status": "alive"},
    Ask.LIVE: {"live": True},
    Ask.SERVER: {"name": "roost", "version": version("roost"), "extensions": ["binary_tensor_data"]},
}


def describe(target: Target, route: Route | None, routes: list[Route], *, serving: bool) -> tuple[int, dict[str, Any]]:
    """Status and document for a GET. `route` is the model's, given when the target names one."""
    if target.ask is Ask.READY:
        return (200 if serving else 503), {"ready": serving}
    if target.ask in (Ask.MODELS, Ask.V1_MODELS):
        return 200, {"models": [r.key.model for r in routes]}
    if target.ask in _FIXED:
        return 200, _FIXED[target.ask]
    assert route is not None, "the target names a model"
    if target.ask is Ask.METADATA:
        return 200, _metadata(route, _revision(route, target))
    try:
        _revision(route, target)
    except RoostError:
        return 503, {"name": route.key.model, "ready": False}
    return 200, {"name": route.key.model, "ready": True}


def _revision(route: Route, target: Target) -> Revision:
    return route.leading() if target.version is None else route.for_version(target.version)


def _metadata(route: Route, revision: Revision) -> dict[str, Any]:
    versions = sorted({str(r.version) for r in route.service.revisions}, key=int)
    return {
        "name": route.key.model,
        "versions": versions,
        "platform": "onnxruntime_onnx",
        **revision.signature.to_json(),
    }
