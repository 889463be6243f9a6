"""The `roost` command's entry point; says what to install when the gateway's libraries are missing."""

import sys
from importlib.util import find_spec


def main() -> None:
    """Run the command line; the exit status is described in `roost_gateway.cli`."""
    if any(find_spec(library) is None for library in ("typer", "rich", "httpx")):
        sys.stderr.write("The roost command needs the gateway's libraries: pip install 'roost[gateway]'\n")
        sys.exit(1)
    from roost_gateway.cli.app import app  # noqa: PLC0415 - after the check above

    app()


if __name__ == "__main__":
    main()
