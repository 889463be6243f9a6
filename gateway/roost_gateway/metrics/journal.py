"""What the journal, the shipper and those who check the books have counted."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from roost_platform.metering.auditing import Auditor
from roost_platform.metering.journal import Journal
from roost_platform.metering.settling import Settler
from roost_platform.metering.shipper import Shipper


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
        gauges: tuple[tuple[str, str, float], ...] = (
            ("roost_journal_lag_bytes", "Usage written but not yet in the ledger", shipper.unshipped_bytes),
            ("roost_journal_lag_seconds", "For how long usage has waited for the ledger", shipper.lag_s),
            ("roost_ledger_gaps", "Sequence numbers missing from closed runs: lost usage", auditor.missing),
            ("roost_calls_unaccounted", "Calls by which closed runs do not add up", auditor.unaccounted),
        )
        for gauge, text, now in gauges:
            yield GaugeMetricFamily(gauge, text, value=now)
