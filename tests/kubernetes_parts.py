"""For tests of the fake cluster: objects to send to it, and the clients that people use: the official one and kubectl."""

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from kubernetes.aio import client as kubernetes_client

from fake_kubernetes import FakeKubernetes

Object = dict[str, Any]
SERVING = "serving.knative.dev"


def official(api: FakeKubernetes) -> kubernetes_client.ApiClient:
    """To be used as a context."""
    configuration = kubernetes_client.Configuration()
    configuration.host = api.url
    configuration.api_key = {"BearerToken": f"Bearer {api.token}"}
    return kubernetes_client.ApiClient(configuration)


def namespace(name: str, **labels: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def config_map(name: str, space: str = "default", **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": space}, "data": data}


def pod(name: str, space: str = "default", *, cpu: str = "1", **more: Any) -> Object:
    resources = {"requests": {"cpu": cpu, "memory": "1Gi"}, "limits": {"cpu": cpu, "memory": "1Gi"}}
    container = {"name": "main", "image": "example.org/x", "resources": resources, **more}
    meta = {"name": name, "namespace": space}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container]}}


def knative_service(name: str, template: str, space: str = "default", **more: Any) -> Object:
    """`more` goes into the container."""
    return {
        "apiVersion": f"{SERVING}/v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": space,
            "labels": {"networking.knative.dev/visibility": "cluster-local"},
        },
        "spec": {
            "template": {
                "metadata": {"name": template, "annotations": {}},
                "spec": {"containers": [{"image": "dev.local/x", **more}]},
            }
        },
    }


class Said(NamedTuple):
    code: int
    text: str


class Kubectl:
    """The real kubectl against an `anonymous` fake: without TLS it sends no token."""

    def __init__(self, api: FakeKubernetes, folder: Path) -> None:
        self._config = folder / "kubeconfig"
        self._config.write_text(
            f"{{apiVersion: v1, kind: Config, current-context: c, clusters: [{{name: c, cluster: {{server: '{api.url}'}}}}], "
            "contexts: [{name: c, context: {cluster: c, user: u}}], users: [{name: u, user: {}}]}"
        )
        self._folder = folder

    async def __call__(self, *arguments: str, given: str = "") -> Said:
        path = shutil.which("kubectl")
        assert path is not None
        process = await asyncio.create_subprocess_exec(
            path,
            *("--kubeconfig", str(self._config), "--cache-dir", str(self._folder / "cache"), *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "HOME": str(self._folder)},
        )
        output, _ = await process.communicate(given.encode())
        assert process.returncode is not None
        return Said(process.returncode, output.decode())
