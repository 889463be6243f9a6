"""`roost key …`: a tenant's API keys."""

from typing import Annotated

import typer

from roost_gateway.cli import show
from roost_gateway.cli.session import Session, command, iso_time
from roost_gateway.client import Document

app = typer.Typer(help="Create and revoke API keys of a tenant.", no_args_is_help=True, rich_markup_mode=None)


@command(app, "create", example="roost key create ci --scope deploy --expires 2027-01-01")
def create(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is for.")],
    scope: Annotated[list[str] | None, typer.Option(help="Repeatable: admin, deploy, predict, read.")] = None,
    expires: Annotated[str | None, typer.Option(metavar="TIME", help="ISO 8601; UTC unless it says.")] = None,
) -> None:
    """Create a key and print it, this once. Without --scope it may only predict."""
    expires_at = iso_time(expires, hint="--expires")
    with session.connect() as roost:
        document = roost.create_key(name, scope or ["predict"], expires_at)

    def human(key: Document) -> None:
        show.say(f"Key {key['id']} ({', '.join(key['scopes'])}), shown this once:")
        show.say(f"\n  export ROOST_API_KEY={key['secret']}\n")

    session.emit(document, human)


@command(app, "list", example="roost key list")
def list_keys(session: Session) -> None:
    """List the tenant's keys, without their secrets."""
    with session.connect() as roost:
        session.emit(roost.keys(), _show)


@command(app, "revoke", example="roost key revoke 5f1c0a")
def revoke(session: Session, key_id: Annotated[str, typer.Argument(metavar="ID", help="From: roost key list")]) -> None:
    """Revoke a key; it stops working at once."""
    with session.connect() as roost:
        roost.revoke_key(key_id)
    session.emit({"revoked": key_id}, lambda _: show.say(f"Key {key_id} is revoked."))


def _show(document: Document) -> None:
    show.table(
        ["ID", "NAME", "SCOPES", "CREATED", "EXPIRES", "REVOKED", "LAST USED"],
        (
            (
                key["id"],
                key["name"],
                " ".join(key["scopes"]),
                *(show.time(key[field]) for field in ("created_at", "expires_at", "revoked_at", "last_used_at")),
            )
            for key in document["keys"]
        ),
    )
