"""The checker: judges one uploaded file and says so in one line of JSON. It is thrown away after each file.

    python -m roost_runtimes.check MODEL --bake-dir FOLDER      the verdict; a baked model in FOLDER when it is good
    python -m roost_runtimes.check --build-key                  the key that baked models of this machine go under

An uploaded model is a program, and the libraries that read it have had memory-safety bugs: so this process limits its
memory, processor time and files, and gives up the network and other programs, before it reads the first byte. A crash
or a limit that is hit ends it without a verdict; whoever started it reads that from how it ended. A server does not
start one for each file: `check_zygote` forks them.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from roost_runtimes import sandbox
from roost_runtimes.bake import build_key, quiet_environment
from roost_runtimes.check_limits import limit_this_process
from roost_runtimes.check_verdict import Rejected
from roost_runtimes.confinement import confine_checker

Check = Callable[..., dict[str, Any]]
"""`check_whole.check`, which can only be imported after the environment is quiet."""

_GIB = 1024**3


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    verdict_fd = os.dup(1)
    os.dup2(2, 1)  # a library that prints must not garble the verdict
    if options.build_key:
        say(verdict_fd, {"build_key": build_key()})
        return 0
    limit_this_process(
        memory_bytes=options.memory_bytes, cpu_seconds=options.cpu_seconds, file_bytes=options.file_bytes
    )
    sandbox.die_with_parent()
    quiet_environment()
    try:
        from roost_runtimes.check_whole import check  # noqa: PLC0415  numpy and onnxruntime come with it
    except ImportError as error:
        say(verdict_fd, {"ok": False, "code": "runtime_missing", "message": f"{error.name} is not installed"})
        return 0
    say(verdict_fd, judge(check, options.model, options.bake_dir))
    return 0


def judge(check: Check, model: Path, bake_dir: Path | None) -> dict[str, Any]:
    """The verdict on a file, in a process that has lowered its limits: it is no good for anything else afterwards."""
    build_key()  # remembered from now on, for what it is made of will be out of reach
    _confine(model, bake_dir)
    try:
        return {"ok": True, **check(model, bake_dir, give_up=_give_up)}
    except Rejected as error:
        return {"ok": False, "code": error.code, "message": error.message, "field": error.field}
    except MemoryError:
        message = "reading the model takes more memory than is allowed"
        return {"ok": False, "code": "out_of_memory", "message": message, "field": None}


def say(fd: int, document: dict[str, Any]) -> None:
    """Write a verdict, all of it."""
    rest = memoryview(json.dumps(document).encode() + b"\n")
    while rest:
        rest = rest[os.write(fd, rest) :]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m roost_runtimes.check", description="Judge one ONNX file.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("model", nargs="?", type=Path, help="the file to judge")
    what.add_argument("--build-key", action="store_true", help="print the key of this build and processor")
    parser.add_argument("--bake-dir", type=Path, help="an empty folder for the baked model; none = do not bake")
    parser.add_argument("--memory-bytes", type=int, default=4 * _GIB, help="private memory of a process")
    parser.add_argument("--cpu-seconds", type=int, default=60, help="processor time of a process")
    parser.add_argument("--file-bytes", type=int, default=8 * _GIB, help="largest file written")
    return parser


def _confine(model: Path, bake_dir: Path | None) -> None:
    """Before any fork: the kernel lets a parent end a child with it only where both are held by the same rules."""
    sandbox.drop_privileges()
    confine_checker(model, bake_dir)


def _give_up() -> None:
    sandbox.die_with_parent()
    if not sandbox.forbid_network_and_exec():
        print("sandbox_unavailable", file=sys.stderr, flush=True)  # noqa: T201 - whoever started us decides


if __name__ == "__main__":
    sys.exit(main())
