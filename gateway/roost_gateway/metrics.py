"""The gateway's `/metrics`: what the prediction path, the engine and the journal count, read when asked."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from roost_platform.domain.services import RevisionKey
from roost_platform.engines.port import Engine
from roost_platform.metering.auditing import Auditor
from roost_platform.metering.journal import Journal
from roost_platform.metering.settling import Settler
from roost_platform.metering.shipper import Shipper

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
    def __init__(self, *, journal: Journal, shipper: Shipper, settler: Settler, auditor: Auditor) -> None:
        self._journal = journal
        self._shipper = shipper
        self._settler = settler
        self._auditor = auditor

    def collect(self) -> Iterator[Metric]:
        journal, shipper, settler, auditor = self._journal, self._shipper, self._settler, self._auditor
        for name, text, value in (
            ("roost_journal_events", "Usage events written", journal.events),
            ("roost_journal_failures", "Batches of usage events that could not be written", journal.failures),
            ("roost_journal_sync_failures", "Failed fdatasync calls", journal.sync_failures),
            ("roost_ledger_events", "Usage events added to the ledger", shipper.shipped),
            ("roost_ledger_repeated", "Usage events that were in the ledger already", shipper.repeated),
            ("roost_journal_damaged_lines", "Journal lines that could not be read", shipper.damaged),
            ("roost_ledger_conflicts", "Usage events that came again with other content", shipper.conflicts),
            ("roost_calls_opened", "Calls that this gateway has taken on", journal.intents.opened),
            ("roost_calls_unstored", "Calls refused since their usage could not be written", journal.intents.unstored),
            ("roost_calls_unknown", "Calls that were under way when a gateway died", settler.unknown),
        ):
            yield CounterMetricFamily(name, text, value=value)
        for name, text, value in (
            ("roost_journal_lag_bytes", "Usage written but not yet in the ledger", shipper.unshipped_bytes),
            ("roost_ledger_gaps", "Sequence numbers missing from closed runs: lost usage", auditor.missing),
            ("roost_calls_unaccounted", "Calls by which closed runs do not add up", auditor.unaccounted),
        ):
            yield GaugeMetricFamily(name, text, value=value)


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
