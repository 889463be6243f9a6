"""Commands about models that are there: list, status, scaling, versions, rollback, delete."""

from typing import Annotated

import typer

from roost_gateway.cli import show
from roost_gateway.cli.platform_status import show_platform
from roost_gateway.cli.session import Session, command, confirm, key_values
from roost_gateway.client import Document

app = typer.Typer()

Model = Annotated[str, typer.Argument(metavar="MODEL", help="The model.")]


@command(app, "models", example="roost models")
def list_models(session: Session) -> None:
    """List the tenant's models."""
    with session.connect() as roost:
        session.emit(roost.models(), lambda document: _show(document["models"]))


@command(app, "status", example="roost status iris")
def status(
    session: Session,
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="The model; none = all, for the operator.")
    ] = None,
) -> None:
    """Show how a model stands: replicas and readiness of each revision, traffic, scaling.

    Without a model: replicas, processor and memory of the whole platform.
    """
    if model is None:
        show_platform(session)
        return
    with session.connect() as roost:
        session.emit(roost.status(model), _show_status)


@command(app, "versions", example="roost versions iris")
def versions(session: Session, model: Model) -> None:
    """List a model's versions."""
    with session.connect() as roost:
        session.emit(roost.versions(model), _show_versions)


@command(app, "scale", example="roost scale iris min-scale=1 window=30 target=")
def scale(
    session: Session,
    model: Model,
    options: Annotated[
        list[str], typer.Argument(metavar="OPTION=VALUE...", help="Knative's names; no value = back to the default.")
    ],
) -> None:
    """Change a model's scaling policy."""
    with session.connect() as roost:
        session.emit(roost.set_scaling(model, key_values(options, hint="OPTION=VALUE")), _show_scaling)


@command(app, "rollback", example="roost rollback iris 2")
def rollback(
    session: Session, model: Model, version: Annotated[int, typer.Argument(metavar="VERSION", min=1, help="Number.")]
) -> None:
    """Send all traffic to an earlier version."""
    with session.connect() as roost:
        session.emit(roost.rollback(model, version), lambda document: _show([document]))


@command(app, "delete", example="roost delete iris --yes")
def delete(
    session: Session, model: Model, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False
) -> None:
    """Delete a model with all its versions; calls in flight finish."""
    confirm(f"Delete model {model} with all its versions?", yes=yes)
    with session.connect() as roost:
        roost.delete_model(model)
    session.emit({"deleted": model}, lambda _: show.say(f"Model {model} is deleted."))


def _traffic(document: Document) -> str:
    return ", ".join(f"v{share['version']} {share['percent']} %" for share in document["traffic"]) or "none yet"


def _show(models: list[Document]) -> None:
    show.table(
        ["MODEL", "STATE", "TRAFFIC", "LATEST#", "READY/WANTED#", "URL"],
        (
            (
                model["model"],
                model["state"],
                _traffic(model),
                model["latest_version"],
                f"{model['replicas_ready']}/{model['replicas_wanted']}",
                model["url"],
            )
            for model in models
        ),
    )


def _show_versions(document: Document) -> None:
    show.table(
        ["VERSION#", "STATE", "SIZE#", "CREATED", "DIGEST", "REASON"],
        (
            (v["version"], v["state"], show.size(v["size"]), show.time(v["created_at"]), v["digest"][:12], v["reason"])
            for v in document["versions"]
        ),
    )


def _show_status(document: Document) -> None:
    show.say(f"{document['tenant']}/{document['model']}: {document['state']}, traffic: {_traffic(document)}")
    show.table(
        ["REVISION", "VERSION#", "STATE", "READY", "RUNNING/WANTED#", "QUEUED#", "IN FLIGHT#", "LOAD#", "REASON"],
        (
            (
                revision["name"],
                revision["version"],
                revision["state"],
                revision["ready"],
                f"{revision['replicas_ready']}/{revision['replicas_wanted']}",
                *_load(revision.get("load") or {}),
                " ".join(filter(None, (revision["reason"], revision["message"]))),
            )
            for revision in document["revisions"]
        ),
    )
    for revision in document["revisions"]:
        for line in revision["log"]:
            show.say(f"{revision['name']}  {line}")
    _show_scaling(document)


def _load(load: Document) -> tuple[object, object, str]:
    """What waits, what is worked on, and the average that the autoscaler goes by."""
    average = load.get("average_stable")
    panic = " panic" if load.get("panicking") else ""
    return load.get("queued"), load.get("in_flight"), "-" if average is None else f"{average:.3g}{panic}"


def _show_scaling(document: Document) -> None:
    policy = document["scaling"].items()
    show.say("scaling: " + " ".join(f"{name}={value}" for name, value in policy if value is not None))
