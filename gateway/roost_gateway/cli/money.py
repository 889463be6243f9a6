"""`roost usage`, `roost bill`, `roost prices`: what was metered and what it costs."""

import csv
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated

import typer

from roost_gateway.cli import show
from roost_gateway.cli.session import Session, command, iso_time
from roost_gateway.client import Document

app = typer.Typer()

_FIGURES: dict[str, tuple[str, Callable[[int], str]]] = {
    "requests": ("REQUESTS#", str),
    "billed_requests": ("BILLED#", str),
    "rows": ("ROWS#", str),
    "compute_us": ("COMPUTE#", show.duration),
    "queue_us": ("QUEUED#", show.duration),
    "cold_starts": ("COLD#", str),
    "bytes_in": ("IN#", show.size),
    "bytes_out": ("OUT#", show.size),
    "errors": ("ERRORS#", str),
}
"""The columns of the usage table: each figure's heading, and how it is written for people."""
_MONTH = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")


@command(app, "usage", example="roost usage --from 2026-11-01 --to 2026-11-08 --by model,day")
def usage(
    session: Session,
    *,
    start: Annotated[str | None, typer.Option("--from", metavar="TIME", help="ISO 8601, from then on.")] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Up to, not including.")] = None,
    by: Annotated[str, typer.Option(metavar="KEYS", help="model, version, outcome, day, hour; with commas.")] = "model",
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Only this model.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, in base units.")] = False,
) -> None:
    """Show what was metered; this month unless you say otherwise. Times are UTC unless they carry an offset."""
    start, end = iso_time(start, hint="--from"), iso_time(end, hint="--to")
    with session.connect() as roost:
        document = roost.usage(start=start, end=end, model=model, group_by=by)
    session.emit(document, _usage_csv if as_csv else _show_usage)


@command(app, "bill", example="roost bill 2026-11 --csv")
def bill(
    session: Session,
    month: Annotated[str | None, typer.Argument(metavar="YYYY-MM", help="Default: this month, so far (UTC).")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Show the statement of a month."""
    month = month or datetime.now(UTC).strftime("%Y-%m")
    if not _MONTH.fullmatch(month):
        raise typer.BadParameter(f"{month!r} is not a month like 2026-11", param_hint="YYYY-MM")
    with session.connect() as roost:
        if as_csv:
            sys.stdout.write(roost.statement_csv(month))
        else:
            session.emit(roost.statement(month), _show_statement)


@command(app, "prices", example="roost prices")
def prices(session: Session) -> None:
    """Show the price book in force."""
    with session.connect() as roost:
        session.emit(roost.prices(), _show_prices)


def _usage_csv(document: Document) -> None:
    columns = [*document["group_by"], *(key for key in document["total"] if key not in document["group_by"])]
    writer = csv.DictWriter(sys.stdout, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(document["rows"])


def _show_usage(document: Document) -> None:
    keys = document["group_by"]

    def figures(row: Document) -> list[str]:
        return [write(row[name]) for name, (_, write) in _FIGURES.items()]

    show.say(f"{document['tenant']}: {show.time(document['from'])} to {show.time(document['to'])}")
    show.table(
        [*(key.upper() for key in keys), *(heading for heading, _ in _FIGURES.values())],
        ([*(row[key] for key in keys), *figures(row)] for row in document["rows"]),
        footer=["total", *[""] * (len(keys) - 1), *figures(document["total"])],
    )


def _show_statement(document: Document) -> None:
    currency = document["currency"]
    show.say(f"{document['tenant']}: {document['month']} ({document['status']}), {currency}")
    show.table(
        ["MODEL", "ITEM", "QUANTITY#", "PRICE", f"AMOUNT {currency}#"],
        ((line["model"], line["sku"], _quantity(line), _price(line), line["amount"]) for line in document["lines"]),
        footer=["total", "", f"{document['charged_calls']:,} charged calls", "", document["total"]],
    )
    for note in document["notes"]:
        show.say(note)


def _show_prices(document: Document) -> None:
    since = show.time(document["effective_from"])
    show.say(f"Price book {document['version']}, {document['currency']}, in force since {since}")
    show.table(["ITEM", "PRICE"], ((price["sku"], _price(price)) for price in document["prices"]))


def _price(item: Document) -> str:
    """A line of a statement or of a price book: both say `unit_price` per so many `unit`s."""
    if item["sku"] == "not_charged":
        return "not charged"
    named = {(1_000_000, "microseconds"): "second", (2**30, "bytes"): "GiB"}
    per = named.get((item["per"], item["unit"]), f"{item['per']:,} {item['unit']}")
    return f"{item['unit_price']} per {per}"


def _quantity(line: Document) -> str:
    seconds, microseconds = divmod(line["quantity"], 1_000_000)
    if line["unit"] == "microseconds":
        return f"{seconds:,}.{microseconds:06d} seconds"
    return f"{line['quantity']:,} {line['unit']}"
