"""The metrics page: figures as Prometheus text, under our own names and under those that Triton dashboards expect."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from roost_runtimes.figures import Figures, Histogram

_LABELS = ("model", "version")


class FiguresCollector(Collector):
    """Reads the counters of one core when it is scraped."""

    def __init__(self, figures: Figures, *, model: str, version: str, inflight: int) -> None:
        self._figures = figures
        self._labels = (model, version)
        self._inflight = inflight

    def collect(self) -> Iterator[Metric]:
        figures = self._figures
        requests = CounterMetricFamily(
            "roost_runtime_requests", "Infer requests answered, by outcome.", labels=(*_LABELS, "outcome")
        )
        for outcome, count in figures.outcomes.items():
            requests.add_metric((*self._labels, outcome), count)
        yield requests
        yield self._counter("roost_runtime_rows", "Rows inferred.", figures.rows)
        yield self._counter("roost_runtime_busy_seconds", "Time the model ran.", figures.busy_us / 1e6)
        inflight = GaugeMetricFamily("roost_runtime_inflight_requests", "Requests queued or running.", labels=_LABELS)
        inflight.add_metric(self._labels, self._inflight)
        yield inflight
        yield self._histogram(
            "roost_runtime_compute_seconds", "Time the model ran per request.", figures.compute_us, 1e6
        )
        yield self._histogram("roost_runtime_queue_seconds", "Time a request waited to run.", figures.queue_us, 1e6)
        yield self._histogram("roost_runtime_batch_requests", "Requests that shared a run.", figures.batch_requests, 1)
        yield from self._triton()

    def _triton(self) -> Iterator[Metric]:
        """Triton's names carry no `_total`, which the client library adds to counters: hence metrics of no type.

        Decoding counts as queue here, so there is no `compute_input`; what is left of a request's time is encoding.
        """
        figures = self._figures
        success = figures.outcomes["ok"]
        values = {
            "nv_inference_request_success": success,
            "nv_inference_request_failure": sum(figures.outcomes.values()) - success,
            "nv_inference_count": figures.rows,
            "nv_inference_exec_count": figures.runs,
            "nv_inference_request_duration_us": figures.request_us,
            "nv_inference_queue_duration_us": figures.queue_us.total,
            "nv_inference_compute_infer_duration_us": figures.compute_us.total,
            "nv_inference_compute_output_duration_us": max(
                0, figures.request_us - figures.queue_us.total - figures.compute_us.total
            ),
        }
        for name, value in values.items():
            metric = Metric(name, "As Triton names it.", "unknown")
            metric.add_sample(name, dict(zip(_LABELS, self._labels, strict=True)), value)
            yield metric

    def _counter(self, name: str, text: str, value: float) -> Metric:
        metric = CounterMetricFamily(name, text, labels=_LABELS)
        metric.add_metric(self._labels, value)
        return metric

    def _histogram(self, name: str, text: str, histogram: Histogram, unit: float) -> Metric:
        buckets: list[tuple[str, float]] = []
        below = 0
        for bound, count in zip((*histogram.bounds, None), histogram.counts, strict=True):
            below += count
            buckets.append(("+Inf" if bound is None else str(bound / unit), below))
        metric = HistogramMetricFamily(name, text, labels=_LABELS)
        metric.add_metric(self._labels, buckets, histogram.total / unit)
        return metric


def metrics_page(figures: Figures, *, model: str, version: str, inflight: int) -> bytes:
    """The page in Prometheus' classic text format."""
    registry = CollectorRegistry()
    registry.register(FiguresCollector(figures, model=model, version=version, inflight=inflight))
    return generate_latest(registry)
