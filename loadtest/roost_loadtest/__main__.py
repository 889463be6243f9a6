"""`python -m roost_loadtest run …`, `… worker`, `… report DIR`: the load tester as a program.

Exit status of `run` and `worker`: 0 done, 2 the order is wrong or the platform refused it, 3 nobody is there, 130 interrupted
(there is a record up to then). Of `report`: 0 passed, 1 failed, 2 the run proves nothing.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    if any(find_spec(library) is None for library in ("locust", "hdrh")):
        sys.stderr.write("The load tester needs its libraries: pip install 'roost[loadtest]'\n")
        return 2
    command, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if command == "run":
        return _run(rest)
    if command == "worker":
        return _worker(rest)
    if command == "report":
        return _report(rest)
    sys.stderr.write("usage: python -m roost_loadtest run|worker|report …\n")
    return 0 if command in {"-h", "--help"} else 2


def _run(arguments: Sequence[str]) -> int:
    import locust  # noqa: F401, PLC0415 - patches the process for gevent, which must come before all else

    from roost_loadtest import api, options  # noqa: PLC0415
    from roost_loadtest.live import Live  # noqa: PLC0415
    from roost_loadtest.outcome import RECORD  # noqa: PLC0415
    from roost_loadtest.platform_watch import watch_for  # noqa: PLC0415
    from roost_loadtest.run import Run  # noqa: PLC0415

    parser = argparse.ArgumentParser(prog="python -m roost_loadtest run", allow_abbrev=False)
    options.add_to(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress")
    chosen = parser.parse_args(arguments)
    del sys.argv[1:]  # Locust's web page would read them as its own
    try:
        order = options.order_of(chosen, os.environ)
        order.out.mkdir(parents=True, exist_ok=True)
        run = Run(order, watch=watch_for(order, os.environ), live=Live(order.plan.duration_s, quiet=chosen.quiet))
        record = run.run()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except (api.NotThere, ConnectionError, TimeoutError) as error:
        return _say(str(error), 3)
    except (ValueError, OSError, api.SaidNo) as error:
        return _say(str(error), 2)
    (order.out / RECORD).write_text(record.to_json(), encoding="utf-8")
    return _INTERRUPTED if run.interrupted else 0


def _worker(arguments: Sequence[str]) -> int:
    import locust  # noqa: F401, PLC0415 - as above

    from roost_loadtest.distributed import work_for  # noqa: PLC0415

    parser = argparse.ArgumentParser(prog="python -m roost_loadtest worker", allow_abbrev=False)
    parser.add_argument("--master", required=True, metavar="HOST:PORT", help="where the run was started with --bind")
    host, _, port = parser.parse_args(arguments).master.rpartition(":")
    try:
        work_for(host, int(port))
    except ValueError:
        return _say(f"{port!r} is no port", 2)
    except ConnectionError:
        return _say(f"no master at {host}:{port}", 3)
    return 0


def _report(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m roost_loadtest report", allow_abbrev=False)
    parser.add_argument("folder", type=Path, metavar="DIR", help="with a record.json; all else is written there")
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")
    chosen = parser.parse_args(arguments)
    from roost_loadtest.outcome import write  # noqa: PLC0415 - only now it is known that the libraries are there

    try:
        return write(chosen.folder, as_json=chosen.json)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return _say(f"{chosen.folder}: no record that this release can read: {error}", 2)


def _say(text: str, status: int) -> int:
    sys.stderr.write(f"Error: {text}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
