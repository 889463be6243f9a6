"""The command `roost logs`: what a model's replicas printed, and what they print."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from roost_gateway.cli import show
from roost_gateway.cli.session import Session, command, iso_time
from roost_gateway.client import Document

app = typer.Typer()

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@command(app, "logs", example="roost logs iris --since 10m --follow")
def logs(  # noqa: PLR0917 - the options of a command are its parameters
    session: Session,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model.")],
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=1000, help="The last so many lines.")] = 100,
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Only after this: 30s, 10m, 2h, 1d ago, or a time (UTC).")
    ] = None,
    replica: Annotated[str | None, typer.Option(metavar="NAME", help="Only this replica.")] = None,
    revision: Annotated[str | None, typer.Option(metavar="NAME", help="Only this revision.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
) -> None:
    """Print what a model's replicas printed. With --json, a JSON object a line."""
    after = moment(since, datetime.now(UTC))
    with session.connect() as roost:
        try:
            while True:
                for line in roost.logs(
                    model, limit=lines, since=after, replica=replica, revision=revision, follow=follow
                ):
                    after = line["time"]
                    _print(session, line)
                if not follow:
                    return
                # The server ends an answer after a while, or when it is stopped: go on where it ended.
        except KeyboardInterrupt:
            raise typer.Exit(0) from None


def moment(text: str | None, now: datetime) -> str | None:
    """A time, or how long ago it was, as ISO 8601. Raises BadParameter."""
    ago = re.fullmatch(r"(\d{1,6})([smhd])", text or "")
    if ago:
        return (now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})).isoformat()
    return iso_time(text, hint="--since")


def _print(session: Session, line: Document) -> None:
    if session.json_output:
        show.json_line(line)
    else:
        show.say(f"{show.time(line['time'])}  {line['revision']}  {line['replica'] or '-'}  {line['text']}")
