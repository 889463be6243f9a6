"""`roost reconcile`: whether what was counted in several places is the same everywhere."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from roost_gateway.cli import show
from roost_gateway.cli.periods import From, Period, To, chosen_period
from roost_gateway.cli.session import Session, command
from roost_gateway.cli.sheets import print_csv
from roost_gateway.client import Document

app = typer.Typer()

_COLUMNS = ("check", "verdict", "scope", "left_name", "left", "right_name", "right", "difference", "says")


@command(app, "reconcile", example="roost reconcile --period last-month")
def reconcile(
    session: Session,
    *,
    start: From = None,
    end: To = None,
    period: Period = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV: each finding, or the check that has none.")] = False,
) -> None:
    """Compare gateway counters, journal, ledger, roll-ups, statements and what replicas held; name every difference.

    For the operator; this month unless you say otherwise. Exit status 1 when anything differs.
    """
    start, end = chosen_period(start, end, period, now=datetime.now(UTC))
    with session.connect(as_operator=True) as roost:
        document = roost.reconciliation(start=start, end=end)
    session.emit(document, _print_csv if as_csv else _show)
    if document["differs"]:
        raise typer.Exit(1)


def _show(document: Document) -> None:
    show.say(f"{show.time(document['from'])} to {show.time(document['to'])}")
    show.table(
        ["CHECK", "COMPARED", "LEFT#", "RIGHT#", "DIFFERENCE#", "VERDICT"],
        (
            (
                check["check"],
                f"{check['left_name']} = {check['right_name']}",
                f"{check['left']:,}",
                f"{check['right']:,}",
                f"{check['difference']:,}",
                check["verdict"],
            )
            for check in document["checks"]
        ),
    )
    for check in document["checks"]:
        for finding in check["findings"]:
            show.say(f"{check['check']}, {finding['scope']}: {finding['says']}")
        if check["more_findings"]:
            show.say(f"{check['check']}: and {check['more_findings']:,} more")
    show.say(_last_word(document))


def _last_word(document: Document) -> str:
    if document["differs"]:
        return "Something differs: see above."
    if any(check["verdict"] == "pending" for check in document["checks"]):
        return "Nothing differs; what is pending is still being written: ask again."
    return "Everything agrees."


def _print_csv(document: Document) -> None:
    print_csv(
        _COLUMNS,
        (
            {"says": "", "scope": ""} | check | finding
            for check in document["checks"]
            for finding in check["findings"] or [{}]
        ),
    )
