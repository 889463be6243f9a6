"""For whoever owns a model: how its calls fare, its versions side by side, its replicas against what the autoscaler wants."""

from grafana_foundation_sdk.models import dashboard as models
from parts import Limits, Panel, Query, board, chosen, graph, largest, number, quantile, rate, total

MODEL = 'tenant="$tenant", model="$model"'
SERVED = 'outcome=~"ok|model_error|platform_error"'
PODS = 'namespace=~"roost-$tenant", service=~"$model"'
"""Of Knative's own series. Tenants and models with long or odd names have others there."""


def made() -> models.Dashboard:
    return board(
        "model",
        "Model",
        "One model: its calls, its versions side by side, its replicas and its cold starts.",
        [
            ("Now", _now()),
            ("Calls", _calls()),
            ("Versions side by side", _versions()),
            ("Replicas against the autoscaler's wish", _replicas()),
            ("Cold starts", _cold_starts()),
        ],
        variables=[
            chosen("tenant", "label_values(roost_requests_total, tenant)", label="Tenant"),
            chosen("model", 'label_values(roost_requests_total{tenant="$tenant"}, model)', label="Model"),
        ],
    )


def _now() -> list[Panel]:
    return [
        number("Calls", "Predictions answered.", "reqps", Query(rate("roost_requests_total", where=MODEL), "calls")),
        number(
            "Failed by Roost",
            "Of the last hour's calls that Roost was to serve.",
            "percentunit",
            Query(f"model:roost_requests_failed:ratio1h{{{MODEL}}} or vector(0)", "failed"),
            limits=Limits(0.001, 0.0144),
        ),
        number(
            "Time of 99 in 100 calls",
            "From the first byte to the last, at the gateway.",
            "s",
            Query(quantile(0.99, "roost_request_duration_seconds", where=MODEL), "p99"),
        ),
        number(
            "Replicas",
            "Ready to serve; 0 while the model sleeps.",
            "none",
            Query(f"{total('revision:roost_replicas_ready:max', where=MODEL)} or vector(0)", "ready"),
        ),
        number(
            "Waiting",
            "Calls that wait for a replica.",
            "none",
            Query(f"{total('roost_queue_length', where=MODEL)} or vector(0)", "waiting"),
            limits=Limits(10, 100),
        ),
        number(
            "This month",
            "What the month comes to so far, in the currency of the price book.",
            "none",
            Query(largest("roost_month_model_revenue", "currency", where=MODEL), "{{currency}}"),
        ),
    ]


def _calls() -> list[Panel]:
    return [
        graph(
            "Calls by outcome",
            "Only `platform_error` is Roost's own failure; `model_error` is the model's, on an input that it could not compute.",
            "reqps",
            Query(rate("roost_requests_total", "outcome", where=MODEL), "{{outcome}}"),
            stacked=True,
        ),
        graph(
            "Time of a call",
            "From the first byte to the last, at the gateway.",
            "s",
            Query(quantile(0.5, "roost_request_duration_seconds", where=MODEL), "half"),
            Query(quantile(0.95, "roost_request_duration_seconds", where=MODEL), "95 in 100"),
            Query(quantile(0.99, "roost_request_duration_seconds", where=MODEL), "99 in 100"),
        ),
        graph(
            "Where the time goes",
            "Seconds a second: 1 = one call at any time, on average.",
            "none",
            Query(rate("roost_queue_seconds_total", where=MODEL), "waiting"),
            Query(rate("roost_compute_seconds_total", where=MODEL), "computing"),
            stacked=True,
        ),
    ]


def _versions() -> list[Panel]:
    failed = rate("roost_version_requests_total", "version", where=f'{MODEL}, outcome=~"model_error|platform_error"')
    served = rate("roost_version_requests_total", "version", where=f"{MODEL}, {SERVED}")
    whole = rate("roost_version_requests_total", where=MODEL)
    return [
        graph(
            "Calls by version",
            "Answered predictions.",
            "reqps",
            Query(rate("roost_version_requests_total", "version", where=MODEL), "version {{version}}"),
            stacked=True,
            span=6,
        ),
        graph(
            "Share of each version",
            "Of all calls for which a version was chosen.",
            "percentunit",
            Query(
                f"{rate('roost_version_requests_total', 'version', where=MODEL)} / scalar({whole} > 0)",
                "version {{version}}",
            ),
            most=1,
            span=6,
        ),
        graph(
            "Failed, by version",
            "Part of the calls that the model or Roost failed.",
            "percentunit",
            Query(f"{failed} / ({served} > 0)", "version {{version}}"),
            limits=Limits(0.001, 0.0144),
            span=6,
        ),
        graph(
            "Time by version",
            "Half of the calls, and 99 in 100, stay below.",
            "s",
            Query(
                quantile(0.5, "roost_version_request_duration_seconds", "version", where=MODEL),
                "version {{version}}, half",
            ),
            Query(
                quantile(0.99, "roost_version_request_duration_seconds", "version", where=MODEL),
                "version {{version}}, 99 in 100",
            ),
            span=6,
        ),
    ]


def _replicas() -> list[Panel]:
    return [
        graph(
            "Replicas",
            "What the load calls for, what the autoscaler wants within its bounds, what is ready and what is on its way.",
            "none",
            Query(
                f"{total('roost_autoscaler_desired_replicas', where=MODEL)} or "
                f"{total('revision:knative_pods_desired:max', where=PODS)}",
                "called for",
            ),
            Query(total("revision:roost_replicas_wanted:max", where=MODEL), "wanted"),
            Query(total("revision:roost_replicas_ready:max", where=MODEL), "ready"),
            Query(total("roost_replicas_starting", where=MODEL), "starting"),
        ),
        graph(
            "Load as the autoscaler sees it",
            "Calls at once, or calls a second, by the policy's `metric`: over the stable and the panic window.",
            "none",
            Query(
                f"{total('roost_autoscaler_stable_load', where=MODEL)} or "
                f"{total('revision:knative_concurrency_stable:max', where=PODS)}",
                "stable",
            ),
            Query(
                f"{total('roost_autoscaler_panic_load', where=MODEL)} or "
                f"{total('revision:knative_concurrency_panic:max', where=PODS)}",
                "panic",
            ),
        ),
        graph(
            "Calls in replicas and waiting",
            "At this moment.",
            "none",
            Query(total("roost_replica_requests", where=MODEL), "in replicas"),
            Query(total("roost_queue_length", where=MODEL), "waiting"),
            stacked=True,
        ),
        graph(
            "Processor by replica",
            "Used over requested: 1 = all that the replica may count on.",
            "percentunit",
            Query(f"replica:roost_cpu_use:ratio1m{{{MODEL}}}", "{{revision}} {{replica}}"),
            limits=Limits(0.8, 1),
        ),
        graph(
            "Memory by replica",
            "Resident memory that is no file's.",
            "bytes",
            Query(f"roost_replica_memory_bytes{{{MODEL}}}", "{{revision}} {{replica}}"),
        ),
        graph(
            "Replicas held, by what they do",
            "Replicas at once, on average: not ready yet, with a request, idle, or kept by `min-scale`.",
            "none",
            Query(rate("roost_replica_held_seconds_total", "state", where=MODEL), "{{state}}"),
            stacked=True,
        ),
    ]


def _cold_starts() -> list[Panel]:
    count = f"roost_cold_start_duration_seconds_count{{{MODEL}}}"
    return [
        graph(
            "Cold starts",
            "Calls that found no replica ready.",
            "none",
            Query(f"sum(increase({count}[$__rate_interval]))", "calls"),
        ),
        graph(
            "Time of a cold start",
            "The part of a call's wait in which no replica was ready.",
            "s",
            Query(quantile(0.5, "roost_cold_start_duration_seconds", where=MODEL), "half"),
            Query(quantile(0.95, "roost_cold_start_duration_seconds", where=MODEL), "95 in 100"),
            limits=Limits(None, 5),
        ),
        graph(
            "Replicas that ended by themselves",
            "By reason; of those that never became ready, too.",
            "none",
            Query(
                f"sum by (reason) (increase(roost_replica_restarts_total{{{MODEL}}}[$__rate_interval]))",
                "served: {{reason}}",
            ),
            Query(
                f"sum by (reason) (increase(roost_replica_failed_starts_total{{{MODEL}}}[$__rate_interval]))",
                "never ready: {{reason}}",
            ),
            limits=Limits(None, 5),
        ),
    ]
