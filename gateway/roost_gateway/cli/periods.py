"""The stretch of time a report is about: `--period last-month`, or `--from` and `--to`."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from roost_gateway.cli.session import iso_time

From = Annotated[str | None, typer.Option("--from", metavar="TIME", help="ISO 8601, from then on.")]
To = Annotated[str | None, typer.Option("--to", metavar="TIME", help="Up to, not including.")]
Period = Annotated[
    str | None,
    typer.Option(metavar="PERIOD", help="this-month, last-month, today or e.g. 7d (today and 6 days before)."),
]
MonthOption = Annotated[str | None, typer.Option("--month", metavar="YYYY-MM", help="Default: this month (UTC).")]

_DAYS = re.compile(r"([1-9][0-9]{0,2})d")
_MONTH = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")


def chosen_period(
    start: str | None, end: str | None, period: str | None, *, now: datetime
) -> tuple[str | None, str | None]:
    """(from, to) in ISO 8601; None where the server's default is meant. Ends the command when they do not fit together."""
    if period is None:
        return iso_time(start, hint="--from"), iso_time(end, hint="--to")
    if start is not None or end is not None:
        raise typer.BadParameter("say either --period or --from and --to", param_hint="--period")
    first, last = _between(period, now.astimezone(UTC))
    return first.isoformat(), last.isoformat()


def check_month(text: str | None, *, now: datetime, hint: str) -> str:
    """A month like 2026-11; this one where none is named."""
    if text is None:
        return f"{now.astimezone(UTC):%Y-%m}"
    if not _MONTH.fullmatch(text):
        raise typer.BadParameter(f"{text!r} is not a month like 2026-11", param_hint=hint)
    return text


def _between(period: str, now: datetime) -> tuple[datetime, datetime]:
    """[from, to) in UTC."""
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    this_month = today.replace(day=1)
    tomorrow = today + timedelta(days=1)
    named = {
        "this-month": (this_month, (this_month + timedelta(days=31)).replace(day=1)),
        "last-month": ((this_month - timedelta(days=1)).replace(day=1), this_month),
        "today": (today, tomorrow),
    }
    if period in named:
        return named[period]
    if days := _DAYS.fullmatch(period):
        return tomorrow - timedelta(days=int(days[1])), tomorrow
    raise typer.BadParameter(
        f"{period!r} is none of this-month, last-month, today or a number of days such as 7d", param_hint="--period"
    )
