"""How the command prints: tables and sentences for people, JSON for programs.

What the server says may hold what a tenant wrote (tensor names, a model's log), so control characters never reach the
terminal and nothing is read as markup. rich is loaded by the first table.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

_PIPE_WIDTH = 200  # a table that goes to a file or a pipe should not be folded at 80 columns


def console(*, err: bool = False) -> "Console":
    from rich.console import Console  # noqa: PLC0415 - slow to import

    stream = sys.stderr if err else sys.stdout
    width = None if stream.isatty() else _PIPE_WIDTH
    return Console(stderr=err, width=width, markup=False, highlight=False, emoji=False)


def say(text: str = "") -> None:
    typer.echo(plain(text))


def error(text: str) -> None:
    typer.echo(plain(text), err=True)


def json_document(document: Any, *, err: bool = False) -> None:
    typer.echo(json.dumps(document, indent=2), err=err)  # ASCII only, so no control character gets through


def json_line(document: Any) -> None:
    typer.echo(json.dumps(document))


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, footer: Sequence[Any] | None = None) -> None:
    """Print a table; columns whose name ends in `#` (not shown) hold figures, flush right."""
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - slow to import
    from rich.table import Table  # noqa: PLC0415 - slow to import

    grid = Table(box=SIMPLE_HEAD, show_footer=footer is not None, pad_edge=False)
    for index, column in enumerate(columns):
        last = plain(footer[index]) if footer is not None else ""
        right = column.endswith("#")
        grid.add_column(column.rstrip("#"), justify="right" if right else "left", footer=last, overflow="fold")
    for row in rows:
        grid.add_row(*(plain(cell) for cell in row))
    console().print(grid)


def plain(value: Any) -> str:
    """`value` as text without characters that a terminal would act on; None is a dash."""
    if value is None:
        return "-"
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in str(value).expandtabs())


def size(count: int) -> str:
    """Bytes for people: `19.2 KB` (decimal, as disks and networks are sold)."""
    value = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def duration(microseconds: int) -> str:
    """Microseconds for people: `830 µs`, `12.4 ms`, `3.1 s`."""
    if microseconds < 1000:
        return f"{microseconds} µs"
    if microseconds < 1_000_000:
        return f"{microseconds / 1000:.1f} ms"
    return f"{microseconds / 1_000_000:.1f} s"


def long_duration(microseconds: int) -> str:
    """As `duration`, but what lasts longer than a minute in two units: `12 min 04 s`, `31 h 05 min`."""
    seconds = microseconds // 1_000_000
    if seconds < 60:
        return duration(microseconds) if microseconds else "0 s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600:,} h {seconds % 3600 // 60:02d} min"


def byte_hours(byte_seconds: int) -> str:
    """Byte-seconds for people: `1.5 GiB h` (binary, as storage is priced)."""
    value = byte_seconds / 3600
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit} h" if unit == "B" else f"{value:.1f} {unit} h"
        value /= 1024
    return f"{value:,.1f} TiB h"


def time(text: str | None) -> str:
    """An ISO time as `2026-11-22 15:04:05Z`; anything else as it is."""
    try:
        return datetime.fromisoformat(text or "").strftime("%Y-%m-%d %H:%M:%SZ")
    except ValueError:
        return text or "-"


def signature(document: dict[str, Any]) -> None:
    """A version's inputs and outputs; -1 in a shape means any length."""
    table(
        ["", "TENSOR", "DATATYPE", "SHAPE"],
        (
            (side, tensor["name"], tensor["datatype"], str(tensor["shape"]))
            for side, key in (("input", "inputs"), ("output", "outputs"))
            for tensor in document[key]
        ),
    )
