"""Groups of commands of which one may be left out: `roost bill 2026-10` is `roost bill show 2026-10`."""

from typing import Any

import typer
from typer.core import TyperGroup


class ShowsByDefault(TyperGroup):
    """Give this to `typer.Typer(cls=…)`; the group then needs a command `show`.

    It is meant whenever the first word is no other command: an argument of its own, an option, or nothing.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        first = args[0] if args else ""
        if first not in self.commands and first not in self.get_help_option_names(ctx):
            args = ["show", *args]
        return super().parse_args(ctx, args)


def group(help_text: str, *, example: str) -> typer.Typer:
    return typer.Typer(cls=ShowsByDefault, help=help_text, epilog=f"Example: {example}", rich_markup_mode=None)
