"""Ray and Ray Serve, as far as this engine uses them. Every call blocks. Runs in the driver's process: see driver.py."""

import importlib
import logging
import os
from collections.abc import Mapping
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.config import HTTPOptions, ProxyLocation
from ray.serve.schema import LoggingConfig

from roost_platform.engines.ray.printed import Elsewhere, lines_since
from roost_platform.engines.ray.settings import RaySettings
from roost_platform.engines.ray.words import App

_NAMESPACE = "roost"
_TRIES = 3
_OF_THE_HEAD = ("gcs_server", "raylet")
"""Its processes without which nothing works."""
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
    # Replicas listen for themselves, and are asked without a proxy between.
    "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1",
    # As long as gateways may need to hear that one is on its way out.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
}
"""How a Ray that is started here works, unless the operator says otherwise. Another's has what its operator gave it.

Serve's thread for user code stays: without it requests that are computed at once, on the loop, are never seen in flight by
Serve's autoscaler, which then puts a busy model to sleep.
"""


class RayCluster:
    """A connection, and the Ray behind it where this process started that."""

    def __init__(self, settings: RaySettings) -> None:
        self._settings = settings
        self._read: dict[str, int] = {}
        self._elsewhere = Elsewhere()
        self._ending = False

    def connect(self) -> None:
        """Raises ConnectionError and others of Ray's when it is not there. No harm when it is connected already."""
        given = self._settings
        if not ray.is_initialized():
            for name, value in _ENVIRONMENT.items():
                os.environ.setdefault(name, value)
            common: dict[str, Any] = {
                "namespace": _NAMESPACE,
                "log_to_driver": False,
                "logging_level": logging.WARNING,
            }
            if given.address:
                _know_the_token()
                ray.init(address=given.address, **common)
            else:
                ray.init(
                    address="local",
                    num_cpus=given.cpus or None,
                    object_store_memory=given.object_store_bytes,
                    include_dashboard=False,
                    **common,
                )
        options = HTTPOptions(host=given.http_host, port=given.http_port)
        quiet = LoggingConfig(log_level="WARNING", enable_access_log=False)
        logging.getLogger("ray.serve").setLevel(logging.WARNING)  # it tells people at a terminal what it does
        for left in reversed(range(_TRIES)):
            try:
                serve.start(proxy_location=ProxyLocation.HeadOnly, http_options=options, logging_config=quiet)
            except RayError:  # on a busy machine Serve gives its own proxy up, and makes another
                if not left:
                    raise
            else:
                return

    def disconnect(self) -> None:
        """Ends a Ray that was started here; models on another's run on."""
        if not ray.is_initialized():
            return
        self._ending = True
        if not self._settings.address:
            serve.shutdown()
        ray.shutdown()

    def has_died(self) -> bool:
        """Whether the Ray that was started here has lost its head."""
        node = ray._private.worker._global_node  # noqa: SLF001
        if self._settings.address or self._ending or node is None:
            return False
        return any(kind in _OF_THE_HEAD for kind, _ in node.dead_processes())

    def kill(self) -> None:
        """End what is left of a Ray that was started here, without asking it."""
        node = ray._private.worker._global_node  # noqa: SLF001
        if not self._settings.address and node is not None:
            node.kill_all_processes(check_alive=False, allow_graceful=False)

    def look(self) -> Mapping[str, Any]:
        """Serve's own account of its applications, by name: see `words.Seen`. Raises when there is no controller now."""
        from ray.serve.context import _get_global_client  # noqa: PLC0415 - private; the public one is the dashboard's

        client = _get_global_client(raise_if_no_controller_running=True)
        details: Mapping[str, Any] = client.get_serve_details()["applications"]
        groups = ray.get(client._controller.get_target_groups.remote(from_proxy_manager=True))  # noqa: SLF001
        # One that is not of a replica is of a proxy, which has another name.
        addresses = {one.name: where for group in groups for one in group.targets if (where := self._address(one))}
        return {name: _told(found, addresses) for name, found in details.items()}

    def _address(self, target: Any) -> str:
        """Replicas listen where the proxy does: on loopback those of other machines are not to be asked straight."""
        if not self._settings.on_loopback:
            return f"{target.ip}:{target.port}"
        here = target.ip == ray.util.get_node_ip_address()
        return f"{self._settings.http_host}:{target.port}" if here else ""

    def deploy(self, given: Mapping[str, Any]) -> None:
        app = App(**given)
        spec = dict(app.spec)

        def build() -> Any:
            """Runs in the replica."""
            return importlib.import_module("roost_runtimes.embedded").door(spec)

        deployment = serve.deployment(
            serve.ingress(build)(),
            name="model",
            autoscaling_config=dict(app.autoscaling),
            max_ongoing_requests=app.most_ongoing,
            max_queued_requests=-1,
            ray_actor_options=dict(app.actor),
            graceful_shutdown_wait_loop_s=0.2,
            graceful_shutdown_timeout_s=app.drain_s,
            max_constructor_retry_count=1,
            logging_config=LoggingConfig(log_level="WARNING", enable_access_log=False),
        ).options(version=app.version, _internal=True)  # else every change of the scaling would replace all replicas
        target = serve.RunTarget(deployment.bind(), name=app.name, route_prefix=app.prefix)
        serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)

    def delete(self, name: str) -> None:
        serve.delete(name, _blocking=False)

    def printed(self, workers: Mapping[str, str]) -> list[tuple[str, str]]:
        """By worker id: lines that replicas have printed since the last time that all were asked for. `workers`: the nodes
        that they run on. Those of other machines are a few seconds late.
        """
        here = ray.get_runtime_context().get_node_id()
        by_node: dict[str, list[str]] = {}
        for worker, node in workers.items():
            by_node.setdefault(node, []).append(worker)
        found, self._read = lines_since(by_node.pop(here, []), self._read)
        return found + self._elsewhere.printed(by_node)


def _know_the_token() -> None:
    """Ray looks for a cluster before it reads the token of its user (~/.ray/auth_token), and is refused for 20 s."""
    from ray._private.authentication import authentication_token_setup as setup  # noqa: PLC0415 - private

    setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def _told(details: Mapping[str, Any], addresses: Mapping[str, str]) -> dict[str, Any]:
    """One application, as JSON."""
    deployments = list(details.get("deployments", {}).values())
    return {
        "status": details["status"],
        "messages": [text for text in (details.get("message"), *(one.get("message") for one in deployments)) if text],
        "deployments": [one["status"] for one in deployments],
        "wanted": sum(one.get("target_num_replicas") or 0 for one in deployments),
        "replicas": [
            {
                "id": replica["replica_id"],
                "state": replica["state"],
                "worker": replica.get("worker_id") or "",
                "node": replica.get("node_id") or "",
                "address": addresses.get(replica.get("actor_name") or "", ""),
            }
            for one in deployments
            for replica in one["replicas"]
        ],
    }
