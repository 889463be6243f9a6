"""The gateway's `/metrics`: what the prediction path, the engine and the journal count, read when asked."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from roost_platform.domain.services import RevisionKey
from roost_platform.engines.port import Engine
from roost_platform.metering.journal import Journal

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class EngineFiguresCollector(Collector):
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        figures = self._engine.figures()
        for name, text, values in (
            ("roost_replicas_wanted", "Replicas the autoscaler wants", figures.wanted),
            ("roost_replicas_ready", "Replicas ready to serve", figures.ready),
            ("roost_queue_length", "Requests waiting for a replica", figures.queued),
        ):
            yield _by_revision(name, text, values)
        yield CounterMetricFamily("roost_activations", "Revisions woken from zero", value=figures.activations)


class JournalFiguresCollector(Collector):
    def __init__(self, journal: Journal, unshipped_bytes: Callable[[], int]) -> None:
        self._journal = journal
        self._unshipped_bytes = unshipped_bytes

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily("roost_journal_events", "Usage events written", value=self._journal.events)
        yield CounterMetricFamily(
            "roost_journal_failures", "Batches of usage events that could not be written", value=self._journal.failures
        )
        yield GaugeMetricFamily(
            "roost_journal_lag_bytes", "Usage written but not yet in the ledger", value=self._unshipped_bytes()
        )


def make_page(*collectors: Collector) -> Callable[[], bytes]:
    """What `/metrics` answers, made anew at each call."""
    registry = CollectorRegistry(auto_describe=False)
    for collector in collectors:
        registry.register(collector)
    return lambda: generate_latest(registry)


def _by_revision(name: str, text: str, values: dict[RevisionKey, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=["tenant", "model", "revision"])
    for key, value in values.items():
        family.add_metric([key.service.tenant, key.service.model, key.name], value)
    return family
