"""The seam between a run and what watches the platform."""

from collections.abc import Mapping
from typing import Any

from roost_loadtest import api
from roost_loadtest.knative_watch import KnativeWatch
from roost_loadtest.options import Order
from roost_loadtest.record import Billing, Replicas
from roost_loadtest.run import Watch
from roost_loadtest.watch import Watcher


def watch_for(order: Order, environment: Mapping[str, str]) -> Watch:
    """Raises ValueError for a kubeconfig that cannot be used."""
    plan = order.plan

    def key_of(tenant: str) -> str:
        return api.key_for(tenant, environment)

    targets = [stream.target for stream in plan.streams]
    try:
        api.get(plan.url, "/api/v1/info", key_of(targets[0].tenant))
    except (api.NotThere, api.SaidNo):
        return Unwatched()
    autoscalers = KnativeWatch(order.kubeconfig) if order.kubeconfig is not None else None
    return Watcher(plan.url, targets, key_of=key_of, billed=plan.aims.billed, autoscalers=autoscalers)


class Unwatched:
    """For servers that are not Roost: nothing is known of their replicas."""

    def facts(self) -> dict[str, Any]:
        return {}

    def look(self) -> dict[str, Replicas]:
        return {}

    def events(self) -> list[tuple[float, str]]:
        return []

    def before(self) -> None:
        pass

    def billing(self, charged: dict[str, int]) -> tuple[Billing, ...]:
        return ()

    def settled(self, replicas: dict[str, Replicas], waited_s: float) -> bool:
        return True
