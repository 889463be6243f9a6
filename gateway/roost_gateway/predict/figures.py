"""Counters of the prediction path: plain numbers on the way, Prometheus text when asked."""

from bisect import bisect_left
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from roost_platform.domain.services import ServiceKey
from roost_platform.domain.usage import Outcome

LATENCY_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 15, 30, 60)
"""OpenTelemetry's buckets for http.server.request.duration, with finer ones below and cold-start ones above."""


class Histogram:
    """Counts in buckets; `bounds` are upper ends in seconds, the last bucket is open."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...] = LATENCY_S) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def cumulative(self) -> tuple[list[tuple[str, float]], float]:
        """Buckets in Prometheus' way, each with the counts of those before it, and the sum of observations."""
        total, buckets = 0, []
        for bound, count in zip([*map(str, self._bounds), "+Inf"], self._counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        return buckets, self._sum


class PredictFigures(Collector):
    """What the prediction path counts, by tenant and model.

    `known` says whether a model still exists; the series of one that does not are dropped at the next scrape.
    """

    def __init__(self, known: Callable[[str, str], bool]) -> None:
        self.inflight = 0
        self._known = known
        self._requests: dict[tuple[str, str, Outcome], int] = {}
        self._forgotten: dict[str, int] = {}  # by tenant, of models that are gone
        self._latency: dict[tuple[str, str], Histogram] = {}
        self._queue = Histogram()
        self._cold_start = Histogram()

    def answered(self, key: ServiceKey, outcome: Outcome, *, seconds: float, queue_us: int, cold_start_us: int) -> None:
        tenant, model = key.tenant, key.model
        label = (tenant, model, outcome)
        self._requests[label] = self._requests.get(label, 0) + 1
        histogram = self._latency.get((tenant, model))
        if histogram is None:
            histogram = self._latency[tenant, model] = Histogram()
        histogram.observe(seconds)
        self._queue.observe(queue_us / 1e6)
        if cold_start_us:
            self._cold_start.observe(cold_start_us / 1e6)

    def answered_by_tenant(self) -> dict[str, int]:
        """All calls since the gateway began, of models that were deleted too."""
        counted = dict(self._forgotten)
        for (tenant, _, _), count in self._requests.items():
            counted[tenant] = counted.get(tenant, 0) + count
        return counted

    def _forget_deleted(self) -> None:
        gone = {key for key in self._latency if not self._known(*key)}
        for key in gone:
            del self._latency[key]
        for label in [label for label in self._requests if label[:2] in gone]:
            self._forgotten[label[0]] = self._forgotten.get(label[0], 0) + self._requests.pop(label)

    def collect(self) -> Iterator[Metric]:
        self._forget_deleted()
        requests = CounterMetricFamily("roost_requests", "Predictions answered", labels=["tenant", "model", "outcome"])
        for (tenant, model, outcome), count in self._requests.items():
            requests.add_metric([tenant, model, outcome], count)
        yield requests
        latency = HistogramMetricFamily(
            "roost_request_duration_seconds",
            "From the first byte to the last, at the gateway",
            labels=["tenant", "model"],
        )
        for (tenant, model), histogram in self._latency.items():
            buckets, total = histogram.cumulative()
            latency.add_metric([tenant, model], buckets, total)
        yield latency
        for name, text, one in (
            ("roost_queue_duration_seconds", "Waiting for a replica, waking included", self._queue),
            ("roost_cold_start_duration_seconds", "Waiting in which no replica was ready", self._cold_start),
        ):
            family = HistogramMetricFamily(name, text)
            buckets, total = one.cumulative()
            family.add_metric([], buckets, total)
            yield family
        yield GaugeMetricFamily("roost_requests_in_flight", "Predictions under way", value=self.inflight)
