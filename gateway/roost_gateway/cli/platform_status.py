"""`roost status` without a model: what replicas and the machine are used for now. For the operator.

Read from the metrics page, twice: processor time is a counter, and what is used is how much it grew in between. So the
figures are those of the recording rules (`manifests/monitoring/rules/replicas.yaml`). Nothing is woken.
"""

from collections.abc import Mapping
from time import monotonic, sleep
from typing import Any

from roost_gateway.cli import show
from roost_gateway.cli.session import Session
from roost_gateway.client import Document

INTERVAL_S = 1.0
"""Between the two looks: the kernel counts processor time in hundredths of a second."""

Series = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]
"""Values by name and labels, the labels in the order of their names."""

_REPLICA = ("tenant", "model", "revision", "replica")


def show_platform(session: Session) -> None:
    with session.connect(as_operator=True) as roost:
        begin = monotonic()
        before = series_of(roost.metrics())
        sleep(INTERVAL_S)
        after = series_of(roost.metrics())
    session.emit(status_of(before, after, seconds=monotonic() - begin), _show)


def series_of(page: str) -> Series:
    """The series of a metrics page."""
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415 - only this command reads pages

    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def status_of(before: Series, after: Series, *, seconds: float) -> Document:
    """Two looks, so many seconds apart, as a document. Shares are of what was asked for, and of all that the node has."""
    replicas = []
    used_cores = 0.0
    for (name, labels), processor_s in after.items():
        if name != "roost_replica_cpu_seconds_total":
            continue
        # A replica that was not there at the first look may have taken another's number: its time began at 0.
        first = before.get((name, labels), 0.0)
        used = max(0.0, processor_s - first if processor_s >= first else processor_s) / seconds
        requested = after["roost_replica_requested_cores", labels]
        used_cores += used
        replicas.append(
            {label: dict(labels)[label] for label in _REPLICA}
            | {
                "cores_used": round(used, 3),
                "cores_requested": requested,
                "cpu_use": round(used / requested, 3),
                "memory_bytes": int(after["roost_replica_memory_bytes", labels]),
            }
        )
    cores = after.get(("roost_node_cores", ()))
    return {
        "node": {
            "cores": cores,
            "cores_used": round(used_cores, 3),
            "cpu_use": round(used_cores / cores, 3) if cores else None,
            "replica_memory_bytes": sum(replica["memory_bytes"] for replica in replicas),
            "requests_in_flight": int(after["roost_requests_in_flight", ()]),
        },
        "revisions": _revisions(after),
        "replicas": sorted(replicas, key=lambda replica: tuple(replica[label] for label in _REPLICA)),
    }


def _revisions(series: Series) -> list[dict[str, Any]]:
    found = []
    for (name, labels), wanted in sorted(series.items()):
        if name == "roost_replicas_wanted":
            figures = {"replicas_wanted": wanted, "replicas_ready": series["roost_replicas_ready", labels]}
            figures |= {"replicas_starting": series["roost_replicas_starting", labels]}
            figures |= {"queued": series["roost_queue_length", labels]}
            found.append(dict(labels) | {figure: int(value) for figure, value in figures.items()})
    return found


def _show(document: Document) -> None:
    node = document["node"]
    if node["cores"] is None:
        show.say("Replicas run elsewhere: their processor time and memory are in the cluster's own metrics.")
    else:
        show.say(
            f"{node['cores_used']:.2f} of {node['cores']:.0f} cores ({node['cpu_use']:.0%}) and "
            f"{show.size(node['replica_memory_bytes'])} are used by {len(document['replicas'])} replicas; "
            f"{node['requests_in_flight']} calls are under way."
        )
    if document["revisions"]:
        show.table(
            ["MODEL", "REVISION", "READY/WANTED#", "STARTING#", "QUEUED#"],
            (
                (
                    f"{one['tenant']}/{one['model']}",
                    one["revision"],
                    f"{one['replicas_ready']}/{one['replicas_wanted']}",
                    one["replicas_starting"],
                    one["queued"],
                )
                for one in document["revisions"]
            ),
        )
    else:
        show.say("Every model sleeps.")
    if document["replicas"]:
        show.table(
            ["REPLICA", "CORES USED#", "OF#", "CPU USE#", "MEMORY#"],
            (
                (
                    f"{one['tenant']}/{one['revision']}/{one['replica']}",
                    f"{one['cores_used']:.2f}",
                    f"{one['cores_requested']:g}",
                    f"{one['cpu_use']:.0%}",
                    show.size(one["memory_bytes"]),
                )
                for one in document["replicas"]
            ),
        )
