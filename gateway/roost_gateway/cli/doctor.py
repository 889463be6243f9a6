"""`roost doctor`: whether an installation has what it needs, and what to do where it has not. Asks no server of ours."""

from pathlib import Path
from typing import Annotated, Any

import typer

from roost_gateway.cli import show
from roost_gateway.cli.serve import settings_of

app = typer.Typer()


@app.command("doctor", epilog="Example: roost doctor --data /srv/roost")
def doctor(
    data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Everything kept is here [default: ./roost-data].")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look at store, database, engine (and its cluster), clock and limits, with the settings of `roost serve`. Changes nothing.

    Exit status 1 when anything fails.
    """
    from roost_gateway.doctor.judging import Verdict, failed  # noqa: PLC0415 - the other commands must not wait for them
    from roost_gateway.doctor.looking import examine  # noqa: PLC0415 - as above

    chosen: dict[str, Any] = {} if data is None else {"data": data}
    findings = examine(settings_of(chosen))
    if json_output:
        show.json_document({"ok": not failed(findings), "findings": [finding.to_json() for finding in findings]})
    else:
        show.table(("part", "verdict", "says"), [(f.part, f.verdict.value, f.says) for f in findings])
        for finding in findings:
            if finding.do:
                show.say(f"{'Must' if finding.verdict is Verdict.FAIL else 'Should'} ({finding.part}): {finding.do}")
    if failed(findings):
        raise typer.Exit(1)
