"""Shadows on the metrics page: what this gateway has copied."""

from collections import Counter
from collections.abc import Callable

from roost_gateway.metrics.page import Page, Writer, labels_of
from roost_platform.domain.services import ServiceKey


class ShadowFigures(Writer):
    """Counts by model. `totals`: results of copies; `dropped`: calls whose turn it was and that were not copied."""

    def __init__(self, *, known: Callable[[ServiceKey], bool]) -> None:
        """`known`: whether there is such a model; the series of others go."""
        self.totals: Counter[tuple[ServiceKey, str]] = Counter()
        self.dropped: Counter[tuple[ServiceKey, str]] = Counter()
        self._known = known

    def write(self, page: Page) -> None:
        for counted in (self.totals, self.dropped):
            for place in [place for place in counted if not self._known(place[0])]:
                del counted[place]
        page.counter(
            "roost_shadow_calls_total",
            "Copies of calls to a shadow",
            [
                (labels_of(tenant=key.tenant, model=key.model, result=result), n)
                for (key, result), n in self.totals.items()
            ],
        )
        page.counter(
            "roost_shadow_dropped_total",
            "Calls that were to be copied to a shadow and were not",
            [(labels_of(tenant=key.tenant, model=key.model, reason=why), n) for (key, why), n in self.dropped.items()],
        )
