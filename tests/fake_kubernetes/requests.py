"""What a request asks for, read from its method, path and query; and the documents by which clients find their way."""

from dataclasses import dataclass
from typing import Any

from fake_kubernetes.errors import Refused
from fake_kubernetes.kinds import Kind, kinds
from fake_kubernetes.store import Key

_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True)
class Asked:
    """One request, in the words of Kubernetes' access rules."""

    verb: str
    kind: Kind
    namespace: str
    name: str
    subresource: str

    @property
    def key(self) -> Key:
        return Key(self.kind, self.namespace, self.name)

    @property
    def resource(self) -> str:
        """`pods/log`, `services.serving.knative.dev`."""
        return f"{self.kind.resource}/{self.subresource}" if self.subresource else self.kind.resource


def parse(method: str, path: str, query: dict[str, str]) -> Asked:
    """Raises Refused 404 for a path that is none of ours, 405 for a method that it does not take."""
    parts = [part for part in path.split("/") if part]
    if parts[:1] == ["api"]:
        group, version, rest = "", parts[1] if len(parts) > 1 else "", parts[2:]
    elif parts[:1] == ["apis"] and len(parts) > 2:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        raise _nowhere()
    namespace = ""
    if rest[:1] == ["namespaces"] and len(rest) > 2 and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    kind = next((k for k in kinds() if (k.group, k.version, k.plural) == (group, version, (rest or [""])[0])), None)
    if kind is None or len(rest) > 3 or (namespace and not kind.namespaced):
        raise _nowhere()
    name = rest[1] if len(rest) > 1 else ""
    verb = {
        "POST": "create",
        "GET": "get" if name else "watch" if query.get("watch") in ("1", "true") else "list",
        "PUT": "update",
        "PATCH": "patch",
        "DELETE": "delete" if name else "deletecollection",
    }.get(method)
    if verb is None or (verb == "create" and name) or (verb in ("update", "patch") and not name):
        raise Refused(405, "the server does not allow this method on the requested resource")
    if kind.namespaced and not namespace and verb not in ("list", "watch"):
        raise _nowhere()
    return Asked(verb, kind, namespace, name, rest[2] if len(rest) > 2 else "")


def discovery(path: str) -> dict[str, Any] | None:  # noqa: PLR0911 - one document a line
    """The document at one of the discovery paths; None elsewhere."""
    parts = [part for part in path.split("/") if part]
    groups = sorted({(k.group, k.version) for k in kinds() if k.group})
    match parts:
        case ["version"]:
            return {"major": "1", "minor": "36", "gitVersion": "v1.36.0", "platform": "linux/amd64"}
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        case ["apis"]:
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(*entry) for entry in groups]}
        case ["openapi", "v3"]:
            paths = {("apis/" if k.group else "api/") + k.api_version for k in kinds()}
            return {"paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}"} for path in sorted(paths)}}
        case ["openapi", "v3", *of]:
            return _operations("/".join(of[1:]))
        case ["apis", group] if any(group == g for g, _ in groups):
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(*next(e for e in groups if e[0] == group))}
        case ["api", version]:
            return _resources("", version)
        case ["apis", group, version] if (group, version) in groups:
            return _resources(group, version)
    return None


def _group(group: str, version: str) -> dict[str, Any]:
    entry = {"groupVersion": f"{group}/{version}", "version": version}
    return {"name": group, "versions": [entry], "preferredVersion": entry}


def _resources(group: str, version: str) -> dict[str, Any]:
    resources: list[dict[str, Any]] = []
    for kind in kinds():
        if (kind.group, kind.version) == (group, version):
            entry = {
                "name": kind.plural,
                "singularName": kind.kind.lower(),
                "namespaced": kind.namespaced,
                "kind": kind.kind,
            }
            resources.append({**entry, "verbs": list(_VERBS), "shortNames": list(kind.short_names)})
            subresources = (["status"] if kind.has_status else []) + (["log"] if kind.kind == "Pod" else [])
            resources += [
                {**entry, "name": f"{kind.plural}/{name}", "singularName": "", "verbs": ["get", "patch", "update"]}
                for name in subresources
            ]
    group_version = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}


def _operations(api_version: str) -> dict[str, Any]:
    """As much OpenAPI as tells kubectl that this server checks fields itself."""
    paths = {}
    for kind in kinds():
        if kind.api_version == api_version:
            names = {"group": kind.group, "version": kind.version, "kind": kind.kind}
            options = [
                {"name": name, "in": "query", "schema": {}} for name in ("fieldValidation", "dryRun", "fieldManager")
            ]
            operation = {"x-kubernetes-group-version-kind": names, "parameters": options, "responses": {}}
            paths[f"/{kind.plural}/{{name}}"] = {"patch": operation}
    return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.36.0"}, "paths": paths}


def _nowhere() -> Refused:
    return Refused(404, "the server could not find the requested resource")
