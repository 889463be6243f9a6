"""`roost deploy`: upload a file, wait until the version serves, show how to call it."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urljoin

import typer

from roost_gateway.cli import samples, show
from roost_gateway.cli.session import Session, command, key_values
from roost_gateway.client import ApiError, Document, Progress, RoostClient

app = typer.Typer()

_POLL_S = 0.2
_POLL_SLOWLY_S = 1.0
_LOG_LINES = 20
_OF_THE_PLACE = frozenset(
    {
        "ImageMissing",
        "RuntimeMissing",
        "Unschedulable",
        "FeatureDisabled",
        "NameTaken",
        "Forbidden",
        "Refused",
        "Routing",
    }
)
"""Reasons that no other file would change."""
_PLAIN_STEPS = 4  # without a terminal, progress is a line per quarter


@command(app, "deploy", example="roost deploy iris iris.onnx --min-scale 1 --scale panic-window-percentage=20")
def deploy(
    session: Session,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Lower-case letters, digits and hyphens.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, readable=True, help="ONNX.")],
    *,
    scale: Annotated[
        list[str] | None, typer.Option(metavar="OPTION=VALUE", help="Repeatable: any scaling option, Knative's names.")
    ] = None,
    min_scale: Annotated[int | None, typer.Option(help="Fewest replicas; 0 lets the model sleep.")] = None,
    max_scale: Annotated[int | None, typer.Option(help="Most replicas; 0 = as many as fit.")] = None,
    window: Annotated[int | None, typer.Option(metavar="SECONDS", help="Time over which load is averaged.")] = None,
    timeout: Annotated[int | None, typer.Option(metavar="SECONDS", help="Time one request may take.")] = None,
    container_concurrency: Annotated[int | None, typer.Option(help="Requests one replica takes at a time.")] = None,
    target: Annotated[float | None, typer.Option(help="Load to aim at per replica, in units of --metric.")] = None,
    metric: Annotated[str | None, typer.Option(help="concurrency or rps.")] = None,
    runtime: Annotated[str | None, typer.Option(help="onnx-cpu, or onnx-gpu on a cluster that has it.")] = None,
    max_batch_size: Annotated[int | None, typer.Option(help="Rows that may run together; 1 = no batching.")] = None,
    no_traffic: Annotated[
        bool, typer.Option("--no-traffic", help="Leave the traffic where it is; move it with: roost traffic.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the version serves.")] = True,
    wait_timeout: Annotated[float, typer.Option(metavar="SECONDS", help="Wait at most this long.")] = 600,
) -> None:
    """Deploy FILE as the next version of MODEL; the same file again is the same version."""
    direct = {
        "min-scale": min_scale,
        "max-scale": max_scale,
        "window": window,
        "timeout": timeout,
        "container-concurrency": container_concurrency,
        "target": target,
        "metric": metric,
        "max-batch-size": max_batch_size,
        "runtime": runtime,
    }
    options = {name: value for name, value in direct.items() if value is not None}
    options |= {k: v for k, v in key_values(scale or [], hint="--scale").items() if v is not None}
    if no_traffic:
        options["traffic"] = "false"
    with session.connect() as roost:
        with _upload_progress(file.name) as progress:
            version = roost.upload(model, file, options=options, progress=progress)
        if wait:
            version = _wait(roost, version, limit_s=wait_timeout)
        session.emit(version, lambda document: _show(document, base=roost.url))
        if version["state"] == "failed":
            _show_failure(roost, version)
            raise typer.Exit(1)


def _wait(roost: RoostClient, version: Document, *, limit_s: float) -> Document:
    """Ask until the version is no longer deploying; gives up, with exit status 1, after `limit_s` seconds."""
    end = time.monotonic() + limit_s
    pause = _POLL_S
    with _spinner(f"waiting for {version['model']} version {version['version']} to serve"):
        while version["state"] == "deploying":
            if time.monotonic() > end:
                show.error(f"Not ready after {limit_s:g} s; it may yet become so: roost status {version['model']}")
                raise typer.Exit(1)
            time.sleep(pause)
            pause = min(pause * 1.2, _POLL_SLOWLY_S)
            version = roost.version(version["model"], version["version"])
    return version


def _show(version: Document, *, base: str) -> None:
    url = urljoin(f"{base}/", version["predict_url"])
    show.say(f"{version['model']} version {version['version']} is {version['state']}  ({show.size(version['size'])})")
    show.signature(version["signature"])
    if version["state"] == "failed":
        return
    show.say(f"URL    {url}")
    if samples.needs_binary(version["signature"]):
        show.say("Call   with a client of the Open Inference Protocol: JSON cannot carry this model's 16-bit floats")
    else:
        signature = version["signature"]
        show.say("Call   " + samples.curl_line(model=version["model"], predict_url=url, signature=signature))


def _show_failure(roost: RoostClient, version: Document) -> None:
    show.error(f"Error: {version['reason'] or 'the version does not start'}")
    lines: list[Document] = []
    if version["revision"]:  # without one nothing was started, so there is no log
        with suppress(ApiError):  # the reason was said; a log that cannot be read takes nothing away
            lines = list(roost.logs(version["model"], limit=_LOG_LINES, revision=version["revision"]))
    for line in lines:
        show.error(f"  {line['text']}")
    show.error(f"Next:  {_next_step(version)}")


def _next_step(version: Document) -> str:
    """What helps depends on whether the file is at fault, or the place where it was to run."""
    reason, model = (version["reason"] or "").partition(":")[0], version["model"]
    if reason == "QuotaExceeded":
        return "ask the operator for more (roost tenant set-quota), then deploy the file again"
    if reason in _OF_THE_PLACE:
        return "this is the operator's to mend; then deploy the file again"
    return f"roost logs {model}, then deploy a corrected file"


@contextmanager
def _upload_progress(name: str) -> Iterator[Progress]:
    """What reports an upload: a bar on a terminal, else a few lines; on stderr, so that stdout stays the result."""
    if not sys.stderr.isatty():
        yield _plain_progress(name)
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn  # noqa: PLC0415

    columns: tuple[Any, ...] = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=show.console(err=True)) as bars:
        task = bars.add_task(f"uploading {name}", total=None)

        def report(sent: int, total: int) -> None:
            what = "uploading" if sent < total else "checking"
            bars.update(task, completed=sent, total=total, description=f"{what} {name}")

        yield report


def _plain_progress(name: str) -> Progress:
    reported = 0

    def report(sent: int, total: int) -> None:
        nonlocal reported
        if (step := sent * _PLAIN_STEPS // total) > reported:
            reported = step
            show.error(f"uploaded {show.size(sent)} of {show.size(total)} of {name}")

    return report


@contextmanager
def _spinner(text: str) -> Iterator[None]:
    if not sys.stderr.isatty():
        show.error(text)
        yield
        return
    with show.console(err=True).status(text):
        yield
