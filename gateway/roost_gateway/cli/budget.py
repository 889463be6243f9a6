"""`roost budget …`: what a tenant means to spend in a month, and how it stands."""

import re
from typing import Annotated

import typer

from roost_gateway.cli import show
from roost_gateway.cli.groups import group
from roost_gateway.cli.session import Session, command, confirm
from roost_gateway.client import Document

app = group("Show a tenant's budget; set and clear it (operator).", example="roost budget")

_AMOUNT = re.compile(r"[0-9]{1,12}(\.[0-9]{1,4})?")
_PERCENTS = re.compile(r"[0-9]{1,4}(,[0-9]{1,4})*")


@command(app, "show", example="roost budget show")
def show_budget(session: Session) -> None:
    """Show the budget, what is spent of it this month, and the alerts raised so far. `show` may be left out."""
    with session.connect() as roost:
        session.emit(roost.budget(), _show)


@command(app, "set", example="roost budget set 250.00 --alert 50,80,100 --hard-cap --tenant acme")
def set_budget(
    session: Session,
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="For each calendar month, in the prices' currency.")],
    *,
    alert: Annotated[
        str, typer.Option(metavar="PERCENTS", help="Tell when so much is spent; with commas, empty = never.")
    ] = "50,80,100",
    hard_cap: Annotated[
        bool, typer.Option("--hard-cap", help="Refuse predictions once it is spent; what is kept ready costs on.")
    ] = False,
) -> None:
    """Set the budget of a tenant, in place of the one there was. It holds at once."""
    if not _AMOUNT.fullmatch(amount):
        raise typer.BadParameter(f"{amount!r} is not an amount like 250.00", param_hint="AMOUNT")
    if alert and not _PERCENTS.fullmatch(alert):
        raise typer.BadParameter(f"{alert!r} is not a list of percents like 50,80,100", param_hint="--alert")
    thresholds = sorted({int(percent) for percent in alert.split(",") if percent})
    with session.connect(as_operator=True) as roost:
        session.emit(roost.set_budget(amount, thresholds=thresholds, hard_cap=hard_cap), _show)


@command(app, "clear", example="roost budget clear --tenant acme")
def clear_budget(
    session: Session, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False
) -> None:
    """Remove the budget of a tenant: nobody is told of anything any more, and nothing is refused."""
    confirm(f"Remove the budget{f' of {session.tenant}' if session.tenant else ''}?", yes=yes)
    with session.connect(as_operator=True) as roost:
        roost.clear_budget()
    session.emit({"cleared": session.tenant}, lambda _: show.say("The budget is removed."))


def _show(document: Document) -> None:
    currency, amount = document["currency"], document["amount"]
    cap = "hard cap" if document["hard_cap"] else "no hard cap"
    percents = ", ".join(f"{percent} %" for percent in document["thresholds"]) or "none"
    show.say(f"{document['tenant']}: {amount} {currency} a month, {cap}; alerts at: {percents}")
    show.table(
        ["MONTH", f"SPENT {currency}#", "OF BUDGET#", f"FORECAST {currency}#"],
        [[document["month"], document["spent"], _percent(document["ratio"]), document["forecast"]]],
    )
    if document["capped_until"]:
        show.say(f"It is used up: predictions are refused until {show.time(document['capped_until'])}.")
    if document["alerts"]:
        show.table(
            ["ALERT#", f"BUDGET {currency}#", f"SPENT {currency}#", "RAISED", "DELIVERED"],
            (
                [
                    f"{alert['threshold']} %",
                    alert["amount"],
                    alert["spent"],
                    show.time(alert["at"]),
                    show.time(alert["delivered_at"]),
                ]
                for alert in document["alerts"]
            ),
        )


def _percent(ratio: str) -> str:
    """`0.4212` as `42.12 %`, without leaving decimals."""
    whole, _, part = ratio.partition(".")
    digits = (whole + part.ljust(4, "0")[:4]).lstrip("0").rjust(3, "0")
    return f"{digits[:-2]}.{digits[-2:]} %"
