"""`roost shadow`: copy a model's calls to another version, and see how its answers differ."""

from typing import Annotated, Any

import typer

from roost_gateway.cli import show
from roost_gateway.cli.comparing import Absolute, Compare, Relative, Top, comparison
from roost_gateway.cli.models import Model
from roost_gateway.cli.session import Session, command
from roost_gateway.client import Document

app = typer.Typer()


@command(app, "shadow", example="roost shadow iris --to 4 --percent 10 --compare rank")
def shadow(
    session: Session,
    model: Model,
    *,
    to: Annotated[
        int | None, typer.Option(min=1, metavar="VERSION", help="Copy calls to this version from now on.")
    ] = None,
    percent: Annotated[int, typer.Option(min=1, max=100, help="Of the calls that other versions answer.")] = 100,
    wake: Annotated[
        bool, typer.Option("--wake", help="A copy may wake the version; else it gets none while asleep.")
    ] = False,
    keep_bodies: Annotated[
        bool, typer.Option("--keep-bodies", help="Keep bodies with the examples of differences.")
    ] = False,
    compare: Compare = "values",
    top: Top = 1,
    relative: Relative = None,
    absolute: Absolute = None,
    off: Annotated[bool, typer.Option("--off", help="Copy no more, and forget what was counted.")] = False,
) -> None:
    """Copy a model's calls to a version that nobody gets answers of, and compare its answers. Alone: show what came of it."""
    if off and to is not None:
        raise typer.BadParameter("one thing at a time", param_hint="--to, --off")
    with session.connect() as roost:
        if off:
            roost.end_shadow(model)
            session.emit({"model": model, "shadow": None}, lambda _: show.say(f"{model} has no shadow any more."))
        elif to is None:
            session.emit(roost.shadow(model), _show)
        else:
            how = comparison(compare, top=top, relative=relative, absolute=absolute)
            wish: dict[str, Any] = {
                "to": to,
                "percent": percent,
                "wake": wake,
                "keep_bodies": keep_bodies,
                "compare": how,
            }
            session.emit(roost.set_shadow(model, wish), _show)


def _show(shadow: Document) -> None:
    how = shadow["compare"]
    by = how["path"] if how["by"] == "path" else f"the first {how['top']} by rank" if how["by"] == "rank" else "values"
    awake = "" if shadow["wake"] else " while it is awake"
    show.say(f"{shadow['percent']} % of calls are copied to version {shadow['to']}{awake}, compared by {by}.")
    compared = shadow["alike"] + shadow["differed"]
    share = f" ({shadow['differed'] / compared:.2%})" if compared else ""
    show.say(
        f"Since {show.time(shadow['began_at'])}: {shadow['answered']:,} answered, {shadow['alike']:,} alike,"
        f" {shadow['differed']:,} different{share}; largest difference {shadow['largest_difference']:.4g}."
    )
    if shadow["answered"]:
        served, copied = (
            shadow[name] / shadow["answered"] / 1000 for name in ("served_compute_us", "copied_compute_us")
        )
        show.say(f"Compute of a call, on average: {served:.3f} ms as served, {copied:.3f} ms as copied.")
    for title, counts in (
        ("Different", shadow["differences"]), ("Not compared", shadow["uncompared"]),
        ("Failed", shadow["failed"]), ("Not copied", shadow["dropped"]),
    ):  # fmt: skip
        if counts:
            show.say(f"{title}: {', '.join(f'{name} {count:,}' for name, count in sorted(counts.items()))}")
    if shadow["examples"]:
        show.table(
            ["WHEN", "REQUEST ID", "VERSION#", "DIFFERENCE", "WHERE"],
            (
                (show.time(one["at"]), one["request_id"], one["version"], one["difference"], one["where"])
                for one in shadow["examples"]
            ),
        )
