"""`roost money`: the operator's view of a month over all tenants."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from roost_gateway.cli import show
from roost_gateway.cli.periods import MonthOption, check_month
from roost_gateway.cli.session import Session, command
from roost_gateway.cli.sheets import print_csv
from roost_gateway.client import Document

app = typer.Typer()

_TENANT = ("tenant", "status", "currency", "amount", "calls", "charged_calls", "unknown_calls", "cold_starts")
_IDLE = ("idle_us", "reserved_us", "unpriced_us", "worth", "billed", "not_billed")
_MODEL = ("tenant", "model", "currency", "amount")


@command(app, "money", example="roost money --month 2026-10 --by model")
def money(
    session: Session,
    *,
    month: MonthOption = None,
    by: Annotated[str, typer.Option(metavar="tenant|model", help="Whose amounts.")] = "tenant",
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, times in microseconds.")] = False,
) -> None:
    """Show what a month brings in, tenant by tenant or model by model, and what idle replicas cost (operator)."""
    if by not in ("tenant", "model"):
        raise typer.BadParameter(f"{by!r} is neither tenant nor model", param_hint="--by")
    month = check_month(month, now=datetime.now(UTC), hint="--month")
    with session.connect(as_operator=True) as roost:
        document = roost.money(month)
    by_tenant = by == "tenant"
    print_as_csv = _tenants_csv if by_tenant else _models_csv
    session.emit(document, print_as_csv if as_csv else _show_tenants if by_tenant else _show_models)


def _show_tenants(document: Document) -> None:
    _say_head(document)
    show.table(
        [
            *("TENANT", "STATUS", f"AMOUNT {document['currency']}#", "CALLS#", "CHARGED#", "UNKNOWN#", "COLD#"),
            *("IDLE#", "RESERVED#", "WORTH#", "NOT BILLED#", "TOP MODELS"),
        ],
        (_tenant_cells(each) for each in document["tenants"]),
        footer=["total", "", *_figures(document["total"]), ""],
    )
    if document["more_tenants"]:
        show.say(f"And {document['more_tenants']:,} more tenants, who are in the total.")
    idle = document["total"]["idle"]
    if idle["idle_us"] or idle["reserved_us"]:
        show.say(
            "WORTH: what idle and reserved time costs by the price book; free time at what such time costs elsewhere."
        )
    if idle["unpriced_us"]:
        show.say(f"For {show.long_duration(idle['unpriced_us'])} of it the book has no price at all.")


def _tenant_cells(each: Document) -> list[str]:
    models = ", ".join(f"{model['model'] or '-'} {model['amount']}" for model in each["top_models"])
    return [each["tenant"], each["status"], *_figures(each), models]


def _figures(row: Document) -> list[str]:
    idle = row["idle"]
    counts = (f"{row[name]:,}" for name in ("calls", "charged_calls", "unknown_calls", "cold_starts"))
    times = (show.long_duration(idle[name]) for name in ("idle_us", "reserved_us"))
    return [row["amount"], *counts, *times, idle["worth"], idle["not_billed"]]


def _show_models(document: Document) -> None:
    _say_head(document)
    show.table(
        ["MODEL", "TENANT", f"AMOUNT {document['currency']}#"],
        ((each["model"] or "-", each["tenant"], each["amount"]) for each in document["models"]),
    )
    if document["more_models"]:
        show.say(f"And {document['more_models']:,} more models.")


def _say_head(document: Document) -> None:
    total = document["total"]
    tenants = "1 tenant" if total["tenants"] == 1 else f"{total['tenants']:,} tenants"
    show.say(f"{document['month']}: {tenants}, {document['currency']} {total['amount']}")


def _tenants_csv(document: Document) -> None:
    rows = (document | each | each["idle"] for each in document["tenants"])
    print_csv((*_TENANT, *_IDLE), rows)


def _models_csv(document: Document) -> None:
    print_csv(_MODEL, (document | each for each in document["models"]))
