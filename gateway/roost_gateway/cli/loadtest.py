"""`roost loadtest`: run the load tester in a process of its own, and make verdict and report from what it recorded.

The load tester patches its process for gevent, so nothing of it is imported here. URL and key travel by environment: `ps`
shows a command line to everybody.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from roost_gateway.cli import credentials, show
from roost_gateway.cli.prediction import predict_in
from roost_gateway.cli.session import Session, command

app = typer.Typer()

_INTERRUPTED = 130
_MISSING = "The load tester needs its libraries: pip install 'roost[loadtest]'"


@command(app, "loadtest", example="roost loadtest iris --qps 200 --p99 100ms --duration 60s")
def loadtest(
    session: Session,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model; iris@3 = its version 3.")],
    *,
    qps: Annotated[float | None, typer.Option(metavar="N", help="Requests a second.")] = None,
    duration: Annotated[str | None, typer.Option(metavar="TIME", help="As in 60s, 5m [default: 60s].")] = None,
    shape: Annotated[
        str | None, typer.Option(help="steps:50x30s,200x60s, ramp:10-200x60s, spike:…, diurnal:…, trace:FILE.")
    ] = None,
    process: Annotated[str | None, typer.Option(help="poisson, constant or gamma:1.5 [default: poisson].")] = None,
    seed: Annotated[int | None, typer.Option(help="Of arrivals and payloads [default: 0].")] = None,
    p50: Annotated[str | None, typer.Option(metavar="TIME", help="Aim, counted from when a request was due.")] = None,
    p95: Annotated[str | None, typer.Option(metavar="TIME", help="Aim.")] = None,
    p99: Annotated[str | None, typer.Option(metavar="TIME", help="Aim.")] = None,
    errors: Annotated[float | None, typer.Option(metavar="SHARE", help="At most [default: 0.001].")] = None,
    achieved: Annotated[float | None, typer.Option(metavar="SHARE", help="At least [default: 0.99].")] = None,
    capacity_within: Annotated[str | None, typer.Option(metavar="TIME", help="Aim: capacity after a step.")] = None,
    settle: Annotated[str | None, typer.Option(metavar="TIME", help="Left out after a step [default: 10s].")] = None,
    payload: Annotated[Path | None, typer.Option(metavar="FILE", help="A request in JSON, or one a line.")] = None,
    binary: Annotated[bool, typer.Option("--binary", help="Binary tensors instead of JSON.")] = False,
    batch: Annotated[int | None, typer.Option(help="Length of dimensions of any length [default: 1].")] = None,
    also: Annotated[
        list[str] | None, typer.Option(metavar="MODEL=LOAD", help="A further stream, as acme/iris=20; repeatable.")
    ] = None,
    timeout: Annotated[str | None, typer.Option(metavar="TIME", help="Of a request [default: 60s].")] = None,
    connections: Annotated[int | None, typer.Option(help="In flight at once, per process [default: 2000].")] = None,
    processes: Annotated[int | None, typer.Option(metavar="N", help="That send, on this machine.")] = None,
    workers: Annotated[int | None, typer.Option(metavar="N", help="That send, on other machines.")] = None,
    bind: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Where those connect.")] = None,
    web_ui: Annotated[int | None, typer.Option(metavar="PORT", help="Locust's own web page meanwhile.")] = None,
    kubeconfig: Annotated[Path | None, typer.Option(metavar="FILE", help="Watch Knative's objects too.")] = None,
    back_to_zero: Annotated[bool, typer.Option("--back-to-zero", help="Wait for it, and judge it.")] = False,
    no_billing: Annotated[bool, typer.Option("--no-billing", help="Do not compare with usage.")] = False,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="For record and report.")] = None,
) -> None:
    """Send open-loop load to a model, watch it scale, and judge it.

    Exit status: 0 passed, 1 failed, 2 the run proves nothing (or the command line is wrong), 3 the server is not there.
    """
    if any(find_spec(library) is None for library in ("locust", "hdrh")):
        show.error(_MISSING)
        raise typer.Exit(2)
    folder = out or Path(f"loadtest-{model.replace('/', '-')}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    options = {
        "qps": qps,
        "duration": duration,
        "shape": shape,
        "process": process,
        "seed": seed,
        "p50": p50,
        "p95": p95,
        "p99": p99,
        "errors": errors,
        "achieved": achieved,
        "capacity-within": capacity_within,
        "settle": settle,
        "payload": payload,
        "binary": binary,
        "batch": batch,
        "also": also or [],
        "timeout": timeout,
        "connections": connections,
        "processes": processes,
        "workers": workers,
        "bind": bind,
        "web-ui": web_ui,
        "kubeconfig": kubeconfig,
        "back-to-zero": back_to_zero,
        "no-billing": no_billing,
        "out": folder,
    }
    status = run(session, ["run", *(spelled(options)), "--", model])
    if status:
        if status == _INTERRUPTED and (folder / "record.json").exists():
            show.error(f"Interrupted; what there is, is in {folder}: python -m roost_loadtest report {folder}")
        raise typer.Exit(status)
    predict_in(folder)
    raise typer.Exit(run(session, ["report", *(["--json"] if session.json_output else []), str(folder)]))


def spelled(options: Mapping[str, object]) -> list[str]:
    """As a command line has them; those that were not given are left out."""
    words = []
    for name, value in options.items():
        if value is True:
            words.append(f"--{name}")
        elif isinstance(value, list):
            words += [f"--{name}={each}" for each in value]
        elif value is not None and value is not False:
            words.append(f"--{name}={value}")
    return words


def run(session: Session, arguments: Sequence[str]) -> int:
    """The load tester's exit status. Ctrl-C is for it: it stops sending, and writes down what there is."""
    key = session.api_key or credentials.tenant_key(session.url, os.environ)
    environment = os.environ | {"ROOST_URL": session.url} | ({"ROOST_API_KEY": key} if key else {})
    child = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "roost_loadtest", *arguments], env=environment
    )
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    terminate = signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    try:
        status = child.wait()
        return status if status >= 0 else _INTERRUPTED  # by a signal that came while it was still starting
    finally:
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGTERM, terminate)
