"""`roost drift …`: whether what a model is asked and answers still looks as it did, and whether it is still right."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from roost_gateway.cli import show
from roost_gateway.cli.groups import group
from roost_gateway.cli.models import Model
from roost_gateway.cli.session import Session, command
from roost_gateway.client import Document

app = group("Show a model's drift and quality; say what is looked at; tell what was true.", example="roost drift iris")

_MOST_SHOWN = 20
_File = Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="A JSON file.")]
_FEEDBACK_AT_ONCE = 1000


@command(app, "show", example="roost drift iris --against 3")
def show_drift(
    session: Session,
    model: Model,
    *,
    against: Annotated[
        int | None, typer.Option(metavar="VERSION", min=1, help="Compare the other versions with this one as well.")
    ] = None,
) -> None:
    """Show each version beside its reference, and what feedback said. `show` may be left out."""
    with session.connect() as roost:
        session.emit(roost.drift(model, against=against), _show)


@command(app, "set", example="roost drift set iris --rate 5 --skip name --keep-answers")
def set_drift(
    session: Session,
    model: Model,
    *,
    rate: Annotated[float, typer.Option(min=0, max=100, help="Calls looked at a second, at most; 0 = none.")] = 1.0,
    skip: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="An input or output not to look at; more than once.")
    ] = None,
    keep_answers: Annotated[bool, typer.Option("--keep-answers", help="Keep answers 7 days, for feedback.")] = False,
    reference_rows: Annotated[int, typer.Option(min=100, max=10_000, help="First rows that are the reference.")] = 1000,
) -> None:
    """Say what is looked at, in place of what was said before."""
    wish = {"rate": rate, "skip": skip or [], "keep_answers": keep_answers, "reference_rows": reference_rows}
    with session.connect() as roost:
        session.emit(roost.set_drift(model, wish), _show_wish)


@command(app, "reference", example="roost drift reference iris 2 training.json")
def reference(
    session: Session,
    model: Model,
    version: Annotated[int, typer.Argument(metavar="VERSION", min=1, help="Number.")],
    file: _File,
) -> None:
    """Give a version its reference: `inputs` and `outputs` as in a prediction and its answer, with all rows."""
    with session.connect() as roost:
        document = roost.set_reference(model, version, _read(file))
    session.emit(
        document, lambda made: show.say(f"{made['rows']:,} rows, {len(made['features'])} features and outputs.")
    )


@command(app, "feedback", example="roost drift feedback iris labels.json")
def feedback(session: Session, model: Model, file: _File) -> None:
    """Tell what was true: a list of {"request_id": …, "labels": […], "group": …}."""
    items = _read(file)
    if not isinstance(items, list) or not items:
        raise typer.BadParameter("it must hold a list", param_hint="FILE")
    told = {"taken": 0, "again": 0, "unknown": 0}
    with session.connect() as roost:
        for begin in range(0, len(items), _FEEDBACK_AT_ONCE):
            answer = roost.give_feedback(model, items[begin : begin + _FEEDBACK_AT_ONCE])
            told = {name: count + answer[name] for name, count in told.items()}
    session.emit(told, lambda sums: show.say("{taken} taken, {again} told before, {unknown} unknown.".format(**sums)))


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise typer.BadParameter(f"{file} is not JSON", param_hint="FILE") from error


def _show(document: Document) -> None:
    _show_wish(document["settings"])
    for version in document["versions"]:
        told = version["reference"]
        origin = {"calls": "its first calls", "file": "a file"}[told["origin"]]
        show.say(
            f"\nVersion {version['version']}: {version['rows']:,} rows since {show.time(version['since'])}, beside"
            f" {told['rows']:,} rows of {origin}; outliers {version['outliers']:.1%}, missing {version['missing']:.1%}"
        )
        _show_shifts(version["features"])
        if version["against"]:
            show.say("Against the other version:")
            _show_shifts(version["against"])
    if not document["versions"]:
        show.say("No version has a reference yet: it is made of the first calls that are looked at.")
    if document["quality"]:
        _show_quality(document["quality"])


def _show_wish(wish: Document) -> None:
    if not wish["rate"]:
        show.say("Nothing is looked at.")
        return
    skipped = f", but not {', '.join(wish['skip'])}" if wish["skip"] else ""
    kept = "; answers are kept for feedback" if wish["keep_answers"] else ""
    show.say(f"Up to {wish['rate']:g} calls a second are looked at by each gateway{skipped}{kept}.")


def _show_shifts(shifts: list[Document]) -> None:
    ordered = sorted(shifts, key=lambda shift: not shift["alarm"])
    show.table(
        ["FEATURE", "VALUES#", "PSI#", "KS#", "OUTSIDE#", "MISSING#", "VERDICT"],
        (
            (
                shift["feature"],
                f"{shift['values']:,}",
                f"{shift['psi']:.3f}",
                f"{shift['ks']:.3f}",
                f"{shift['outside']:.1%}",
                f"{shift['missing']:.1%}",
                "shifted" if shift["alarm"] else "",
            )
            for shift in ordered[:_MOST_SHOWN]
        ),
    )
    if len(shifts) > _MOST_SHOWN:
        show.say(f"… and {len(shifts) - _MOST_SHOWN} more, less shifted.")


def _show_quality(rows: list[Document]) -> None:
    show.table(
        ["VERSION", "DAY", "GROUP", "ANSWERS#", "RIGHT#", "BIAS#", "ERROR#"],
        (
            (
                row["version"],
                row["day"] or "all",
                "all" if row["group"] is None else row["group"] or "(none)",
                f"{row['answers']:,}",
                _percent(row["accuracy"]),
                _number(row["bias"]),
                _number(row["error"]),
            )
            for row in rows
        ),
    )


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{value:.1%}"


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:+.4g}"
