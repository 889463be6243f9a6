"""A client of the control API: one method per call, plain JSON documents in and out.

    with RoostClient("http://127.0.0.1:8000", key) as roost:
        version = roost.upload("iris", Path("iris.onnx"), options={"min-scale": 1})
        answer = roost.predict("iris", b'{"inputs": [...]}')

It is synchronous and thread-safe. Nothing is tried again but opening the connection (`client_transport.py`).
"""

from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

from roost_gateway.client_drift import DriftCalls
from roost_gateway.client_money import MoneyCalls
from roost_gateway.client_shadows import ShadowCalls
from roost_gateway.client_transport import (
    DEFAULT_URL,
    ApiError,
    Document,
    ServerNotThere,
    given,
    is_loopback,
    normal_url,
    path_of,
)

__all__ = [
    "DEFAULT_URL",
    "ApiError",
    "Document",
    "Progress",
    "RoostClient",
    "ServerNotThere",
    "is_loopback",
    "normal_url",
]

Progress = Callable[[int, int], None]
"""Called with (bytes handed to the connection so far, bytes in all)."""

_CHUNK = 256 * 1024
_UPLOAD_TIMEOUT_S = 900.0  # the server checks the model before it answers
_PREDICT_TIMEOUT_S = 3610.0  # the longest `timeout` that a scaling policy can hold, and some


class RoostClient(DriftCalls, MoneyCalls, ShadowCalls):
    """Speaks for one key. All methods raise ApiError and ServerNotThere, and return the server's JSON document.

    `tenant` names the tenant that an operator key acts for; a tenant's own key needs none. `timeout` is in seconds,
    for each wait on the network; uploads and predictions have longer ones of their own.
    """

    # The server itself

    def info(self) -> Document:
        return self._json("GET", "/api/v1/info")

    def ready(self) -> bool:
        """Whether the server takes requests now. Raises ServerNotThere while nobody listens."""
        try:
            return self._send("GET", "/readyz").status_code == 200
        except ApiError:
            return False

    def metrics(self) -> str:
        """The metrics page, in Prometheus' text format; for the operator, or from the server's own machine."""
        return self._send("GET", "/metrics").text

    # Tenants and keys

    def create_tenant(self, name: str, quota: Mapping[str, float] | None = None) -> Document:
        """The new tenant with its first key, whose `secret` is shown this once."""
        return self._json("POST", "/api/v1/tenants", json={"name": name} | ({"quota": quota} if quota else {}))

    def tenants(self) -> Document:
        return self._json("GET", "/api/v1/tenants")

    def tenant(self, name: str) -> Document:
        return self._json("GET", path_of("tenants", name))

    def set_quota(self, name: str, quota: Mapping[str, float]) -> Document:
        """Change the named limits of a tenant and leave the others."""
        return self._json("PATCH", path_of("tenants", name), json={"quota": quota})

    def delete_tenant(self, name: str, *, force: bool = False) -> None:
        """Delete a tenant; one that still has models only with `force`, which deletes them too."""
        params = {"force": "true"} if force else {}
        self._send("DELETE", path_of("tenants", name), params=params, read_timeout=_PREDICT_TIMEOUT_S)

    def create_key(self, name: str, scopes: list[str], expires_at: str | None = None) -> Document:
        """The new key; its `secret` is shown this once. `expires_at` is an ISO 8601 time with an offset."""
        body = {"name": name, "scopes": scopes} | ({"expires_at": expires_at} if expires_at else {})
        return self._json("POST", "/api/v1/keys", json=body)

    def keys(self) -> Document:
        return self._json("GET", "/api/v1/keys")

    def revoke_key(self, key_id: str) -> None:
        self._send("DELETE", path_of("keys", key_id))

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
            path_of("models", model, "versions"),
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
        return self._json("GET", path_of("models", model))

    def versions(self, model: str) -> Document:
        return self._json("GET", path_of("models", model, "versions"))

    def version(self, model: str, number: int) -> Document:
        return self._json("GET", path_of("models", model, "versions", str(number)))

    def status(self, model: str) -> Document:
        return self._json("GET", path_of("models", model, "status"))

    def logs(
        self,
        model: str,
        *,
        limit: int = 100,
        since: str | None = None,
        revision: str | None = None,
        replica: str | None = None,
        follow: bool = False,
    ) -> Iterator[Document]:
        """What the model's replicas printed, the last `limit` lines; `since` is an ISO 8601 time with an offset.

        `follow`: then what they print, as long as the server keeps the answer open.
        """
        asked = {"limit": limit, "since": since, "revision": revision, "replica": replica, "follow": follow or None}
        yield from self._lines(path_of("models", model, "logs"), params=given(asked))

    def set_scaling(self, model: str, changes: Mapping[str, Any]) -> Document:
        """Change scaling options in Knative's spelling; None puts one back to its default."""
        return self._json("PATCH", path_of("models", model, "scaling"), json=changes)

    def rollback(self, model: str, version: int) -> Document:
        """Send all traffic to an earlier version."""
        return self._json("POST", path_of("models", model, "rollback"), json={"version": version})

    def traffic(self, model: str) -> Document:
        """The split, what sticks, rules and aliases."""
        return self._json("GET", path_of("models", model, "traffic"))

    def set_traffic(self, model: str, wish: Mapping[str, Any]) -> Document:
        """Change `split` (percents by version), `sticky` or `rules`; what is left out stays."""
        return self._json("PUT", path_of("models", model, "traffic"), json=wish)

    def set_alias(self, model: str, alias: str, version: int) -> Document:
        return self._json("PUT", path_of("models", model, "aliases", alias), json={"version": version})

    def delete_alias(self, model: str, alias: str) -> Document:
        return self._json("DELETE", path_of("models", model, "aliases", alias))

    def rollouts(self, model: str, *, limit: int = 10) -> Document:
        """The model's rollouts with their decisions, the newest first."""
        return self._json("GET", path_of("models", model, "rollouts"), params={"limit": limit})

    def begin_rollout(self, model: str, wish: Mapping[str, Any]) -> Document:
        """`wish` holds `to` and `guard`, and may hold `steps`, `every_s` and `minimum`."""
        return self._json("POST", path_of("models", model, "rollouts"), json=wish)

    def change_rollout(self, model: str, wish: str) -> Document:
        """`wish`: pause, resume or abort."""
        return self._json("POST", path_of("models", model, "rollouts", wish))

    def history(self, model: str, *, limit: int = 100, before: int | None = None) -> Document:
        """Who changed what, the newest first; of deleted models too."""
        params = {"limit": limit} | ({"before": before} if before is not None else {})
        return self._json("GET", path_of("models", model, "history"), params=params)

    def delete_model(self, model: str) -> None:
        """Delete a model with all its versions; returns when calls in flight have ended and its replicas are gone."""
        self._send("DELETE", path_of("models", model), read_timeout=_PREDICT_TIMEOUT_S)

    def predict(
        self, model: str, body: bytes, *, version: int | None = None, content_type: str = "application/json"
    ) -> Document:
        """Post an Open Inference Protocol request and return the answer; JSON both ways."""
        tenant = self._tenant or self.model(model)["tenant"]
        path = f"/t/{quote(tenant, safe='')}/v2/models/{quote(model, safe='')}"
        path += f"/versions/{version}/infer" if version is not None else "/infer"
        headers = {"Content-Type": content_type}
        return self._json("POST", path, content=lambda: body, headers=headers, read_timeout=_PREDICT_TIMEOUT_S)
