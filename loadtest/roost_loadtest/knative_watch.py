"""Knative's own word on replicas: its PodAutoscalers and Deployments, read with a kubeconfig. They are looked at, never written.

`kubernetes` is imported when it is asked for, not before: most runs need none of it.
"""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roost_loadtest.asking import NoAnswer
from roost_loadtest.readings import PodAutoscaler
from roost_loadtest.record import Target

if TYPE_CHECKING:
    from kubernetes.client import CustomObjectsApi

_TIMEOUT_S = 5.0
_TENANT, _MODEL, _REVISION = "roost.dev/tenant", "roost.dev/model", "roost.dev/revision"
_PODAUTOSCALERS = ("autoscaling.internal.knative.dev", "v1alpha1", "podautoscalers")
_DEPLOYMENTS = ("apps", "v1", "deployments")


class KnativeWatch:
    """Of the whole cluster it lists what carries Roost's labels: the kubeconfig's user must be allowed to."""

    def __init__(self, kubeconfig: Path) -> None:
        """Raises ValueError for a kubeconfig that cannot be used, and where the library is missing."""
        self._api = _client(kubeconfig)

    def look(self, target: Target) -> tuple[PodAutoscaler, ...]:
        """One for each revision of the model that Knative scales. Raises NoAnswer."""
        wanted = {_TENANT: target.tenant, _MODEL: target.model}
        selector = ",".join(f"{name}={value}" for name, value in wanted.items())
        return autoscalers(self._list(_PODAUTOSCALERS, selector), self._list(_DEPLOYMENTS, selector))

    def _list(self, kind: tuple[str, str, str], selector: str) -> list[dict[str, Any]]:
        try:
            found: Any = self._api.list_cluster_custom_object(
                *kind, label_selector=selector, _request_timeout=_TIMEOUT_S
            )
        except Exception as error:  # the library's own, urllib3's, those of a kubeconfig's login
            status = getattr(error, "status", None)
            words = f"status {status}" if status else type(error).__name__
            raise NoAnswer(f"the cluster does not show its {kind[2]}: {words}") from error
        return list(found["items"])


def autoscalers(
    pod_autoscalers: Iterable[dict[str, Any]], deployments: Iterable[dict[str, Any]]
) -> tuple[PodAutoscaler, ...]:
    """The autoscaler's wish is in its own object, who is ready and who only starts in the Deployment."""
    found: dict[str, PodAutoscaler] = {}
    running = {_label(each): each for each in deployments}
    for each in pod_autoscalers:
        name, status = _label(each), each.get("status") or {}
        deployment = running.get(name)
        ready, starting = status.get("actualScale"), None
        if deployment is not None:
            counted = deployment.get("status") or {}
            ready = counted.get("readyReplicas", 0)
            starting = max(0, counted.get("replicas", 0) - ready)
        wanted = status.get("desiredScale")
        # Knative writes -1 while it does not know yet.
        known = PodAutoscaler(name, wanted if wanted is not None and wanted >= 0 else None, ready, starting)
        found[name] = _sum(found[name], known) if name in found else known
    return tuple(found.values())


def _sum(one: PodAutoscaler, other: PodAutoscaler) -> PodAutoscaler:
    """Of two Knative revisions of one of Roost's: another scaling policy makes another one."""

    def both(a: int | None, b: int | None) -> int | None:
        return None if a is None and b is None else (a or 0) + (b or 0)

    return PodAutoscaler(
        one.revision, both(one.wanted, other.wanted), both(one.ready, other.ready), both(one.starting, other.starting)
    )


def _label(document: dict[str, Any]) -> str:
    return str((document["metadata"].get("labels") or {}).get(_REVISION, ""))


def _client(kubeconfig: Path) -> "CustomObjectsApi":
    try:
        from kubernetes import client, config  # noqa: PLC0415 - see above
    except ImportError as error:
        raise ValueError("--kubeconfig needs its library: pip install 'roost[knative]'") from error
    logging.getLogger("kubernetes.client.rest").setLevel(logging.WARNING)  # it would log whole answers
    try:
        found = config.new_client_from_config(  # type: ignore[no-untyped-call]
            config_file=str(kubeconfig), persist_config=False
        )
    except (config.ConfigException, OSError) as error:
        raise ValueError(f"{kubeconfig}: {error}") from error
    return client.CustomObjectsApi(found)
