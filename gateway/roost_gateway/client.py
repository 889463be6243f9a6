"""A client of the control API: one method per call, plain JSON documents in and out.

    with RoostClient("http://127.0.0.1:8000", key) as roost:
        version = roost.upload("iris", Path("iris.onnx"), options={"min-scale": 1})
        answer = roost.predict("iris", b'{"inputs": [...]}')

It is synchronous and thread-safe. Nothing is tried again but opening the connection. httpx, which takes a tenth of a
second to import, is loaded by the first client, so that the command line can import this module and stay quick.
"""

import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    import httpx

Document = dict[str, Any]
"""A JSON object, as the server wrote it."""
Progress = Callable[[int, int], None]
"""Called with (bytes handed to the connection so far, bytes in all)."""

DEFAULT_URL = "http://127.0.0.1:8000"
_CHUNK = 256 * 1024
_CONNECT_TIMEOUT_S = 5.0
_CONNECT_PAUSE_S = 0.1  # before the one second try
_UPLOAD_TIMEOUT_S = 900.0  # the server checks the model before it answers
_PREDICT_TIMEOUT_S = 3610.0  # the longest `timeout` that a scaling policy can hold, and some


class ApiError(Exception):
    """The server said no. `code` is the stable word for programs, `message` the sentence for people."""

    def __init__(
        self,
        *,
        status: int,
        code: str,
        message: str,
        field: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.field = field
        """The part of the request at fault."""
        self.request_id = request_id
        """What the operator needs to find this call in the server's log."""
        self.retry_after = retry_after
        """Seconds after which another try may succeed."""

    def to_json(self) -> Document:
        """The error body as the server writes it."""
        document: Document = {"error": self.message, "code": self.code, "request_id": self.request_id}
        return document | ({"field": self.field} if self.field else {})


class ServerNotThere(Exception):
    """Nobody listens at `url`, or the connection broke before an answer came."""

    def __init__(self, url: str, message: str, *, connected: bool) -> None:
        super().__init__(message)
        self.url = url
        self.connected = connected
        """True when somebody listened, so that the request may have been carried out."""


def normal_url(url: str) -> str:
    """`url` with a scheme and without a trailing slash: `localhost:8000/` is `http://localhost:8000`."""
    return (url if "://" in url else f"http://{url}").rstrip("/")


def is_loopback(url: str) -> bool:
    """Whether `url` can only lead to this machine."""
    host = urlsplit(normal_url(url)).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class RoostClient:
    """Speaks for one key. All methods raise ApiError and ServerNotThere, and return the server's JSON document.

    `tenant` names the tenant that an operator key acts for; a tenant's own key needs none. `timeout` is in seconds,
    for each wait on the network; uploads and predictions have longer ones of their own.
    """

    def __init__(
        self, url: str = DEFAULT_URL, api_key: str | None = None, *, tenant: str | None = None, timeout: float = 30.0
    ) -> None:
        import httpx  # noqa: PLC0415 - see above

        self.url = normal_url(url)
        self._tenant = tenant
        self._timeout = timeout
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            params={"tenant": tenant} if tenant else {},
            timeout=httpx.Timeout(timeout, connect=_CONNECT_TIMEOUT_S),
            trust_env=not is_loopback(self.url),  # a proxy for the Internet cannot reach this machine's own server
        )

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # The server itself

    def info(self) -> Document:
        return self._json("GET", "/api/v1/info")

    def ready(self) -> bool:
        """Whether the server takes requests now. Raises ServerNotThere while nobody listens."""
        try:
            return self._send("GET", "/readyz").status_code == 200
        except ApiError:
            return False

    def prices(self) -> Document:
        return self._json("GET", "/api/v1/prices")

    # Tenants and keys

    def create_tenant(self, name: str, quota: Mapping[str, float] | None = None) -> Document:
        """The new tenant with its first key, whose `secret` is shown this once."""
        return self._json("POST", "/api/v1/tenants", json={"name": name} | ({"quota": quota} if quota else {}))

    def tenants(self) -> Document:
        return self._json("GET", "/api/v1/tenants")

    def tenant(self, name: str) -> Document:
        return self._json("GET", _path("tenants", name))

    def set_quota(self, name: str, quota: Mapping[str, float]) -> Document:
        """Change the named limits of a tenant and leave the others."""
        return self._json("PATCH", _path("tenants", name), json={"quota": quota})

    def delete_tenant(self, name: str, *, force: bool = False) -> None:
        """Delete a tenant; one that still has models only with `force`, which deletes them too."""
        params = {"force": "true"} if force else {}
        self._send("DELETE", _path("tenants", name), params=params, read_timeout=_PREDICT_TIMEOUT_S)

    def create_key(self, name: str, scopes: list[str], expires_at: str | None = None) -> Document:
        """The new key; its `secret` is shown this once. `expires_at` is an ISO 8601 time with an offset."""
        body = {"name": name, "scopes": scopes} | ({"expires_at": expires_at} if expires_at else {})
        return self._json("POST", "/api/v1/keys", json=body)

    def keys(self) -> Document:
        return self._json("GET", "/api/v1/keys")

    def revoke_key(self, key_id: str) -> None:
        self._send("DELETE", _path("keys", key_id))

    # Models

    def upload(
        self, model: str, file: Path, *, options: Mapping[str, Any] | None = None, progress: Progress | None = None
    ) -> Document:
        """Deploy `file` as the next version of `model`; returns it as soon as the server has accepted the file.

        `options` are scaling options in Knative's spelling, `max-batch-size` and `runtime`. The file is read twice:
        once for the digest that protects it on its way. Raises OSError when it cannot be read.
        """
        with file.open("rb") as stream:
            digest = sha256()
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
            size = stream.tell()

        def body() -> Iterator[bytes]:
            with file.open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    yield chunk
                    if progress is not None:
                        progress(stream.tell(), size)

        return self._json(
            "POST",
            _path("models", model, "versions"),
            params=dict(options or {}),
            content=body,
            headers={
                "Content-Type": "application/octet-stream",
                "Content-Length": str(size),
                "Content-Digest": f"sha-256=:{b64encode(digest.digest()).decode()}:",
            },
            read_timeout=_UPLOAD_TIMEOUT_S,
        )

    def models(self) -> Document:
        return self._json("GET", "/api/v1/models")

    def model(self, model: str) -> Document:
        return self._json("GET", _path("models", model))

    def versions(self, model: str) -> Document:
        return self._json("GET", _path("models", model, "versions"))

    def version(self, model: str, number: int) -> Document:
        return self._json("GET", _path("models", model, "versions", str(number)))

    def status(self, model: str) -> Document:
        return self._json("GET", _path("models", model, "status"))

    def logs(self, model: str, *, lines: int = 100, revision: str | None = None) -> Document:
        """The last `lines` log lines of each revision, or of the named one."""
        params: dict[str, Any] = {"lines": lines} | ({"revision": revision} if revision else {})
        return self._json("GET", _path("models", model, "logs"), params=params)

    def set_scaling(self, model: str, changes: Mapping[str, Any]) -> Document:
        """Change scaling options in Knative's spelling; None puts one back to its default."""
        return self._json("PATCH", _path("models", model, "scaling"), json=changes)

    def rollback(self, model: str, version: int) -> Document:
        """Send all traffic to an earlier version."""
        return self._json("POST", _path("models", model, "rollback"), json={"version": version})

    def delete_model(self, model: str) -> None:
        """Delete a model with all its versions; returns when calls in flight have ended and its replicas are gone."""
        self._send("DELETE", _path("models", model), read_timeout=_PREDICT_TIMEOUT_S)

    # Use and money

    def usage(
        self,
        *,
        start: str | None = None,
        end: str | None = None,
        model: str | None = None,
        group_by: str | None = None,
    ) -> Document:
        """What was metered in [start, end), ISO 8601; this month by default. `group_by`: model,version,outcome,day."""
        wanted = {"from": start, "to": end, "model": model, "group_by": group_by}
        return self._json("GET", "/api/v1/usage", params={k: v for k, v in wanted.items() if v is not None})

    def statement(self, month: str) -> Document:
        """The statement of `month` (YYYY-MM, UTC); amounts of money are decimal strings."""
        return self._json("GET", _path("statements", month))

    def statement_csv(self, month: str) -> str:
        return self._send("GET", _path("statements", month), params={"format": "csv"}).text

    def predict(
        self, model: str, body: bytes, *, version: int | None = None, content_type: str = "application/json"
    ) -> Document:
        """Post an Open Inference Protocol request and return the answer; JSON both ways."""
        tenant = self._tenant or self.model(model)["tenant"]
        path = f"/t/{quote(tenant, safe='')}/v2/models/{quote(model, safe='')}"
        path += f"/versions/{version}/infer" if version is not None else "/infer"
        headers = {"Content-Type": content_type}
        return self._json("POST", path, content=lambda: body, headers=headers, read_timeout=_PREDICT_TIMEOUT_S)

    # How a request travels

    def _json(self, method: str, path: str, **how: Any) -> Document:
        response = self._send(method, path, **how)
        try:
            document = response.json()
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise ApiError(
                status=response.status_code,
                code="not_roost",
                message=f"{self.url} answered, but not as Roost does",
                request_id=response.headers.get("X-Request-Id"),
            )
        return document

    def _send(
        self,
        method: str,
        path: str,
        *,
        content: Callable[[], bytes | Iterator[bytes]] | None = None,
        read_timeout: float | None = None,
        **how: Any,
    ) -> "httpx.Response":
        import httpx  # noqa: PLC0415 - see above

        timeout = httpx.Timeout(read_timeout or self._timeout, connect=_CONNECT_TIMEOUT_S)
        try:
            try:
                response = self._http.request(method, path, timeout=timeout, content=content and content(), **how)
            except httpx.ConnectError:
                time.sleep(_CONNECT_PAUSE_S)
                response = self._http.request(method, path, timeout=timeout, content=content and content(), **how)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise ServerNotThere(self.url, f"No Roost at {self.url}.", connected=False) from error
        except httpx.TimeoutException as error:
            raise ServerNotThere(self.url, f"Roost at {self.url} did not answer in time.", connected=True) from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            message = f"The connection to {self.url} broke before an answer came: {error}"
            raise ServerNotThere(self.url, message, connected=True) from error
        if not response.is_success:
            raise _api_error(response)
        return response


def _path(*parts: str) -> str:
    return "/api/v1/" + "/".join(quote(part, safe="") for part in parts)


def _api_error(response: "httpx.Response") -> ApiError:
    try:
        document = response.json()
    except ValueError:
        document = {}
    if not isinstance(document, dict):
        document = {}
    retry_after = response.headers.get("Retry-After", "")
    return ApiError(
        status=response.status_code,
        code=str(document.get("code", f"http_{response.status_code}")),
        message=str(document.get("error", f"the server answered {response.status_code} {response.reason_phrase}")),
        field=document.get("field"),
        request_id=document.get("request_id") or response.headers.get("X-Request-Id"),
        retry_after=float(retry_after) if retry_after.isdecimal() else None,
    )
