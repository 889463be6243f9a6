"""`roost rollout`: begin a rollout that judges itself, look at it, pause, resume or abort it."""

import re
from typing import Annotated, Any

import typer

from roost_gateway.cli import show
from roost_gateway.cli.comparing import Absolute, Compare, Relative, Top, comparison
from roost_gateway.cli.models import Model
from roost_gateway.cli.session import Session, command
from roost_gateway.client import Document

app = typer.Typer()

_TIME = re.compile(r"(\d+)(s|m|h|d)?")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, None: 1}


@command(
    app, "rollout", example="roost rollout iris --to 5 --steps 5,25,50,100 --every 10m --guard p99<120ms,errors<0.5%"
)
def rollout(
    session: Session,
    model: Model,
    *,
    to: Annotated[
        int | None, typer.Option(min=1, metavar="VERSION", help="Begin: this version is to take over.")
    ] = None,
    steps: Annotated[str, typer.Option(metavar="PERCENTS", help="Of the calls, ascending.")] = "5,25,50,100",
    every: Annotated[str, typer.Option(metavar="TIME", help="The least time for a step, as in 90s, 10m, 1h.")] = "10m",
    guard: Annotated[
        str | None, typer.Option(metavar="LIMITS", help="As in p99<120ms,errors<0.5%,disagreement<1%; needed to begin.")
    ] = None,
    minimum: Annotated[int, typer.Option(min=1, help="Calls of each version before a step is passed.")] = 100,
    compare: Compare = "values",
    top: Top = 1,
    relative: Relative = None,
    absolute: Absolute = None,
    pause: Annotated[bool, typer.Option("--pause", help="Take no further step.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on.")] = False,
    abort: Annotated[bool, typer.Option("--abort", help="End it; the old version serves all calls again.")] = False,
) -> None:
    """Bring a version into service step by step, as long as its calls are no worse than the old one's. Alone: show it."""
    wishes = [name for name, wished in (("pause", pause), ("resume", resume), ("abort", abort)) if wished]
    if len(wishes) + (to is not None) > 1:
        raise typer.BadParameter("one thing at a time", param_hint="--to, --pause, --resume, --abort")
    with session.connect() as roost:
        if wishes:
            session.emit(roost.change_rollout(model, wishes[0]), _show)
        elif to is None:
            session.emit(roost.rollouts(model), _show_all)
        else:
            if guard is None:
                raise typer.BadParameter(
                    "say what the version must keep: --guard p99<120ms,errors<0.5%", param_hint="--guard"
                )
            wish: dict[str, Any] = {"to": to, "steps": _percents(steps), "every_s": _seconds(every)}
            wish |= {"guard": guard, "minimum": minimum}
            wish["compare"] = comparison(compare, top=top, relative=relative, absolute=absolute)
            session.emit(roost.begin_rollout(model, wish), _show)


def _percents(text: str) -> list[int]:
    parts = [part.strip().removesuffix("%") for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise typer.BadParameter(f"{text!r} is not like 5,25,50,100", param_hint="--steps")
    return [int(part) for part in parts]


def _seconds(text: str) -> int:
    match = _TIME.fullmatch(text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a time like 90s, 10m or 1h", param_hint="--every")
    return int(match[1]) * _SECONDS[match[2]]


def _show_all(document: Document) -> None:
    if not document["rollouts"]:
        show.say("no rollout yet; begin one with: roost rollout MODEL --to VERSION --guard p99<120ms,errors<0.5%")
        return
    _show(document["rollouts"][0])
    for older in document["rollouts"][1:]:
        show.say(f"before: {show.time(older['began_at'])}  {_title(older)}")


def _show(rollout: Document) -> None:
    show.say(_title(rollout))
    show.say(
        f"steps {', '.join(f'{step} %' for step in rollout['steps'])}, each at least {rollout['every_s']} s; {rollout['guard']}"
    )
    show.table(
        ["WHEN", "WHO", "WHAT", "SHARE#", "WHY"],
        (
            (
                show.time(event["at"]),
                event["by"],
                event["what"],
                f"{event['facts'].get('percent', '')} %",
                "; ".join([event["facts"].get("reason", ""), *_numbers(event["facts"])]).strip("; "),
            )
            for event in rollout["events"]
        ),
    )


def _title(rollout: Document) -> str:
    title = (
        f"version {rollout['from_version']} to {rollout['to_version']}: {rollout['state']} at {rollout['percent']} %"
    )
    return f"{title}: {rollout['reason']}" if rollout["reason"] else title


def _numbers(facts: Document) -> list[str]:
    return [
        f"{guard}: {sides['candidate']['bad']} of {sides['candidate']['calls']}"
        + (f" against {sides['serving']['bad']} of {sides['serving']['calls']}" if "serving" in sides else "")
        for guard, sides in facts.get("numbers", {}).items()
    ]
