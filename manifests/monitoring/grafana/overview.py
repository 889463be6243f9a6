"""For whoever runs Roost: is it well, is it full, who uses it, and do its books add up."""

from grafana_foundation_sdk.models import dashboard as models
from parts import Limits, Panel, Query, board, graph, largest, number, quantile, ranking, rate, total


def made() -> models.Dashboard:
    return board(
        "overview",
        "Overview",
        "All tenants and gateways: calls, errors, time, replicas, machines, and the books.",
        [("Now", _now()), ("Calls", _calls()), ("Replicas and machines", _machines()), ("Books", _books())],
    )


def _now() -> list[Panel]:
    return [
        number(
            "Gateways",
            "That answer Prometheus.",
            "none",
            Query('sum(up{job="roost"})', "gateways"),
            limits=Limits(None, 1, falling=True),
        ),
        number("Calls", "Predictions answered.", "reqps", Query(rate("roost_requests_total"), "calls")),
        number(
            "Failed by Roost",
            "Of the last hour's calls that Roost was to serve. The objective is 0.1 %.",
            "percentunit",
            Query("platform:roost_requests_failed:ratio1h or vector(0)", "failed"),
            limits=Limits(0.001, 0.0144),
        ),
        number(
            "Time of 99 in 100 calls",
            "From the first byte to the last, at the gateway.",
            "s",
            Query(quantile(0.99, "roost_request_duration_seconds"), "p99"),
        ),
        number(
            "Replicas", "Ready to serve.", "none", Query(f"{total('roost_replicas_ready')} or vector(0)", "replicas")
        ),
        number(
            "Alerts",
            "Roost's own that fire.",
            "none",
            Query('count(ALERTS{alertname=~"Roost.+", alertstate="firing"}) or vector(0)', "alerts"),
            limits=Limits(None, 1),
        ),
    ]


def _calls() -> list[Panel]:
    return [
        graph(
            "Calls by outcome",
            "Answered predictions. Only `platform_error` is Roost's own failure.",
            "reqps",
            Query(rate("roost_requests_total", "outcome"), "{{outcome}}"),
            stacked=True,
        ),
        graph(
            "Error budget",
            "Part of the calls that Roost failed, over four stretches of time. At the first line the month's budget is used up"
            " as fast as it comes, at the second it is gone in two days.",
            "percentunit",
            Query("platform:roost_requests_failed:ratio5m", "5 minutes"),
            Query("platform:roost_requests_failed:ratio1h", "1 hour"),
            Query("platform:roost_requests_failed:ratio6h", "6 hours"),
            Query("platform:roost_requests_failed:ratio3d", "3 days"),
            limits=Limits(0.001, 0.0144),
        ),
        graph(
            "Time of a call",
            "From the first byte to the last, at the gateway.",
            "s",
            Query(quantile(0.5, "roost_request_duration_seconds"), "half"),
            Query(quantile(0.95, "roost_request_duration_seconds"), "95 in 100"),
            Query(quantile(0.99, "roost_request_duration_seconds"), "99 in 100"),
        ),
        graph(
            "Waiting, and what Roost adds",
            "99 in 100 calls stay below: waiting for a replica, waking included; and what is neither waiting nor computing.",
            "s",
            Query(quantile(0.99, "roost_queue_duration_seconds"), "waiting"),
            Query(quantile(0.99, "roost_added_duration_seconds"), "added"),
        ),
        graph(
            "Calls without an answer of a replica",
            "By the error's code.",
            "reqps",
            Query(rate("roost_request_errors_total", "code"), "{{code}}"),
            stacked=True,
        ),
        graph(
            "Refused by a limit",
            "By tenant and limit.",
            "reqps",
            Query(rate("roost_limits_hit_total", "tenant", "limit"), "{{tenant}}: {{limit}}"),
            stacked=True,
        ),
        ranking(
            "Busiest tenants",
            "Calls a second over five minutes.",
            "reqps",
            Query("topk(20, tenant:roost_requests:rate5m)", "{{tenant}}"),
        ),
        ranking(
            "Heaviest models",
            "Calls that were computed at once, on average over five minutes.",
            "none",
            Query("topk(20, model:roost_compute_seconds:rate5m)", "{{tenant}}/{{model}}"),
        ),
        graph(
            "Calls under way",
            "Taken on and not answered yet, by gateway.",
            "none",
            Query(total("roost_requests_in_flight", "instance"), "{{instance}}"),
            stacked=True,
        ),
    ]


def _machines() -> list[Panel]:
    return [
        graph(
            "Replicas",
            "Of all models.",
            "none",
            Query(total("revision:roost_replicas_wanted:max"), "wanted"),
            Query(total("revision:roost_replicas_ready:max"), "ready"),
        ),
        graph(
            "Processor in use",
            "What replicas use, over what their machine has. Replicas of the local engine only; pods are below.",
            "percentunit",
            Query("node:roost_cpu_use:ratio1m", "{{instance}}"),
            limits=Limits(0.8, 0.95),
            most=1,
        ),
        graph(
            "Memory of replicas",
            "Resident memory that is no file's, by machine. Replicas of the local engine only.",
            "bytes",
            Query("node:roost_replica_memory_bytes:sum", "{{instance}}"),
        ),
        graph(
            "Processor in use by pods",
            "What pods of models use, over what their node has. On Knative only.",
            "percentunit",
            Query("node:roost_pod_cpu_use:ratio2m", "{{node}}"),
            limits=Limits(0.8, 0.95),
            most=1,
        ),
        graph(
            "Models woken",
            "Revisions woken from zero.",
            "none",
            Query("sum(increase(roost_activations_total[$__rate_interval]))", "woken"),
        ),
        graph(
            "Uploads",
            "Files that were checked, by what came of it.",
            "none",
            Query("sum by (result) (increase(roost_upload_checks_total[$__rate_interval]))", "{{result}}"),
            stacked=True,
        ),
        graph(
            "Processor of the gateways",
            "Cores used by the gateway itself.",
            "none",
            Query(rate("roost_process_cpu_seconds_total", "instance"), "{{instance}}"),
        ),
        graph(
            "Memory of the gateways",
            "Resident memory of the gateway itself.",
            "bytes",
            Query(total("roost_process_resident_memory_bytes", "instance"), "{{instance}}"),
        ),
        graph(
            "Quotas",
            "Used part of the quotas that fill up slowly.",
            "percentunit",
            Query(largest("roost_quota_used_ratio", "tenant", "quota"), "{{tenant}}: {{quota}}"),
            limits=Limits(0.8, 0.95),
        ),
    ]


def _books() -> list[Panel]:
    return [
        graph(
            "Usage on its way to the ledger",
            "For how long usage has waited, by gateway; 0 when nothing waits.",
            "s",
            Query(largest("roost_journal_lag_seconds", "instance"), "{{instance}}"),
            limits=Limits(30, 300),
        ),
        graph(
            "Usage waiting",
            "Bytes written and not yet in the database. Calls are refused when too many wait.",
            "bytes",
            Query(total("roost_journal_lag_bytes"), "calls"),
            Query(total("roost_outbox_lag_bytes"), "held"),
            limits=Limits(None, 2 * 1024**3),
        ),
        graph(
            "What does not add up",
            "All of it should be zero: lines missing from the ledger, calls that were counted and are nowhere, lines that"
            " differ from what is there, calls of which nobody knows how they ended.",
            "none",
            Query(largest("roost_ledger_gaps"), "missing"),
            Query(largest("roost_calls_unaccounted"), "unaccounted"),
            Query(total("roost_ledger_conflicts_total"), "conflicts"),
            Query(total("roost_calls_unknown_total"), "unknown"),
            limits=Limits(None, 1),
        ),
    ]
