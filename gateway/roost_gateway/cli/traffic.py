"""Commands about who gets a model's calls: the split, aliases, and the log of all changes."""

from typing import Annotated, Any

import typer

from roost_gateway.cli import show
from roost_gateway.cli.models import Model
from roost_gateway.cli.session import Session, command
from roost_gateway.client import Document

app = typer.Typer()


@command(app, "traffic", example="roost traffic iris v3=90 v4=10 --sticky header:x-user")
def traffic(
    session: Session,
    model: Model,
    shares: Annotated[
        list[str] | None,
        typer.Argument(metavar="[VERSION=PERCENT...]", help="Versions by number or alias; 100 in all."),
    ] = None,
    *,
    sticky: Annotated[str | None, typer.Option(metavar="WHAT", help="header:NAME, cookie:NAME, key or none.")] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(metavar="HEADER=VALUE:VERSION", help="For testers, before the split; repeatable."),
    ] = None,
    no_rules: Annotated[bool, typer.Option("--no-rules", help="Take all rules away.")] = False,
) -> None:
    """Show how a model's calls are shared among its versions, or share them anew: at once, and without losing one."""
    wish: dict[str, Any] = {}
    if shares:
        wish["split"] = _split(shares)
    if sticky is not None:
        wish["sticky"] = _sticky(sticky)
    if rule or no_rules:
        wish["rules"] = [_rule(text) for text in rule or ()]
    with session.connect() as roost:
        session.emit(roost.set_traffic(model, wish) if wish else roost.traffic(model), _show_traffic)


@command(app, "alias", example="roost alias iris stable=3")
def alias(
    session: Session,
    model: Model,
    name: Annotated[str, typer.Argument(metavar="NAME=VERSION", help="With --remove the name alone.")],
    *,
    remove: Annotated[bool, typer.Option("--remove", help="Take the name away.")] = False,
) -> None:
    """Name a version, as in /v2/models/iris/versions/stable/infer."""
    named, _, number = name.partition("=")
    with session.connect() as roost:
        if remove:
            session.emit(roost.delete_alias(model, named), _show_traffic)
        else:
            session.emit(roost.set_alias(model, named, _version(number, "NAME=VERSION")), _show_traffic)


@command(app, "history", example="roost history iris --limit 20")
def history(
    session: Session,
    model: Model,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most entries, the newest.")] = 50,
    before: Annotated[int | None, typer.Option(min=1, metavar="ID", help="Only what is older than this entry.")] = None,
) -> None:
    """Show who changed what of a model, when, from which to which; deleted models' too."""
    with session.connect() as roost:
        session.emit(roost.history(model, limit=limit, before=before), _show_history)


def _split(texts: list[str]) -> dict[str, int]:
    shares = [_share(text) for text in texts]
    split = dict(shares)
    if len(split) < len(shares):
        raise typer.BadParameter("a version is named twice", param_hint="VERSION=PERCENT")
    return split


def _share(text: str) -> tuple[str, int]:
    name, _, percent = text.partition("=")
    if not name or not percent.removesuffix("%").isdecimal():
        raise typer.BadParameter(f"{text!r} is not VERSION=PERCENT", param_hint="VERSION=PERCENT")
    return _bare(name), int(percent.removesuffix("%"))


def _bare(name: str) -> str:
    """`v3` is version 3; an alias is itself."""
    return name[1:] if name[:1] == "v" and name[1:].isdecimal() else name


def _version(text: str, hint: str) -> int:
    if not _bare(text).isdecimal():
        raise typer.BadParameter(f"{text!r} is not a version's number", param_hint=hint)
    return int(_bare(text))


def _sticky(text: str) -> dict[str, str] | None:
    if text == "none":
        return None
    by, _, name = text.partition(":")
    return {"by": by, "name": name}


def _rule(text: str) -> dict[str, Any]:
    header, _, rest = text.partition("=")
    value, _, number = rest.rpartition(":")
    return {"header": header.lower(), "value": value, "version": _version(number, "HEADER=VALUE:VERSION")}


def _show_traffic(document: Document) -> None:
    show.table(
        ["VERSION#", "REVISION", "PERCENT#"],
        ((share["version"], share["revision"], share["percent"]) for share in document["split"]),
    )
    sticky = document["sticky"]
    if sticky is not None:
        show.say(f"sticky by {sticky['by']} {sticky['name']}".rstrip())
    for rule in document["rules"]:
        show.say(f"{rule['header']}: {rule['value']}  goes to version {rule['version']}")
    for name, version in document["aliases"].items():
        show.say(f"{name} is version {version}")


def _show_history(document: Document) -> None:
    show.table(
        ["ID#", "WHEN", "WHO", "WHAT", "FROM", "TO"],
        (
            (
                entry["id"],
                show.time(entry["at"]),
                entry["by"],
                entry["what"],
                _short(entry["before"]),
                _short(entry["after"]),
            )
            for entry in document["entries"]
        ),
    )


def _short(facts: dict[str, Any]) -> str:
    return " ".join(f"{name}={_value(value)}" for name, value in facts.items()) or "-"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(f"{name}:{each}" for name, each in value.items())
    return str(value)
