"""`roost tenant …`: what the operator does with tenants."""

import os
from typing import Annotated

import typer

from roost_gateway.cli import credentials, show
from roost_gateway.cli.session import Session, command, confirm, key_values
from roost_gateway.client import Document

app = typer.Typer(help="Create and manage tenants (operator).", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The tenant.")]
_LIMITS = (
    "models, storage-bytes, concurrent-requests, requests-per-second, burst, and on a cluster cpu-millicores, "
    "memory-bytes, replicas, gpus; 0 = no limit"
)


@command(app, "create", example="roost tenant create acme --save")
def create(
    session: Session,
    name: Name,
    quota: Annotated[list[str] | None, typer.Option(metavar="LIMIT=N", help=f"Repeatable: {_LIMITS}.")] = None,
    save: Annotated[bool, typer.Option("--save", help="Keep the key for later commands on this URL.")] = False,
) -> None:
    """Create a tenant and print its first key, which is shown this once."""
    limits = _quota(quota or [])
    with session.connect(as_operator=True) as roost:
        document = roost.create_tenant(name, limits)
    secret = document["key"]["secret"]
    saved = credentials.save(session.url, tenant=name, key=secret, environment=os.environ) if save else None

    def human(_: Document) -> None:
        show.say(f"Tenant {name} is there. Its admin key, shown this once:")
        show.say(f"\n  export ROOST_API_KEY={secret}\n")
        show.say(f"Saved to {saved}." if saved else "`--save` would have kept it in your credentials file.")
        show.say("Next:  roost deploy MODEL FILE.onnx")

    session.emit(document, human)


@command(app, "list", example="roost tenant list")
def list_tenants(session: Session) -> None:
    """List all tenants."""
    with session.connect(as_operator=True) as roost:
        session.emit(roost.tenants(), lambda document: _show(document["tenants"]))


@command(app, "show", example="roost tenant show acme")
def show_tenant(session: Session, name: Name) -> None:
    """Show one tenant and its quota."""
    with session.connect(as_operator=True) as roost:
        session.emit(roost.tenant(name), lambda document: _show([document]))


@command(app, "set-quota", example="roost tenant set-quota acme models=20 requests-per-second=100")
def set_quota(
    session: Session,
    name: Name,
    limits: Annotated[list[str], typer.Argument(metavar="LIMIT=N...", help=_LIMITS)],
) -> None:
    """Change limits of a tenant; those not named stay."""
    with session.connect(as_operator=True) as roost:
        session.emit(roost.set_quota(name, _quota(limits)), lambda document: _show([document]))


@command(app, "delete", example="roost tenant delete acme --force")
def delete(
    session: Session,
    name: Name,
    force: Annotated[bool, typer.Option("--force", help="Also when it has models: they are deleted.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a tenant and its keys. What it used stays in the ledger."""
    confirm(f"Delete tenant {name}{' and all its models' if force else ''}?", yes=yes)
    with session.connect(as_operator=True) as roost:
        roost.delete_tenant(name, force=force)
    session.emit({"deleted": name}, lambda _: show.say(f"Tenant {name} is deleted."))


def _quota(pairs: list[str]) -> dict[str, float]:
    return {name.replace("-", "_"): value for name, value in key_values(pairs, hint="LIMIT=N").items()}


def _show(tenants: list[Document]) -> None:
    def limit(value: float) -> str:
        return f"{value:g}" if value else "no limit"

    show.table(
        ["TENANT", "CREATED", "MODELS#", "STORAGE#", "CONCURRENT#", "PER SECOND#", "BURST#"],
        (
            (
                tenant["name"],
                show.time(tenant["created_at"]),
                limit(tenant["quota"]["models"]),
                show.size(tenant["quota"]["storage_bytes"]) if tenant["quota"]["storage_bytes"] else "no limit",
                limit(tenant["quota"]["concurrent_requests"]),
                limit(tenant["quota"]["requests_per_second"]),
                f"{tenant['quota']['burst']:g}",
            )
            for tenant in tenants
        ),
    )
