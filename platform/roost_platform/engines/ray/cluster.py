"""Ray and Ray Serve, as far as this engine uses them. Every call blocks: `RayCluster` is used from one thread only."""

import importlib
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.config import HTTPOptions, ProxyLocation
from ray.serve.schema import LoggingConfig

from roost_platform.engines.ray.settings import RaySettings

_NAMESPACE = "roost"
_TRIES = 3
_MOST_PRINTED = 65_536
_OWN_LINES = (":job_id:", ":actor_name:", ":task_name:")
"""Ray writes them into its workers' output, for itself."""


@dataclass(frozen=True, slots=True)
class App:
    """One revision as Serve is to run it."""

    name: str
    prefix: str
    spec: Mapping[str, Any]
    """What `roost_runtimes.embedded.door` takes."""
    autoscaling: Mapping[str, Any]
    actor: Mapping[str, Any]
    """Resources of a replica, in Ray's words."""
    most_ongoing: int
    drain_s: float
    version: str
    """Another one means other replicas; the same keeps those that run."""


class RayCluster:
    """A connection, and the Ray behind it where this process started that."""

    def __init__(self, settings: RaySettings) -> None:
        self._settings = settings
        self._owns = False
        self._read: dict[Path, int] = {}

    def connect(self) -> None:
        """Raises ConnectionError and others of Ray's when it is not there. No harm when it is connected already."""
        given = self._settings
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "30")
        if not ray.is_initialized():
            if given.address:
                ray.init(
                    address=given.address, namespace=_NAMESPACE, log_to_driver=False, logging_level=logging.WARNING
                )
            else:
                ray.init(
                    address="local",
                    namespace=_NAMESPACE,
                    num_cpus=given.cpus or None,
                    object_store_memory=given.object_store_bytes,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.WARNING,
                )
            self._owns = True
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
        if not self._owns:
            return
        if not self._settings.address:
            serve.shutdown()
        ray.shutdown()
        self._owns = False

    def reconnect(self) -> None:
        """After a failure: Serve's client remembers a controller that may be gone, and a head may be gone as a whole."""
        if self._owns and (self._settings.address or self._has_died()):
            ray.shutdown()
        self.connect()

    def _has_died(self) -> bool:
        """Whether a process of the Ray that was started here has ended."""
        node = ray._private.worker._global_node  # noqa: SLF001
        return node is None or bool(node.dead_processes())

    def details(self) -> Mapping[str, Any]:
        """Serve's own account of its applications, by name."""
        from ray.serve.context import _get_global_client  # noqa: PLC0415 - private; the public one is the dashboard's

        client = _get_global_client(raise_if_no_controller_running=True)
        found: Mapping[str, Any] = client.get_serve_details()["applications"]
        return found

    def deploy(self, app: App) -> None:
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

    def printed(self, workers: Iterable[str]) -> list[tuple[str, str]]:
        """By worker id: lines that replicas on this machine have printed since the last time that all were asked for.

        Ray keeps them in files of each node; those of other nodes are not to be had without its dashboard.
        """
        node = ray._private.worker._global_node  # noqa: SLF001
        found: list[tuple[str, str]] = []
        if node is None:
            return found
        folder, read = Path(node.get_logs_dir_path()), {}
        for worker in workers:
            for path in sorted(folder.glob(f"worker-{worker}-*")):
                begin = max(self._read.get(path, 0), path.stat().st_size - _MOST_PRINTED)
                with path.open("rb") as file:
                    file.seek(begin)
                    whole = file.read().rpartition(b"\n")[0]
                read[path] = begin + len(whole) + bool(whole)
                lines = whole.decode("utf-8", "replace").splitlines()
                found += [(worker, line) for line in lines if not line.startswith(_OWN_LINES)]
        self._read = read
        return found
