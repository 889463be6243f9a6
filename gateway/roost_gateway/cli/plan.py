"""`roost plan`: measure what one replica holds, say how many are needed and by which policy; apply it, prove it."""

import math
import tempfile
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from roost_gateway.cli import plan_show, show
from roost_gateway.cli.loadtest import run, spelled
from roost_gateway.cli.plan_runs import Probe, held, offered, seconds
from roost_gateway.cli.prediction import predict_in
from roost_gateway.cli.session import Session, command
from roost_gateway.client import RoostClient
from roost_gateway.planning.choice import make_plan
from roost_gateway.planning.search import Search
from roost_gateway.planning.sizing import Capacity, replicas_needed
from roost_platform.domain.errors import InvalidRequest
from roost_platform.domain.scaling import Autoscaler, ScalingPolicy

app = typer.Typer()

MOST_REPLICAS = 1000
"""That a policy can ask for."""
_CONFIRMATIONS = 3
_ALONE_RPS = 5.0
"""So few that each finds the replica idle."""
_APPLIED = (
    "metric", "target", "target-utilization-percentage", "container-concurrency",
    "window", "panic-window-percentage", "min-scale", "max-scale", "initial-scale", "activation-scale",
)  # fmt: skip


@command(app, "plan", example="roost plan iris --qps 200 --p99 100ms --apply --prove")
def plan(
    session: Session,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model.")],
    *,
    qps: Annotated[float, typer.Option(min=0.1, metavar="N", help="Requests a second to be ready for.")],
    p99: Annotated[str, typer.Option(metavar="TIME", help="What 99 of 100 must keep, from when they were due.")],
    shape: Annotated[str | None, typer.Option(help="The load to try policies on, as for roost loadtest.")] = None,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.999, help="Of each answer of the search.")] = 0.95,
    each: Annotated[int, typer.Option(min=3, metavar="SECONDS", help="Least length of a run.")] = 10,
    payload: Annotated[Path | None, typer.Option(metavar="FILE", help="A request in JSON, or one a line.")] = None,
    binary: Annotated[bool, typer.Option("--binary", help="Binary tensors instead of JSON.")] = False,
    resource_class: Annotated[str, typer.Option(help="Of a replica, for its price.")] = "cpu-1",
    apply: Annotated[bool, typer.Option("--apply", help="Set the policy that was found.")] = False,
    prove: Annotated[bool, typer.Option("--prove", help="Apply it, then run the load test with a verdict.")] = False,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="For the proof's record and report.")] = None,
) -> None:
    """Find the highest rate that one replica holds, and the scaling policy for N requests a second.

    Loads the model for some minutes, at one replica; its policy comes back in every case. Exit status with --prove: that
    of roost loadtest; else 1 when no rate holds.
    """
    if any(find_spec(library) is None for library in ("locust", "hdrh")):
        show.error("The load tester needs its libraries: pip install 'roost[loadtest]'")
        raise typer.Exit(2)
    aim_s = seconds(p99, hint="--p99")
    load = shape or f"steps:{qps / 4:g}x60s,{qps:g}x120s,{qps / 4:g}x60s"
    loads = offered(load)
    content = spelled({"payload": payload, "binary": binary})
    with session.connect() as roost:
        current = ScalingPolicy.from_json(roost.status(model)["scaling"])
        if current.autoscaler is not Autoscaler.KPA:
            raise typer.BadParameter("only models of class kpa can be planned for", param_hint="MODEL")
        try:
            with tempfile.TemporaryDirectory(prefix="roost-plan-") as work:
                probe = Probe(session, model, aim_s, confidence, each, content, Path(work), [])
                capacity, together = measure(roost, probe, qps)
        except KeyboardInterrupt:
            show.error(f"Interrupted; {model} has its own policy again.")
            raise typer.Exit(130) from None
        try:
            made = make_plan(
                *(qps, aim_s, capacity, current, loads),
                prices=roost.prices(),
                resource_class=resource_class,
                together=together,
            )
        except InvalidRequest as error:
            show.error(f"Error: one replica holds {capacity.holds_rps:.1f} requests/s, so no policy will do: {error}")
            raise typer.Exit(1) from None
        if apply or prove:
            chosen = made.chosen.outcome.candidate.policy.to_json()
            roost.set_scaling(model, {name: chosen[name] for name in _APPLIED})
        document = made.to_json() | {"model": model, "shape": load, "confidence": confidence, "applied": apply or prove}
        session.emit(document, plan_show.show_plan)
    if prove:
        folder = out or Path(f"plan-{model}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
        raise typer.Exit(
            _prove(session, folder, [*spelled({"shape": load, "p99": f"{aim_s}s"}), *content, "--", model])
        )


def measure(roost: RoostClient, probe: Probe, qps: float) -> tuple[Capacity, bool]:
    """What one replica holds; and whether as many as the plan needs hold the target together."""
    model = probe.model

    def ready() -> int:
        document = roost.model(model)
        found: int = document["replicas_ready"] if document["state"] != "deploying" else -1
        return found

    slept = ready() == 0
    with held(roost, model, ready) as hold:
        show.error(f"Searching what one replica of {model} holds within {1000 * probe.aim_s:g} ms …")
        took_s = hold(1)
        alone = probe.run(min(qps, _ALONE_RPS), length_s=probe.seconds_each)
        if not alone.latency_s:
            show.error("Error: no request was answered; try one with: roost predict MODEL --sample")
            raise typer.Exit(1)
        search = find(probe, Search(most=qps, start=min(qps, 0.25 / alone.latency_s)))
        runs = [seen for seen in probe.done if math.isclose(seen.rate, search.low)]
        capacity = Capacity(
            holds_rps=search.low,
            in_flight=sum(seen.in_flight for seen in runs) / len(runs),
            service_s=min(alone.latency_s, *(seen.latency_s for seen in runs)),
            most_rps=max(seen.answered_rps for seen in probe.done),
            start_s=took_s if slept else 1.0,
            tester_fell_behind=any(not seen.fast_enough for seen in probe.done if seen.rate >= search.high * 0.999),
        )
        needed = min(MOST_REPLICAS, replicas_needed(qps, capacity.holds_rps))
        show.error(f"Trying {needed} replicas at {qps:g}/s …")
        hold(needed)
        return capacity, probe.holds(qps)


def find(probe: Probe, search: Search) -> Search:
    """The search when it is over; ends the command when it finds no rate that holds again."""
    for _ in range(_CONFIRMATIONS):
        while (rate := search.next_rate()) is not None:
            search.tell(rate, held=probe.holds(rate))
        if not search.low:
            aim_ms = 1000 * probe.aim_s
            show.error(f"Error: one replica does not keep {aim_ms:g} ms even at {search.high:g} requests/s.")
            raise typer.Exit(1)
        if probe.holds(search.low):
            return search
        search.tell(search.low, held=False)
    show.error("Error: what held once did not hold again, three times over. Try it while nothing else runs there.")
    raise typer.Exit(1)


def _prove(session: Session, folder: Path, words: list[str]) -> int:
    """The load test with its verdict; its exit status."""
    status = run(session, ["run", *spelled({"out": folder}), *words])
    if status:
        return status
    predict_in(folder)
    return run(session, ["report", *(["--json"] if session.json_output else []), str(folder)])
