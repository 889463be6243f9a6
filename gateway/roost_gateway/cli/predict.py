"""`roost predict`: post one request to a model, or print a sample of one."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from roost_gateway.cli import samples, show
from roost_gateway.cli.session import Session, command
from roost_gateway.client import Document, RoostClient

app = typer.Typer()


@command(app, "predict", example="roost predict iris --sample | roost predict iris --data -")
def predict(
    session: Session,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model.")],
    data: Annotated[
        str | None, typer.Option(metavar="FILE", help="Open Inference Protocol request in JSON; - = standard input.")
    ] = None,
    version: Annotated[
        int | None, typer.Option(metavar="N", help="A named version instead of the traffic split.")
    ] = None,
    sample: Annotated[bool, typer.Option("--sample", help="Print a sample request instead of posting one.")] = False,
) -> None:
    """Post a prediction request and print the answer's JSON. A model that sleeps wakes up for it."""
    if sample == (data is not None):
        raise typer.BadParameter("give either --data FILE or --sample", param_hint="--data")
    body = _read(data) if data is not None else b""
    with session.connect() as roost:
        show.json_document(roost.predict(model, body, version=version) if body else _sample(roost, model, version))


def _read(source: str) -> bytes:
    if source == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{source}: {error.strerror}", param_hint="--data") from None


def _sample(roost: RoostClient, model: str, version: int | None) -> Document:
    number = version or roost.model(model)["latest_version"]
    return samples.sample_body(roost.version(model, number)["signature"])
