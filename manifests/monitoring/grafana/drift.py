"""For whoever answers for a model's answers: do its inputs and outputs still look as they did, and is it still right."""

from grafana_foundation_sdk.models import dashboard as models
from parts import Limits, Panel, Query, board, chosen, graph, largest, number, ranking, rate, total

MODEL = 'tenant="$tenant", model="$model"'
FEATURE = ("version", "feature")
NAME = "{{feature}} (version {{version}})"


def made() -> models.Dashboard:
    return board(
        "drift",
        "Drift",
        "One model's inputs and outputs against their reference, and its answers against feedback.",
        [("Now", _now()), ("Distance from the reference", _distance()), ("Samples and feedback", _samples())],
        variables=[
            chosen("tenant", "label_values(roost_drift_samples_total, tenant)", label="Tenant"),
            chosen("model", 'label_values(roost_drift_samples_total{tenant="$tenant"}, model)', label="Model"),
        ],
        since="now-7d",
    )


def _now() -> list[Panel]:
    return [
        number(
            "Shifted",
            "Features that lie further from their reference than chance and the chosen size allow.",
            "none",
            Query(total("roost_drift_alarm", where=MODEL), "shifted"),
            limits=Limits(None, 1),
            span=6,
        ),
        number(
            "Largest shift",
            "Population stability index. By custom 0.1 is worth a look, 0.25 is a shift.",
            "none",
            Query(largest("roost_drift_psi", where=MODEL), "PSI"),
            limits=Limits(0.1, 0.25),
            span=6,
        ),
        number(
            "Sampled",
            "Calls that were looked at.",
            "cps",
            Query(rate("roost_drift_samples_total", where=MODEL), "calls"),
            span=6,
        ),
        number(
            "Accuracy",
            "Of the answers that feedback came for.",
            "percentunit",
            Query(largest("roost_drift_accuracy_ratio", where=MODEL), "right"),
            span=6,
        ),
    ]


def _distance() -> list[Panel]:
    return [
        graph(
            "Population stability index",
            "By feature.",
            "none",
            Query(largest("roost_drift_psi", *FEATURE, where=MODEL), NAME),
            limits=Limits(0.1, 0.25),
        ),
        graph(
            "Kolmogorov-Smirnov distance",
            "The largest difference between the two cumulative distributions, by feature.",
            "none",
            Query(largest("roost_drift_ks", *FEATURE, where=MODEL), NAME),
            most=1,
        ),
        graph(
            "Alarms",
            "1 while a feature is shifted.",
            "none",
            Query(largest("roost_drift_alarm", *FEATURE, where=MODEL), NAME),
            most=1,
        ),
        ranking(
            "Most shifted",
            "Population stability index.",
            "none",
            Query(f"topk(20, {largest('roost_drift_psi', *FEATURE, where=MODEL)})", NAME),
        ),
    ]


def _samples() -> list[Panel]:
    return [
        graph(
            "Out of range, and missing",
            "Parts of the sampled values.",
            "percentunit",
            Query(largest("roost_drift_outlier_ratio", "version", where=MODEL), "out of range (version {{version}})"),
            Query(largest("roost_drift_missing_ratio", "version", where=MODEL), "missing (version {{version}})"),
        ),
        graph(
            "Samples",
            "Calls that were looked at, by version.",
            "cps",
            Query(rate("roost_drift_samples_total", "version", where=MODEL), "version {{version}}"),
        ),
        graph(
            "Dropped",
            "Samples that could not be taken or read, by reason; calls never wait for them.",
            "cps",
            Query(rate("roost_drift_dropped_total", "reason", where=MODEL), "{{reason}}"),
        ),
    ]
