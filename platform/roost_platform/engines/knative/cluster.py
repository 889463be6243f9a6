"""The Kubernetes API as this engine needs it: plain documents by path, server-side apply, watches and logs.

    ClusterError
     ├── Missing          404: no such object, or no such kind (Knative is not installed)
     ├── Conflict         409: the object is another one by now
     ├── Gone             410: that resource version is forgotten; list again
     ├── Forbidden        403: no right to, or over a ResourceQuota
     ├── Refused          400, 422 …: not a valid object, or an admission webhook said no
     └── NotNow           worth trying again; `retry_after_s` where the server named a time
          ├── TooMany     429
          ├── Failed      5xx
          ├── LoggedOut   401: the token is not accepted (any more)
          └── Unreachable no connection, no answer in time, or a connection that broke

What is worth trying again is tried again here, with growing pauses, for a few seconds. Nothing is sent that may not be
sent twice: objects are applied or deleted, never posted.
"""

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration

from roost_platform.engines.knative.connection import Access, configure

FIELD_MANAGER = "roost"
Document = dict[str, Any]
"""A Kubernetes object as it travels. Treat as frozen."""

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0
_PAGE = 500
_LOG_BYTES = 64 * 1024
_STALL_GRACE_S = 10.0
_LONGEST_MESSAGE = 2000


class ClusterError(Exception):
    """`message` is the server's own words; `status` its HTTP status, 0 without an answer."""

    def __init__(self, message: str, *, status: int = 0, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.retry_after_s = retry_after_s


class Missing(ClusterError):
    pass


class Conflict(ClusterError):
    pass


class Gone(ClusterError):
    pass


class Forbidden(ClusterError):
    pass


class Refused(ClusterError):
    pass


class NotNow(ClusterError):
    pass


class TooMany(NotNow):
    pass


class Failed(NotNow):
    pass


class LoggedOut(NotNow):
    pass


class Unreachable(NotNow):
    pass


_BY_STATUS: Mapping[int, type[ClusterError]] = {
    401: LoggedOut,
    403: Forbidden,
    404: Missing,
    409: Conflict,
    410: Gone,
    429: TooMany,
}


class Kind(NamedTuple):
    """A kind of object; `group_version` as in `apiVersion`."""

    group_version: str
    kind: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str = "", name: str = "", part: str = "") -> str:
        root = "/apis" if "/" in self.group_version else "/api"
        parts = [root, self.group_version]
        if self.namespaced and namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        parts += [self.plural, *([quote(name, safe="")] if name else []), *([part] if part else [])]
        return "/".join(parts)


NAMESPACE = Kind("v1", "Namespace", "namespaces", namespaced=False)
SERVICE_ACCOUNT = Kind("v1", "ServiceAccount", "serviceaccounts")
RESOURCE_QUOTA = Kind("v1", "ResourceQuota", "resourcequotas")
LIMIT_RANGE = Kind("v1", "LimitRange", "limitranges")
NETWORK_POLICY = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
SECRET = Kind("v1", "Secret", "secrets")
CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
POD = Kind("v1", "Pod", "pods")
KNATIVE_SERVICE = Kind("serving.knative.dev/v1", "Service", "services")
KNATIVE_REVISION = Kind("serving.knative.dev/v1", "Revision", "revisions")
_KINDS = {
    (kind.group_version, kind.kind): kind
    for kind in (
        NAMESPACE,
        SERVICE_ACCOUNT,
        RESOURCE_QUOTA,
        LIMIT_RANGE,
        NETWORK_POLICY,
        SECRET,
        KNATIVE_SERVICE,
    )
}


def kind_of(document: Document) -> Kind:
    """Raises KeyError for a kind that this engine does not write."""
    return _KINDS[document["apiVersion"], document["kind"]]


class Listing(NamedTuple):
    items: list[Document]
    version: str
    """Where a watch goes on from."""


class Event(NamedTuple):
    type: str
    """ADDED, MODIFIED, DELETED or BOOKMARK."""
    object: Document


class Cluster:
    """One API server. Used between `start` and `stop`, on one event loop; raises ClusterError."""

    def __init__(self, access: Access, *, timeout_s: float = 15.0, attempts: int = 5) -> None:
        """`timeout_s` bounds one try, `attempts` the tries of one call."""
        self._access = access
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._client: ApiClient | None = None

    async def start(self) -> None:
        """Does not connect yet: the server may be away."""
        configuration = Configuration()
        await configure(self._access, configuration)
        self._client = ApiClient(configuration)
        self._client.user_agent = "roost"

    async def stop(self) -> None:
        if self._client is not None:
            await self._client.close()  # type: ignore[no-untyped-call]

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Document:
        return await self._json("GET", kind.path(namespace, name))

    async def find(self, kind: Kind, *, namespace: str = "", selector: str = "") -> Listing:
        """All objects, in pages; Gone when that took so long that the server forgot where it was."""
        items: list[Document] = []
        going_on = ""
        while True:
            query = {"limit": str(_PAGE), "labelSelector": selector, "continue": going_on}
            page = await self._json("GET", kind.path(namespace), query)
            items += page.get("items") or []
            metadata = page.get("metadata") or {}
            going_on = metadata.get("continue", "")
            if not going_on:
                return Listing(items, metadata.get("resourceVersion", ""))

    async def apply(self, document: Document) -> Document:
        """Make these fields so, whoever set them before, and return the whole object as it is then."""
        metadata = document["metadata"]
        path = kind_of(document).path(metadata.get("namespace", ""), metadata["name"])
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._json("PATCH", path, query, document, content_type="application/apply-patch+yaml")

    async def delete(
        self, kind: Kind, name: str, namespace: str = "", *, uid: str = "", foreground: bool = False
    ) -> None:
        """Begin to delete; an object that is not there is fine. `uid`: only that one, Conflict for another.

        `foreground`: the object is there until all that it owns is gone.
        """
        options: Document = {"apiVersion": "v1", "kind": "DeleteOptions"}
        options["propagationPolicy"] = "Foreground" if foreground else "Background"
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            await self._json("DELETE", kind.path(namespace, name), body=options)
        except Missing:
            return

    async def log(
        self, pod: str, namespace: str, *, container: str, lines: int, previous: bool = False
    ) -> list[tuple[datetime, str]]:
        """The last lines that a container printed, and when; `previous`: before it was restarted."""
        query = {"container": container, "tailLines": str(lines), "limitBytes": str(_LOG_BYTES), "timestamps": "true"}
        if previous:
            query["previous"] = "true"
        text = await self._call("GET", POD.path(namespace, pod, "log"), query)
        return [_printed(line) for line in text.decode("utf-8", "replace").split("\n")[-lines - 1 :] if line]

    async def watch(
        self, kind: Kind, *, version: str, selector: str = "", timeout_s: float
    ) -> AsyncGenerator[Event, None]:
        """What changes from `version` on, for about `timeout_s` seconds, when the server ends it. Not tried again here.

        Raises Gone when the server no longer knows `version`, Unreachable when the end does not come.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "labelSelector": selector,
            "timeoutSeconds": str(max(1, round(timeout_s))),
        }
        limit = aiohttp.ClientTimeout(total=timeout_s + _STALL_GRACE_S, sock_connect=self._timeout_s)
        try:
            response = await self._open("GET", kind.path(), query, limit=limit)
            try:
                if response.status != 200:
                    raise _error_of(response.status, await response.read(), response.headers)
                rest = b""
                async for chunk in response.content.iter_any():
                    *whole, rest = (rest + chunk).split(b"\n")
                    for line in whole:
                        if line.strip():
                            yield _event(line)
            finally:
                response.close()
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unreachable(_words(error)) from error

    async def _json(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Document:
        text = await self._call(method, path, query, body, content_type)
        try:
            document = json.loads(text)
        except ValueError as error:
            raise Failed("the API server's answer is not JSON") from error
        if not isinstance(document, dict):
            raise Failed("the API server's answer is not an object")
        return document

    async def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> bytes:
        """One call, tried again while that may help and does not take long."""
        pause_s = _FIRST_PAUSE_S
        for left in range(self._attempts - 1, -1, -1):
            try:
                return await self._once(method, path, query, body, content_type)
            except NotNow as error:
                wait_s = max(error.retry_after_s, pause_s * random.uniform(0.5, 1.5))  # noqa: S311 - spreads load
                if not left or wait_s > _LONGEST_PAUSE_S:
                    raise
                if isinstance(error, LoggedOut):
                    await self._log_in_again()
            await asyncio.sleep(wait_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S / 2)
        raise AssertionError("the last try returns or raises")

    async def _once(
        self, method: str, path: str, query: Mapping[str, str] | None, body: Any, content_type: str
    ) -> bytes:
        limit = aiohttp.ClientTimeout(total=self._timeout_s)
        try:
            response = await self._open(method, path, query or {}, body=body, content_type=content_type, limit=limit)
            try:
                text = await response.read()
            finally:
                response.release()
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(_words(error)) from error
        if not 200 <= response.status <= 299:
            raise _error_of(response.status, text, response.headers)
        return text

    async def _open(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        *,
        body: Any = None,
        content_type: str = "application/json",
        limit: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        """The client library's request, short of its models: it answers with aiohttp's response."""
        client = self._client
        assert client is not None, "the cluster was started"
        headers = {"Accept": "application/json", "Content-Type": content_type, **client.default_headers}
        try:
            await client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        except OSError as error:
            raise LoggedOut("the service account's token cannot be read") from error
        asked = urlencode({name: value for name, value in query.items() if value})
        url = f"{client.configuration.host}{path}" + (f"?{asked}" if asked else "")
        request = client.rest_client.request
        answer = await request(  # type: ignore[no-untyped-call]
            method, url, headers=headers, body=body, _request_timeout=limit
        )
        response: aiohttp.ClientResponse = answer.response
        return response

    async def _log_in_again(self) -> None:
        assert self._client is not None
        await configure(self._access, self._client.configuration)


def _error_of(status: int, text: bytes, headers: Mapping[str, str]) -> ClusterError:
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    document = document if isinstance(document, dict) else {}
    message = document.get("message")
    if not isinstance(message, str) or not message:
        message = text.decode("utf-8", "replace").strip() or f"HTTP status {status}"
    kind = _BY_STATUS.get(status) or (Failed if status >= 500 else Refused)
    return kind(message[:_LONGEST_MESSAGE], status=status, retry_after_s=_seconds(headers.get("Retry-After")))


def _seconds(text: str | None) -> float:
    """A Retry-After in seconds; the API server never sends a date."""
    return float(text) if text and text.isdecimal() and len(text) < 8 else 0.0


def _event(line: bytes) -> Event:
    document = json.loads(line)
    kind, about = document["type"], document["object"]
    if kind == "ERROR":
        raise _error_of(int(about.get("code") or 500), json.dumps(about).encode(), {})
    return Event(kind, about)


def _printed(line: str) -> tuple[datetime, str]:
    """`2026-11-22T15:04:05.123456789Z text`; a line without a time, as of a broken log, was printed at no known one."""
    stamp, _, text = line.partition(" ")
    try:
        at = datetime.fromisoformat(stamp)
    except ValueError:
        return (datetime.fromtimestamp(0, UTC), line)
    return (at if at.tzinfo else at.replace(tzinfo=UTC), text.rstrip("\r"))


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def labels_of(document: Document) -> Mapping[str, str]:
    return (document["metadata"].get("labels") or {}) if document else {}


def conditions_of(document: Document) -> Sequence[Document]:
    return (document.get("status") or {}).get("conditions") or ()
