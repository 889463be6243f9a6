"""Counters of the prediction path: plain numbers on the way, series when asked.

A call that is answered costs one look-up of its model and a few additions (`benchmarks/metrics.py` says how long that takes).
"""

from collections.abc import Callable, Iterable, Iterator

from roost_gateway.metrics.histograms import ADDED_S, COLD_S, Histogram
from roost_gateway.metrics.page import Page, Writer, labels_of
from roost_platform.domain.errors import RoostError, Throttled
from roost_platform.domain.services import ServiceKey
from roost_platform.domain.usage import ANSWERED_OUTCOMES, Outcome


class VersionFigures:
    """What was counted of the calls to one version of a model."""

    __slots__ = ("duration", "outcomes")

    def __init__(self) -> None:
        self.outcomes = {outcome: 0 for outcome in Outcome if outcome in ANSWERED_OUTCOMES}
        self.duration = Histogram()

    def add(self, other: "VersionFigures") -> None:
        for outcome, count in other.outcomes.items():
            self.outcomes[outcome] += count
        self.duration.add(other.duration)


class ModelFigures:
    """What was counted of the calls of one model."""

    __slots__ = ("cold_start", "compute_us", "copies", "labels", "queue_us", "rows", "versions")

    def __init__(self, key: ServiceKey) -> None:
        self.labels = labels_of(tenant=key.tenant, model=key.model)
        self.versions: dict[int, VersionFigures] = {0: VersionFigures()}
        """0: calls for which none was chosen, and those of versions that nothing is left of."""
        self.cold_start: Histogram | None = None
        self.copies = 0
        """Metered copies of its calls: no answers, so they are in nothing else here."""
        self.rows = 0
        self.compute_us = 0
        self.queue_us = 0

    def version(self, number: int) -> VersionFigures:
        found = self.versions.get(number)
        if found is None:
            found = self.versions[number] = VersionFigures()
        return found

    def forget(self, version: int) -> None:
        self.versions[0].add(self.versions.pop(version))

    def sum(self) -> VersionFigures:
        """Of all versions; not to be changed."""
        called = [one for one in self.versions.values() if one.duration.count]
        if len(called) == 1:
            return called[0]
        whole = VersionFigures()
        for one in called:
            whole.add(one)
        return whole

    @property
    def calls(self) -> int:
        return sum(one.duration.count for one in self.versions.values())


class PredictFigures(Writer):
    """What the prediction path counts, by tenant and model.

    `models` gives those that there are now. Each has a series of every outcome from its first scrape on, so that its first
    failure is an increase; the series of one that is gone are dropped at the next scrape. Versions have series once they were
    called, for as long as `has_version` says that something of them is deployed: a model's versions are never deleted.
    """

    def __init__(
        self,
        models: Callable[[], Iterable[ServiceKey]],
        *,
        has_version: Callable[[ServiceKey, int], bool] = lambda _key, _version: True,
    ) -> None:
        self.inflight = 0
        self._models = models
        self._has_version = has_version
        self._figures: dict[ServiceKey, ModelFigures] = {}
        self._forgotten: dict[str, int] = {}  # calls and copies by tenant, of models that are gone
        self._queue = Histogram()
        self._added = Histogram(ADDED_S)
        self._errors: dict[str, int] = {}  # by code
        self._limits: dict[tuple[str, str], int] = {}  # by tenant and code

    def answered(
        self,
        key: ServiceKey,
        outcome: Outcome,
        *,
        version: int = 0,
        seconds: float,
        queue_us: int,
        cold_start_us: int,
        compute_us: int = 0,
        rows: int = 0,
    ) -> None:
        """Count one call. `version` is 0 where none was chosen; `seconds` is all that it took at the gateway, the rest is
        parts of it.
        """
        figures = self._figures.get(key)
        if figures is None:
            figures = self._figures[key] = ModelFigures(key)
        one = figures.versions.get(version) or figures.version(version)
        one.outcomes[outcome] += 1
        one.duration.observe(seconds)
        figures.rows += rows
        figures.compute_us += compute_us
        figures.queue_us += queue_us
        self._queue.observe(queue_us / 1e6)
        if compute_us:
            self._added.observe(max(0.0, seconds - (queue_us + compute_us) / 1e6))
        if cold_start_us:
            if figures.cold_start is None:
                figures.cold_start = Histogram(COLD_S)
            figures.cold_start.observe(cold_start_us / 1e6)

    def copied(self, key: ServiceKey) -> None:
        """A copy of a call was metered."""
        figures = self._figures.get(key)
        if figures is None:
            figures = self._figures[key] = ModelFigures(key)
        figures.copies += 1

    def failed(self, tenant: str, error: RoostError) -> None:
        """Count why a call that was taken on got no answer of a replica. All codes are in the source: they are few."""
        code = error.code
        self._errors[code] = self._errors.get(code, 0) + 1
        if isinstance(error, Throttled):
            self._limits[tenant, code] = self._limits.get((tenant, code), 0) + 1

    def metered_by_tenant(self) -> dict[str, int]:
        """All calls and metered copies since the gateway began, of models that were deleted too."""
        counted = dict(self._forgotten)
        for key, figures in self._figures.items():
            counted[key.tenant] = counted.get(key.tenant, 0) + figures.calls + figures.copies
        return counted

    def write(self, page: Page) -> None:
        self._follow_models()
        self._write_models(page)
        self._write_versions(page)
        page.histogram("roost_queue_duration_seconds", "Waiting for a replica, waking included", [("", self._queue)])
        page.histogram(
            "roost_added_duration_seconds", "Neither waiting nor computing: what is added", [("", self._added)]
        )
        page.gauge("roost_requests_in_flight", "Predictions under way", [("", self.inflight)])
        page.counter(
            "roost_request_errors_total",
            "Calls without an answer of a replica",
            ((labels_of(code=code), count) for code, count in self._errors.items()),
        )
        page.counter(
            "roost_limits_hit_total",
            "Calls refused by a limit",
            ((labels_of(tenant=tenant, limit=code), count) for (tenant, code), count in self._limits.items()),
        )

    def _write_models(self, page: Page) -> None:
        models = self._figures.values()
        sums = [(one.labels, one.sum()) for one in models]
        page.counter("roost_requests_total", "Predictions answered", _by_outcome(sums))
        page.counter("roost_inferences_total", "Rows computed", ((one.labels, one.rows) for one in models))
        page.counter(
            "roost_compute_seconds_total",
            "Time that replicas computed",
            ((one.labels, one.compute_us / 1e6) for one in models),
        )
        page.counter(
            "roost_queue_seconds_total",
            "Time that calls waited for a replica, waking included",
            ((one.labels, one.queue_us / 1e6) for one in models),
        )
        page.histogram(
            "roost_request_duration_seconds",
            "From the first byte to the last, at the gateway",
            ((labels, whole.duration) for labels, whole in sums if whole.duration.count),
        )
        page.histogram(
            "roost_cold_start_duration_seconds",
            "Waiting in which no replica was ready",
            ((one.labels, one.cold_start) for one in models if one.cold_start is not None),
        )

    def _write_versions(self, page: Page) -> None:
        versions = [
            (f'{figures.labels},version="{number}"', one)
            for figures in self._figures.values()
            for number, one in figures.versions.items()
            if number
        ]
        page.counter(
            "roost_version_requests_total", "Predictions answered by a version of a model", _by_outcome(versions)
        )
        page.histogram(
            "roost_version_request_duration_seconds",
            "From the first byte to the last, by version",
            ((labels, one.duration) for labels, one in versions),
        )

    def _follow_models(self) -> None:
        """Have figures of exactly the models that there are, and of no version that nothing is left of."""
        now = dict.fromkeys(self._models())
        for key in self._figures.keys() - now.keys():
            gone = self._figures.pop(key)
            self._forgotten[key.tenant] = self._forgotten.get(key.tenant, 0) + gone.calls + gone.copies
        for key in now.keys() - self._figures.keys():
            self._figures[key] = ModelFigures(key)
        for key, figures in self._figures.items():
            for version in [number for number in figures.versions if number and not self._has_version(key, number)]:
                figures.forget(version)
        tenants = {key.tenant for key in now}
        self._limits = {key: count for key, count in self._limits.items() if key[0] in tenants}


def _by_outcome(figures: Iterable[tuple[str, VersionFigures]]) -> Iterator[tuple[str, float]]:
    for labels, one in figures:
        for outcome, count in one.outcomes.items():
            yield f'{labels},outcome="{outcome}"', count
