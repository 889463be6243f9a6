"""For whoever tunes scaling: what the load calls for and what there is, over all models; waking; and Knative's own figures."""

from grafana_foundation_sdk.models import dashboard as models
from parts import Limits, Panel, Query, board, chosen, graph, largest, number, quantile, ranking, total

MODELS = 'tenant=~"$tenant", model=~"$model"'
NAME = "{{tenant}}/{{revision}}"
PODS = 'namespace=~"roost-($tenant)"'
POD_NAME = "{{namespace}}/{{revision}}"
REVISION = ("tenant", "model", "revision")


def made() -> models.Dashboard:
    return board(
        "autoscaling",
        "Autoscaling",
        "Replicas against what the load calls for, waking from zero, and Knative's own figures.",
        [("Now", _now()), ("Replicas", _replicas()), ("Waking", _waking()), ("Knative", _knative())],
        variables=[
            chosen("tenant", "label_values(roost_requests_total, tenant)", label="Tenant", several=True),
            chosen(
                "model", 'label_values(roost_requests_total{tenant=~"$tenant"}, model)', label="Model", several=True
            ),
        ],
        since="now-1h",
    )


def _now() -> list[Panel]:
    missing = f"sum(clamp_min(revision:roost_replicas_wanted:max{{{MODELS}}} - revision:roost_replicas_ready:max, 0))"
    return [
        number(
            "Wanted",
            "Replicas that the autoscaler wants.",
            "none",
            Query(f"{total('revision:roost_replicas_wanted:max', where=MODELS)} or vector(0)", "wanted"),
        ),
        number(
            "Missing",
            "Wanted, and not ready.",
            "none",
            Query(f"{missing} or vector(0)", "missing"),
            limits=Limits(1, 10),
        ),
        number(
            "At their limit",
            "Revisions with as many replicas as `max-scale` allows.",
            "none",
            Query(
                f"count({largest('roost_replicas_wanted', *REVISION, where=MODELS)} >= "
                f"{largest('roost_replicas_limit', *REVISION)}) or vector(0)",
                "at the limit",
            ),
            limits=Limits(1, 5),
        ),
        number(
            "In panic",
            "Revisions whose load has doubled within seconds.",
            "none",
            Query(f"{total('roost_autoscaler_panic', where=MODELS)} or vector(0)", "in panic"),
        ),
        number("Spares", "Processes that wait for a model.", "none", Query(total("roost_spare_processes"), "spares")),
        number("Cores", "That gateways and their replicas may use.", "none", Query(total("roost_node_cores"), "cores")),
    ]


def _replicas() -> list[Panel]:
    return [
        graph(
            "What the load calls for",
            "Replicas, before bounds and delays.",
            "none",
            Query(total("roost_autoscaler_desired_replicas", *REVISION, where=MODELS), NAME),
        ),
        graph(
            "Wanted",
            "Replicas that the autoscaler wants, within bounds and delays.",
            "none",
            Query(f"revision:roost_replicas_wanted:max{{{MODELS}}}", NAME),
        ),
        graph("Ready", "Replicas.", "none", Query(f"revision:roost_replicas_ready:max{{{MODELS}}}", NAME)),
        graph(
            "Load, stable window",
            "Calls at once, or calls a second, by the policy's `metric`.",
            "none",
            Query(total("roost_autoscaler_stable_load", *REVISION, where=MODELS), NAME),
        ),
        graph(
            "Load, panic window",
            "Calls at once, or calls a second, by the policy's `metric`.",
            "none",
            Query(total("roost_autoscaler_panic_load", *REVISION, where=MODELS), NAME),
        ),
        graph(
            "Panic mode",
            "1 while a revision is in it: replicas are only added.",
            "none",
            Query(largest("roost_autoscaler_panic", *REVISION, where=MODELS), NAME),
            most=1,
        ),
        graph(
            "Waiting calls",
            "For a replica.",
            "none",
            Query(f"revision:roost_queue_length:sum{{{MODELS}}}", NAME),
            limits=Limits(None, 100),
        ),
        graph(
            "Used part of the limit",
            "Wanted replicas over `max-scale`.",
            "percentunit",
            Query(
                f"{largest('roost_replicas_wanted', *REVISION, where=MODELS)} / {largest('roost_replicas_limit', *REVISION)}",
                NAME,
            ),
            limits=Limits(0.8, 1),
        ),
        graph(
            "Idle replicas",
            "Ready, without a request.",
            "none",
            Query(total("roost_replicas_idle", *REVISION, where=MODELS), NAME),
            stacked=True,
        ),
    ]


def _waking() -> list[Panel]:
    count = f"roost_cold_start_duration_seconds_count{{{MODELS}}}"
    return [
        graph(
            "Cold starts",
            "Calls that found no replica ready, by model.",
            "none",
            Query(f"sum by (tenant, model) (increase({count}[$__rate_interval]))", "{{tenant}}/{{model}}"),
            stacked=True,
            span=6,
        ),
        graph(
            "Time of a cold start",
            "95 in 100 stay below, by model.",
            "s",
            Query(
                quantile(0.95, "roost_cold_start_duration_seconds", "tenant", "model", where=MODELS),
                "{{tenant}}/{{model}}",
            ),
            limits=Limits(None, 5),
            span=6,
        ),
        graph(
            "Parts of a cold start",
            "95 in 100 stay below, of all models: room and a process, the file or image, loading.",
            "s",
            Query(quantile(0.95, "roost_cold_start_part_duration_seconds", "part"), "{{part}}"),
            span=6,
        ),
        ranking(
            "Most cold starts",
            "In the last hour.",
            "none",
            Query(f"topk(20, model:roost_cold_starts:increase1h{{{MODELS}}})", "{{tenant}}/{{model}}"),
            span=6,
        ),
    ]


def _knative() -> list[Panel]:
    return [
        graph(
            "Pods wanted",
            "By Knative's autoscaler (KPA).",
            "none",
            Query(f"revision:knative_pods_desired:max{{{PODS}}}", POD_NAME),
        ),
        graph(
            "Pods ready",
            "As Knative counts them.",
            "none",
            Query(f"revision:knative_pods_ready:max{{{PODS}}}", POD_NAME),
        ),
        graph(
            "Pods on their way, or leaving",
            "Not ready, pending and terminating.",
            "none",
            Query(total("revision:knative_pods_not_ready:max", where=PODS), "not ready"),
            Query(total("revision:knative_pods_pending:max", where=PODS), "pending"),
            Query(total("revision:knative_pods_terminating:max", where=PODS), "terminating"),
        ),
        graph(
            "Concurrency",
            "Averages of KPA's two windows, and its target per pod.",
            "none",
            Query(f"revision:knative_concurrency_stable:max{{{PODS}}}", f"{POD_NAME} stable"),
            Query(f"revision:knative_concurrency_panic:max{{{PODS}}}", f"{POD_NAME} panic"),
            Query(f"revision:knative_concurrency_target:max{{{PODS}}}", f"{POD_NAME} target"),
        ),
        graph(
            "Spare capacity for bursts",
            "Below zero the activator stays in the path of calls.",
            "none",
            Query(f"revision:knative_capacity_excess:max{{{PODS}}}", POD_NAME),
            least=None,
        ),
        graph(
            "Panic mode of KPA",
            "1 while a revision is in it.",
            "none",
            Query(f"revision:knative_panic_mode:max{{{PODS}}}", POD_NAME),
            most=1,
        ),
        graph(
            "Time in pods",
            "99 in 100 calls stay below, as queue-proxy measures it.",
            "s",
            Query(f"pod:knative_invocation_duration_seconds:p99_5m{{{PODS}}}", "{{pod}}"),
        ),
        graph(
            "Queue in pods",
            "Calls that queue-proxy holds.",
            "none",
            Query(f"pod:knative_queue_depth:max{{{PODS}}}", "{{pod}}"),
        ),
        graph(
            "Calls in the activator",
            "That wait there for a pod.",
            "none",
            Query(f"revision:knative_activator_concurrency:sum{{{PODS}}}", POD_NAME),
        ),
    ]
