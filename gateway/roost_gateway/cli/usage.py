"""`roost usage`: what was metered, calls and resources."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from roost_gateway.cli import show
from roost_gateway.cli.periods import From, Period, To, chosen_period
from roost_gateway.cli.session import Session, command
from roost_gateway.cli.sheets import print_csv
from roost_gateway.client import Document

app = typer.Typer()

_Figures = dict[str, tuple[str, Callable[[int], str]]]
"""The columns of a table: each figure's heading, and how it is written for people."""


def _count(number: int) -> str:
    return f"{number:,}"


_CALLS: _Figures = {
    "requests": ("REQUESTS#", _count),
    "billed_requests": ("BILLED#", _count),
    "shadow_requests": ("COPIES#", _count),
    "rows": ("ROWS#", _count),
    "compute_us": ("COMPUTE#", show.duration),
    "queue_us": ("QUEUED#", show.duration),
    "cold_starts": ("COLD#", _count),
    "bytes_in": ("IN#", show.size),
    "bytes_out": ("OUT#", show.size),
    "errors": ("ERRORS#", _count),
}
_RESOURCES: _Figures = {
    "provisioned_us": ("PROVISIONED#", show.long_duration),
    "setup_us": ("SETUP#", show.long_duration),
    "active_us": ("ACTIVE#", show.long_duration),
    "idle_us": ("IDLE#", show.long_duration),
    "reserved_us": ("RESERVED#", show.long_duration),
    "cold_starts": ("COLD#", _count),
    "pull_us": ("PULL#", show.long_duration),
    "schedule_us": ("SCHEDULE#", show.long_duration),
    "load_us": ("LOAD#", show.long_duration),
    "byte_seconds": ("STORAGE#", show.byte_hours),
    "job_us": ("CHECKS#", show.long_duration),
}
_SELDOM = ("shadow_requests",)
"""Columns that a table has where there is something to show."""
_BY = "model, version, outcome, class, day, hour, meter, and for the operator tenant; with commas."


@command(app, "usage", example="roost usage --period 7d --by model,day")
def usage(
    session: Session,
    *,
    start: From = None,
    end: To = None,
    period: Period = None,
    by: Annotated[str, typer.Option(metavar="KEYS", help=_BY)] = "model",
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Only this model.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, in base units.")] = False,
) -> None:
    """Show calls, and what was held: replicas by state, cold starts, storage, checks; this month unless you say otherwise.

    Times are UTC unless they carry an offset. The operator names a tenant, or groups by tenant to see them all.
    """
    start, end = chosen_period(start, end, period, now=datetime.now(UTC))
    keys = [key.strip() for key in by.split(",")]
    with session.connect(as_operator="tenant" in keys) as roost:
        document = roost.usage(start=start, end=end, model=model, group_by=by)
    session.emit(document, _print_csv if as_csv else _show)


def _print_csv(document: Document) -> None:
    if meters := document.get("meters"):
        own = ("meter", "quantity", "unit")
        print_csv([*(key for key in meters[0] if key not in own), *own], meters)
        return
    calls, resources = document["rows"], document["resources"]["rows"]
    keys = list(dict.fromkeys([*document["group_by"], *document["resources"]["group_by"]]))
    print_csv([*keys, *(name for name in _COLUMNS if name not in keys)], _joined(keys, calls, resources))


_COLUMNS = (*_CALLS, "cold_start_us", *(name for name in _RESOURCES if name != "cold_starts"), "replica_cold_starts")


def _joined(keys: list[str], calls: list[Document], resources: list[Document]) -> list[Document]:
    """One row for each group; the figures that a group has none of are empty."""
    groups: dict[tuple[Any, ...], Document] = {}
    renamed = [
        {"replica_cold_starts" if name == "cold_starts" else name: value for name, value in row.items()}
        for row in resources
    ]
    for row in (*calls, *renamed):
        groups.setdefault(tuple(row.get(key, "") for key in keys), {}).update(row)
    return list(groups.values())


def _show(document: Document) -> None:
    who = document["tenant"] or "all tenants"
    show.say(f"{who}: {show.time(document['from'])} to {show.time(document['to'])}")
    if "meters" in document:
        _show_meters(document["meters"])
        return
    show.say("\nCalls")
    _show_table(document, _CALLS)
    resources = document["resources"]
    if resources["rows"]:
        show.say("Resources")
        _show_table(resources, _RESOURCES)
    else:
        show.say("No replica ran, nothing was stored and no upload was checked in this time.")


def _show_table(report: Document, figures: _Figures) -> None:
    """The keys of the report, then its figures, then their sums."""
    keys = report["group_by"]
    figures = {name: told for name, told in figures.items() if name not in _SELDOM or report["total"][name]}

    def cells(row: Document) -> list[str]:
        return [write(row[name]) for name, (_, write) in figures.items()]

    show.table(
        [*(key.upper() for key in keys), *(heading for heading, _ in figures.values())],
        ([*(row[key] or "-" for key in keys), *cells(row)] for row in report["rows"]),
        footer=["total", *[""] * (len(keys) - 1), *cells(report["total"])] if keys else None,
    )


def _show_meters(meters: list[Document]) -> None:
    if not meters:
        show.say("Nothing was metered in this time.")
        return
    keys = [key for key in meters[0] if key not in ("meter", "quantity", "unit")]
    show.table(
        [*(key.upper() for key in keys), "METER", "QUANTITY#"],
        ([*(row[key] or "-" for key in keys), row["meter"], _quantity(row)] for row in meters),
    )


def _quantity(row: Document) -> str:
    write = {"microseconds": show.long_duration, "bytes": show.size, "byte-seconds": show.byte_hours}.get(row["unit"])
    return write(row["quantity"]) if write else f"{row['quantity']:,} {row['unit']}"
