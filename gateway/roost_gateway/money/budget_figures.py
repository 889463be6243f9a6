"""What budgets say on the metrics page. Only the gateway that leads looks at them, so only its page has them."""

from collections.abc import Collection, Iterator
from decimal import Decimal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class BudgetFigures(Collector):
    def __init__(self) -> None:
        self._used: dict[str, Decimal] = {}
        self._alerts: dict[str, int] = {}
        self.failed_deliveries = 0
        """Alerts that were sent in vain, each time counted."""

    def used(self, tenant: str, ratio: Decimal) -> None:
        """What part of a tenant's budget is spent."""
        self._used[tenant] = ratio

    def alerted(self, tenant: str) -> None:
        self._alerts[tenant] = self._alerts.get(tenant, 0) + 1

    def keep(self, tenants: Collection[str]) -> None:
        """Only these have budgets now."""
        for tenant in [tenant for tenant in self._used if tenant not in tenants]:
            self.drop(tenant)

    def drop(self, tenant: str) -> None:
        """Its budget is gone."""
        self._used.pop(tenant, None)

    def forget(self) -> None:
        """Somebody else looks now, and knows better."""
        self._used.clear()

    def collect(self) -> Iterator[Metric]:
        used = GaugeMetricFamily(
            "roost_budget_used_ratio", "Part of the month's budget that is spent", labels=["tenant"]
        )
        for tenant, ratio in self._used.items():
            used.add_metric([tenant], float(ratio))
        yield used
        alerts = CounterMetricFamily("roost_budget_alerts", "Alerts of budgets raised", labels=["tenant"])
        for tenant, count in self._alerts.items():
            alerts.add_metric([tenant], count)
        yield alerts
        yield CounterMetricFamily(
            "roost_budget_failed_deliveries", "Tries to deliver an alert that failed", value=self.failed_deliveries
        )
