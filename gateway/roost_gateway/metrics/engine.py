"""What the engine says of the revisions that are awake, and of the replicas of this machine.

Asking wakes nothing: a model that sleeps has no series here.
"""

from collections.abc import Callable, Mapping

from roost_gateway.metrics.page import Page, Writer, labels_of
from roost_platform.domain.services import RevisionKey
from roost_platform.engines.port import Engine, EngineFigures, ReplicaFigures, RevisionFigures

_REVISION: tuple[tuple[str, str, Callable[[RevisionFigures], float | None]], ...] = (
    ("roost_replicas_wanted", "Replicas the autoscaler wants", lambda one: one.wanted),
    ("roost_replicas_ready", "Replicas ready to serve", lambda one: one.ready),
    ("roost_replicas_starting", "Replicas on their way to being ready", lambda one: one.starting),
    ("roost_replicas_idle", "Ready replicas without a request", lambda one: one.idle),
    ("roost_replicas_limit", "The most replicas that max-scale allows", lambda one: one.most or None),
    ("roost_queue_length", "Requests waiting for a replica", lambda one: one.queued),
    ("roost_replica_requests", "Requests that replicas work on", lambda one: one.in_flight),
    ("roost_autoscaler_desired_replicas", "What the load alone calls for", lambda one: one.desired),
    ("roost_autoscaler_stable_load", "Average load over the stable window", lambda one: one.stable),
    ("roost_autoscaler_panic_load", "Average load over the panic window", lambda one: one.panic),
    ("roost_autoscaler_panic", "1 while in panic mode", lambda one: None if one.panicking is None else +one.panicking),
)
_REPLICA: tuple[tuple[str, str, Callable[[ReplicaFigures], float]], ...] = (
    ("roost_replica_memory_bytes", "Resident memory that is no file's", lambda one: one.memory_bytes),
    ("roost_replica_requested_cores", "Cores that a replica may count on", lambda one: one.cores),
)


class EngineFiguresCollector(Writer):
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def write(self, page: Page) -> None:
        figures = self._engine.figures()
        page.counter("roost_activations_total", "Revisions woken from zero", [("", figures.activations)])
        _write_revisions(page, figures.revisions)
        for name, text, counted in (
            ("roost_replica_restarts_total", "Replicas that served and ended unwished", figures.restarts),
            ("roost_replica_failed_starts_total", "Replicas that never became ready", figures.failed_starts),
        ):
            page.counter(
                name, text, ((f"{_labels(key)},{labels_of(reason=why)}", n) for (key, why), n in counted.items())
            )
        if figures.cores:
            _write_machine(page, figures)


def _write_revisions(page: Page, revisions: Mapping[RevisionKey, RevisionFigures]) -> None:
    awake = [(_labels(key), one) for key, one in revisions.items()]
    for name, text, read in _REVISION:
        page.gauge(name, text, ((labels, value) for labels, one in awake if (value := read(one)) is not None))


def _write_machine(page: Page, figures: EngineFigures) -> None:
    replicas = [(f'{_labels(one.revision)},replica="{one.number}"', one) for one in figures.replicas]
    for name, text, read in _REPLICA:
        page.gauge(name, text, ((labels, read(one)) for labels, one in replicas))
    page.counter(
        "roost_replica_cpu_seconds_total",
        "Processor time used",
        ((labels, one.processor_s) for labels, one in replicas),
    )
    page.gauge("roost_node_cores", "Cores that this gateway and its replicas may use", [("", figures.cores)])
    page.gauge(
        "roost_spare_processes",
        "Processes forked ahead that wait for a model",
        ((labels_of(runtime=runtime), number) for runtime, number in figures.spares.items()),
    )


def _labels(key: RevisionKey) -> str:
    return labels_of(tenant=key.service.tenant, model=key.service.model, revision=key.name)
