"""The verbs of the API: from a request to what the registry is asked, and back to an answer."""

import json
from datetime import UTC, datetime
from typing import Any, Protocol

import yaml
from aiohttp import web

from fake_kubernetes.deletion import delete
from fake_kubernetes.errors import Refused
from fake_kubernetes.patches import json_patched, merge_patched
from fake_kubernetes.registry import Registry, Write
from fake_kubernetes.requests import Asked
from fake_kubernetes.selectors import matcher
from fake_kubernetes.store import Object, Store
from fake_kubernetes.watching import Watch

Query = dict[str, str]


class Backend(Protocol):
    _store: Store
    _registry: Registry

    @property
    def log_of(self) -> Any: ...

    @property
    def life_of(self) -> Any: ...


class Verbs:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._times: dict[tuple[str, str, int], list[str]] = {}  # when the lines of a pod's log were printed

    async def answer(self, request: web.Request, asked: Asked, query: Query) -> web.Response:
        store = self._backend._store
        if asked.subresource == "log":
            return self._log(asked, query)
        if asked.subresource not in ("", "status"):
            raise Refused(404, "the server could not find the requested resource")
        match asked.verb:
            case "get":
                return web.json_response(store.must_get(asked.key))
            case "list":
                return self._list(asked, query)
            case "delete" | "deletecollection":
                return self._delete(asked, query, await _body(request))
        return await self._write(request, asked, query)

    def watch(self, asked: Asked, query: Query) -> Watch:
        return Watch(
            self._backend._store,
            asked.kind,
            asked.namespace,
            matcher(query.get("labelSelector", ""), query.get("fieldSelector", "")),
            version=query.get("resourceVersion", ""),
            bookmarks=query.get("allowWatchBookmarks") in ("1", "true"),
            initial=query.get("sendInitialEvents") in ("1", "true"),
        )

    async def _write(self, request: web.Request, asked: Asked, query: Query) -> web.Response:
        registry, store = self._backend._registry, self._backend._store
        body = await _body(request)
        manager = query.get("fieldManager") or request.headers.get("User-Agent", "unknown").partition("/")[0]
        write = Write(
            asked.key,
            None,
            body,
            asked.subresource,
            dry_run=query.get("dryRun") == "All",
            strict=query.get("fieldValidation") == "Strict",
        )
        existed = asked.name != "" and store.get(asked.key) is not None
        if asked.verb == "create":
            _named(write)
            thing = registry.create(write, manager)
        elif asked.verb == "update":
            thing = registry.update(write, manager)
        elif request.content_type == "application/apply-patch+yaml":
            if not query.get("fieldManager"):
                raise Refused(
                    422,
                    'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch',
                )
            thing = registry.apply(write, manager, force=query.get("force") in ("1", "true"))
        else:
            write.new = _patched(request.content_type, store.must_get(asked.key), body)
            thing = registry.update(write, manager)
        headers = [("Warning", f'299 - "{text}"'.replace('"', "'", 0)) for text in map(_quoted, write.warnings)]
        created = asked.verb == "create" or (asked.verb == "patch" and not existed)
        response = web.json_response(thing, status=201 if created else 200)
        for name, value in headers if query.get("fieldValidation", "Warn") == "Warn" else ():
            response.headers.add(name, value)
        return response

    def _list(self, asked: Asked, query: Query) -> web.Response:
        matches = matcher(query.get("labelSelector", ""), query.get("fieldSelector", ""))
        store = self._backend._store
        version = query.get("resourceVersion", "")
        if query.get("resourceVersionMatch") == "Exact" and version.isdecimal() and int(version) < store.version:
            raise Refused(410, f"The provided resource version {version} is not available")
        items = store.select(asked.kind, asked.namespace, matches)
        meta = {"resourceVersion": str(store.version)}
        document = {
            "kind": asked.kind.kind + "List",
            "apiVersion": asked.kind.api_version,
            "metadata": meta,
            "items": items,
        }
        return web.json_response(document)

    def _delete(self, asked: Asked, query: Query, options: Object) -> web.Response:
        store = self._backend._store
        options = {**(options or {})}
        for name in ("propagationPolicy", "gracePeriodSeconds"):
            if name in query:
                options[name] = int(query[name]) if name == "gracePeriodSeconds" else query[name]
        if asked.name:
            uid = store.must_get(asked.key)["metadata"]["uid"]
            left = delete(store, asked.key, options)
            details = {"name": asked.name, "group": asked.kind.group, "kind": asked.kind.plural, "uid": uid}
            done = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
            return web.json_response(left if left is not None else done)
        matches = matcher(query.get("labelSelector", ""), query.get("fieldSelector", ""))
        doomed = store.select(asked.kind, asked.namespace, matches)
        for thing in doomed:
            delete(store, asked.key._replace(name=thing["metadata"]["name"]), options)
        meta = {"resourceVersion": str(store.version)}
        return web.json_response(
            {"kind": asked.kind.kind + "List", "apiVersion": asked.kind.api_version, "metadata": meta, "items": doomed}
        )

    def _log(self, asked: Asked, query: Query) -> web.Response:
        self._backend._store.must_get(asked.key)
        text = self._backend.log_of(asked.namespace, asked.name, query.get("previous") == "true")
        if text is None:
            raise Refused(
                400, f'container "user-container" in pod "{asked.name}" is waiting to start: ContainerCreating'
            )
        lines = text.splitlines(keepends=True)
        if query.get("timestamps") == "true":
            lines = self._timed(asked, lines, previous=query.get("previous") == "true")
        if "tailLines" in query:
            lines = lines[len(lines) - int(query["tailLines"]) :] if int(query["tailLines"]) < len(lines) else lines
        text = "".join(lines)
        return web.Response(text=text[: int(query.get("limitBytes", len(text)))], content_type="text/plain")

    def _timed(self, asked: Asked, lines: list[str], *, previous: bool) -> list[str]:
        """Each line with the time when it was first seen here, which stays."""
        life = self._backend.life_of(asked.namespace, asked.name, previous)
        times = self._times.setdefault((asked.namespace, asked.name, life), [])
        while len(times) < len(lines):
            times.append(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}{len(times) % 1000:03d}Z")
        return [f"{at} {line}" for at, line in zip(times, lines, strict=False)]


async def _body(request: web.Request) -> Any:
    """JSON, or YAML where the client says so. Raises Refused 400."""
    data = await request.read()
    if not data:
        return {}
    if "protobuf" in request.content_type:
        raise Refused(415, "the body of the request was in an unknown format: JSON and YAML are read here")
    try:
        return yaml.load(data, yaml.CSafeLoader) if "yaml" in request.content_type else json.loads(data)
    except (ValueError, yaml.YAMLError):
        raise Refused(400, "the body of the request cannot be read") from None


def _named(write: Write) -> None:
    body = write.new
    if not isinstance(body, dict) or not isinstance(body.get("metadata"), dict):
        raise Refused(400, "the object has no metadata")
    name = body["metadata"].get("name", "")
    if not name and not body["metadata"].get("generateName"):
        raise Refused(
            422, f"{write.key.kind.kind} is invalid: metadata.name: Required value: name or generateName is required"
        )
    write.key = write.key._replace(name=name)


def _patched(content_type: str, old: Object, patch: Any) -> Object:
    if content_type == "application/merge-patch+json":
        found: Object = merge_patched(old, patch)
    elif content_type == "application/json-patch+json":
        found = json_patched(old, patch)
    else:
        raise Refused(415, f"the body of the request was in an unknown format: {content_type}")
    if "resourceVersion" not in (patch.get("metadata", {}) if isinstance(patch, dict) else {}) and isinstance(
        patch, dict
    ):
        found["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
    return found


def _quoted(text: str) -> str:
    return text.replace('"', '\\"')
