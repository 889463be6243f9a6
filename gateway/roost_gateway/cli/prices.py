"""`roost prices …`: the prices in force; and for operators what a price file says, what it changes, and what it would cost."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from roost_gateway.cli import show
from roost_gateway.cli.groups import group
from roost_gateway.cli.periods import check_month
from roost_gateway.cli.session import Session, command
from roost_gateway.client import Document
from roost_platform.billing.price_check import Finding, check_prices
from roost_platform.billing.price_diff import State, diff, state_of
from roost_platform.billing.price_file import FILE_LIMIT
from roost_platform.billing.price_values import Problem
from roost_platform.billing.prices import PriceBooks
from roost_platform.billing.skus import MEASURES, Sku
from roost_platform.domain.errors import RoostError

app = group("Show the prices in force; check, compare and try out price files.", example="roost prices")

_UNITS = {
    (1_000_000, "microseconds"): "second",
    (2**30, "bytes"): "GiB",
    (2**30 * 3600, "byte-seconds"): "GiB and hour",
}

File = Annotated[Path, typer.Argument(metavar="FILE", help="A price file (TOML).")]
Book = Annotated[
    str, typer.Argument(metavar="FILE[#VERSION]", help="A price file, and which of its books [the newest].")
]


@command(app, "show", example="roost prices show")
def show_prices(session: Session) -> None:
    """Show the prices in force: what your tenant pays. `show` may be left out."""
    with session.connect() as roost:
        session.emit(roost.prices(), _show_prices)


@command(app, "check", example="roost prices check prices.toml")
def check(session: Session, file: File) -> None:
    """Explain every mistake in a price file, each with its line. Exit status 1 if there is one; asks no server."""
    books, findings = _check(file)
    document: Document = {"file": str(file), "ok": books is not None, "problems": [each.to_json() for each in findings]}
    if books is not None:
        document |= {
            "currency": books.currency,
            "books": [book.version for book in books.books],
            "tenants": sorted({terms.tenant for terms in books.terms}),
        }

    def human(_: Document) -> None:
        if books is None:
            _explain(file, findings)
        else:
            tenants = ", ".join(document["tenants"]) or "nobody"
            show.say(f"{file} is good: books {', '.join(document['books'])} in {books.currency}; terms of {tenants}.")

    session.emit(document, human)
    if books is None:
        raise typer.Exit(1)


@command(app, "diff", example="roost prices diff prices.toml#2026-10 new.toml")
def diff_prices(session: Session, before: Book, after: Book) -> None:
    """Show what one book changes against another: for everybody, then for each tenant with terms of its own.

    Beside a book counts what tenants have agreed by the time that the next book comes into force.
    """
    try:
        changes = diff(_state(before), _state(after))
    except RoostError as error:
        show.error(f"Error: {error.message}")
        raise typer.Exit(1) from None
    document: Document = {"before": before, "after": after, "changes": [change.to_json() for change in changes]}
    session.emit(document, _show_diff)


@command(app, "what-if", example="roost prices what-if new.toml --month 2026-10")
def what_if(
    session: Session,
    file: File,
    month: Annotated[str, typer.Option("--month", metavar="YYYY-MM", help="The month to rate again (UTC).")],
) -> None:
    """Show what a month would have cost with the prices in FILE (operator); of one tenant with --tenant. Keeps nothing."""
    check_month(month, now=datetime.now(UTC), hint="--month")
    content = _read(file)
    if isinstance(content, Problem):
        raise typer.BadParameter(content.wanted, param_hint="FILE")
    with session.connect(as_operator=True) as roost:
        session.emit(roost.what_if(content, month), _show_what_if)


def _state(named: str) -> State:
    """`file` or `file#version`. Ends the command when the file is not a good one."""
    path, version = Path(named), None
    if not path.exists() and "#" in named:
        name, _, version = named.rpartition("#")
        path = Path(name)
    books, findings = _check(path)
    if books is None:
        _explain(path, findings)
        raise typer.Exit(1)
    return state_of(books, version)


def _check(file: Path) -> tuple[PriceBooks | None, tuple[Finding, ...]]:
    content = _read(file)
    return (None, (Finding(None, content),)) if isinstance(content, Problem) else check_prices(content)


def _read(file: Path) -> str | Problem:
    """The file's text. Ends the command when there is none."""
    try:
        with file.open("rb") as stream:
            content = stream.read(FILE_LIMIT + 1)
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be read: {error.strerror}", param_hint="FILE") from None
    if len(content) > FILE_LIMIT:
        return Problem("", "", f"the file is larger than {FILE_LIMIT} bytes")
    try:
        return content.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        return Problem("", "", f"the file is not UTF-8 text: see line {line}")


def _explain(file: Path, findings: tuple[Finding, ...]) -> None:
    show.error(f"{file}: {len(findings)} problem{'s' if len(findings) > 1 else ''}")
    for finding in findings:
        show.error(f"  {finding}")
    if not any(finding.problem.key for finding in findings):
        show.error("What its prices mean is checked once it can be read.")


def _show_prices(document: Document) -> None:
    since = show.time(document["effective_from"])
    show.say(f"Price book {document['version']}, {document['currency']}, in force since {since}")
    show.table(["ITEM", "CLASS", "UNITS", "PRICE"], (_price_row(price) for price in document["prices"]))
    for free in document.get("free", ()):
        show.say(f"Free each month: {free['quantity']:,} {free['unit']} of {free['sku']}.")
    terms = document.get("terms")
    if terms:
        until = f" until {show.time(terms['until'])}" if terms["until"] else ""
        show.say(f"With the terms of {terms['tenant']} since {show.time(terms['effective_from'])}{until}.")


def _price_row(price: Document) -> tuple[str, ...]:
    per = _UNITS.get((price["per"], price["unit"]), f"{price['per']:,} {price['unit']}")
    tier = ""
    if price.get("tier"):
        bound = "the rest" if price["up_to"] is None else f"up to {price['up_to']:,} {price['count']}"
        tier = f"{bound} ({price['mode']})"
    return price["sku"], _class(price.get("class", "")), tier, f"{price['unit_price']} per {per}"


def _show_diff(document: Document) -> None:
    if not document["changes"]:
        show.say("No price changes.")
        return

    def row(change: Document) -> tuple[Any, ...]:
        units = " ".join(part for part in (change["tier"], change["mode"] and f"({change['mode']})") if part)
        item = change["sku"] if change["what"] == "price" else " ".join(filter(None, (change["sku"], change["what"])))
        percent = None if change["percent"] is None else f"{_signed(change['percent'])} %"
        return (
            *(
                change["tenant"] or "everybody",
                item,
                _class(change["variant"] if _has_classes(change["sku"]) else ""),
                units,
            ),
            *(change["before"], change["after"], change["difference"] and _signed(change["difference"]), percent),
        )

    columns = ["FOR", "ITEM", "CLASS", "UNITS", "BEFORE#", "AFTER#", "CHANGE#", "PERCENT#"]
    show.table(columns, (row(change) for change in document["changes"]))


def _show_what_if(document: Document) -> None:
    def row(each: Document, name: str) -> tuple[Any, ...]:
        percent = None if each["percent"] is None else f"{_signed(each['percent'])} %"
        return name, each["billed"], each["other"], _signed(each["difference"]), percent

    show.say(f"{document['month']}, {document['currency']}: the prices in force, and those of the file")
    show.table(
        ["TENANT", "BILLED#", "WITH FILE#", "DIFFERENCE#", "PERCENT#"],
        (row(each, each["tenant"]) for each in document["tenants"]),
        footer=row(document["total"], "total"),
    )


def _class(name: str) -> str:
    return "any other" if name == "*" else name


def _has_classes(sku: str) -> bool:
    return sku in set(Sku) and MEASURES[Sku(sku)].by_class


def _signed(number: str) -> str:
    return number if number.startswith("-") or not number.strip("0.") else f"+{number}"
