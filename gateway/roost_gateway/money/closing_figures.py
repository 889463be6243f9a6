"""What closing says on the metrics page of the gateway that leads."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class ClosingFigures(Collector):
    def __init__(self) -> None:
        self.finalized = 0
        self.waiting = 0
        """Months of tenants that are due and not known to be complete, at the last look."""
        self.late_calls = 0
        """Calls that came more than 35 days late, into months whose statements are final: they are on no statement."""
        self.ahead_calls = 0
        """Calls in the ledger whose time has not come yet, at the last look."""

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily("roost_statements_final", "Statements made final", value=self.finalized)
        yield CounterMetricFamily(
            "roost_usage_late_calls", "Calls that came too late for any statement", value=self.late_calls
        )
        yield GaugeMetricFamily("roost_statements_waiting", "Statements that wait for usage", value=self.waiting)
        yield GaugeMetricFamily("roost_usage_ahead_calls", "Calls with a time in the future", value=self.ahead_calls)
