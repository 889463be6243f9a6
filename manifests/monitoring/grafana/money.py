"""For whoever pays the machines: what the month brings in, from whom, and what is spent on replicas that do nothing."""

from grafana_foundation_sdk.models import dashboard as models
from parts import Limits, Panel, Query, board, chosen, graph, largest, number, ranking, rate, total

TENANTS = 'tenant=~"$tenant"'
MONEY = "none"
"""Amounts have the currency of the price book, which legends name."""


def made() -> models.Dashboard:
    return board(
        "money",
        "Money",
        "The running month: revenue, idle replicas and what they cost, budgets, and how usage becomes statements.",
        [
            ("This month", _month()),
            ("Tenants and models", _tenants()),
            ("What is held", _held()),
            ("Statements", _due()),
        ],
        variables=[chosen("tenant", "label_values(roost_stored_bytes, tenant)", label="Tenant", several=True)],
        since="now-7d",
    )


def _sum(gauge: str) -> str:
    """Over tenants; only the leading gateway tells, and for a moment two may."""
    return f"sum by (currency) ({largest(gauge, 'tenant', 'currency', where=TENANTS)})"


def _month() -> list[Panel]:
    borne = f"{_sum('roost_month_idle_worth')} - {_sum('roost_month_idle_billed')}"
    return [
        number("Revenue", "What the month comes to so far.", MONEY, Query(_sum("roost_month_revenue"), "{{currency}}")),
        number(
            "Idle replicas",
            "What they cost so far, at list prices.",
            MONEY,
            Query(_sum("roost_month_idle_worth"), "{{currency}}"),
        ),
        number(
            "Paid by tenants",
            "Of what idle replicas cost.",
            MONEY,
            Query(_sum("roost_month_idle_billed"), "{{currency}}"),
        ),
        number("Borne by you", "The rest of what idle replicas cost.", MONEY, Query(borne, "{{currency}}")),
        number(
            "Budgets",
            "The one that is used up most.",
            "percentunit",
            Query(f"{largest('roost_budget_used_ratio', where=TENANTS)} or vector(0)", "used"),
            limits=Limits(0.8, 1),
        ),
        number("Stored", "Model files that are kept.", "bytes", Query(_stored(), "stored")),
    ]


def _stored() -> str:
    return f"sum({largest('roost_stored_bytes', 'tenant', where=TENANTS)})"


def _tenants() -> list[Panel]:
    return [
        graph(
            "Revenue by tenant",
            "What the month comes to so far; it begins anew with each month.",
            MONEY,
            Query(largest("roost_month_revenue", "tenant", "currency", where=TENANTS), "{{tenant}} ({{currency}})"),
            stacked=True,
        ),
        ranking(
            "Tenants by revenue",
            "What the month comes to so far.",
            MONEY,
            Query(
                f"topk(20, {largest('roost_month_revenue', 'tenant', 'currency', where=TENANTS)})",
                "{{tenant}} ({{currency}})",
            ),
        ),
        ranking(
            "Models by revenue",
            "What the month comes to so far.",
            MONEY,
            Query(
                f"topk(20, {largest('roost_month_model_revenue', 'tenant', 'model', 'currency', where=TENANTS)})",
                "{{tenant}}/{{model}} ({{currency}})",
            ),
        ),
        graph(
            "Idle replicas, by tenant",
            "What they cost so far, at list prices.",
            MONEY,
            Query(largest("roost_month_idle_worth", "tenant", "currency", where=TENANTS), "{{tenant}} ({{currency}})"),
            stacked=True,
        ),
        graph(
            "Budgets",
            "Used part of the month's budget, by tenant.",
            "percentunit",
            Query(largest("roost_budget_used_ratio", "tenant", where=TENANTS), "{{tenant}}"),
            limits=Limits(0.8, 1),
        ),
        graph(
            "Budget alerts",
            "Raised, by tenant.",
            "none",
            Query(
                f"sum by (tenant) (increase(roost_budget_alerts_total{{{TENANTS}}}[$__rate_interval]))", "{{tenant}}"
            ),
            stacked=True,
        ),
    ]


def _held() -> list[Panel]:
    held = "roost_replica_held_seconds_total"
    idle = rate(held, "tenant", where=f'{TENANTS}, state=~"idle|reserved"')
    return [
        graph(
            "Replicas held, by what they do",
            "Replicas at once, on average. Only `active` ones earn by the second of computing.",
            "none",
            Query(rate(held, "state", where=TENANTS), "{{state}}"),
            stacked=True,
        ),
        graph(
            "Replicas held, by class of machine",
            "Replicas at once, on average.",
            "none",
            Query(rate(held, "resource_class", where=TENANTS), "{{resource_class}}"),
            stacked=True,
        ),
        graph(
            "Idle part",
            "Of the time that replicas are held, by tenant.",
            "percentunit",
            Query(f"{idle} / ({rate(held, 'tenant', where=TENANTS)} > 0)", "{{tenant}}"),
            limits=Limits(0.5, 0.9),
            most=1,
        ),
    ]


def _due() -> list[Panel]:
    return [
        graph(
            "Statements",
            "Made final, and those that are due and wait for usage.",
            "none",
            Query(total("roost_statements_final_total"), "final"),
            Query(largest("roost_statements_waiting"), "waiting"),
        ),
        graph(
            "Usage to the ledger",
            "Lines a second: calls, and stretches of what is held.",
            "cps",
            Query(rate("roost_ledger_events_total"), "calls"),
            Query(rate("roost_resources_recorded_total"), "held"),
        ),
        graph(
            "Lost to you",
            "Calls that nobody is charged for: outcome unknown after a crash, too late for any statement, not stored.",
            "none",
            Query(total("roost_calls_unknown_total"), "unknown"),
            Query(total("roost_usage_late_calls_total"), "late"),
            Query(total("roost_calls_unstored_total"), "not stored"),
            limits=Limits(None, 1),
        ),
    ]
