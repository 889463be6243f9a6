"""`roost bill …`: a tenant's statements, the files they are handed on as, and what the operator does with them."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from roost_gateway.cli import show
from roost_gateway.cli.bill_lines import show_events, show_statement
from roost_gateway.cli.groups import group
from roost_gateway.cli.periods import check_month
from roost_gateway.cli.session import Session, command, confirm
from roost_gateway.cli.sheets import print_csv
from roost_gateway.client import Document

app = group(
    "Show statements and save them as files; finalize, correct and mark them (operator).", example="roost bill 2026-11"
)

FORMS = ("json", "csv", "html", "pdf", "focus", "cloudevents")
_LISTED = ("id", "tenant", "month", "kind", "of", "status", "currency", "total", "finalized_at")

Month = Annotated[str, typer.Argument(metavar="YYYY-MM", help="A calendar month in UTC.")]
StatementId = Annotated[str, typer.Argument(metavar="ID", help="Of a final statement, as `roost bill list` has it.")]


@command(app, "show", example="roost bill show 2026-11 --format pdf -o acme-2026-11.pdf")
def show_bill(
    session: Session,
    *,
    month: Annotated[str | None, typer.Argument(metavar="[YYYY-MM]", help="Default: this month, so far (UTC).")] = None,
    form: Annotated[str | None, typer.Option("--format", metavar="FORM", help=f"{', '.join(FORMS)}.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it there.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Show the statement of a month. `show` may be left out: roost bill 2026-11."""
    month = check_month(month, now=datetime.now(UTC), hint="YYYY-MM")
    form = form or ("csv" if as_csv else None)
    if form is None and output is None:
        with session.connect() as roost:
            session.emit(roost.statement(month), show_statement)
        return
    _save(session, month, form=_form_of(form, output), output=output)


@command(app, "list", example="roost bill list")
def list_bills(
    session: Session,
    *,
    all_tenants: Annotated[bool, typer.Option("--all", help="Those of all tenants (operator).")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """List final statements and notes."""
    with session.connect(as_operator=all_tenants) as roost:
        session.emit(roost.statements(), _list_csv if as_csv else _show_list)


@command(app, "events", example="roost bill events 2026-11 3 --limit 20")
def events(
    session: Session,
    month: Month,
    line: Annotated[int, typer.Argument(metavar="LINE", min=1, help="Its number on the statement.")],
    *,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="Most events at once.")] = 100,
    after: Annotated[str | None, typer.Option(metavar="CURSOR", help="Go on where the last answer ended.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, in base units.")] = False,
) -> None:
    """Show what is behind a line of a statement: its calls, or the stretches in which something was held."""
    check_month(month, now=datetime.now(UTC), hint="YYYY-MM")
    with session.connect() as roost:
        document = roost.statement_events(month, line, limit=limit, after=after)
    session.emit(document, _events_csv if as_csv else lambda found: show_events(found, month=month, line=line))


@command(app, "finalize", example="roost bill finalize 2026-10 --tenant acme")
def finalize(
    session: Session,
    month: Month,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Make a month's statement final: it never changes again (operator)."""
    check_month(month, now=datetime.now(UTC), hint="YYYY-MM")
    if session.tenant is None:
        raise typer.BadParameter("say whose statement it is: --tenant NAME", param_hint="--tenant")
    confirm(f"Make the statement of {session.tenant} for {month} final? It can never be changed again.", yes=yes)
    with session.connect(as_operator=True) as roost:
        session.emit(roost.finalize_statement(month), show_statement)


@command(app, "note", example='roost bill note acme-2026-10 credit 12.50 --reason "outage on the 3rd"')
def note(
    session: Session,
    statement: StatementId,
    kind: Annotated[str, typer.Argument(metavar="credit|debit", help="In the tenant's favour, or in yours.")],
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="Over 0, in the statement's currency.")],
    *,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="What the tenant reads on the note.")],
) -> None:
    """Write a credit or a debit note for a final statement (operator)."""
    if kind not in ("credit", "debit"):
        raise typer.BadParameter(f"{kind!r} is neither credit nor debit", param_hint="credit|debit")
    with session.connect(as_operator=True) as roost:
        made = roost.add_note(statement, kind=kind, amount=amount, reason=reason)
    session.emit(made, lambda document: show.say(f"{document['id']}: {document['currency']} {document['total']}"))


@command(app, "mark", example="roost bill mark acme-2026-10 paid")
def mark(
    session: Session,
    statement: StatementId,
    state: Annotated[str, typer.Argument(metavar="paid|void", help="What became of it.")],
    *,
    text: Annotated[str, typer.Option("--note", metavar="TEXT", help="For the operator's books.")] = "",
) -> None:
    """Write down that a final statement was paid, or is void (operator). A mark cannot be taken back."""
    if state not in ("paid", "void"):
        raise typer.BadParameter(f"{state!r} is neither paid nor void", param_hint="paid|void")
    with session.connect(as_operator=True) as roost:
        session.emit(
            roost.mark_statement(statement, state=state, note=text), lambda _: show.say(f"{statement} is {state}.")
        )


def _form_of(form: str | None, output: Path | None) -> str:
    """The form asked for, else the one that the file's name ends in."""
    wanted = form or (output.suffix.removeprefix(".") if output is not None else "")
    if wanted not in FORMS:
        raise typer.BadParameter(f"the form must be one of {', '.join(FORMS)}, not {wanted!r}", param_hint="--format")
    return wanted


def _save(session: Session, month: str, *, form: str, output: Path | None) -> None:
    if output is None and form == "pdf" and sys.stdout.isatty():
        raise typer.BadParameter("a PDF is nothing for a terminal: say -o FILE", param_hint="--output")
    with session.connect() as roost:
        content = roost.statement_file(month, form)
    if output is None:
        typer.echo(content, nl=False)
        return
    try:
        output.write_bytes(content)
    except OSError as error:
        raise typer.BadParameter(f"{output} cannot be written: {error.strerror}", param_hint="--output") from None
    show.error(f"{output}: {show.size(len(content))}")


def _list_csv(document: Document) -> None:
    print_csv(_LISTED, document["statements"])


def _events_csv(document: Document) -> None:
    found = document["events"]
    print_csv(list(dict.fromkeys(name for event in found for name in event)), found)


def _show_list(document: Document) -> None:
    if not document["statements"]:
        show.say("No statement is final yet. See this month so far with: roost bill")
        return
    show.table(
        ["ID", "TENANT", "MONTH", "KIND", "STATUS", "TOTAL#", "CURRENCY", "FINAL SINCE"],
        (
            (
                each["id"],
                each["tenant"],
                each["month"],
                each["kind"].replace("_", " "),
                each["status"],
                each["total"],
                each["currency"],
                show.time(each.get("finalized_at")),
            )
            for each in document["statements"]
        ),
    )
