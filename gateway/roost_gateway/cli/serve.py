"""`roost serve`, `roost migrate` and `roost version`: the commands that need no server."""

import gc
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from roost_gateway.cli import show

if TYPE_CHECKING:
    from roost_gateway.settings import Settings

app = typer.Typer()


@app.command("serve", epilog="Example: roost serve --port 9000 --data /srv/roost")
def serve(
    host: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Listen here [default: 127.0.0.1].")] = None,
    port: Annotated[
        int | None, typer.Option(metavar="PORT", help="Listen here; 0 = a free one [default: 8000].")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Everything kept is here [default: ./roost-data].")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(metavar="ENGINE", help="What runs models: local, knative or ray [default: local].")
    ] = None,
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="With ray: one that runs; else one is started here.")
    ] = None,
) -> None:
    """Run the server until SIGTERM or Ctrl-C. Every setting can come from the environment: ROOST_PORT, ROOST_LOCAL_SPARES…"""
    gc.disable()  # nothing that is imported or loaded at start is garbage: `run` collects once, at the end of that
    # The other commands must not wait for the server's imports.
    from roost_gateway.main import run  # noqa: PLC0415

    chosen: dict[str, Any] = {"host": host, "port": port, "data": data, "engine": engine}
    if address is not None:
        chosen["ray"] = {"address": address}
    run(settings_of({name: value for name, value in chosen.items() if value is not None}))


@app.command("migrate", epilog="Example: ROOST_DATABASE_URL=postgresql+psycopg://roost@db/roost roost migrate")
def migrate(
    data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Everything kept is here [default: ./roost-data].")
    ] = None,
) -> None:
    """Bring the database to this release, and end. With SQLite `roost serve` does it by itself when it starts."""
    from roost_gateway.migration import run  # noqa: PLC0415 - as above

    run(settings_of({} if data is None else {"data": data}))


def settings_of(chosen: dict[str, Any]) -> "Settings":
    """The settings, `chosen` before the environment. Ends with status 2 and the variable's name when one is wrong."""
    from pydantic import ValidationError  # noqa: PLC0415 - as above

    from roost_gateway.settings import Settings  # noqa: PLC0415

    try:
        return Settings(**chosen)
    except ValidationError as error:
        themes: list[Any] = [Settings, *(field.annotation for field in Settings.model_fields.values())]
        prefixes = {t.__name__: t.model_config["env_prefix"] for t in themes if hasattr(t, "model_config")}
        for problem in error.errors(include_input=False):  # an input may be a key
            variable = prefixes.get(error.title, "") + "_".join(str(part) for part in problem["loc"])
            of = f"{variable.upper()}: " if problem["loc"] else ""  # no place: several do not fit each other
            show.error(f"Error: {of}{problem['msg'].removeprefix('Value error, ')}")
        raise typer.Exit(2) from None


@app.command("version", epilog="Example: roost version")
def show_version(json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print the version of this command."""
    if json_output:
        show.json_document({"version": version("roost")})
    else:
        show.say(f"roost {version('roost')}")
