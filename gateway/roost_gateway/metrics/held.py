"""For how long replicas were held, and what they did meanwhile: what a tenant pays replicas by. Told by the gateway that the
engine tells, at least each ten seconds; so much later it shows.
"""

from collections.abc import Callable, Iterable

from roost_gateway.metrics.page import Page, Writer, labels_of
from roost_platform.domain.resources import ResourceKind, ResourceUsage
from roost_platform.domain.services import ServiceKey

STATES = ("setup", "active", "idle", "reserved")
"""Not ready yet; with a request; ready without one, and more than `min-scale` asks for; the same, and asked for by it."""


class HeldFigures(Writer):
    """Seconds of replicas by tenant, model, class of machine and state. `models` gives those that there are now."""

    def __init__(self, models: Callable[[], Iterable[ServiceKey]]) -> None:
        self._models = models
        self._held_us: dict[tuple[ServiceKey, str], list[int]] = {}  # by model and class, in the order of STATES

    def told(self, usage: ResourceUsage) -> None:
        if usage.kind is not ResourceKind.REPLICA:
            return
        key = (ServiceKey(usage.tenant, usage.model), usage.resource_class)
        held = self._held_us.setdefault(key, [0] * len(STATES))
        for place, us in enumerate((usage.setup_us, usage.active_us, usage.idle_us, usage.reserved_us)):
            held[place] += us

    def write(self, page: Page) -> None:
        now = set(self._models())
        self._held_us = {key: held for key, held in self._held_us.items() if key[0] in now}
        page.counter(
            "roost_replica_held_seconds_total",
            "Time that replicas were held",
            (
                (labels_of(tenant=key.tenant, model=key.model, resource_class=resource_class, state=state), us / 1e6)
                for (key, resource_class), held in self._held_us.items()
                for state, us in zip(STATES, held, strict=True)
            ),
        )
