"""Options of commands that compare two versions' answers."""

from typing import Annotated, Any

import typer

Compare = Annotated[
    str,
    typer.Option(
        metavar="HOW", help="values, rank (the highest scores in their order), or a JSON path that begins with $."
    ),
]
Top = Annotated[int, typer.Option(min=1, help="With rank: so many of the highest scores.")]
Relative = Annotated[
    float | None, typer.Option(min=0, metavar="SHARE", help="Numbers so near are alike; else as the datatype has it.")
]
Absolute = Annotated[float | None, typer.Option(min=0, metavar="DISTANCE", help="The same, in units of the output.")]


def comparison(how: str, *, top: int, relative: float | None, absolute: float | None) -> dict[str, Any]:
    """As the API takes it."""
    if how.startswith("$"):
        said = {"by": "path", "path": how}
    elif how in ("values", "rank"):
        said = {"by": how}
    else:
        raise typer.BadParameter(
            f"{how!r} is neither values nor rank nor a path like $.outputs[0].data", param_hint="--compare"
        )
    return said | {"top": top, "relative": relative, "absolute": absolute}
