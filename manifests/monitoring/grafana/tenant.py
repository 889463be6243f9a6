"""For one tenant, or whoever looks after it: what its models do, how near its limits it is, and what it comes to."""

from grafana_foundation_sdk.models import dashboard as models
from parts import Limits, Panel, Query, board, chosen, graph, largest, number, quantile, ranking, rate, total

TENANT = 'tenant="$tenant"'


def made() -> models.Dashboard:
    return board(
        "tenant",
        "Tenant",
        "One tenant: its calls, models, limits, replicas and money.",
        [("Now", _now()), ("Calls", _calls()), ("Replicas and limits", _holds())],
        variables=[chosen("tenant", "label_values(roost_requests_total, tenant)", label="Tenant")],
    )


def _now() -> list[Panel]:
    failed = f'sum(increase(roost_requests_total{{{TENANT}, outcome="platform_error"}}[1h]))'
    served = f'sum(increase(roost_requests_total{{{TENANT}, outcome=~"ok|model_error|platform_error"}}[1h]))'
    return [
        number("Calls", "Predictions answered.", "reqps", Query(rate("roost_requests_total", where=TENANT), "calls")),
        number(
            "Failed by Roost",
            "Of the last hour's calls that Roost was to serve.",
            "percentunit",
            Query(f"{failed} / ({served} > 0) or vector(0)", "failed"),
            limits=Limits(0.001, 0.0144),
        ),
        number(
            "Models awake",
            "With a replica that is ready.",
            "none",
            Query(f"count(count by (model) (roost_replicas_ready{{{TENANT}}} > 0)) or vector(0)", "models"),
        ),
        number(
            "This month",
            "What the month comes to so far, in the currency of the price book.",
            "none",
            Query(largest("roost_month_revenue", "currency", where=TENANT), "{{currency}}"),
        ),
        number(
            "Budget",
            "Used part of the month's budget; empty without one.",
            "percentunit",
            Query(largest("roost_budget_used_ratio", where=TENANT), "used"),
            limits=Limits(0.8, 1),
        ),
        number(
            "Stored",
            "Model files that are kept.",
            "bytes",
            Query(largest("roost_stored_bytes", where=TENANT), "stored"),
        ),
    ]


def _calls() -> list[Panel]:
    return [
        graph(
            "Calls by model",
            "Answered predictions.",
            "reqps",
            Query(rate("roost_requests_total", "model", where=TENANT), "{{model}}"),
            stacked=True,
        ),
        graph(
            "Calls by outcome",
            "Only `platform_error` is Roost's own failure.",
            "reqps",
            Query(rate("roost_requests_total", "outcome", where=TENANT), "{{outcome}}"),
            stacked=True,
        ),
        graph(
            "Time of 99 in 100 calls",
            "From the first byte to the last, at the gateway, by model.",
            "s",
            Query(quantile(0.99, "roost_request_duration_seconds", "model", where=TENANT), "{{model}}"),
        ),
        graph(
            "Load",
            "Calls that were computed at once, on average.",
            "none",
            Query(rate("roost_compute_seconds_total", "model", where=TENANT), "{{model}}"),
            stacked=True,
        ),
        graph(
            "Rows inferred",
            "By model.",
            "cps",
            Query(rate("roost_inferences_total", "model", where=TENANT), "{{model}}"),
            stacked=True,
        ),
        graph(
            "Cold starts",
            "Calls that found no replica ready.",
            "none",
            Query(
                f"sum by (model) (increase(roost_cold_start_duration_seconds_count{{{TENANT}}}[$__rate_interval]))",
                "{{model}}",
            ),
            stacked=True,
        ),
    ]


def _holds() -> list[Panel]:
    return [
        graph(
            "Replicas held, by what they do",
            "Replicas at once, on average: not ready yet, with a request, idle, or kept by `min-scale`.",
            "none",
            Query(rate("roost_replica_held_seconds_total", "state", where=TENANT), "{{state}}"),
            stacked=True,
        ),
        graph(
            "Refused by a limit",
            "Calls, by limit.",
            "reqps",
            Query(rate("roost_limits_hit_total", "limit", where=TENANT), "{{limit}}"),
            stacked=True,
        ),
        graph(
            "Quotas",
            "Used part of the quotas that fill up slowly.",
            "percentunit",
            Query(largest("roost_quota_used_ratio", "quota", where=TENANT), "{{quota}}"),
            limits=Limits(0.8, 0.95),
        ),
        ranking(
            "Models by revenue",
            "What the month comes to so far, in the currency of the price book.",
            "none",
            Query(
                f"topk(20, {largest('roost_month_model_revenue', 'model', 'currency', where=TENANT)})",
                "{{model}} ({{currency}})",
            ),
        ),
        graph(
            "Replicas by model",
            "Ready to serve.",
            "none",
            Query(total("revision:roost_replicas_ready:max", "model", where=TENANT), "{{model}}"),
            stacked=True,
        ),
        graph(
            "Waiting calls by model",
            "For a replica.",
            "none",
            Query(total("roost_queue_length", "model", where=TENANT), "{{model}}"),
            stacked=True,
        ),
    ]
